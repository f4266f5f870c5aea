"""What has to change so that a service's issued tasks become what users declared. Pure; the heart of a scheduler.

Order of thought for one (cluster, service) pair:

1. Tasks that are no longer wanted at all (service deleted, taken out of the cluster, scaled down) are withdrawn.
2. Missing tasks of the wanted version are issued, never more than ``max`` in all. A rejected or lost task is a
   hole: it is removed in the same step that issues its replacement, and left for people to read until then.
3. Outdated tasks (other version, draining or foreign host) are withdrawn one step at a time: only while every
   task of the wanted version is healthy, and never so that fewer than ``min`` healthy ones remain.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from sked_core.errors import PluginError
from sked_core.interfaces.scheduler import Candidate, Demand, Scheduler
from sked_core.interfaces.store import Revision
from sked_core.logic.fleet import Fleet
from sked_core.model.types import Cluster, Health, Service, Task, TaskDefinition, TaskId, task_id


@dataclass(frozen=True, slots=True)
class Issued:
    """A task as it stands in the store, with the revision of ``state/tasks/<id>``."""

    task: Task
    revision: Revision

    @property
    def id(self) -> TaskId:
        return self.task.id


@dataclass(frozen=True, slots=True)
class Change:
    """One task's step from ``before`` (None: nothing issued) to ``after`` (None: both keys removed)."""

    before: Issued | None
    after: Task | None

    def __str__(self) -> str:
        if self.after is None:
            return f"remove {self.before.id if self.before else ''}"
        if not self.after.scheduled:
            return f"withdraw {self.after.id} from {self.after.host}"
        return f"issue {self.after.id} to {self.after.host}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes for one (cluster, service) pair, and why there are not more."""

    changes: tuple[Change, ...] = ()
    waiting: int = 0
    """Tasks that are wanted but could not be placed."""
    blocked: str = ""
    refusals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Host by host, why it took none of the waiting tasks."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What users declared for one (cluster, service) pair. ``cluster`` None: the pair is not wanted any more."""

    cluster: Cluster | None
    service: Service
    definition: TaskDefinition | None
    fixed_ports: frozenset[int] = frozenset()
    """Host ports that the containers of the definition take beside the task's own."""


def demand_of(cluster: str, service: str, definition: TaskDefinition, more_ports: frozenset[int]) -> Demand:
    """What one task of ``definition`` asks of its host."""
    own_port = {definition.port} if definition.port and not definition.provide_port else set()
    return Demand(
        cluster=cluster,
        service=service,
        memory=definition.total_memory,
        cpu_units=definition.total_cpu_units,
        disk=definition.total_disk,
        provide_port=definition.provide_port,
        fixed_ports=more_ports | own_port,
        executors=frozenset(container.type for container in definition.containers),
    )


def reconcile(
    goal: Goal,
    issued: Sequence[Issued],
    *,
    fleet: Fleet,
    health: Mapping[TaskId, Health],
    scheduler: Scheduler,
    avoid: Mapping[str, str],
    unreadable: Collection[str] = (),
) -> Plan:
    """The plan for one (cluster, service) pair.

    ``issued``: all tasks of the pair. ``fleet`` must count them; it is updated to what the plan leads to.
    ``avoid``: hosts that rejected this service lately, with the reason to show. ``unreadable``: ids whose records
    can't be decoded: left alone, and never issued anew.
    """
    ordered = sorted(issued, key=lambda one: (one.task.task_definition.version, one.task.instance))
    steps = _Steps(goal, ordered, fleet, health, unreadable)
    steps.remove_abandoned()
    if goal.cluster is None:
        return steps.withdraw_all()
    if goal.definition is None:
        return Plan(
            tuple(steps.changes),
            blocked=f"no task definition {goal.service.task_name} version {goal.service.task_version}",
        )
    steps.withdraw_surplus()
    waiting, refusals = steps.issue_missing(goal.definition, scheduler, avoid)
    blocked = steps.withdraw_outdated(waiting)
    return Plan(tuple(steps.changes), waiting, blocked, refusals)


def settled(goal: Goal, issued: Sequence[Issued], fleet: Fleet) -> bool:
    """Whether nothing is left to do for the pair, whatever the health of its tasks: the cheap and usual case."""
    if goal.cluster is None:
        return not issued
    steps = _Steps(goal, issued, fleet, {}, ())
    return len(steps.current) == len(issued) == goal.service.desired and goal.definition is not None


