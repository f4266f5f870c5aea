"""The scheduler process: know what is, decide purely, commit under the service's lock, wait for a change.

Any number of these run at once. They divide the services among them (logic.turns); the lock of a service makes sure
that only one works on it, and every commit carries the lock's fence, so a scheduler that was paused or cut off can't
write any more.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from sked_core.clock import Clock
from sked_core.errors import Conflict, LeaseLost, PluginError, SkedError, Unavailable
from sked_core.interfaces.health import HealthProvider
from sked_core.interfaces.scheduler import Scheduler
from sked_core.interfaces.store import Check, Delete, Op, Put, Revision, Store
from sked_core.logic import backoff
from sked_core.logic.presence import Absences, Rejections
from sked_core.logic.reconcile import Goal, Plan, reconcile, settled
from sked_core.logic.turns import TURN_SECONDS, rank
from sked_core.model import codec, keys
from sked_core.model.rules import SpecChecker
from sked_core.model.types import Health, Presence, TaskDefinition, TaskId
from sked_core.runtime.lock import LeaseKeeper, Lock, try_lock
from sked_core.runtime.loop import Watcher, call_when_set
from sked_core.runtime.plan_commits import commits_of
from sked_core.runtime.plugins import Plugins
from sked_core.runtime.scheduler_feed import SchedulerFeed
from sked_core.runtime.scheduler_view import Changes, Pair, View
from sked_core.runtime.service_status import same_counts, status_of
from sked_core.runtime.state import store_uid

log = logging.getLogger("sked.scheduler")
DEFAULT_LOST_AFTER_SECONDS = 60.0
HEALTH_AGE_SECONDS = 2.0
"""Longest time for which health is taken as known: not every provider can wake for every change."""
RETRY_SECONDS = 1.0
"""When to look again after another scheduler held a lock, or health was not known."""
SOON_SECONDS = 0.2
"""When to look again after a conflict, and how often at most a service that waits for room or health is looked at."""
SLICE_SECONDS = 0.25
"""How long services are worked on before the store is asked again what has changed."""
ATTEMPTS = 3
"""How often a commit that was refused is planned anew before the lock is given back."""


class SchedulerLoop:
    """One scheduler. ``run`` blocks until ``stop`` is set; ``tick`` does one round and is what simulations call.

    ``name`` is unique among all schedulers, and what locks show to people. ``lost_after``: seconds without a living
    agent after which a host's tasks are replaced, counted while the store answers. ``keeper``: of the lease that this
    process has already, if it has one.
    """

    def __init__(
        self,
        *,
        store: Store,
        plugins: Plugins,
        health: HealthProvider,
        name: str,
        lost_after: float = DEFAULT_LOST_AFTER_SECONDS,
        clock: Clock,
        keeper: LeaseKeeper | None = None,
    ) -> None:
        self._store, self._plugins, self._health, self._name, self._clock = store, plugins, health, name, clock
        self._keeper = keeper or LeaseKeeper(store, clock)
        self._absences = Absences(lost_after)
        self._rejections = Rejections()
        self._checkers = plugins.spec_checkers()
        self._schedulers: dict[str, Scheduler] = {}
        self._fixed_ports: dict[tuple[str, int], frozenset[int]] = {}
        self._known_health: dict[Pair, tuple[float, Mapping[TaskId, Health]]] = {}
        self._view = View(self._ports_of)
        self._feed = SchedulerFeed(store, self._view, clock)
        self._due: dict[str, float] = {}
        """Services to evaluate, and from when on: the first in line at that time, others their turns later."""
        self._open: dict[str, float] = {}
        """Services that wait for room or health, and when they were last looked at."""
        self._news = False
        self._avoided_until = float("inf")
        self._uid = ""
        self._faults: dict[str, str] = {}
        self._wake = threading.Event()
        self._halt = threading.Event()
        self._failures = 0
        self._held_back = 0

    def run(self, stop: threading.Event) -> None:
        """Schedule until ``stop`` is set, through outages of any length."""
        renewer = self._keeper.serve(self._halt)
        self.start_watching()
        call_when_set(stop, self.wake)
        log.info("scheduler %s started", self._name)
        while not stop.is_set():
            self._clock.wait(self._wake, self.step())
        self._halt.set()
        renewer.join(5.0)
        log.info("scheduler %s stopped", self._name)

    def wake(self) -> None:
        """Have the loop look again now (also to notice ``stop``). Callable from any thread."""
        self._wake.set()

    def start_watching(self) -> None:
        """Begin to watch what a decision depends on. Call once, before the first ``step``."""
        self._feed.watch(self.wake, self._halt)
        Watcher("health", self._health.wait, self._health_changed, self._halt)

    def _health_changed(self) -> None:
        self._known_health = {}
        self._news = True
        self.wake()

    def step(self) -> float:
        """One tick with every error turned into a pause; returns the seconds to wait if nothing changes."""
        self._wake.clear()
        try:
            pause = self.tick()
        except Unavailable as error:
            if self._failures == 0:
                log.warning("%s; what runs goes on, retrying", error)
            self._absences.reset()
            return self._back_off()
        except LeaseLost as error:
            log.warning("%s; starting over with a new lease", error)
            return self._back_off()
        except Exception as error:  # a permission that lacks for a while, a plugin's mistake: it may pass
            if self._failures == 0:
                log.error("%s; retrying", error, exc_info=None if isinstance(error, SkedError) else error)
            return self._back_off()
        if self._failures:
            log.info("the store answers again")
        self._failures = 0
        return pause

    def _back_off(self) -> float:
        self._failures += 1
        self._feed.invalidate()
        return backoff.delay(self._failures, self._name, base=0.2, cap=5.0)

    def tick(self) -> float:
        """Evaluate every service that may have changed. Returns seconds until the next look is due.

        Raises Unavailable, LeaseLost.
        """
        now = self._clock.monotonic()
        if not self._same_store():
            return RETRY_SECONDS
        self._announce()
        pause = self._feed.look(now, self._mine)
        self._take_in(now)
        self._feed.clear_markers(now, self._mine)
        pause = min(pause, self._work(now))
        due = (self._absences.next_change(now), self._rejections.next_change(now))
        return max(0.0, min(pause, *due))

    def _same_store(self) -> bool:
        """Whether the store is still the one that this process knows. A store that came back empty is not worked on
        until it has been given a new name (by an apply or a new agent): what it lacks was not deleted by anybody."""
        uid = store_uid(self._store, create=not self._uid)
        if not uid:
            log.error("the store came back empty (no %s): waiting, nothing is scheduled", keys.STORE_UID)
            self._feed.invalidate()
            return False
        if self._uid and uid != self._uid:
            log.error("the store is another one than before (%s, was %s): starting over with it", uid, self._uid)
            self._keeper.drop()
            self._absences.reset()
            self._feed.invalidate()
        self._uid = uid
        return True

    def _announce(self) -> None:
        """Stand in line with the other schedulers for as long as the lease lives."""
        if self._name not in self._feed.present:
            offers = Presence(list(self._plugins.names("scheduler")))
            try:
                self._store.commit([Put(keys.scheduler(self._name), codec.encode(offers), self._keeper.lease())])
            except LeaseLost:
                self._keeper.drop()
                raise
            self._feed.present[self._name] = offers.schedulers

    def _scheduler_of(self, service: str) -> str:
        declared, status = self._view.service(service), self._view.status(service)
        return declared.scheduler if declared else status.scheduler if status else ""

    def _rank(self, service: str) -> int:
        return rank(service, self._name, self._feed.present, self._scheduler_of(service))

    def _mine(self, service: str) -> bool:
        return self._rank(service) == 0

    def _take_in(self, now: float) -> None:
        """Find out which services what has changed may concern."""
        view = self._view
        view.update_fleet(self._absences, now)
        changes, view.changes = view.changes, Changes()
        self._rejections.update(view.rejected.values(), now)
        for service in changes.services:
            self._due[service] = min(now, self._due.get(service, now))
        news = self._news or changes.services or changes.hosts or now >= self._avoided_until
        self._news, self._avoided_until = False, now + self._rejections.next_change(now)
        if news:  # it may be what others wait for
            for service, looked in self._open.items():
                self._due[service] = min(max(now, looked + SOON_SECONDS), self._due.get(service, float("inf")))
        faults = view.faults()
        for key in faults.keys() - self._faults.keys():
            log.warning("%s is left alone: %s", key, faults[key])
        self._faults = faults
        held_back = self._absences.held_back(now)
        if len(held_back) > self._held_back:
            log.error("more hosts vanished than is plausible: tasks stay on %s for now", ", ".join(held_back))
        self._held_back = len(held_back)

    def _work(self, now: float) -> float:
        """Evaluate what is due; returns the seconds until something else is.

        What this process is first in line for comes first, the longest due before others. What it does for others,
        who work through theirs in that order, it takes from the end.
        """
        pause = float("inf")
        places = {service: self._rank(service) for service in self._due}
        mine = sorted((name for name in places if places[name] == 0), key=lambda name: (self._due[name], name))
        others = sorted((name for name in places if places[name] > 0), reverse=True)
        for service in (*mine, *others):
            turn = self._due[service] + places[service] * TURN_SECONDS
            if turn > now:
                pause = min(pause, turn - now)
                continue
            if places[service] and self._feed.stale(service):
                continue  # somebody has just worked on it
            if self._clock.monotonic() - now > SLICE_SECONDS:
                return 0.0
            del self._due[service]
            again = self._evaluate(service, now, first=places[service] == 0)
            if again is not None:
                self._due[service] = min(self._clock.monotonic() + again, self._due.get(service, float("inf")))
                pause = min(pause, again)
        return pause

    def _evaluate(self, service: str, now: float, *, first: bool) -> float | None:
        """Plan for one service; if there is anything to do, carry it out under its lock.

        ``first``: whether this process is first in line for it. The others only finish what it has left undone.
        Returns the seconds after which to look again even if nothing changes. Raises Unavailable, LeaseLost.
        """
        self._open.pop(service, None)
        if keys.service(service) in self._view.services.faults:
            return None
        plans = self._plans(service, now)
        if plans is None:
            return RETRY_SECONDS
        if not plans:
            return self._forget_status(service) if first else None
        if not self._anything_to_do(service, plans, first=first):
            return self._look_at_open(service, plans, now)
        lock = try_lock(self._store, self._keeper, keys.service_lock(service), self._name)
        if lock is None:
            return RETRY_SECONDS
        try:
            for _ in range(ATTEMPTS):
                if plans is None:
                    break
                try:
                    self._carry_out(lock, service, plans)
                except Conflict as error:
                    log.debug("%s: %s; looking again", service, error)
                    self._feed.read_again(service, now)
                    plans = self._plans(service, now)
                else:
                    return self._look_at_open(service, plans, now)
        except BaseException:
            lock.release()
            raise
        lock.release()
        return SOON_SECONDS

    def _anything_to_do(self, service: str, plans: Mapping[Pair, Plan], *, first: bool) -> bool:
        status = status_of(self._scheduler_of(service), plans, self._view)
        changing = any(plan.changes for plan in plans.values())
        if not first:
            # Whoever is first in line knows better which hosts to avoid; it has missed this only if it says otherwise.
            return changing and not same_counts(status, self._view.status(service))
        if not changing and status != self._view.status(service):
            self._feed.read_status(service)  # nobody watches these: another one may have said so
        return changing or status != self._view.status(service)

    def _look_at_open(self, service: str, plans: Mapping[Pair, Plan], now: float) -> float | None:
        if any(plan.waiting or plan.blocked for plan in plans.values()):
            self._open[service] = now
        return HEALTH_AGE_SECONDS if any(plan.blocked for plan in plans.values()) else None

    def _carry_out(self, lock: Lock, service: str, plans: Mapping[Pair, Plan]) -> None:
        """Commit what ``plans`` say and give the lock back. Raises Conflict if they were made on what is not true any
        more: what has been committed by then stands, and the lock is kept."""
        scheduler = self._scheduler_of(service)
        commits = list(commits_of(service, plans, self._view, self._feed, scheduler=scheduler, by=self._name))
        for number, ops in enumerate(commits, 1):
            revision = lock.commit(ops, release=number == len(commits))
            self._feed.wrote(service, ops, revision, guarded=len(commits) == 1)
        if not commits:
            lock.release()
        for plan in plans.values():
            for change in plan.changes:
                log.info("%s", change)

    def _plans(self, service: str, now: float) -> dict[Pair, Plan] | None:
        """A plan for each pair of the service; None while the health that it depends on is not known."""
        goals = self._view.goals(service)
        try:
            with self._view.fleet.trial():
                if not self._knows(self._scheduler_of(service)):
                    return {}
                return {pair: self._plan(pair, goal, now) for pair, goal in goals.items()}
        except Unavailable as error:
            log.warning("health of %s is not known: %s", service, error)
            return None
        except SkedError as error:
            log.error("%s: %s", service, error)
            return {pair: Plan(blocked=str(error)) for pair in goals}

    def _plan(self, pair: Pair, goal: Goal, now: float) -> Plan:
        issued = self._view.tasks_of(pair)
        if settled(goal, issued, self._view.fleet):
            return Plan()
        return reconcile(
            goal,
            issued,
            fleet=self._view.fleet,
            health=self._health_of(pair, now),
            scheduler=self._schedulers[self._scheduler_of(pair[1])],
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
        known = self._known_health  # a change that arrives meanwhile puts another dict into its place
        if pair not in known or now - known[pair][0] >= HEALTH_AGE_SECONDS:
            known[pair] = (now, self._health.health([pair]))
        return known[pair][1]

    def _forget_status(self, service: str) -> float | None:
        """The service is deleted and its last task gone: nothing is left to say."""
        key = keys.service_status(service)
        entry = self._view.statuses.entries.get(key)
        if entry is None or self._view.service(service) is not None:
            return None
        ops: list[Op] = [Check(key, entry.revision), Check(keys.service(service), Revision(0)), Delete(key)]
        try:
            self._feed.wrote(service, ops, self._store.commit(ops), guarded=True)
        except Conflict:
            self._feed.invalidate()
            return SOON_SECONDS
        return None

    def _ports_of(self, definition: TaskDefinition) -> frozenset[int]:
        """Host ports that the containers take, as far as their executors are installed here."""
        key = (definition.name, definition.version)
        if key not in self._fixed_ports:
            self._fixed_ports[key] = container_ports(self._checkers, definition)
        return self._fixed_ports[key]


def container_ports(executors: Mapping[str, SpecChecker], definition: TaskDefinition) -> frozenset[int]:
    """Host ports that the containers of ``definition`` take beside the task's own, as their executors say.

    A container whose executor is not installed, or refuses its spec, says nothing: the agent has the last word.
    """
    ports: frozenset[int] = frozenset()
    for container in definition.containers:
        try:
            executor = executors.get(container.type)
            if executor is not None and not executor.validate(container.executor):
                ports |= executor.ports(container.executor, 0)
        except Exception as error:  # noqa: BLE001 - a plugin's mistake must not end the scheduler
            log.warning("ports of %s can't be told: %s", definition.name, error)
    return ports
