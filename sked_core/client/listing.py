"""What listings show of services and tasks besides what is stored: where they are, how they are, why they wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sked_core.client import reading
from sked_core.client.session import Session
from sked_core.client.wording import natural
from sked_core.model import keys
from sked_core.model.types import ClusterStatus, Failure, Health, ServiceStatus, Task, TaskId


@dataclass(frozen=True, slots=True)
class Place:
    """How far a service is in one cluster."""

    cluster: str = ""
    issued: int = 0
    healthy: int = 0
    waiting: int = 0
    why: str = ""


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
        known: Mapping[TaskId, Health] = provider.health(services_of)
    finally:
        provider.close()
    return {task.id: known[task.id] for task in found if not task.rejected and task.id in known}


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
