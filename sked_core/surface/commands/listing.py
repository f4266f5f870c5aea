"""``sked tasks``, ``services``, ``clusters`` and ``hosts``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import click

from sked_core.client import reading
from sked_core.client.listing import Place, failures_of, health_of, places_of
from sked_core.client.wording import counted
from sked_core.model import keys
from sked_core.model.spec import plain
from sked_core.model.types import Failure, Health, Mark, Task
from sked_core.surface.options import command, output_option, session
from sked_core.surface.render import document, out, table


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
        failures = failures_of(sked, found) if reasons or output == "json" else {}
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
        places = places_of(sked, [item.value.name for item in found])
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
