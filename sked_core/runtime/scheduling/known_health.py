"""Health as last read, for a short while, and since when each task has been well: a scheduler's memory of it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sked_core.errors import InvalidValue
from sked_core.interfaces.health import HealthProvider, by_host
from sked_core.interfaces.store import Revision
from sked_core.logic.plan import Issued
from sked_core.logic.rollout import healthy_for
from sked_core.logic.world import Pair
from sked_core.model import codec, keys
from sked_core.model.types import Failure, Health, TaskId, UpdatePolicy
from sked_core.runtime.stores.yielding_store import YieldingStore

HEALTH_AGE_SECONDS = 2.0
"""Longest time for which health is taken as known: not every provider can wake for every change."""

WANTED_SECONDS = 10.0
"""How long after it was last asked for changes of health are of interest."""


@dataclass(frozen=True, slots=True)
class _Read:
    at: float
    health: Mapping[TaskId, Health]
    failures: Mapping[TaskId, Failure]


class KnownHealth:
    """Every method but ``invalidate`` is called with the store's monitor held, which reads give up."""

    def __init__(self, provider: HealthProvider, store: YieldingStore) -> None:
        self._provider, self._store = provider, store
        self.wanted = threading.Event()
        """Set when it is asked for; whoever waits for changes clears it after ``wanted_until`` (monotonic seconds)."""
        self.wanted_until = float("-inf")
        self._known: dict[Pair, _Read] = {}
        self._well_since: dict[Pair, dict[TaskId, float]] = {}
        self._basis: dict[Pair, Revision] = {}

    def newer_than(self, pair: Pair, rollout: Revision) -> None:
        """Rely on nothing of ``pair`` that was read before its roll-out had this revision: whoever lets one go on that
        has failed takes away the failures first."""
        if self._basis.get(pair) != rollout:
            self._basis[pair] = rollout
            self._known.pop(pair, None)

    def invalidate(self) -> None:
        """What is known may be out of date. Callable from any thread."""
        self._known = {}

    def forget_times(self) -> None:
        """Nobody looked for a while: since when a task has been well is not known any more."""
        self._well_since.clear()

    def of(self, pair: Pair, issued: Sequence[Issued], now: float) -> Mapping[TaskId, Health]:
        """The health of the tasks of ``pair``. Raises Unavailable where it is not known."""
        return self._look(pair, issued, now).health

    def failures(self, pair: Pair, issued: Sequence[Issued], now: float) -> Mapping[TaskId, Failure]:
        """Why tasks of ``pair`` don't run well, as their agents say. Raises Unavailable."""
        return self._look(pair, issued, now).failures

    def steady(self, pair: Pair, issued: Sequence[Issued], policy: UpdatePolicy, now: float) -> frozenset[TaskId]:
        """The tasks that have been healthy for as long as ``policy`` asks, without a failure. Raises Unavailable."""
        self._look(pair, issued, now)
        since = self._well_since.get(pair, {})
        return frozenset(
            one.id for one in issued if one.id in since and self._left(one, since[one.id], policy, now) <= 0
        )

    def next_steady(self, pair: Pair, issued: Sequence[Issued], policy: UpdatePolicy, now: float) -> float:
        """Seconds until the next task will be steady if it stays well; infinite if none will be."""
        since = self._well_since.get(pair, {})
        left = [self._left(one, since[one.id], policy, now) for one in issued if one.id in since]
        return min((one for one in left if one > 0), default=float("inf"))

    def _left(self, one: Issued, since: float, policy: UpdatePolicy, now: float) -> float:
        return since + healthy_for(policy, one.task.task_definition) - now

    def _look(self, pair: Pair, issued: Sequence[Issued], now: float) -> _Read:
        known = self._known  # a change that arrives meanwhile puts another dict into its place
        read = known.get(pair)
        if read is None or now - read.at >= HEALTH_AGE_SECONDS:
            if not issued:
                self._well_since.pop(pair, None)
                return _Read(now, {}, {})
            self.wanted_until = now + WANTED_SECONDS
            self.wanted.set()
            with self._store.given_up():
                health = self._provider.health([pair], by_host(one.task for one in issued))
            read = known[pair] = _Read(
                now, health, self._read_failures(pair, {one.id: one.task.host for one in issued})
            )
            before = self._well_since.get(pair, {})
            well = [one.id for one in issued if one.id in health and health[one.id].healthy]
            self._well_since[pair] = {i: before.get(i, now) for i in well if i not in read.failures}
        return read

    def _read_failures(self, pair: Pair, hosts: Mapping[TaskId, str]) -> Mapping[TaskId, Failure]:
        found: dict[TaskId, Failure] = {}
        for key, entry in self._store.read(keys.service_failures(*pair)).entries.items():
            task_id = TaskId(keys.last_segment(key))
            if task_id in hosts:
                try:
                    failure = codec.decode(entry.value, Failure)
                    if failure.host in ("", hosts[task_id]):  # others have nothing to say of it
                        found[task_id] = failure
                except InvalidValue as error:
                    found[task_id] = Failure(host="", reason=f"{key} can't be read: {error}")
        return found
