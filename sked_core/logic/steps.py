"""The tasks of one (cluster, service) pair, and single steps towards what is declared. Pure.

In what order the steps are taken, and why, stands in logic.reconcile."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence

import msgspec

from sked_core.interfaces.scheduler import Scheduler
from sked_core.interfaces.store import Revision
from sked_core.logic.fleet import Fleet
from sked_core.logic.moves import NO_MOVES
from sked_core.logic.plan import WAITING_FOR, Change, Goal, Hold, Issued, Plan, demand_of
from sked_core.logic.recording import Keep, Recording
from sked_core.model.constraint import refusals, satisfied
from sked_core.model.decisions import Batch
from sked_core.model.types import Cluster, Health, Task, TaskDefinition, TaskId, task_id


class Steps:
    """The tasks of one pair, sorted into what they are, and the changes decided so far."""

    def __init__(
        self,
        goal: Goal,
        issued: Sequence[Issued],
        fleet: Fleet,
        health: Mapping[TaskId, Health],
        unreadable: Collection[str],
        steady: Collection[TaskId] | None,
    ) -> None:
        self.goal, self.fleet, self.unreadable = goal, fleet, unreadable
        self.required = goal.service.placement_rules.require
        self.changes: list[Change] = []
        self.keep: Keep | None = None
        self.batches: list[Batch] = []
        self.abandoned: list[Issued] = []
        self.stopping: list[Issued] = []
        self.holes: list[Issued] = []
        self.current: list[Issued] = []
        self.kept: list[Issued] = []
        """Tasks of the former version, while the roll-out is held."""
        self.outdated: list[Issued] = []
        for one in issued:
            self._sort(one)
        # What is being stopped, or was on a lost host, counts for nothing, however well it was.
        here = (*self.current, *self.kept, *self.outdated)
        self.healthy = {one.id for one in here if one.id in health and health[one.id].healthy} if health else set()
        self.steady = self.healthy if steady is None else self.healthy & set(steady)
        # Ids name the version, not the definition, so a task of another definition may hold an id as well.
        self.taken = {(one.task.task_definition.version, one.task.instance) for one in issued}
        self.free_from: dict[int, int] = {}
        self.moving = NO_MOVES

    def _of_former(self, task: Task) -> bool:
        former = self.goal.hold.former if self.goal.hold else None
        definition = task.task_definition
        return former is not None and (definition.name, definition.version) == (former.name, former.version)

    def is_current(self, task: Task) -> bool:
        """Whether it is one of those that are wanted, and where it may be."""
        kept = task.scheduled and not task.rejected and not self.fleet.lost(task.host)
        return kept and self.goal.wants(task) and self._may_stay(task.host)

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
        elif self.goal.wants(task) and self._may_stay(task.host):
            self.current.append(one)
        elif self._of_former(task) and self._may_stay(task.host):
            self.kept.append(one)
        else:
            self.outdated.append(one)

    def _may_stay(self, host: str) -> bool:
        view = self.fleet.hosts.get(host)
        # A host without any word of an agent is a person's business (issued by hand, agent not started yet).
        if view is None:
            return True
        allowed = self.goal.cluster.hosts if self.goal.cluster else None
        return self.fleet.usable(host, allowed) and (not self.required or satisfied(self.required, view.host))

    def _remove(self, one: Issued, why: str) -> None:
        self.fleet.release(one.task)
        self.changes.append(Change(one, None, why))

    def withdraw(self, one: Issued, why: str) -> None:
        """Ask the agent to stop it; the agent removes the keys once it is gone, so its id and port stay taken."""
        self.healthy.discard(one.id)
        self.stopping.append(one)
        self.changes.append(Change(one, msgspec.structs.replace(one.task, scheduled=False), why))

    def remove_abandoned(self) -> None:
        """Tasks that a lost host was asked to stop: nobody is left there to confirm it."""
        for one in self.abandoned:
            self._remove(one, f"was to be stopped on {one.task.host}, which is lost")

    def withdraw_all(self) -> Plan:
        for one in self.holes:
            self._remove(one, "the service is not wanted any more")
        for one in (*self.current, *self.outdated):
            self.withdraw(one, "the service is not wanted any more")
        return Plan(tuple(self.changes))

    def ahead(self) -> int:
        """How many tasks of the wanted version are to be there."""
        desired, hold = self.goal.service.desired, self.goal.hold
        if hold is None:
            return desired
        return min(desired, len(self.current) if hold.ahead is None else hold.ahead)

    def _behind(self) -> int:
        """How many tasks of the former version are to be there. Canaries come on top, as far as ``max`` allows."""
        service, hold = self.goal.service, self.goal.hold
        if hold is None:
            return 0
        if hold.ahead is None:
            return max(0, service.desired - len(self.current))
        return min(service.desired, max(0, service.max - self.ahead()))

    def withdraw_surplus(self) -> None:
        """Scale down to ``desired``: unhealthy tasks first, then the highest instances."""
        service = self.goal.service
        over = len(self.current) - service.desired
        self._withdraw_worst(self.current, over, self.goal.enough)
        # Of the former version no more go than have to: going on with the roll-out is somebody's decision.
        over = len(self.current) + len(self.kept) - service.max
        why = f"max is {service.max}"
        if self.kept:
            unwell = sum(one.id not in self.healthy for one in self.current)
            leaving = over - sum(one.id not in self.healthy for one in self.kept)
            below = service.min - (len(self.healthy) - leaving)
            if (spared := min(unwell, leaving, below)) > 0:
                # Rather new ones that are not well than so many well ones that fewer than ``min`` are left.
                self._withdraw_worst(self.current, spared, why)
                over -= spared
            self._withdraw_worst(self.kept, over, why)
        stopped = self.goal.hold is not None and self.goal.hold.ahead is None  # what went wrong is left to be read
        if not stopped and len(self.current) >= self.ahead() and len(self.kept) >= self._behind():
            for one in self.holes:
                self._remove(one, "is not needed any more")
            self.holes = []

    def _withdraw_worst(self, tasks: list[Issued], count: int, why: str) -> None:
        if count <= 0:
            return
        worst_first = sorted(tasks, key=lambda one: (one.id in self.healthy, -one.task.instance))
        for one in worst_first[:count]:
            tasks.remove(one)
            self.withdraw(one, why)

    def issue_missing(
        self, scheduler: Scheduler, avoid: Mapping[str, str]
    ) -> tuple[int, Mapping[str, tuple[str, ...]]]:
        """Issue what is missing as far as ``max`` allows; returns how many found no host, and the refusals."""
        goal, hold = self.goal, self.goal.hold
        waiting, refusals = 0, dict[str, tuple[str, ...]]()
        wanted = [(goal.definition, goal.fixed_ports, avoid, self.current, self.ahead())]
        if hold is not None:
            wanted.append((hold.former, hold.fixed_ports, hold.avoid, self.kept, self._behind()))
        for definition, ports, avoided, there, count in wanted:
            if definition is not None:
                missed, why = self._issue_some(definition, ports, there, count - len(there), scheduler, avoided)
                waiting, refusals = waiting + missed, refusals | dict(why)
        return waiting, refusals

    def _issue_some(
        self,
        definition: TaskDefinition,
        ports: frozenset[int],
        there: list[Issued],
        count: int,
        scheduler: Scheduler,
        avoid: Mapping[str, str],
    ) -> tuple[int, Mapping[str, tuple[str, ...]]]:
        """As ``issue_missing``, for ``count`` tasks of one definition, which are then ``there``."""
        service, cluster = self.goal.service, self.goal.cluster
        room = service.max - len(self.current) - len(self.kept) - len(self.outdated) - len(self.stopping)
        count = min(count, room)
        if count <= 0 or cluster is None:
            return 0, {}
        demand = demand_of(self.goal, definition, ports)
        # Those of lost hosts first: unlike rejected ones they may yet run, and count against ``max`` while they stand.
        self.holes.sort(key=lambda one: one.task.rejected)
        record = None
        if self.keep is not None:
            record = Recording(self.keep, self.fleet, scheduler, demand, count, cluster.hosts, avoid)
        placed = 0
        for host in self.fleet.place(scheduler, service.scheduler, demand, count, cluster.hosts, avoid):
            if record is not None:
                record.choose(host)
            hole = self.holes.pop(0) if self.holes else None
            if hole is not None:
                self.fleet.release(hole.task)
            there.append(self.issue(cluster, definition, host, hole))
            if record is not None:
                record.place(there[-1].task, hole.task if hole else None)
            placed += 1
        missed = count - placed
        refusals = self.fleet.unplaced(service.scheduler, demand, cluster.hosts, avoid) if missed else {}
        if record is not None and (batch := record.batch(definition, refusals)) is not None:
            self.batches.append(batch)
        return missed, refusals

    def _free_number(self, version: int) -> int:
        """The lowest instance that no task of these ids has."""
        service, cluster = self.goal.service, self.goal.cluster.name if self.goal.cluster else ""
        for number in itertools.count(self.free_from.get(version, 0)):
            unreadable = self.unreadable and task_id(cluster, service.name, version, number) in self.unreadable
            if (version, number) not in self.taken and not unreadable:
                self.free_from[version] = number + 1  # what is taken is only ever added to
                return number
        raise AssertionError("numbers do not end")

    def issue(
        self, cluster: Cluster, definition: TaskDefinition, host: str, hole: Issued | None, why: str = ""
    ) -> Issued:
        service, version = self.goal.service, definition.version
        # The hole's own, if it may be: one change of one id, where another id would be one more step for its key.
        reused = hole is not None and hole.task.task_definition.version == version
        instance = hole.task.instance if hole is not None and reused else self._free_number(version)
        self.taken.add((version, instance))
        port = definition.port
        if definition.provide_port:
            port = self.fleet.pick_port(host, task_id(cluster.name, service.name, version, instance))
        task = Task(
            cluster=cluster,
            task_definition=definition,
            service=service.name,
            instance=instance,
            port=port,
            host=host,
        )
        self.fleet.reserve(task)
        why = why or self._why_issued(hole)
        if hole is not None and hole.id != task.id:
            self.changes.append(Change(hole, None, why))
            hole = None
        self.changes.append(Change(hole, task, why))
        return Issued(task, Revision(0))

    def _why_issued(self, hole: Issued | None) -> str:
        if hole is None:
            return ""
        if hole.task.rejected:
            return f"{hole.task.host} rejected {hole.id}: {hole.task.reject_reason}"
        return f"{hole.task.host}, where {hole.id} was, is lost"

    def withdraw_outdated(self, waiting: int) -> str:
        """Withdraw the outdated tasks whose replacements are healthy; returns why it goes no further, if so."""
        for one in [one for one in self.outdated if self.fleet.forced(one.task.host)]:
            self.outdated.remove(one)
            self.withdraw(one, f"{one.task.host} has to be empty now")
        service, hold = self.goal.service, self.goal.hold
        if hold is not None and hold.ahead is not None and not self.outdated:
            return self._make_room(hold)
        held = hold.why if hold else ""
        if not self.outdated:
            return held
        # Where a roll-out is held, its new tasks may well be unhealthy: what moves for other reasons relies on others.
        relied_on = self.current if hold is None else self.kept
        unsteady = sorted((one for one in relied_on if one.id not in self.steady), key=lambda one: one.id)
        wanted = min(service.max, self.ahead() + self._behind()) if hold else service.desired
        total = len(self.current) + len(self.kept) + len(self.outdated)
        missing = wanted - len(self.current) - len(self.kept)
        if unsteady:
            surplus = total - service.max  # max was lowered meanwhile: that much goes in any case
        elif total > wanted:
            surplus = total - wanted
        elif waiting == 0:
            surplus = missing  # no room under max: make some, as far as min allows
        else:
            surplus = int(total == wanted)  # no room on the hosts: make some, one task at a time
        spare = len(self.healthy) - service.min
        fewer = len(self.outdated) - service.desired  # so many will have no replacement
        withdrawn = 0
        for one in sorted(self.outdated, key=lambda one: (one.id in self.healthy, -one.task.instance)):
            if withdrawn >= surplus:
                break
            if waiting and total <= wanted and not self._may_stay(one.task.host):
                continue  # nothing can be placed where it leaves: it stays until something can
            if one.id in self.healthy:
                if spare <= 0:
                    continue
                spare -= 1
            self.outdated.remove(one)
            self.withdraw(one, self.goal.enough if withdrawn < fewer else self._why_outdated(one.task))
            withdrawn += 1
        if unsteady:
            return self._unsteady(unsteady[0])
        if withdrawn or self.stopping or not missing or waiting:
            return held
        return self.no_room(wanted + 1)

    def _unsteady(self, one: Issued) -> str:
        if one.id in self.healthy:
            return f"{WAITING_FOR} {one.id} to have been healthy for long enough before the next old task is touched"
        return f"{WAITING_FOR} {one.id} to become healthy before the next old task is touched"

    def no_room(self, needed: int) -> str:
        service = self.goal.service
        return (
            f"min {service.min} and max {service.max} leave no room to replace a task: "
            f"raise max to {needed} or lower min below the {len(self.healthy)} healthy tasks"
        )

    def _make_room(self, hold: Hold) -> str:
        """Room under ``max`` for canaries, as far as ``min`` allows."""
        service, missing = self.goal.service, self.ahead() - len(self.current)
        over = missing - (service.max - len(self.current) - len(self.kept) - len(self.stopping))
        if missing <= 0 or over <= 0 or self.stopping:
            return hold.why
        spare = len(self.healthy) - service.min
        healthy = sum(one.id in self.healthy for one in self.kept)
        if spare <= 0 and healthy == len(self.kept):
            starting = any(one.id not in self.healthy for one in self.current)  # once it is well, another one may go
            return hold.why if starting else self.no_room(service.desired + 1)
        count = min(over, len(self.kept) - healthy + max(0, spare))
        self._withdraw_worst(self.kept, count, "makes room for a canary")
        return hold.why

    def _why_outdated(self, task: Task) -> str:
        if moved := self.moving.why_leaving(task.id):
            return moved
        if self._may_stay(task.host):
            return f"version {self.goal.service.task_version} replaces it"
        view = self.fleet.hosts[task.host]
        if view.mark == "draining":
            return f"{task.host} is draining"
        if not self.fleet.usable(task.host, self.goal.cluster.hosts if self.goal.cluster else None):
            return f"{task.host} is no host of the cluster any more"
        return f"{task.host}: {'; '.join(refusals(self.goal.service.placement_rules.require, view.host))}"
