"""What a scheduler knows: decoded objects, kept up to date piece by piece. What can't be decoded is left alone."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from sked_core.interfaces.store import Delete, Entry, Op, Put, Revision
from sked_core.logic.fleet import Fleet, HostView
from sked_core.logic.plan import Goal, Issued
from sked_core.logic.presence import Absences, Drains, Rejections
from sked_core.logic.rollout import tries_anew
from sked_core.logic.world import Pair, PortsOf, goals_of, shunned
from sked_core.model import keys
from sked_core.model.types import (
    Rollout,
    Service,
    ServiceStatus,
    Task,
    TaskId,
)
from sked_core.runtime.scheduling.decoded import Records
from sked_core.runtime.scheduling.task_records import TaskRecords


@dataclass(slots=True)
class Changes:
    """What is different since somebody last asked: services with anything of their own, and hosts."""

    services: set[str] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)


class View(Records):
    """Not thread-safe. ``changes`` collects until its reader puts an empty one into its place. Of ``rejections`` those
    are forgotten that a roll-out is to try again, as soon as it is known: what is rejected from then on counts."""

    def __init__(self, ports_of: PortsOf, rejections: Rejections) -> None:
        super().__init__()
        self._rejections = rejections
        self.tasks = TaskRecords()
        self.alive: frozenset[str] = frozenset()
        self.fleet = Fleet((), (), ports_of)
        self._held: list[Collection[Task]] = []
        self.issued: dict[str, dict[str, dict[TaskId, Issued]]] = {}
        """Tasks by service, cluster and id."""
        self.rejected: dict[str, Issued] = {}
        self.changes = Changes()
        self._ports_of = ports_of
        self._on_host: dict[str, dict[str, int]] = {}
        """How many tasks of each service every host has."""
        self._hosts_read = True
        """Whether anything of hosts was read since the fleet was brought up to date."""
        self._doubtful: set[str] = set()
        """Hosts of which something else was read."""
        self._lost: frozenset[str] = frozenset()
        self._forced: frozenset[str] = frozenset()
        self.look_at = 0.0
        """When time alone makes the hosts of the fleet others (monotonic seconds)."""
        self._members: dict[str, list[str]] = {}
        self._shunned: dict[str, tuple[tuple[str, str], ...]] | None = None
        """None: to be worked out anew."""

    # --- taking in -----------------------------------------------------------------------------------------------

    def take_declared(self, services: Mapping[str, Entry], clusters: Mapping[str, Entry]) -> set[str]:
        """All services and all clusters. Returns the keys of the task definitions of services that have changed."""
        changed = self.services.take(services)
        self.changes.services |= _services(changed)
        both = (one for key, former in changed.items() for one in (former, self.services.objects.get(key)))
        if any(one is not None and one.placement_rules.apart for one in both):
            self._shunned = None
        regrouped = self.clusters.take(clusters)
        for key, former in regrouped.items():
            for cluster in (former, self.clusters.objects.get(key)):
                self.changes.services |= set(cluster.services) if cluster else set()
        if regrouped:
            self._members = {}
            for cluster in self.clusters.objects.values():
                for service in cluster.services:
                    self._members.setdefault(service, []).append(cluster.name)
        return {definition_key(self.services.objects[key]) for key in changed if key in self.services.objects}

    def take_hosts(self, entries: Mapping[str, Entry]) -> None:
        """What all hosts say of themselves."""
        changed = self.hosts.take(entries)
        self._hosts_read |= bool(changed)
        self._doubtful |= {keys.last_segment(key) for key in changed}

    def take_definitions(self, entries: Mapping[str, Entry], known: Collection[str]) -> None:
        """Task definitions; the ones of ``known`` keys that are not among ``entries`` don't exist."""
        changed = self.definitions.take(entries, known)
        if changed:
            self.changes.services |= {
                one.name for one in self.services.objects.values() if definition_key(one) in changed
            }

    def take_host_states(self, entries: Mapping[str, Entry]) -> None:
        """All of ``hosts/``."""
        self._hosts_read = True
        alive = frozenset(keys.last_segment(key) for key in entries if key.startswith(keys.LIVE))
        marked = self.marks.take({key: entry for key, entry in entries.items() if key.startswith(keys.MARKS)})
        self._doubtful |= (alive ^ self.alive) | {keys.last_segment(key) for key in marked}
        self.alive = alive

    def take_rollouts(self, entries: Mapping[str, Entry]) -> None:
        """All roll-outs that are under way."""
        self.changes.services |= self._take_rollouts(entries)

    def _take_rollouts(self, entries: Mapping[str, Entry], known: Iterable[str] | None = None) -> set[str]:
        """Whoever begins a roll-out, or has a failed one go on, wants all hosts to be tried again."""
        changed = self.rollouts.take(entries, known)
        for key, former in changed.items():
            rollout = self.rollouts.objects.get(key)
            if rollout is not None and tries_anew(rollout, former):
                self._rejections.forget(keys.last_segment(key), rollout.task_name, rollout.task_version)
        return _services(changed)

    def take_moves(self, entries: Mapping[str, Entry]) -> None:
        """All moves that are left to be made."""
        self.changes.services |= _services(self.moves.take(entries))

    def take_tasks(self, entries: Mapping[str, Entry], known: Iterable[str] | None = None) -> None:
        """The tasks under ``known`` keys (all, if not given) are ``entries``, and no others."""
        self._account(self.tasks.take(entries, known))

    def _account(self, changed: Mapping[str, Issued | None]) -> None:
        """Bring what is derived from tasks up to date: ``changed`` are those that were there before, by key."""
        for key, former in changed.items():
            self.rejected.pop(key, None)
            if former is not None:
                self.fleet.release(former.task)
                self._count_on_host(former.task, -1)
                of_service = self.issued[former.task.service]
                del of_service[former.task.cluster.name][former.id]
                if not of_service[former.task.cluster.name]:
                    del of_service[former.task.cluster.name]
                if not of_service:
                    del self.issued[former.task.service]
                self.changes.services.add(former.task.service)
            one = self.tasks.objects.get(key)
            if one is not None:
                self.fleet.reserve(one.task)
                self._count_on_host(one.task, 1)
                of_service = self.issued.setdefault(one.task.service, {})
                of_service.setdefault(one.task.cluster.name, {})[one.id] = one
                if one.task.rejected:
                    self.rejected[key] = one
                self.changes.services.add(one.task.service)

    def _count_on_host(self, task: Task, sign: int) -> None:
        there = self._on_host.setdefault(task.host, {})
        there[task.service] = there.get(task.service, 0) + sign
        if not there[task.service]:
            del there[task.service]

    def take_own(self, ops: Iterable[Op], revision: Revision, tasks: Mapping[str, Task]) -> None:
        """What a commit of this process has changed. ``tasks``: those that it wrote, by key."""
        for op in ops:
            if isinstance(op, Put) and op.key in tasks:
                entry = Entry(op.value, revision)
                self._account(self.tasks.put(op.key, entry, Issued(tasks[op.key], revision)))
            elif isinstance(op, Delete) and op.key.startswith(keys.TASKS):
                self.take_tasks({}, (op.key,))
            elif isinstance(op, Put | Delete):
                entries = {op.key: Entry(op.value, revision)} if isinstance(op, Put) else {}
                if op.key.startswith(keys.SERVICE_STATUS):
                    self.statuses.take(entries, (op.key,))
                elif op.key.startswith(keys.ROLLOUTS):
                    self._take_rollouts(entries, (op.key,))
                elif op.key.startswith(keys.MOVES):
                    self.moves.take(entries, (op.key,))
                    self.changes.services.add(keys.last_segment(op.key))  # others may have waited for that
                elif op.key.startswith(keys.SERVICES):
                    self.services.take(entries, (op.key,))
                    self._shunned = None

    def update_fleet(self, absences: Absences, drains: Drains, now: float) -> bool:
        """Make the hosts of the fleet what is known of them at ``now`` (monotonic seconds); updates both memories.
        Returns whether it had to look: nothing is done where nothing can have changed."""
        absences.looked(now)
        if not self._hosts_read and now < self.look_at and self.alive:
            return False
        hosts = {host.name: host for host in self.hosts.objects.values()}
        absences.update(hosts, self.alive, now)
        marks = {keys.last_segment(key): mark for key, mark in self.marks.objects.items()}
        drains.update(marks, now)
        lost, forced = frozenset(absences.declared), drains.forced(now)
        changed: dict[str, HostView | None] = {}
        for name in self._doubtful | (lost ^ self._lost) | (forced ^ self._forced):
            host, mark, view = hosts.get(name), marks.get(name), None
            if host is not None:
                view = HostView(host, name in self.alive, name in lost, mark.state if mark else "", name in forced)
            if view != self.fleet.hosts.get(name):
                changed[name] = view
        if changed:
            self.fleet.update(changed)
            self.changes.hosts |= changed.keys()
            self.changes.services.update(*(self._on_host.get(name, ()) for name in changed))
        self._hosts_read, self._doubtful, self._lost, self._forced = False, set(), lost, forced
        self.look_at = now + min(absences.next_change(now), drains.next_change(now))
        return True

    def renew_fleet(self) -> None:
        """Put another fleet that says the same in the place of the one there is, which somebody may still work on."""
        former = self.fleet
        self.fleet = Fleet(former.hosts.values(), (one.task for one in self.tasks.objects.values()), self._ports_of)
        self.fleet.now = former.now
        for task in itertools.chain(*self._held):
            self.fleet.reserve(task)

    @contextmanager
    def held(self, tasks: Collection[Task]) -> Iterator[None]:
        """Keep the room of ``tasks`` for the time of the body, in which they may become real."""
        for task in tasks:
            self.fleet.reserve(task)
        self._held.append(tasks)
        try:
            yield
        finally:
            self._held.remove(tasks)
            for task in tasks:
                self.fleet.free(task)

    # --- asking --------------------------------------------------------------------------------------------------

    def faults(self) -> dict[str, str]:
        return super().faults() | self.tasks.faults

    def service(self, name: str) -> Service | None:
        return self.services.objects.get(keys.service(name))

    def priority(self, name: str) -> int:
        """Of services that wait the one with more is seen to first; 0 for what nobody declares any more."""
        service = self.service(name)
        return service.placement_rules.priority if service else 0

    def status(self, name: str) -> ServiceStatus | None:
        return self.statuses.objects.get(keys.service_status(name))

    def rollout(self, name: str) -> Rollout | None:
        """The roll-out of the service that is under way, if there is one that can be read."""
        return self.rollouts.objects.get(keys.rollout(name))

    def names(self) -> set[str]:
        """Every service that is declared, or was scheduled and may have to be withdrawn."""
        return _services((*self.services.entries, *self.statuses.objects))

    def pairs(self, service: str) -> list[Pair]:
        """Every pair of the service: of the clusters that list it, and of tasks that exist."""
        clusters = {*self.issued.get(service, ())}
        if keys.service(service) in self.services.objects:
            clusters.update(self._members.get(service, ()))
        return [(cluster, service) for cluster in sorted(clusters)]

    def tasks_of(self, pair: Pair) -> list[Issued]:
        return list(self.issued.get(pair[1], {}).get(pair[0], {}).values())

    def goals(self, service_name: str) -> dict[Pair, Goal]:
        """What is wanted for every pair of the service.

        Pairs of a cluster whose record can't be read are left out: unreadable is not deleted.
        """
        service = self.service(service_name)
        found = [(cluster, keys.cluster(cluster)) for cluster, _ in self.pairs(service_name)]
        clusters = {name: self.clusters.objects.get(key) for name, key in found if key not in self.clusters.faults}
        definition = self.definitions.objects.get(definition_key(service)) if service else None
        if self._shunned is None:
            self._shunned = shunned(self.services.objects.values())
        shunned_by = self._shunned.get(service_name, ())
        return goals_of(service_name, service, clusters, definition, self._ports_of, shunned_by)

    def unreadable(self) -> set[str]:
        """Ids of tasks whose records can't be read."""
        return {keys.last_segment(key) for key in self.tasks.faults}


def _services(found: Iterable[str]) -> set[str]:
    """The services that keys are about. Somebody else's garbage may stand there too, under what is no name: nothing can
    be scheduled by it, and it must not keep anything else from being scheduled."""
    return {name for key in found if keys.is_name(name := keys.last_segment(key))}


def definition_key(service: Service) -> str:
    """Where the task definition of a service stands."""
    return keys.task_definition(service.task_name, service.task_version)
