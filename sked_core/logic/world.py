"""Everything that the decisions of schedulers depend on, as one value: what plans and what-ifs start from. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from sked_core.errors import InvalidValue
from sked_core.logic.fleet import Fleet, HostView
from sked_core.logic.moves import superseded
from sked_core.logic.plan import Goal, Issued
from sked_core.model import keys
from sked_core.model.spec import known
from sked_core.model.types import Cluster, Health, Moves, Rollout, Service, Task, TaskDefinition, TaskId, TaskMove

Pair = tuple[str, str]
"""(cluster, service)."""
PortsOf = Callable[[TaskDefinition], frozenset[int]]
"""The host ports that the containers of a definition take beside the task's own."""


def no_ports(_: TaskDefinition) -> frozenset[int]:
    """For whoever knows no executors."""
    return frozenset()


def unreadable_service(name: str, fault: str, more: str = "") -> InvalidValue:
    """For whoever asks for a service whose declaration can't be read, with the remedy and one ``more`` line."""
    advice = "repair it, or apply its manifest, which writes it anew"
    return InvalidValue(f"{keys.service(name)} can't be read: {fault}", hint="\n".join(filter(None, (advice, more))))


def goals_of(
    name: str,
    service: Service | None,
    clusters: Mapping[str, Cluster | None],
    definition: TaskDefinition | None,
    ports_of: PortsOf,
    shunned_by: tuple[tuple[str, str], ...] = (),
) -> dict[Pair, Goal]:
    """What is wanted for every pair of the service ``name``.

    ``service``: its declaration, None where there is none; ``clusters``: those that list it or have tasks of it, by
    name, None for one that is not declared; ``definition``: what the service names, if that is there; ``shunned_by``:
    see ``shunned``.
    """
    if service is None:
        gone = Goal(None, Service(name=name, task_name=name, task_version=0), None)
        return {(cluster, name): gone for cluster in clusters}
    ports = ports_of(definition) if definition else frozenset()
    goals: dict[Pair, Goal] = {}
    for found, cluster in clusters.items():
        wanted = cluster if cluster and name in cluster.services else None
        goals[found, name] = Goal(wanted, service, definition, ports, shunned_by=shunned_by)
    return goals


def shunned(services: Iterable[Service]) -> dict[str, tuple[tuple[str, str], ...]]:
    """By service, which others declare that they are to be apart from it, each with the tag within whose values. It is
    not for the one that says so to see to it alone: whoever comes second keeps away."""
    found: dict[str, list[tuple[str, str]]] = {}
    for service in services:
        for other in service.placement_rules.apart:
            found.setdefault(other.service, []).append((service.name, other.per))
    return {name: tuple(sorted(pairs)) for name, pairs in found.items()}


@dataclass(frozen=True, slots=True)
class World:
    """What is declared, which hosts there are, and what is issued to them. Never changed in place: ``replace`` makes
    another one.

    ``hosts``: with their marks, and whether they are alive and lost. ``owners``: the scheduler of each service that it
    has worked on: the tasks of one that is no longer declared are withdrawn by it; those of others are left alone.
    ``health``: of tasks whose health is known. ``rollouts``, ``moves``: those under way, by service. ``faults``: keys
    of records that can't be read, with the reason: unreadable is not deleted.
    """

    services: Mapping[str, Service] = field(default_factory=dict)
    clusters: Mapping[str, Cluster] = field(default_factory=dict)
    definitions: Mapping[tuple[str, int], TaskDefinition] = field(default_factory=dict)
    hosts: Mapping[str, HostView] = field(default_factory=dict)
    issued: Mapping[TaskId, Issued] = field(default_factory=dict)
    health: Mapping[TaskId, Health] = field(default_factory=dict)
    owners: Mapping[str, str] = field(default_factory=dict)
    rollouts: Mapping[str, Rollout] = field(default_factory=dict)
    moves: Mapping[str, Moves] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    ports_of: PortsOf = no_ports

    def fleet(self) -> Fleet:
        """A new book of what is reserved on the hosts."""
        return Fleet(self.hosts.values(), (one.task for one in self.issued.values()), self.ports_of)

    def declared(self, service: str) -> Service:
        """Raises NotFound, with the name that is like it, and InvalidValue if the declaration can't be read."""
        if fault := self.faults.get(keys.service(service)):
            raise unreadable_service(service, fault)
        return self.services[known("service", service, self.services)]

    def scheduler_of(self, service: str) -> str:
        """The scheduler that the service is placed by; empty where nobody sees to it."""
        declared = self.services.get(service)
        return declared.scheduler if declared else self.owners.get(service, "")

    def definition_of(self, service: Service) -> TaskDefinition | None:
        """The task definition that the service names, if it is there."""
        return self.definitions.get((service.task_name, service.task_version))

    def tasks(self) -> dict[Pair, list[Issued]]:
        """All tasks by pair."""
        found: dict[Pair, list[Issued]] = {}
        for one in self.issued.values():
            found.setdefault((one.task.cluster.name, one.task.service), []).append(one)
        return found

    def goals(self) -> dict[Pair, Goal]:
        """What is wanted for every pair that is declared or has tasks, in the order in which a scheduler that finds
        all of them undone sees to them. Left out is what no scheduler would touch: services that nobody declared or
        works on, and what depends on a record that can't be read."""
        clusters: dict[str, set[str]] = {}
        for cluster in self.clusters.values():
            for name in cluster.services:
                if name in self.services:
                    clusters.setdefault(name, set()).add(cluster.name)
        for cluster_name, name in self.tasks():
            clusters.setdefault(name, set()).add(cluster_name)
        goals: dict[Pair, Goal] = {}
        shunning = shunned(self.services.values())
        for name in self._in_order(clusters):
            if self.scheduler_of(name) and keys.service(name) not in self.faults:
                service = self.services.get(name)
                there = {one: self.clusters.get(one) for one in sorted(clusters[name])}
                sound = {one: cluster for one, cluster in there.items() if keys.cluster(one) not in self.faults}
                definition = self.definition_of(service) if service else None
                goals |= goals_of(name, service, sound, definition, self.ports_of, shunning.get(name, ()))
                for pair in [pair for pair in goals if pair[1] == name] if name in self.moves else ():
                    goals[pair] = replace(goals[pair], moves=self._moves(pair, service))
        return goals

    def _moves(self, pair: Pair, service: Service | None) -> tuple[TaskMove, ...]:
        moves = self.moves.get(pair[1])
        if moves is None or superseded(moves, service, rolling=pair[1] in self.rollouts):
            return ()
        return tuple(move for move in moves.moves if move.cluster == pair[0])

    def _in_order(self, services: Iterable[str]) -> list[str]:
        def place(name: str) -> tuple[int, str]:
            service = self.services.get(name)
            return -service.placement_rules.priority if service else 0, name

        return sorted(services, key=place)

    def unreadable(self) -> frozenset[str]:
        """Ids of tasks whose records can't be read."""
        return frozenset(keys.last_segment(key) for key in self.faults if key.startswith(keys.TASKS))

    def all_healthy(self) -> dict[TaskId, Health]:
        """The health of a world in which every task that is to run is well."""
        return {name: Health(True) for name, one in self.issued.items() if runs(one.task)}


def runs(task: Task) -> bool:
    """Whether the task is to run: neither is it being stopped nor has its host rejected it."""
    return task.scheduled and not task.rejected
