"""``sked tasks``, ``services``, ``clusters`` and ``hosts``."""

from __future__ import annotations

from collections.abc import Iterator

import click

from sked_core.client.listing import Place, TaskRow, cluster_rows, host_rows, service_rows, task_rows
from sked_core.client.wording import counted
from sked_core.model.spec import plain
from sked_core.surface.options import command, output_option, session
from sked_core.surface.render import document, out, table


@command(
    "tasks",
    "sked tasks",
    "sked tasks --by-service web --why",
    "sked tasks -o json | jq -r '.items[].id'",
)
@click.option("--by-host", metavar="HOST", default="", help="Only tasks of this host.")
@click.option("--by-cluster", metavar="CLUSTER", default="", help="Only tasks of this cluster.")
@click.option("--by-service", metavar="SERVICE", default="", help="Only tasks of this service.")
@click.option("--why", "reasons", is_flag=True, help="Below the table: why tasks fail or were rejected.")
@output_option
def tasks(by_host: str, by_cluster: str, by_service: str, reasons: bool, output: str) -> None:
    """List tasks: where each was put, and whether it is healthy."""
    with session() as sked:
        wanted = reasons or output == "json"
        found = task_rows(sked, host=by_host, cluster=by_cluster, service=by_service, failures=wanted)
    if output == "json":
        return out(document("TaskList", [one.json() for one in found]))
    columns = ("id", "host", "rejected", "cluster", "service", "task def", "version", "healthy")
    rows = [
        (
            one.task.id,
            one.task.host,
            one.task.rejected,
            one.task.cluster.name,
            one.task.service,
            one.task.task_definition.name,
            one.task.task_definition.version,
            one.healthy,
        )
        for one in found
    ]
    out(table(columns, rows))
    for line in (line for one in found for line in _reasons(one)) if reasons else ():
        out(line)
    return None


def _reasons(one: TaskRow) -> Iterator[str]:
    """Lines for people; none for a task that is well, or of which nobody has said anything."""
    task, failure, health = one.task, one.failure, one.health
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


@command("services", "sked services")
@output_option
def services(output: str) -> None:
    """List services cluster by cluster: what is desired, issued and healthy, and why tasks wait."""
    with session() as sked:
        found = service_rows(sked)
    if output == "json":
        return out(document("ServiceList", [one.json() for one in found]))
    columns = ("service", "cluster", "task def", "version", "desired", "issued", "healthy", "waiting", "why")
    rows = [
        (s.name, p.cluster, s.task_name, s.task_version, s.desired, p.issued, p.healthy, p.waiting, p.why)
        for s, places in ((one.service, one.places) for one in found)
        for p in places or [Place(why="in no cluster")]
    ]
    return out(table(columns, rows))


@command("clusters", "sked clusters")
@output_option
def clusters(output: str) -> None:
    """List clusters, their services and hosts."""
    with session() as sked:
        found = cluster_rows(sked)
    if output == "json":
        return out(document("ClusterList", [one.json() for one in found]))
    rows = [
        (c.name, c.datacenter, c.services, "every host" if c.hosts is None else c.hosts, tasks)
        for c, tasks in ((one.cluster, one.tasks) for one in found)
    ]
    return out(table(("cluster", "datacenter", "services", "hosts", "tasks"), rows))


@command("hosts", "sked hosts")
@output_option
def hosts(output: str) -> None:
    """List hosts: state (ready, cordoned, draining or down), what is reserved of them, and their executors."""
    with session() as sked:
        found = host_rows(sked)
    if output == "json":
        return out(document("HostList", [one.json() for one in found]))
    rows = [
        (
            one.host.name,
            one.state,
            one.tasks,
            f"{one.memory}/{one.host.memory} MB",
            f"{one.cpu_units}/{one.host.cpu_units}",
            one.host.executors,
            one.host.address,
            [f"{name}={value}" for name, value in sorted(one.host.tags.items())],
        )
        for one in found
    ]
    return out(table(("host", "state", "tasks", "memory", "cpu", "executors", "address", "tags"), rows))
