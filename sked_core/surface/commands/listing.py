"""``sked tasks``, ``services``, ``clusters`` and ``hosts``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import click

from sked_core.model import keys
from sked_core.model.spec import plain
from sked_core.model.types import ClusterStatus, Failure, Health, Mark, ServiceStatus, Task, TaskId
from sked_core.surface import reading
from sked_core.surface.errors import counted
from sked_core.surface.options import Session, command, output_option, session
from sked_core.surface.render import document, natural, out, table


@command("tasks")
@click.option("--by-host", metavar="HOST", default="", help="Only tasks of this host.")
@click.option("--by-cluster", metavar="CLUSTER", default="", help="Only tasks of this cluster.")
@click.option("--by-service", metavar="SERVICE", default="", help="Only tasks of this service.")
@click.option("--why", "reasons", is_flag=True, help="Below the table: why tasks fail or were rejected.")
@output_option
def tasks(by_host: str, by_cluster: str, by_service: str, reasons: bool, output: str) -> None:
    """List tasks: where each was put, and whether it is healthy."""
    with session() as sked:
        found = reading.tasks(sked.store, host=by_host, cluster=by_cluster, service=by_service)
        health = health_of(sked, [item.value for item in found])
        healthy = {name for name, one in health.items() if one.healthy}
        failures = _failures(sked, found) if reasons or output == "json" else {}
    if output == "json":
        items = [
            item.stored()
            | {"id": item.value.id, "healthy": item.value.id in healthy, "failure": failures.get(item.value.id)}
            for item in found
        ]
        return out(document("TaskList", items))
    columns = ("id", "host", "rejected", "cluster", "service", "task def", "version", "healthy")
    rows = [
        (
            task.id,
            task.host,
            task.rejected,
            task.cluster.name,
            task.service,
            task.task_definition.name,
            task.task_definition.version,
            task.id in healthy,
        )
        for task in (item.value for item in found)
    ]
    out(table(columns, rows))
    if reasons:
        for task in (item.value for item in found):
            for line in _reasons(task, failures.get(task.id), health.get(task.id)):
                out(line)
    return None


def _failures(sked: Session, found: Sequence[reading.Item[Task]]) -> dict[str, Failure]:
    """The failures of tasks where they are now: one that was issued elsewhere meanwhile has none yet."""
    known = reading.by_name(sked.store, keys.FAILURES, Failure)
    hosts = {item.value.id: item.value.host for item in found}
    return {name: failure for name, failure in known.items() if hosts.get(TaskId(name)) == failure.host}


def _reasons(task: Task, failure: Failure | None, health: Health | None) -> Iterator[str]:
    """Lines for people; none for a task that is well, or of which nobody has said anything."""
    if failure is None and not task.rejected:
        if health is not None and not health.healthy and health.output:
            yield ""
            yield plain(f"{task.id} on {task.host}: not healthy")
            yield from (f"  check: {plain(line)}" for line in health.output.splitlines())
        return
    head = ["rejected"] if task.rejected else []
    if failure is not None:
        head += [counted(failure.attempts, "attempt")] + ["unhealthy"] * failure.unhealthy
        head += [f"next try {failure.next_try}"] if failure.next_try else []
    yield ""
    yield plain(f"{task.id} on {task.host}: {', '.join(head)}")
    texts = [("", task.reject_reason if task.rejected else "")]
    if failure is not None:
        texts += [("", failure.reason), ("check: ", failure.output), *(("log: ", line) for line in failure.log)]
    yield from (f"  {label}{plain(line)}" for label, text in dict.fromkeys(texts) for line in text.splitlines())


@command("services")
@output_option
def services(output: str) -> None:
    """List services cluster by cluster: what is desired, issued and healthy, and why tasks wait."""
    with session() as sked:
        found = reading.services(sked.store)
        places = _places(sked, [item.value.name for item in found])
    if output == "json":
        items = [item.stored() | {"clusters": places[item.value.name]} for item in found]
        return out(document("ServiceList", items))
    columns = ("service", "cluster", "task def", "version", "desired", "issued", "healthy", "waiting", "why")
    rows = [
        (s.name, p.cluster, s.task_name, s.task_version, s.desired, p.issued, p.healthy, p.waiting, p.why)
        for s in (item.value for item in found)
        for p in places[s.name] or [Place(why="in no cluster")]
    ]
    return out(table(columns, rows))


@dataclass(frozen=True, slots=True)
class Place:
    """How far a service is in one cluster."""

    cluster: str = ""
    issued: int = 0
    healthy: int = 0
    waiting: int = 0
    why: str = ""


def _places(sked: Session, names: Sequence[str]) -> dict[str, list[Place]]:
    statuses = reading.by_name(sked.store, keys.SERVICE_STATUS, ServiceStatus)
    items = reading.tasks(sked.store)
    found, failing = [item.value for item in items], _failing(items, _failures(sked, items))
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


@command("clusters")
@output_option
def clusters(output: str) -> None:
    """List clusters, their services and hosts."""
    with session() as sked:
        found = reading.clusters(sked.store)
        counts = Counter(item.value.cluster.name for item in reading.tasks(sked.store))
    if output == "json":
        return out(document("ClusterList", [item.stored() | {"tasks": counts[item.value.name]} for item in found]))
    rows = [
        (c.name, c.datacenter, c.services, "every host" if c.hosts is None else c.hosts, counts[c.name])
        for c in (item.value for item in found)
    ]
    return out(table(("cluster", "datacenter", "services", "hosts", "tasks"), rows))


@command("hosts")
@output_option
def hosts(output: str) -> None:
    """List hosts: state (ready, cordoned, draining or down), what is reserved of them, and their executors."""
    with session() as sked:
        found = reading.hosts(sked.store)
        live = sked.store.read(keys.LIVE).entries
        marks = reading.by_name(sked.store, keys.MARKS, Mark)
        issued = [item.value for item in reading.tasks(sked.store)]
    of_host: dict[str, list[Task]] = {}
    for task in issued:
        if not task.rejected:
            of_host.setdefault(task.host, []).append(task)
    rows: list[Sequence[object]] = []
    items = []
    for item in found:
        host = item.value
        mark = marks.get(host.name)
        alive = keys.live(host.name) in live
        state = "down" if not alive else mark.state if mark else "ready"
        own = of_host.get(host.name, [])
        memory = sum(task.task_definition.total_memory for task in own)
        cpu = sum(task.task_definition.total_cpu_units for task in own)
        reserved = {"reserved_memory": memory, "reserved_cpu_units": cpu}
        marked = {"mark": mark.state if mark else ""}
        marked |= {f"mark_{name}": getattr(mark, name, "") for name in ("by", "at", "why")}
        items.append(item.stored() | {"state": state, "tasks": len(own)} | marked | reserved)
        use = (f"{memory}/{host.memory} MB", f"{cpu}/{host.cpu_units}")
        tags = [f"{name}={value}" for name, value in sorted(host.tags.items())]
        rows.append((host.name, state, len(own), *use, host.executors, host.address, tags))
    if output == "json":
        return out(document("HostList", items))
    return out(table(("host", "state", "tasks", "memory", "cpu", "executors", "address", "tags"), rows))


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
