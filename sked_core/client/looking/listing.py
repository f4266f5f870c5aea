"""Rows of listings: what is stored of tasks, services, clusters and hosts, and how they are besides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sked_core.client import reading
from sked_core.client.session import Session
from sked_core.interfaces.health import by_host
from sked_core.model import keys
from sked_core.model.types import (
    Cluster,
    ClusterStatus,
    Failure,
    Health,
    Host,
    Mark,
    Service,
    ServiceStatus,
    Task,
    TaskId,
)
from sked_core.model.wording import natural


@dataclass(frozen=True, slots=True)
class Place:
    """How far a service is in one cluster."""

    cluster: str = ""
    issued: int = 0
    healthy: int = 0
    waiting: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task. ``health``: None if nobody has said anything of it; ``failure``: why it does not run well."""

    item: reading.Item[Task]
    health: Health | None = None
    failure: Failure | None = None

    @property
    def task(self) -> Task:
        return self.item.value

    @property
    def id(self) -> TaskId:
        """That of the task, which the key ends with: made of nothing, while thousands are listed."""
        return TaskId(keys.last_segment(self.item.key))

    @property
    def healthy(self) -> bool:
        return self.health is not None and self.health.healthy

    def json(self) -> dict[str, Any]:
        """All that is stored, and how it is."""
        return self.item.stored() | {"id": self.id, "healthy": self.healthy, "failure": self.failure}


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """A service, with how far it is in each cluster that lists it."""

    item: reading.Item[Service]
    places: Sequence[Place]

    @property
    def service(self) -> Service:
        return self.item.value

    def json(self) -> dict[str, Any]:
        """All that is stored, and how far it is."""
        return self.item.stored() | {"clusters": self.places}


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """A cluster, with how many tasks it has."""

    item: reading.Item[Cluster]
    tasks: int

    @property
    def cluster(self) -> Cluster:
        return self.item.value

    def json(self) -> dict[str, Any]:
        """All that is stored, and how many tasks it has."""
        return self.item.stored() | {"tasks": self.tasks}


@dataclass(frozen=True, slots=True)
class HostRow:
    """A host. ``state``: ready, cordoned, draining, or down: its agent is not running. ``tasks``, ``memory`` (MB),
    ``cpu_units`` and ``disk`` (MB): what is reserved there by tasks that were not rejected."""

    item: reading.Item[Host]
    state: str
    mark: Mark | None
    tasks: int
    memory: int
    cpu_units: int
    disk: int

    @property
    def host(self) -> Host:
        return self.item.value

    def json(self) -> dict[str, Any]:
        """All that is stored, and what is reserved."""
        mark = {f"mark_{name}": getattr(self.mark, name, "") for name in ("by", "at", "why")}
        return (
            self.item.stored()
            | {"state": self.state, "tasks": self.tasks, "mark": self.mark.state if self.mark else ""}
            | mark
            | {"reserved_memory": self.memory, "reserved_cpu_units": self.cpu_units, "reserved_disk": self.disk}
        )


def task_rows(
    sked: Session, *, host: str = "", cluster: str = "", service: str = "", failures: bool = True
) -> list[TaskRow]:
    """Tasks in natural order of their ids, all or those of a host, a cluster, a service. ``failures``: with the
    reasons of those that fail, which takes another read. Raises Unavailable."""
    found = reading.tasks(sked.store, host=host, cluster=cluster, service=service)
    health = health_of(sked, [item.value for item in found])
    failed = failures_of(sked, found) if failures else {}
    names = [TaskId(keys.last_segment(item.key)) for item in found]
    return [TaskRow(item, health.get(name), failed.get(name)) for item, name in zip(found, names, strict=True)]


def service_rows(sked: Session) -> list[ServiceRow]:
    """Services by name. Raises Unavailable."""
    found = reading.services(sked.store)
    places = places_of(sked, [item.value.name for item in found])
    return [ServiceRow(item, places[item.value.name]) for item in found]


def cluster_rows(sked: Session) -> list[ClusterRow]:
    """Clusters by name. Raises Unavailable."""
    found = reading.clusters(sked.store)
    counts = Counter(item.value.cluster.name for item in reading.tasks(sked.store))
    return [ClusterRow(item, counts[item.value.name]) for item in found]


