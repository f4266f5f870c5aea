"""One consistent picture for a scheduler's tick, made of snapshots. What can't be decoded is left alone, not lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from sked_core.errors import InvalidValue
from sked_core.interfaces.store import Entry, Revision
from sked_core.logic.fleet import Fleet, HostView
from sked_core.logic.presence import Absences
from sked_core.logic.reconcile import Goal, Issued
from sked_core.model import keys
from sked_core.model.types import Cluster, Host, Mark, Service, ServiceStatus, TaskDefinition
from sked_core.runtime.state import decode_all, decode_task

T = TypeVar("T")
N = TypeVar("N", Service, Cluster)
Pair = tuple[str, str]
"""(cluster, service)."""
PortsOf = Callable[[TaskDefinition], frozenset[int]]


@dataclass(slots=True)
class View:
    """What the scheduler knows now. ``faults``: keys that hold no valid object, with the reason."""

    fleet: Fleet
    services: Mapping[str, Service]
    revisions: Mapping[str, Revision]
    """Revision of each service's record, which a commit for it is guarded by."""
    clusters: Mapping[str, Cluster]
    definitions: Mapping[str, TaskDefinition]
    statuses: Mapping[str, ServiceStatus]
    issued: dict[Pair, list[Issued]]
    raw: dict[str, bytes]
    """Stored bytes of each task by id: unknown fields in them are kept."""
    faults: dict[str, str] = field(default_factory=dict)

    def goals(self, service_name: str, ports_of: PortsOf) -> dict[Pair, Goal]:
        """What is wanted for every pair of the service: of clusters that list it, and of tasks that exist.

        Pairs of a cluster whose record can't be read are left out: unreadable is not deleted.
        """
        service = self.services.get(service_name)
        members = [name for name, cluster in self.clusters.items() if service_name in cluster.services]
        pairs = {(name, service_name) for name in members if service is not None}
        pairs |= {pair for pair in self.issued if pair[1] == service_name}
        goals: dict[Pair, Goal] = {}
        for pair in sorted(pairs):
            if keys.cluster(pair[0]) in self.faults:
                continue
            wanted = service is not None and pair[0] in members
            goals[pair] = self._goal(service, self.clusters[pair[0]] if wanted else None, service_name, ports_of)
        return goals

    def _goal(self, service: Service | None, cluster: Cluster | None, name: str, ports_of: PortsOf) -> Goal:
        if service is None:
            return Goal(None, Service(name=name, task_name=name, task_version=0), None)
        definition = self.definitions.get(keys.task_definition(service.task_name, service.task_version))
        return Goal(cluster, service, definition, ports_of(definition) if definition else frozenset())

    def unreadable(self) -> set[str]:
        """Ids of tasks whose records can't be read."""
        return {keys.last_segment(key) for key in self.faults if key.startswith(keys.TASKS)}

    def replace(self, pair: Pair, entries: Mapping[str, Entry]) -> None:
        """Take a fresher read of the pair's tasks for true."""
        for one in self.issued.pop(pair, []):
            self.fleet.release(one.task)
        fresh, raw, faults = _read_tasks(entries)
        self.faults.update(faults)
        for one in fresh:
            if (one.task.cluster.name, one.task.service) == pair:
                self.fleet.reserve(one.task)
                self.issued.setdefault(pair, []).append(one)
                self.raw[one.id] = raw[one.id]


def build_view(
    *,
    config: Mapping[str, Entry],
    tasks: Mapping[str, Entry],
    host_states: Mapping[str, Entry],
    statuses: Mapping[str, Entry],
    absences: Absences,
    ports_of: PortsOf,
    now: float,
) -> View:
    """The picture that these entries make at ``now`` (monotonic seconds). Updates ``absences``."""
    faults: dict[str, str] = {}

    def objects(entries: Mapping[str, Entry], prefix: str, kind: type[T]) -> dict[str, T]:
        found, wrong = decode_all({k: e for k, e in entries.items() if k.startswith(prefix)}, kind)
        faults.update(wrong)
        return found

    hosts = {keys.last_segment(key): host for key, host in objects(config, keys.HOSTS, Host).items()}
    marked = {keys.last_segment(key): mark.state for key, mark in objects(host_states, keys.MARKS, Mark).items()}
    alive = {keys.last_segment(key) for key in host_states if key.startswith(keys.LIVE)}
    absences.update(hosts, alive, now)
    views = [
        HostView(host, name in alive, absences.lost(name), marked.get(name, ""))
        for name, host in hosts.items()
        if host.name == name
    ]
    fresh, raw, wrong = _read_tasks(tasks)
    faults.update(wrong)
    issued: dict[Pair, list[Issued]] = {}
    for one in fresh:
        issued.setdefault((one.task.cluster.name, one.task.service), []).append(one)
    services = _by_name(objects(config, keys.SERVICES, Service), keys.service, faults)
    clusters = _by_name(objects(config, keys.CLUSTERS, Cluster), keys.cluster, faults)
    reported = objects(statuses, keys.SERVICE_STATUS, ServiceStatus)
    known = {keys.last_segment(key): status for key, status in reported.items()}
    return View(
        fleet=Fleet(views, (one.task for one in fresh), ports_of),
        services=services,
        revisions={name: config[keys.service(name)].revision for name in services},
        clusters=clusters,
        definitions=objects(config, keys.TASK_DEFINITIONS, TaskDefinition),
        statuses={name: status for name, status in known.items() if keys.is_name(name)},
        issued=issued,
        raw=raw,
        faults=faults,
    )


def _by_name(found: Mapping[str, N], key_of: Callable[[str], str], faults: dict[str, str]) -> dict[str, N]:
    """The objects by name. One whose name is not its key's is a fault, not the removal of the one that stood there."""
    named: dict[str, N] = {}
    for key, one in found.items():
        if key == key_of(one.name):
            named[one.name] = one
        else:
            faults[key] = f"the key says {keys.last_segment(key)}, the record {one.name}"
    return named


def _read_tasks(entries: Mapping[str, Entry]) -> tuple[list[Issued], dict[str, bytes], dict[str, str]]:
    issued: list[Issued] = []
    raw: dict[str, bytes] = {}
    faults: dict[str, str] = {}
    for key, entry in entries.items():
        try:
            one = decode_task(key, entry)
        except InvalidValue as error:
            faults[key] = str(error)
        else:
            issued.append(one)
            raw[one.id] = entry.value
    return issued, raw, faults
