"""The scheduler process: read one picture, decide purely, commit under the service's lock, wait for a change.

Any number of these run at once. The lock of a service decides who works on it now, and every commit carries the
lock's fence, so a scheduler that was paused or cut off can't write any more.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

import msgspec

from sked_core.clock import Clock
from sked_core.errors import Conflict, LeaseLost, PluginError, SkedError, Unavailable
from sked_core.interfaces.health import HealthProvider
from sked_core.interfaces.scheduler import Scheduler
from sked_core.interfaces.store import Check, Delete, Entry, Op, Put, Revision, Store
from sked_core.logic import backoff
from sked_core.logic.fleet import NOT_OF_CLUSTER
from sked_core.logic.presence import Absences, Rejections
from sked_core.logic.reconcile import Goal, Plan, reconcile, settled
from sked_core.model import codec, keys
from sked_core.model.rules import SpecChecker
from sked_core.model.types import ClusterStatus, Health, ServiceStatus, TaskDefinition, TaskId
from sked_core.runtime.cached import RESYNC_SECONDS, CachedPrefix
from sked_core.runtime.lock import LeaseKeeper, Lock, try_lock
from sked_core.runtime.loop import Watcher, call_when_set
from sked_core.runtime.plugins import Plugins
from sked_core.runtime.scheduler_view import Pair, View, build_view
from sked_core.runtime.state import batches, change_ops, store_uid

log = logging.getLogger("sked.scheduler")
DEFAULT_LOST_AFTER_SECONDS = 60.0
HEALTH_AGE_SECONDS = 2.0
"""Longest time for which health is taken as known: not every provider can wake for every change."""
MAX_HOSTS_SHOWN = 100
MAX_REASON = 300
"""How many hosts, and how many characters of a reason, the status of a service keeps: it is one small record."""
RETRY_SECONDS = 1.0
"""When to look again after another scheduler held a lock, or health was not known."""


class SchedulerLoop:
    """One scheduler. ``run`` blocks until ``stop`` is set; ``tick`` does one round and is what simulations call.

    ``name`` is what locks show to people. ``lost_after``: seconds without a living agent after which a host's tasks
    are replaced, counted while the store answers.
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
    ) -> None:
        self._store, self._plugins, self._health, self._name, self._clock = store, plugins, health, name, clock
        self._keeper = LeaseKeeper(store, clock)
        self._absences = Absences(lost_after)
        self._rejections = Rejections()
        self._checkers = plugins.spec_checkers()
        self._schedulers: dict[str, Scheduler] = {}
        self._fixed_ports: dict[tuple[str, int], frozenset[int]] = {}
        self._known_health: dict[Pair, tuple[float, Mapping[TaskId, Health]]] = {}
        self._uid = ""
        self._faults: dict[str, str] = {}
        self._retry_at = float("inf")
        self._wake = threading.Event()
        self._halt = threading.Event()
        self._failures = 0
        self._held_back = 0
        self._prefixes: dict[str, CachedPrefix] = {}

    def run(self, stop: threading.Event) -> None:
        """Schedule until ``stop`` is set, through outages of any length."""
        renewer = threading.Thread(target=self._keeper.run, args=(self._halt,), name="lease", daemon=True)
        renewer.start()
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
        for prefix in (keys.CONFIG, keys.TASKS, keys.HOST_STATES):
            self._prefixes[prefix] = CachedPrefix(self._store, prefix, clock=self._clock)
            self._prefixes[prefix].watch(self.wake, self._halt)
        # Not watched: only schedulers write it, and a Check tells when another one did.
        self._prefixes[keys.SERVICE_STATUS] = CachedPrefix(self._store, keys.SERVICE_STATUS, clock=self._clock)
        Watcher("health", self._health.wait, self._health_changed, self._halt)

    def _health_changed(self) -> None:
        self._known_health = {}
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
        for prefix in self._prefixes.values():
            prefix.invalidate()
        return backoff.delay(self._failures, self._name, base=0.2, cap=5.0)

    def tick(self) -> float:
        """Evaluate every service once. Returns seconds until the next look is due. Raises Unavailable, LeaseLost."""
        now = self._clock.monotonic()
        self._retry_at = float("inf")
        if not self._same_store():
            return RETRY_SECONDS
        view = self._look(now)
        self._rejections.update((one for some in view.issued.values() for one in some), now)
        for service in sorted({*view.services, *view.statuses}):
            scheduler = view.services[service].scheduler if service in view.services else None
            scheduler = scheduler or (view.statuses[service].scheduler if service in view.statuses else "")
            if keys.service(service) in view.faults:
                continue
            try:
                if self._knows(scheduler):
                    self._evaluate(service, scheduler, view, now)
            except Conflict as error:
                log.debug("%s: %s; looking again", service, error)
                self._look_again_soon()
            except (LeaseLost, Unavailable):
                raise
            except SkedError as error:
                log.error("%s: %s", service, error)
                self._report(service, view, {}, scheduler, fault=str(error))
        due = (self._absences.next_change(now), self._rejections.next_change(now), self._retry_at - now)
        return max(0.0, min(RESYNC_SECONDS, *due))

    def _same_store(self) -> bool:
        """Whether the store is still the one that this process knows. A store that came back empty is not worked on
        until it has been given a new name (by an apply or a new agent): what it lacks was not deleted by anybody."""
        uid = store_uid(self._store, create=not self._uid)
        if not uid:
            log.error("the store came back empty (no %s): waiting, nothing is scheduled", keys.STORE_UID)
            self._look_again_soon()
            return False
        if self._uid and uid != self._uid:
            log.error("the store is another one than before (%s, was %s): starting over with it", uid, self._uid)
            self._keeper.drop()
            self._absences.reset()
            self._look_again_soon()
        self._uid = uid
        return True

    def _look(self, now: float) -> View:
        entries = {prefix: watched.entries() for prefix, watched in self._prefixes.items()}
        view = build_view(
            config=entries[keys.CONFIG],
            tasks=entries[keys.TASKS],
            host_states=entries[keys.HOST_STATES],
            statuses=entries[keys.SERVICE_STATUS],
            absences=self._absences,
            ports_of=self._ports_of,
            now=now,
        )
        for key in view.faults.keys() - self._faults.keys():
            log.warning("%s is left alone: %s", key, view.faults[key])
        self._faults = dict(view.faults)
        held_back = self._absences.held_back(now)
        if len(held_back) > self._held_back:
            log.error("more hosts vanished than is plausible: tasks stay on %s for now", ", ".join(held_back))
        self._held_back = len(held_back)
        return view

    def _look_again_soon(self) -> None:
        for prefix in self._prefixes.values():
            prefix.invalidate()
        self._retry_at = min(self._retry_at, self._clock.monotonic() + RETRY_SECONDS / 5)

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

    def _evaluate(self, service: str, scheduler: str, view: View, now: float) -> None:
        """Plan for one service; if there is anything to do, plan again under its lock on fresh tasks and commit."""
        goals = view.goals(service, self._ports_of)
        if not goals and service not in view.services:
            self._forget_status(service)
            return
        checkpoint = view.fleet.checkpoint()
        plans = self._plan(goals, scheduler, view, now)
        if plans is None:
            return
        if not any(plan.changes for plan in plans.values()):
            self._report(service, view, plans, scheduler)
            return
        view.fleet.rollback(checkpoint)
        lock = try_lock(self._store, self._keeper, keys.service_lock(service), self._name)
        if lock is None:
            self._retry_at = min(self._retry_at, now + RETRY_SECONDS)
            return
        try:
            self._evaluate_locked(lock, service, goals, scheduler, view, now)
        except BaseException:
            view.fleet.rollback(checkpoint)
            lock.release()
            raise

    def _evaluate_locked(
        self, lock: Lock, service: str, goals: Mapping[Pair, Goal], scheduler: str, view: View, now: float
    ) -> None:
        for pair in goals:
            view.replace(pair, self._store.read(keys.service_tasks(*pair)).entries)
        plans = self._plan(goals, scheduler, view, now)
        changes = [change for plan in (plans or {}).values() for change in plan.changes]
        status = self._status(scheduler, plans or {}, goals, view)
        groups = [change_ops(change, view.raw.get(change.before.id) if change.before else None) for change in changes]
        if service in view.services:
            guard: list[Op] = [Check(keys.service(service), view.revisions[service])]
        else:
            guard = [Check(keys.service(service), Revision(0))]
        if plans is not None and status != view.statuses.get(service):
            groups.insert(0, [Put(keys.service_status(service), codec.encode(status))])
        commits = list(batches(groups, max_ops=self._store.max_ops - 3))
        for index, batch in enumerate(commits):
            lock.commit([*guard, *batch], release=index == len(commits) - 1)
        if not commits:
            lock.release()
        for change in changes:
            log.info("%s", change)
        self._prefixes[keys.TASKS].invalidate()
        self._prefixes[keys.SERVICE_STATUS].invalidate()

    def _plan(self, goals: Mapping[Pair, Goal], scheduler: str, view: View, now: float) -> dict[Pair, Plan] | None:
        """A plan for each pair; None while the health that it depends on is not known."""
        plans: dict[Pair, Plan] = {}
        for pair, goal in goals.items():
            issued = view.issued.get(pair, [])
            if settled(goal, issued, view.fleet):
                plans[pair] = Plan()
                continue
            try:
                health = self._health_of(pair, now)
            except Unavailable as error:
                log.warning("health of %s/%s is not known: %s", *pair, error)
                self._retry_at = min(self._retry_at, now + RETRY_SECONDS)
                return None
            plans[pair] = reconcile(
                goal,
                issued,
                fleet=view.fleet,
                health=health,
                scheduler=self._schedulers[scheduler],
                avoid=self._rejections.avoided(pair[1], now),
                unreadable=view.unreadable(),
            )
            if plans[pair].blocked:
                self._retry_at = min(self._retry_at, now + HEALTH_AGE_SECONDS)
        return plans

    def _health_of(self, pair: Pair, now: float) -> Mapping[TaskId, Health]:
        known = self._known_health  # a change that arrives meanwhile puts another dict into its place
        if pair not in known or now - known[pair][0] >= HEALTH_AGE_SECONDS:
            known[pair] = (now, self._health.health([pair]))
        return known[pair][1]

    def _ports_of(self, definition: TaskDefinition) -> frozenset[int]:
        """Host ports that the containers take, as far as their executors are installed here."""
        key = (definition.name, definition.version)
        if key not in self._fixed_ports:
            self._fixed_ports[key] = container_ports(self._checkers, definition)
        return self._fixed_ports[key]

    def _status(
        self, scheduler: str, plans: Mapping[Pair, Plan], goals: Mapping[Pair, Goal], view: View
    ) -> ServiceStatus:
        clusters = {}
        for pair, plan in plans.items():
            kept = [one for one in view.issued.get(pair, []) if one.task.scheduled and not one.task.rejected]
            before = {change.before.id for change in plan.changes if change.before is not None}
            issued = sum(one.id not in before for one in kept)
            issued += sum(change.after is not None and change.after.scheduled for change in plan.changes)
            clusters[pair[0]] = ClusterStatus(
                desired=goals[pair].service.desired if goals[pair].cluster else 0,
                issued=issued,
                waiting=plan.waiting,
                blocked=plan.blocked,
                hosts=shown(plan.refusals),
            )
        return ServiceStatus(scheduler=scheduler, clusters=clusters)

    def _report(self, service: str, view: View, plans: Mapping[Pair, Plan], scheduler: str, *, fault: str = "") -> None:
        """Write what waits and why, if it changed. No lock: schedulers that see the same write the same."""
        goals = view.goals(service, self._ports_of)
        status = self._status(scheduler, plans, goals, view)
        if fault:
            blocked = {pair[0]: ClusterStatus(desired=goals[pair].service.desired, blocked=fault) for pair in goals}
            status = msgspec.structs.replace(status, clusters=blocked)
        if status == view.statuses.get(service):
            return
        key = keys.service_status(service)
        revision = self._status_entries().get(key)
        try:
            self._store.commit(
                [Check(key, revision.revision if revision else Revision(0)), Put(key, codec.encode(status))]
            )
        except Conflict:
            log.debug("another scheduler reported on %s first", service)
        self._prefixes[keys.SERVICE_STATUS].invalidate()

    def _status_entries(self) -> Mapping[str, Entry]:
        return self._prefixes[keys.SERVICE_STATUS].entries()

    def _forget_status(self, service: str) -> None:
        """The service is deleted and its last task gone: nothing is left to say."""
        key = keys.service_status(service)
        entry = self._status_entries().get(key)
        if entry is not None:
            self._store.commit([Check(key, entry.revision), Check(keys.service(service), Revision(0)), Delete(key)])
            self._prefixes[keys.SERVICE_STATUS].invalidate()


def shown(refusals: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    """The refusals that a status keeps: hosts of the cluster first, and no more than a record should hold."""
    foreign = [host for host, reasons in refusals.items() if reasons[0].startswith(NOT_OF_CLUSTER)]
    ordered = [*(host for host in refusals if host not in set(foreign)), *foreign]
    kept = {host: [reason[:MAX_REASON] for reason in refusals[host]] for host in ordered[:MAX_HOSTS_SHOWN]}
    if len(ordered) > MAX_HOSTS_SHOWN:
        kept["..."] = [f"and {len(ordered) - MAX_HOSTS_SHOWN} more hosts"]
    return kept


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
