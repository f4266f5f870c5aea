"""One look at all that is known, as the pages show it: rows, states in words, sums. Made anew for each revision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from sked_core.client.held import order
from sked_core.model.types import (
    Cluster,
    ClusterStatus,
    Failure,
    Health,
    Host,
    Mark,
    Moves,
    Presence,
    Rollout,
    Service,
    ServiceStatus,
    Task,
    TaskDefinition,
    TaskId,
)
from sked_core.model.wording import first_line, natural

STATES = {
    "failing": "bad",
    "rejected": "bad",
    "host down": "gone",
    "not healthy": "busy",
    "starting": "busy",
    "stopping": "idle",
    "healthy": "ok",
}
"""States of tasks, those first that need somebody, with the mark that each is shown by."""


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task, its state in a word, and what there is to say if it is not well. ``noted``: what stands in the store of
    its failures, maybe on another host."""

    id: str
    task: Task
    state: str
    why: str = ""
    health: Health | None = None
    noted: Failure | None = None

    @property
    def output(self) -> str:
        """What its checks said last."""
        return self.health.output if self.health is not None else ""

    @property
    def mark(self) -> str:
        return STATES[self.state]

    @property
    def version(self) -> str:
        one = self.task.task_definition
        return str(one.version) if one.name == self.task.service else f"{one.name}/{one.version}"


@dataclass(frozen=True, slots=True)
class Amount:
    """How much of one resource of a host its tasks reserve."""

    name: str
    used: int
    total: int
    unit: str

    @property
    def percent(self) -> float:
        return round(100 * self.used / self.total, 1) if self.total else 0.0


@dataclass(frozen=True)
class HostRow:
    """A host with its tasks, and what they take of it. ``silent``: since when its agent gives no answer, though the
    store counts it as running."""

    host: Host
    state: str
    mark: Mark | None
    tasks: Sequence[TaskRow]
    amounts: Sequence[Amount]
    silent: str = ""

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def sign(self) -> str:
        return {"ready": "ok", "down": "gone"}.get(self.state, "busy")

    @cached_property
    def counts(self) -> Mapping[str, int]:
        return Counter(row.state for row in self.tasks)


@dataclass(frozen=True, slots=True)
class PlaceRow:
    """A service in one cluster: what is wanted, what is there, by state."""

    cluster: str
    desired: int
    counts: Mapping[str, int]
    current: int
    others: int
    healthy: int
    status: ClusterStatus


@dataclass(frozen=True)
class ServiceRow:
    """A service with all its tasks."""

    name: str
    service: Service | None
    definition: TaskDefinition | None
    tasks: Sequence[TaskRow]
    places: Sequence[PlaceRow]
    rollout: Rollout | None
    moves: int

    @cached_property
    def desired(self) -> int:
        return sum(place.desired for place in self.places)

    @cached_property
    def healthy(self) -> int:
        return sum(row.state == "healthy" for row in self.tasks)


@dataclass(frozen=True)
class Facts:
    """What a look is made of, each by name or id. ``alive``: hosts whose agents are running; ``silent``:
    see ``Picture``; ``broken``: services whose declarations can't be read."""

    tasks: Mapping[str, Task] = field(default_factory=dict)
    health: Mapping[TaskId, Health] = field(default_factory=dict)
    hosts: Mapping[str, Host] = field(default_factory=dict)
    alive: Collection[str] = ()
    silent: Mapping[str, str] = field(default_factory=dict)
    marks: Mapping[str, Mark] = field(default_factory=dict)
    services: Mapping[str, Service] = field(default_factory=dict)
    clusters: Mapping[str, Cluster] = field(default_factory=dict)
    definitions: Mapping[tuple[str, int], TaskDefinition] = field(default_factory=dict)
    rollouts: Mapping[str, Rollout] = field(default_factory=dict)
    moves: Mapping[str, Moves] = field(default_factory=dict)
    statuses: Mapping[str, ServiceStatus] = field(default_factory=dict)
    failures: Mapping[str, Failure] = field(default_factory=dict)
    schedulers: Mapping[str, Presence] = field(default_factory=dict)
    broken: Collection[str] = ()


