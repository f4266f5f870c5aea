"""``sked tasks``, ``services``, ``clusters`` and ``hosts``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import click

from sked_core.client.looking.listing import (
    ClusterRow,
    HostRow,
    Place,
    ServiceRow,
    TaskRow,
    cluster_rows,
    host_rows,
    service_rows,
    task_rows,
)
from sked_core.client.naming import notice_unknown
from sked_core.client.session import Session
from sked_core.model.spec import plain
from sked_core.model.wording import counted, first_line
from sked_core.surface.listings import Column, Listing, show
from sked_core.surface.options import by_option, command, listing_option, session, watch_option
from sked_core.surface.presenting import present, print_lines


def _healthy(row: TaskRow) -> str:
    return "good" if row.healthy else "bad" if row.task.rejected or row.failure else "warn"


TASKS = Listing(
    "TaskList",
    lambda row: f"task/{row.id}",
    TaskRow.json,
    (
        Column("id", lambda row: row.id),
        Column("host", lambda row: row.task.host),
        Column("rejected", lambda row: row.task.rejected, look=lambda row: "bad" if row.task.rejected else ""),
        Column("cluster", lambda row: row.task.cluster.name),
        Column("service", lambda row: row.task.service),
        Column("task def", lambda row: row.task.task_definition.name),
        Column("version", lambda row: row.task.task_definition.version),
        Column("healthy", lambda row: row.healthy, look=_healthy),
        Column("scheduled", lambda row: row.task.scheduled, wide=True),
        Column("port", lambda row: row.task.port or "", wide=True),
        Column("memory", lambda row: f"{row.task.task_definition.total_memory} MB", wide=True),
        Column("cpu", lambda row: row.task.task_definition.total_cpu_units, wide=True),
        Column("attempts", lambda row: row.failure.attempts if row.failure else "", wide=True),
        Column("why", lambda row: _why(row), wide=True),
    ),
)


@command(
    "tasks",
    "sked tasks",
    "sked tasks --by-service web --why",
    "sked tasks -w --by-host web-1",
    "sked tasks -o json | jq -r '.items[].id'",
    "sked tasks --by-service web -o name | xargs -n1 sked describe",
)
@by_option("host", "Only tasks of this host.")
@by_option("cluster", "Only tasks of this cluster.")
@by_option("service", "Only tasks of this service.")
@click.option("--why", "reasons", is_flag=True, help="Below the table: why tasks fail; `sked why` tells more.")
@watch_option
@listing_option
def tasks(by_host: str, by_cluster: str, by_service: str, reasons: bool, watch: bool, output: str) -> None:
    """List tasks: where each was put, and whether it is healthy."""
    wanted = reasons or output in ("json", "wide")
    if watch and reasons:
        raise click.UsageError("--why stands below a table that has an end; with -w: -o wide")

    def rows(seen: Session) -> list[TaskRow]:
        return task_rows(seen, host=by_host, cluster=by_cluster, service=by_service, failures=wanted)

    if watch:
        return present(TASKS, rows, output, watch=True)
    with session() as sked:
        found = rows(sked)
        if not found:
            notice_unknown(sked.store, host=by_host, cluster=by_cluster, service=by_service)
    show(TASKS, found, output)
    if reasons and output in ("table", "wide"):
        print_lines(line for one in found for line in _reasons(one))
    return None


def _why(one: TaskRow) -> str:
    if one.task.rejected:
        return first_line(one.task.reject_reason)
    if one.failure is not None:
        return first_line(one.failure.reason or one.failure.output)
    return first_line(one.health.output) if one.health is not None and not one.health.healthy else ""


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


def _places(row: ServiceRow) -> list[tuple[ServiceRow, Place]]:
    return [(row, place) for place in row.places or [Place(why="in no cluster")]]


def _behind(pair: tuple[ServiceRow, Place]) -> str:
    service, place = pair[0].service, pair[1]
    return "bad" if place.waiting else "good" if place.healthy >= service.desired else "warn"


SERVICES = Listing(
    "ServiceList",
    lambda row: f"service/{row.service.name}",
    ServiceRow.json,
    (
        Column("service", lambda pair: pair[0].service.name),
        Column("cluster", lambda pair: pair[1].cluster),
        Column("task def", lambda pair: pair[0].service.task_name),
        Column("version", lambda pair: pair[0].service.task_version),
        Column("desired", lambda pair: pair[0].service.desired),
        Column("issued", lambda pair: pair[1].issued),
        Column("healthy", lambda pair: pair[1].healthy, look=_behind),
        Column("waiting", lambda pair: pair[1].waiting, look=lambda pair: "bad" if pair[1].waiting else ""),
        Column("min", lambda pair: pair[0].service.min, wide=True),
        Column("max", lambda pair: pair[0].service.max, wide=True),
        Column("scheduler", lambda pair: pair[0].service.scheduler, wide=True),
        Column("why", lambda pair: pair[1].why),
    ),
    spread=_places,
)


@command("services", "sked services", "sked services -w", "sked services -o yaml")
@watch_option
@listing_option
def services(watch: bool, output: str) -> None:
    """List services cluster by cluster: what is desired, issued and healthy, and why tasks wait."""
    present(SERVICES, service_rows, output, watch=watch)


CLUSTERS = Listing(
    "ClusterList",
    lambda row: f"cluster/{row.cluster.name}",
    ClusterRow.json,
    (
        Column("cluster", lambda row: row.cluster.name),
        Column("datacenter", lambda row: row.cluster.datacenter),
        Column("services", lambda row: row.cluster.services),
        Column("hosts", lambda row: "every host" if row.cluster.hosts is None else row.cluster.hosts),
        Column("tasks", lambda row: row.tasks),
    ),
)


@command("clusters", "sked clusters", "sked clusters -o jsonl")
@watch_option
@listing_option
def clusters(watch: bool, output: str) -> None:
    """List clusters, their services and hosts."""
    present(CLUSTERS, cluster_rows, output, watch=watch)


STATES = {"ready": "good", "down": "bad", "draining": "warn", "cordoned": "warn"}
HOSTS = Listing(
    "HostList",
    lambda row: f"host/{row.host.name}",
    HostRow.json,
    (
        Column("host", lambda row: row.host.name),
        Column("state", lambda row: row.state, look=lambda row: STATES.get(row.state, "")),
        Column("tasks", lambda row: row.tasks),
        Column("memory", lambda row: f"{row.memory}/{row.host.memory} MB"),
        Column("cpu", lambda row: f"{row.cpu_units}/{row.host.cpu_units}"),
        Column("disk", lambda row: f"{row.disk}/{row.host.disk} MB", wide=True),
        Column("executors", lambda row: row.host.executors),
        Column("address", lambda row: row.host.address),
        Column("tags", lambda row: _pairs(row.host.tags)),
        Column("attributes", lambda row: _pairs(row.host.attributes), wide=True),
        Column("marked by", lambda row: row.mark.by if row.mark else "", wide=True),
        Column("why", lambda row: row.mark.why if row.mark else "", wide=True),
    ),
)


def _pairs(values: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in sorted(values.items())]


@command("hosts", "sked hosts", "sked hosts -o wide", "sked hosts -o name")
@watch_option
@listing_option
def hosts(watch: bool, output: str) -> None:
    """List hosts: state (ready, cordoned, draining or down), what is reserved of them, and their executors."""
    present(HOSTS, host_rows, output, watch=watch)
