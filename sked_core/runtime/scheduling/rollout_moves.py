"""How a scheduler takes a roll-out further: what is written of it, in the commit of the plan that goes with it.

All that has to survive the scheduler stands in the roll-out's record, so that any other one goes on with it: how far it
is, and for how long it has made no progress. Seconds are counted on the monotonic clock, and noted now and then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from sked_core.clock import Clock
from sked_core.interfaces.store import Check, Entry, Op, Put
from sked_core.logic import rollout as rollouts
from sked_core.logic.plan import Hold
from sked_core.logic.rollout import Part, Reached
from sked_core.logic.rollout_start import begin, begin_ops, end_ops, numbers
from sked_core.logic.world import PortsOf
from sked_core.model import keys
from sked_core.model.codec import patch
from sked_core.model.types import Event, Rollout, Service, TaskDefinition, UpdatePolicy
from sked_core.runtime.journal import Journal, utc
from sked_core.runtime.scheduling.feed import SchedulerFeed
from sked_core.runtime.scheduling.view import View
from sked_core.runtime.stores.yielding_store import YieldingStore

NOTE_SECONDS = 5.0
NOTES_PER_DEADLINE = 10
"""How often the time without progress is noted: what another scheduler may add to a deadline when this one dies."""


@dataclass(frozen=True, slots=True)
class Move:
    """What is done about a roll-out now. ``holds``: by cluster, where it goes no further; ``alone``: no plan may be
    made with it, since it changes what is declared; ``pause``: seconds after which to look again."""

    ops: tuple[Op, ...] = ()
    events: tuple[Event, ...] = ()
    holds: Mapping[str, Hold] = field(default_factory=dict)
    alone: bool = False
    pause: float = float("inf")


@dataclass(slots=True)
class _Wait:
    """Since when (monotonic seconds) nothing was ``reached`` beyond this, and the seconds that were counted before.
    ``spent``: of the deadline, before the canaries became well; it counts on from there when they are so no more."""

    reached: Reached
    since: float
    before: float
    spent: float = 0.0


class RolloutMoves:
    """The roll-outs as one scheduler process takes them further. Called with the store's monitor held."""

    def __init__(
        self,
        *,
        store: YieldingStore,
        view: View,
        feed: SchedulerFeed,
        journal: Journal,
        clock: Clock,
        ports_of: PortsOf,
    ) -> None:
        self._store, self._view, self._feed, self._journal, self._clock = store, view, feed, journal, clock
        self._ports_of = ports_of
        self._waits: dict[str, _Wait] = {}

    def forget_times(self) -> None:
        """Nobody could make progress for a while: what was noted counts."""
        self._waits.clear()

    def active(self, service: str) -> bool:
        """Whether a roll-out of the service is under way, or has to begin."""
        return keys.rollout(service) in self._view.rollouts.entries or self._changed_by_others(service)

    def _changed_by_others(self, service: str) -> bool:
        """Whether tasks of another version run, though nobody has begun a roll-out."""
        declared = self._view.service(service)
        if declared is None:
            return False
        return any(
            one.task.scheduled and _version(one.task.task_definition) != (declared.task_name, declared.task_version)
            for pair in self._view.pairs(service)
            for one in self._view.tasks_of(pair)
        )

    def move(self, service: str, parts: Sequence[Part], now: float, *, first: bool) -> Move:
        """What to do about the service's roll-out at ``now`` (monotonic seconds). Only whoever is ``first`` in line
        notes progress and time; the others step in only for what ends or begins it. Raises Unavailable."""
        declared, active = self._view.service(service), self._view.rollout(service)
        # Kept for all that follows: while the store is asked, other threads may take in another one.
        entry = self._view.rollouts.entries.get(keys.rollout(service))
        if declared is None:
            return Move()
        if active is None or (active.task_name, active.task_version) != (declared.task_name, declared.task_version):
            if active is None and not self._changed_by_others(service):
                return Move()
            return self._begin(service, declared, active, entry, parts)
        assert entry is not None
        policy = declared.update_policy
        waited = self._waited(service, active, rollouts.reached(active, policy, parts), now)
        status = self._view.status(service)
        blocked = "; ".join(sorted({one.blocked for one in status.clusters.values() if one.blocked})) if status else ""
        after = rollouts.judge(active, policy, parts, waited, blocked)
        left = rollouts.deadline(after, policy, parts) - waited
        if after.result:
            return self._end(service, after, entry)
        if after.state == "failed" and active.state != "failed":
            back = self._back(service, declared, after, entry)
            if isinstance(back, Move):
                return back
            after = replace(after, reason=f"{after.reason}\n{back}" if back else after.reason)
        if first and after.state == "running":
            step = max(NOTE_SECONDS, rollouts.deadline(after, policy, parts) / NOTES_PER_DEADLINE)
            if waited < after.waited or step <= waited - after.waited < float("inf"):
                after = replace(after, waited=round(waited, 1))
        told = (after.state, after.promoted) != (active.state, active.promoted)
        ops = _rewritten(service, after, entry) if after != active and (first or told) else ()
        holds = self._holds(service, policy, after, parts)
        return Move(ops, self._told(service, active, after), holds, pause=max(0.0, left))

    def _waited(self, service: str, active: Rollout, reached: Reached, now: float) -> float:
        wait = self._waits.get(service)
        if wait is None or wait.reached.stage[0] != active.number:
            wait = self._waits[service] = _Wait(reached, now, active.waited)
        elif reached.beyond(wait.reached):
            wait = self._waits[service] = _Wait(reached.since(wait.reached), now, 0.0)
        elif reached.well and not wait.reached.well:
            spent = wait.before + now - wait.since
            wait = self._waits[service] = _Wait(reached.since(wait.reached), now, 0.0, spent)
        elif wait.reached.well and not reached.well:
            wait = self._waits[service] = _Wait(reached.since(wait.reached), now, wait.spent)
        return wait.before + now - wait.since

    def _begin(
        self, service: str, declared: Service, active: Rollout | None, entry: Entry | None, parts: Sequence[Part]
    ) -> Move:
        """Somebody has changed the declaration without a word."""
        others = Counter(
            _version(one.task.task_definition) for part in parts for one in part.issued if not part.goal.wants(one.task)
        )
        name, version = max(others, key=lambda key: (others[key], key), default=("", 0))
        before = replace(declared, task_name=name, task_version=version) if name and active is None else None
        history, at = self._history(service), utc(self._clock.wall())
        why = "the declaration was changed"
        last = max(history, default=0)
        started, ended = begin(before, declared, active, last, by=self._journal.who, why=why, at=at)
        ops = begin_ops(service, started, ended, entry, history)
        events = [self._event("rollout.superseded", service, ended)] if ended else []
        events.append(self._event("rollout.started", service, started, why))
        return Move(tuple(ops), tuple(events), alone=True, pause=0.0)

    def _end(self, service: str, after: Rollout, entry: Entry) -> Move:
        ended = replace(after, ended=utc(self._clock.wall()))
        self._waits.pop(service, None)
        events = (self._event(f"rollout.{after.result}", service, ended),)
        return Move(tuple(end_ops(service, ended, entry, self._history(service))), events)

    def _back(self, service: str, declared: Service, failed: Rollout, entry: Entry) -> Move | str:
        """Back to where ``failed`` came from, if that is asked for; why not, if it is asked for and can't be done."""
        if declared.update_policy.on_failure != "rollback" or failed.kind != "update" or not failed.from_name:
            return ""
        key = keys.task_definition(failed.from_name, failed.from_version)
        stored = self._view.services.entries[keys.service(service)].value
        self._feed.read_definition(key)  # definitions are not watched: it may have been deleted
        definition = self._view.definitions.entries.get(key)
        if definition is None or key not in self._view.definitions.objects:
            return f"not rolled back: there is no task definition {failed.from_name}/{failed.from_version} any more"
        former = replace(declared, task_name=failed.from_name, task_version=failed.from_version)
        started, ended = begin(
            declared,
            former,
            failed,
            failed.number,
            kind="rollback",
            by=self._journal.who,
            why=f"roll-out {failed.number} failed",
            at=utc(self._clock.wall()),
            result="rolled_back",
            reason=failed.reason,
        )
        ops = [Check(key, definition.revision), *begin_ops(service, started, ended, entry, self._history(service))]
        back = patch(stored, task_name=failed.from_name, task_version=failed.from_version)
        events = (
            self._event("rollout.failed", service, failed, failed.reason),
            self._event("rollout.rolled_back", service, started, failed.reason),
        )
        return Move((*ops, Put(keys.service(service), back)), events, alone=True, pause=0.0)

    def _definition(self, rollout: Rollout) -> TaskDefinition | None:
        """The definition that a roll-out comes from, as it is stored. Raises Unavailable."""
        if not rollout.from_name:
            return None
        key = keys.task_definition(rollout.from_name, rollout.from_version)
        if key not in self._view.definitions.objects:
            self._feed.read_definition(key)
        return self._view.definitions.objects.get(key)

    def _holds(self, service: str, policy: UpdatePolicy, rollout: Rollout, parts: Sequence[Part]) -> dict[str, Hold]:
        why = rollouts.why_held(service, rollout, policy, parts)
        former = rollouts.former_definition(rollout, parts, self._definition(rollout)) if why else None
        if former is None:
            return {}
        holds = {}
        for part in parts:
            if part.goal.cluster is not None:
                ahead = part.canaries(policy) if rollout.state == "running" else None
                holds[part.goal.cluster.name] = Hold(ahead, former, why, self._ports_of(former))
        return holds

    def _history(self, service: str) -> list[int]:
        return numbers(self._store.read(keys.rollout_history(service)).entries)

    def _told(self, service: str, before: Rollout, after: Rollout) -> tuple[Event, ...]:
        events = []
        if after.state == "failed" != before.state:
            events.append(self._event("rollout.failed", service, after, after.reason))
        if after.promoted and not before.promoted:
            events.append(self._event("rollout.promoted", service, after, "the canaries were healthy for long enough"))
        return tuple(events)

    def _event(self, what: str, service: str, rollout: Rollout, why: str = "") -> Event:
        return self._journal.event(
            what,
            f"service/{service}",
            service=service,
            why=(why or rollout.why).partition("\n")[0],  # the whole reason stands in the record
            before=f"{rollout.from_name} {rollout.from_version}".strip() if rollout.from_name else "",
            after=f"{rollout.task_name} {rollout.task_version}",
        )


def _rewritten(service: str, after: Rollout, entry: Entry) -> tuple[Op, ...]:
    key, fields = keys.rollout(service), {name: getattr(after, name) for name in Rollout.__struct_fields__}
    return (Check(key, entry.revision), Put(key, patch(entry.value, **fields)))


def _version(definition: TaskDefinition) -> tuple[str, int]:
    return definition.name, definition.version