def host_rows(sked: Session) -> list[HostRow]:
    """Hosts by name. Raises Unavailable."""
    found = reading.hosts(sked.store)
    live = sked.store.read(keys.LIVE).entries
    marks = reading.by_name(sked.store, keys.MARKS, Mark)
    of_host: dict[str, list[Task]] = {}
    for task in (item.value for item in reading.tasks(sked.store)):
        if not task.rejected:
            of_host.setdefault(task.host, []).append(task)
    rows = []
    for item in found:
        name = item.value.name
        mark, own = marks.get(name), [task.task_definition for task in of_host.get(name, ())]
        alive = keys.live(name) in live
        rows.append(
            HostRow(
                item,
                "down" if not alive else mark.state if mark else "ready",
                mark,
                len(own),
                memory=sum(one.total_memory for one in own),
                cpu_units=sum(one.total_cpu_units for one in own),
                disk=sum(one.total_disk for one in own),
            )
        )
    return rows


def places_of(sked: Session, names: Sequence[str]) -> dict[str, list[Place]]:
    statuses = reading.by_name(sked.store, keys.SERVICE_STATUS, ServiceStatus)
    items = reading.tasks(sked.store)
    found, failing = [item.value for item in items], _failing(items, failures_of(sked, items))
    healthy = healthy_ids(sked, found)
    issued = Counter((task.cluster.name, task.service) for task in found if task.scheduled and not task.rejected)
    well = Counter((task.cluster.name, task.service) for task in found if task.id in healthy)
    places: dict[str, list[Place]] = {name: [] for name in names}
    for cluster in (item.value for item in reading.clusters(sked.store)):
        for name in cluster.services:
            if name in places:
                clusters = statuses[name].clusters if name in statuses else {}
                status, pair = clusters.get(cluster.name, ClusterStatus()), (cluster.name, name)
                said = " | ".join(filter(None, (why(status), failing.get(pair, ""))))
                places[name].append(Place(cluster.name, issued[pair], well[pair], status.waiting, said))
    return places


def _failing(items: Sequence[reading.Item[Task]], failures: Mapping[str, Failure]) -> Mapping[tuple[str, str], str]:
    """In a few words, which tasks of each (cluster, service) fail, and why the first of them does."""
    told: dict[tuple[str, str], list[str]] = {}
    for task in (item.value for item in items):
        if (failure := failures.get(task.id)) is not None:
            said = (failure.reason or failure.output).splitlines() or [""]
            told.setdefault((task.cluster.name, task.service), []).append(f"{task.id} fails on {task.host}: {said[0]}")
    more = {pair: f" (and {len(lines) - 1} more)" if len(lines) > 1 else "" for pair, lines in told.items()}
    return {pair: f"{lines[0]}{more[pair]}" for pair, lines in told.items()}


def failures_of(sked: Session, found: Sequence[reading.Item[Task]]) -> dict[str, Failure]:
    """The failures of tasks where they are now: one that was issued elsewhere meanwhile has none yet."""
    known = reading.by_name(sked.store, keys.FAILURES, Failure)
    hosts = {item.value.id: item.value.host for item in found}
    return {name: failure for name, failure in known.items() if hosts.get(TaskId(name)) == failure.host}


def healthy_ids(sked: Session, found: Sequence[Task]) -> frozenset[TaskId]:
    """Which of the tasks are healthy, as the health provider says. Raises Unavailable when that is not known."""
    return frozenset(name for name, health in health_of(sked, found).items() if health.healthy)


def health_of(sked: Session, found: Sequence[Task]) -> Mapping[TaskId, Health]:
    """The health of those tasks that were not rejected, where it is known. Raises Unavailable."""
    services_of = {(task.cluster.name, task.service) for task in found}
    if not services_of:
        return {}
    provider = sked.health()
    try:
        known: Mapping[TaskId, Health] = provider.health(services_of, by_host(found))
    finally:
        provider.close()
    return {name: known[name] for task in found if not task.rejected and (name := task.id) in known}


def why(status: ClusterStatus) -> str:
    """What blocks the service, and the hosts that are no help, those with the same reasons together."""
    return " | ".join(
        [*([status.blocked] if status.blocked else []), *(verdicts(status.hosts) if status.waiting else [])]
    )


def verdicts(refusals: Mapping[str, Sequence[str]]) -> list[str]:
    """``h1, h2: memory: free 100 MB < 200 MB``: why hosts refuse a task, those with the same reasons together."""
    alike: dict[str, list[str]] = {}
    for host, reasons in refusals.items():
        alike.setdefault("; ".join(reasons), []).append(host)
    return [f"{', '.join(sorted(names, key=natural))}: {reasons}" for reasons, names in sorted(alike.items())]