class _Steps:
    """The tasks of one pair, sorted into what they are, and the changes decided so far."""

    def __init__(
        self,
        goal: Goal,
        issued: Sequence[Issued],
        fleet: Fleet,
        health: Mapping[TaskId, Health],
        unreadable: Collection[str],
    ) -> None:
        self.goal, self.fleet, self.unreadable = goal, fleet, unreadable
        self.changes: list[Change] = []
        self.abandoned: list[Issued] = []
        self.stopping: list[Issued] = []
        self.holes: list[Issued] = []
        self.current: list[Issued] = []
        self.outdated: list[Issued] = []
        for one in issued:
            self._sort(one)
        # What is being stopped, or was on a lost host, counts for nothing, however well it was.
        here = (*self.current, *self.outdated)
        self.healthy = {one.id for one in here if one.id in health and health[one.id].healthy}
        # Ids name the version, not the definition, so a task of another definition may hold an id as well.
        self.taken = {one.task.instance for one in issued if self._same_ids(one.task)}
        self.numbers = self._free_numbers()

    def _same_ids(self, task: Task) -> bool:
        return task.task_definition.version == self.goal.service.task_version

    def _wanted_version(self, task: Task) -> bool:
        definition, service = task.task_definition, self.goal.service
        return definition.version == service.task_version and definition.name == service.task_name

    def _sort(self, one: Issued) -> None:
        task = one.task
        lost = self.fleet.lost(task.host)
        if not task.scheduled:
            if lost:
                self.abandoned.append(one)
            else:
                self.stopping.append(one)
        elif task.rejected or lost:
            self.holes.append(one)
        elif self._wanted_version(task) and self._may_stay(task.host):
            self.current.append(one)
        else:
            self.outdated.append(one)

    def _may_stay(self, host: str) -> bool:
        allowed = self.goal.cluster.hosts if self.goal.cluster else None
        # A host without any word of an agent is a person's business (issued by hand, agent not started yet).
        return host not in self.fleet.hosts or self.fleet.usable(host, allowed)

    def _remove(self, one: Issued) -> None:
        self.fleet.release(one.task)
        self.changes.append(Change(one, None))

    def _withdraw(self, one: Issued) -> None:
        """Ask the agent to stop it; the agent removes the keys once it is gone, so its id and port stay taken."""
        self.healthy.discard(one.id)
        self.stopping.append(one)
        self.changes.append(Change(one, msgspec.structs.replace(one.task, scheduled=False)))

    def remove_abandoned(self) -> None:
        """Tasks that a lost host was asked to stop: nobody is left there to confirm it."""
        for one in self.abandoned:
            self._remove(one)

    def withdraw_all(self) -> Plan:
        for one in self.holes:
            self._remove(one)
        for one in (*self.current, *self.outdated):
            self._withdraw(one)
        return Plan(tuple(self.changes))

    def withdraw_surplus(self) -> None:
        """Scale down to ``desired``: unhealthy tasks first, then the highest instances."""
        surplus = len(self.current) - self.goal.service.desired
        if surplus > 0:
            worst_first = sorted(self.current, key=lambda one: (one.id in self.healthy, -one.task.instance))
            for one in worst_first[:surplus]:
                self.current.remove(one)
                self._withdraw(one)
        if len(self.current) >= self.goal.service.desired:
            for one in self.holes:
                self._remove(one)
            self.holes = []

    def issue_missing(
        self, definition: TaskDefinition, scheduler: Scheduler, avoid: Mapping[str, str]
    ) -> tuple[int, Mapping[str, tuple[str, ...]]]:
        """Issue what is missing as far as ``max`` allows; returns how many found no host, and the refusals."""
        service, cluster = self.goal.service, self.goal.cluster
        room = service.max - len(self.current) - len(self.outdated) - len(self.stopping)
        count = min(service.desired - len(self.current), room)
        if count <= 0 or cluster is None:
            return 0, {}
        demand = demand_of(cluster.name, service.name, definition, self.goal.fixed_ports)
        candidates, refusals = self.fleet.sift(demand, cluster.hosts, avoid)
        placed = 0
        for host in place_checked(scheduler, service.scheduler, demand, count, candidates):
            hole = self.holes.pop(0) if self.holes else None
            if hole is not None:
                self.fleet.release(hole.task)
            self._issue(cluster, definition, host, hole)
            placed += 1
        if placed < count and candidates:
            full = {candidate.host: ("full: took all that fits",) for candidate in candidates}
            refusals = dict(sorted({**refusals, **full}.items()))
        return count - placed, refusals if placed < count else {}

    def _free_numbers(self) -> Iterator[int]:
        """Instances that no task of these ids has, in order. What is taken is only ever added to."""
        service, cluster = self.goal.service, self.goal.cluster.name if self.goal.cluster else ""
        for number in itertools.count():
            unreadable = task_id(cluster, service.name, service.task_version, number) in self.unreadable
            if number not in self.taken and not unreadable:
                yield number

    def _issue(self, cluster: Cluster, definition: TaskDefinition, host: str, hole: Issued | None) -> None:
        service = self.goal.service
        # The hole's own, if it may be: one change of one id, where another id would be one more step for its key.
        reused = hole is not None and self._same_ids(hole.task)
        instance = hole.task.instance if hole is not None and reused else next(self.numbers)
        self.taken.add(instance)
        port = self.fleet.pick_port(host, service.name) if definition.provide_port else definition.port
        task = Task(
            cluster=cluster,
            task_definition=definition,
            service=service.name,
            instance=instance,
            port=port,
            host=host,
        )
        self.fleet.reserve(task)
        issued = Issued(task, Revision(0))
        self.current.append(issued)
        if hole is not None and hole.id != task.id:
            self.changes.append(Change(hole, None))
            hole = None
        self.changes.append(Change(hole, task))

    def withdraw_outdated(self, waiting: int) -> str:
        """Withdraw the outdated tasks whose replacements are healthy; returns why it goes no further, if so."""
        if not self.outdated:
            return ""
        service = self.goal.service
        unhealthy = sorted(one.id for one in self.current if one.id not in self.healthy)
        total = len(self.current) + len(self.outdated)
        missing = service.desired - len(self.current)
        if unhealthy:
            surplus = total - service.max  # max was lowered meanwhile: that much goes in any case
        elif total > service.desired:
            surplus = total - service.desired
        elif waiting == 0:
            surplus = missing  # no room under max: make some, as far as min allows
        else:
            surplus = int(total == service.desired)  # no room on the hosts: make some, one task at a time
        spare = len(self.healthy) - service.min
        withdrawn = 0
        for one in sorted(self.outdated, key=lambda one: (one.id in self.healthy, -one.task.instance)):
            if withdrawn >= surplus:
                break
            if one.id in self.healthy:
                if spare <= 0:
                    continue
                spare -= 1
            self.outdated.remove(one)
            self._withdraw(one)
            withdrawn += 1
        if unhealthy:
            return f"waiting for {unhealthy[0]} to become healthy before the next old task is touched"
        if withdrawn or self.stopping or not missing or waiting:
            return ""
        return (
            f"min {service.min} and max {service.max} leave no room to replace a task: "
            f"raise max to {service.desired + 1} or lower min below the {len(self.healthy)} healthy tasks"
        )


def place_checked(
    scheduler: Scheduler, name: str, demand: Demand, count: int, candidates: Sequence[Candidate]
) -> list[str]:
    """The hosts that ``scheduler`` chose. Raises PluginError if it chose one that does not fit, or failed: a plugin's
    mistake must neither overload a host nor end the process that serves other services."""
    if not candidates:
        return []
    try:
        chosen = list(itertools.islice(scheduler.place(demand, count, candidates), count + 1))
    except Exception as error:
        raise PluginError(f"scheduler {name} failed: {type(error).__name__}: {error}"[:300]) from error
    if len(chosen) > count:
        raise PluginError(f"scheduler {name} placed more than the {count} tasks it was asked for")
    left = {candidate.host: candidate for candidate in candidates}
    hosts: list[str] = []
    for host in chosen:
        if not isinstance(host, str) or host not in left or not left[host].fits(demand):
            raise PluginError(f"scheduler {name} placed a task of {demand.service} on {host!r:.80}, where none fits")
        left[host] = left[host].after(demand)
        hosts.append(host)
    return hosts
