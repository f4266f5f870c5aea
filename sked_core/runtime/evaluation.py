"""One service at a time: what has to change, and the commits that bring it about under the service's lock.

Several threads may evaluate different services at once, and share one picture of everything. They take turns: the
monitor is held by whoever runs, and given up just for the time of a call to the store. So nothing that is shared
changes under one's hands but where the store is asked, and what a plan takes is reserved before the next one is made.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sked_core.errors import Conflict, PluginError, SkedError, Unavailable
from sked_core.interfaces.health import HealthProvider
from sked_core.interfaces.scheduler import Scheduler
from sked_core.interfaces.store import Check, Delete, Lease, Op, Revision, Snapshot, Store
from sked_core.logic.plan import Goal, Plan
from sked_core.logic.presence import Rejections
from sked_core.logic.reconcile import reconcile, settled
from sked_core.model import keys
from sked_core.model.rules import SpecChecker
from sked_core.model.types import Health, Task, TaskDefinition, TaskId
from sked_core.runtime.lock import LeaseKeeper, Lock, try_lock
from sked_core.runtime.plan_commits import commits_of
from sked_core.runtime.plugins import Plugins
from sked_core.runtime.scheduler_feed import SchedulerFeed
from sked_core.runtime.scheduler_view import Pair, View
from sked_core.runtime.service_status import status_of

log = logging.getLogger("sked.scheduler")
HEALTH_AGE_SECONDS = 2.0
"""Longest time for which health is taken as known: not every provider can wake for every change."""
RETRY_SECONDS = 1.0
"""When to look again after another scheduler held a lock, or health was not known."""
SOON_SECONDS = 0.2
"""When to look again after a conflict, and how often at most a service that waits for room or health is looked at."""
CHANGES_LOGGED = 20
"""How many of the changes to one service the log names."""
ATTEMPTS = 3
"""How often a commit that was refused is planned anew before the lock is given back."""


class YieldingStore:
    """``store``, with ``monitor`` given up during each call. Whoever calls holds it."""

    def __init__(self, store: Store, monitor: threading.Lock) -> None:
        self._store, self._monitor = store, monitor
        self.max_ops = store.max_ops

    @contextmanager
    def given_up(self) -> Iterator[None]:
        """Let others go on for the time of the body."""
        self._monitor.release()
        try:
            yield
        finally:
            self._monitor.acquire()

    def read(self, prefix: str) -> Snapshot:
        with self.given_up():
            return self._store.read(prefix)

    def commit(self, ops: Sequence[Op]) -> Revision:
        with self.given_up():
            return self._store.commit(ops)

    def wait(self, prefix: str, since: Revision, timeout: float) -> Revision:
        """Is called by threads that watch, and only wake others: they hold nothing."""
        return self._store.wait(prefix, since, timeout)

    def grant(self, ttl: float) -> Lease:
        return self._store.grant(ttl)

    def close(self) -> None:
        self._store.close()


@dataclass(frozen=True, slots=True)
class Outcome:
    """``again``: seconds after which to look again even if nothing changes, None for never. ``open``: whether the
    service waits for room or health."""

    again: float | None = None
    open: bool = False


class Evaluator:
    """Evaluates services for the scheduler process ``name``. Every method is called with the monitor held."""

    def __init__(
        self,
        *,
        store: YieldingStore,
        plugins: Plugins,
        health: HealthProvider,
        keeper: LeaseKeeper,
        view: View,
        feed: SchedulerFeed,
        rejections: Rejections,
        name: str,
    ) -> None:
        self._store, self._plugins, self._health, self._keeper = store, plugins, health, keeper
        self._view, self._feed, self._rejections, self._name = view, feed, rejections, name
        self._schedulers: dict[str, Scheduler] = {}
        self._known_health: dict[Pair, tuple[float, Mapping[TaskId, Health]]] = {}
        self._unsure: set[str] = set()
        """Services whose lock this process may hold without knowing: the answer to a commit was lost."""

    def health_changed(self) -> None:
        """What is known of health may be out of date. Callable from any thread."""
        self._known_health = {}

    def scheduler_of(self, service: str) -> str:
        """The scheduler that the service is placed by; empty for a service that nobody has declared."""
        declared, status = self._view.service(service), self._view.status(service)
        return declared.scheduler if declared else status.scheduler if status else ""

    def evaluate(self, service: str, now: float, *, first: bool) -> Outcome:
        """Plan for one service; if there is anything to do, carry it out under its lock.

        ``first``: whether this process is first in line for it. The others only finish what it has left undone.
        Raises Unavailable, LeaseLost.
        """
        if service in self._unsure:
            Lock(self._store, self._keeper, keys.service_lock(service), self._keeper.lease()).release()
            self._unsure.discard(service)
        if keys.service(service) in self._view.services.faults:
            return Outcome()
        if self._feed.outgrown(service):
            self._feed.read_tasks(service)
        plans = self._plans(service, now)
        if plans is not None and not plans:
            return self._forget_status(service) if first else Outcome()
        if plans is None or not self._anything_to_do(service, plans, first=first):
            return _outcome(plans)
        lock: Lock | None = None
        try:
            for _ in range(ATTEMPTS):
                with self._view.fleet.held(_issued(plans)):
                    lock = lock or try_lock(self._store, self._keeper, keys.service_lock(service), self._name)
                    if lock is None:
                        return Outcome(RETRY_SECONDS)
                    try:
                        self._carry_out(lock, service, plans)
                        return _outcome(plans)
                    except Conflict as error:
                        log.debug("%s: %s; looking again", service, error)
                self._feed.read_again(service, now)
                plans = self._plans(service, now)
                if plans is None:
                    break
        except BaseException:
            self._unsure.add(service)
            if lock is not None:
                lock.release()
            raise
        if lock is not None:
            lock.release()
        return Outcome(SOON_SECONDS)

    def _anything_to_do(self, service: str, plans: Mapping[Pair, Plan], *, first: bool) -> bool:
        status = status_of(self.scheduler_of(service), plans, self._view)
        changing = any(plan.changes for plan in plans.values())
        if not first:
            return changing  # what is said of it is left to whoever is first in line, and knows why hosts refused
        if not changing and status != self._view.status(service):
            self._feed.read_status(service)  # nobody watches these: another one may have said so
        return changing or status != self._view.status(service)

    def _carry_out(self, lock: Lock, service: str, plans: Mapping[Pair, Plan]) -> None:
        """Commit what ``plans`` say and give the lock back. Raises Conflict if they were made on what is not true any
        more: what has been committed by then stands, and the lock is kept."""
        scheduler = self.scheduler_of(service)
        commits = list(commits_of(service, plans, self._view, self._feed, scheduler=scheduler, by=self._name))
        changes = [change for plan in plans.values() for change in plan.changes]
        tasks = {keys.task(change.after.id): change.after for change in changes if change.after is not None}
        for number, ops in enumerate(commits, 1):
            revision = lock.commit(ops, release=number == len(commits))
            self._feed.wrote(service, ops, revision, tasks=tasks, guarded=len(commits) == 1)
        if not commits:
            lock.release()
        more = f" and {len(changes) - CHANGES_LOGGED} more" if len(changes) > CHANGES_LOGGED else ""
        if changes:
            log.info("%s: %s%s", service, ", ".join(map(str, changes[:CHANGES_LOGGED])), more)

    def _plans(self, service: str, now: float) -> dict[Pair, Plan] | None:
        """A plan for each pair of the service; None while the health that it depends on is not known."""
        goals = self._view.goals(service)
        try:
            if not self._knows(self.scheduler_of(service)):
                return {}
            health = {pair: self._health_of(pair, now) for pair, goal in goals.items() if not self._settled(pair, goal)}
            with self._view.fleet.trial():
                return {
                    pair: self._plan(pair, goal, health[pair], now) if pair in health else Plan()
                    for pair, goal in goals.items()
                }
        except Unavailable as error:
            log.warning("health of %s is not known: %s", service, error)
            return None
        except SkedError as error:
            log.error("%s: %s", service, error)
            return {pair: Plan(blocked=str(error)) for pair in goals}

    def _settled(self, pair: Pair, goal: Goal) -> bool:
        return settled(goal, self._view.tasks_of(pair), self._view.fleet)

    def _plan(self, pair: Pair, goal: Goal, health: Mapping[TaskId, Health], now: float) -> Plan:
        return reconcile(
            goal,
            self._view.tasks_of(pair),
            fleet=self._view.fleet,
            health=health,
            scheduler=self._schedulers[self.scheduler_of(pair[1])],
            avoid=self._rejections.avoided(pair[1], now),
            unreadable=self._view.unreadable(),
        )

    def _knows(self, scheduler: str) -> bool:
        """Whether this process has the scheduler; a name that nobody provides may be a program outside.

        Raises PluginError for one that is installed here but broken.
        """
        if scheduler not in self._schedulers:
            try:
                self._schedulers[scheduler] = self._plugins.scheduler(scheduler)()
            except PluginError:
                if scheduler in self._plugins.names("scheduler"):
                    raise
                return False
        return True

    def _health_of(self, pair: Pair, now: float) -> Mapping[TaskId, Health]:
        if not self._view.tasks_of(pair):
            return {}
        known = self._known_health  # a change that arrives meanwhile puts another dict into its place
        if pair not in known or now - known[pair][0] >= HEALTH_AGE_SECONDS:
            with self._store.given_up():
                found = self._health.health([pair])
            known[pair] = (now, found)
        return known[pair][1]

    def _forget_status(self, service: str) -> Outcome:
        """The service is deleted and its last task gone: nothing is left to say."""
        key = keys.service_status(service)
        entry = self._view.statuses.entries.get(key)
        if entry is None or self._view.service(service) is not None:
            return Outcome()
        ops: list[Op] = [Check(key, entry.revision), Check(keys.service(service), Revision(0)), Delete(key)]
        try:
            self._feed.wrote(service, ops, self._store.commit(ops), tasks={}, guarded=True)
        except Conflict:
            self._feed.invalidate()
            return Outcome(SOON_SECONDS)
        return Outcome()


class ContainerPorts:
    """Host ports that the containers of a definition take beside the task's own, as far as their executors are
    installed here. One that is not, or refuses its spec, says nothing: the agent has the last word."""

    def __init__(self, executors: Mapping[str, SpecChecker]) -> None:
        self._executors = executors
        self._known: dict[tuple[str, int], frozenset[int]] = {}

    def __call__(self, definition: TaskDefinition) -> frozenset[int]:
        key = (definition.name, definition.version)
        if key not in self._known:
            self._known[key] = self._ask(definition)
        return self._known[key]

    def _ask(self, definition: TaskDefinition) -> frozenset[int]:
        ports: frozenset[int] = frozenset()
        for container in definition.containers:
            try:
                executor = self._executors.get(container.type)
                if executor is not None and not executor.validate(container.executor):
                    ports |= executor.ports(container.executor, 0)
            except Exception as error:  # noqa: BLE001 - a plugin's mistake must not end the scheduler
                log.warning("ports of %s can't be told: %s", definition.name, error)
        return ports


def _issued(plans: Mapping[Pair, Plan]) -> list[Task]:
    """The tasks that the plans issue."""
    changes = (change for plan in plans.values() for change in plan.changes)
    return [change.after for change in changes if change.after is not None and change.after.scheduled]


def _outcome(plans: Mapping[Pair, Plan] | None) -> Outcome:
    if plans is None:
        return Outcome(RETRY_SECONDS)
    blocked = any(plan.blocked for plan in plans.values())
    waiting = any(plan.waiting for plan in plans.values())
    return Outcome(HEALTH_AGE_SECONDS if blocked else None, open=blocked or waiting)