class Sight:
    """What ``facts`` say, in rows. ``before``: an earlier look, whose rows serve again where nothing has changed: of
    thousands of tasks it is mostly one that has."""

    def __init__(self, facts: Facts, before: Sight | None = None) -> None:
        self.facts = facts
        self.tasks = self._tasks(before)
        """All tasks by id, in natural order."""
        self._former: Mapping[str, HostRow] = before.__dict__.get("hosts", {}) if before is not None else {}

    def _tasks(self, before: Sight | None) -> Mapping[str, TaskRow]:
        known: Mapping[str, TaskRow] = before.tasks if before is not None else {}
        facts = self.facts
        same = before is not None and before.facts.hosts.keys() == facts.hosts.keys()
        same = same and before is not None and before.facts.alive == facts.alive
        rows: dict[str, TaskRow] = {}
        for name, task in facts.tasks.items():
            row = known.get(name)
            if (
                row is not None
                and same
                and row.task is task
                and row.health == facts.health.get(TaskId(name))
                and row.noted is facts.failures.get(name)
            ):
                rows[name] = row
            else:
                rows[name] = self._task(name, task)
        if rows.keys() == known.keys():
            return {name: rows[name] for name in known}
        return dict(sorted(rows.items(), key=lambda pair: order(pair[0])))

    def _task(self, name: str, task: Task) -> TaskRow:
        health, noted = self.facts.health.get(TaskId(name)), self.facts.failures.get(name)
        output = health.output if health is not None else ""
        failure = noted if noted is not None and noted.host == task.host else None
        state, why = "not healthy" if output else "starting", output
        if task.rejected:
            state, why = "rejected", task.reject_reason
        elif task.host in self.facts.hosts and task.host not in self.facts.alive:
            state, why = "host down", f"the agent of {task.host} is not running"
        elif not task.scheduled:
            state, why = "stopping", ""
        elif health is not None and health.healthy:
            state, why = "healthy", ""
        elif failure is not None:
            state, why = "failing", failure.reason or failure.output
        return TaskRow(name, task, state, why, health, noted)

    @cached_property
    def by_host(self) -> Mapping[str, list[TaskRow]]:
        found: dict[str, list[TaskRow]] = {}
        for row in self.tasks.values():
            found.setdefault(row.task.host, []).append(row)
        return found

    @cached_property
    def by_service(self) -> Mapping[str, list[TaskRow]]:
        found: dict[str, list[TaskRow]] = {}
        for row in self.tasks.values():
            found.setdefault(row.task.service, []).append(row)
        return found

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """Tasks by state."""
        return Counter(row.state for row in self.tasks.values())

    @cached_property
    def hosts(self) -> Mapping[str, HostRow]:
        """All hosts by name, those too that only tasks name."""
        names = sorted({*self.facts.hosts, *self.by_host}, key=natural)
        return {name: self.host(name) for name in names}

    def host(self, name: str) -> HostRow:
        """One that ``hosts`` has."""
        host, mark, rows = self.facts.hosts.get(name) or Host(name=name), self.facts.marks.get(name), self._on(name)
        state, silent = self.host_state(name), self.facts.silent.get(name, "")
        former = self._former.get(name)
        if (
            former is not None
            and (former.host, former.mark, former.state, former.silent) == (host, mark, state, silent)
            and former.tasks == rows
        ):
            return former
        taken = [row.task.task_definition for row in rows if not row.task.rejected]
        amounts = (
            Amount("memory", sum(one.total_memory for one in taken), host.memory, "MB"),
            Amount("cpu", sum(one.total_cpu_units for one in taken), host.cpu_units, "units"),
            Amount("disk", sum(one.total_disk for one in taken), host.disk, "MB"),
        )
        return HostRow(host, state, mark, rows, amounts, silent)

    def _on(self, host: str) -> list[TaskRow]:
        return self.by_host.get(host, [])

    def host_state(self, name: str) -> str:
        """``ready``, ``down``, or its mark."""
        mark = self.facts.marks.get(name)
        return "down" if name not in self.facts.alive else mark.state if mark else "ready"

    @cached_property
    def host_states(self) -> Mapping[str, int]:
        """Hosts by state."""
        return Counter(map(self.host_state, self.facts.hosts))

    @cached_property
    def services(self) -> Mapping[str, ServiceRow]:
        """All services by name: those that are declared, those with tasks, those that can't be read."""
        names = {*self.facts.services, *self.by_service, *self.facts.broken}
        return {name: self.service(name) for name in sorted(names, key=natural)}

    @cached_property
    def _listed(self) -> Mapping[str, list[str]]:
        found: dict[str, list[str]] = {}
        for cluster in self.facts.clusters.values():
            for name in cluster.services:
                found.setdefault(name, []).append(cluster.name)
        return found

    def clusters_of(self, service: str) -> list[str]:
        """Those that list it."""
        return sorted(self._listed.get(service, []))

    def service(self, name: str) -> ServiceRow:
        """One that ``services`` has."""
        service, rows = self.facts.services.get(name), self.by_service.get(name, [])
        status = self.facts.statuses.get(name)
        there = sorted({*self.clusters_of(name), *(row.task.cluster.name for row in rows)})
        wanted = (service.task_name, service.task_version) if service else None
        places = []
        for cluster in there:
            own = [row for row in rows if row.task.cluster.name == cluster]
            current = [row for row in own if _version(row) == wanted]
            listed = service is not None and cluster in self.clusters_of(name)
            places.append(
                PlaceRow(
                    cluster,
                    service.desired if service is not None and listed else 0,
                    Counter(row.state for row in own),
                    len(current),
                    len(own) - len(current),
                    sum(row.state == "healthy" for row in current),
                    status.clusters.get(cluster, ClusterStatus()) if status else ClusterStatus(),
                )
            )
        moves = self.facts.moves.get(name)
        version = (service.task_name, service.task_version) if service else ("", 0)
        return ServiceRow(
            name,
            service,
            self.facts.definitions.get(version),
            rows,
            places,
            self.facts.rollouts.get(name),
            len(moves.moves) if moves else 0,
        )


def _version(row: TaskRow) -> tuple[str, int]:
    return row.task.task_definition.name, row.task.task_definition.version


def short(text: str, most: int = 160) -> str:
    """The first line of a reason, cut where it is too long for a cell."""
    line = first_line(text)
    return line if len(line) <= most else line[: most - 1] + "…"
