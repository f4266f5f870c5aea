"""Lists of what there is, and single objects, all of them from the copy of the state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from sked_core.client.copied.picture import Picture
from sked_core.client.held import Held
from sked_core.client.looking.listing import (
    ClusterRow,
    HostRow,
    ServiceRow,
    TaskRow,
    cluster_rows,
    host_rows,
    service_rows,
)
from sked_core.client.reading import Item
from sked_core.errors import NotFound
from sked_core.model import keys
from sked_core.model.spec import known
from sked_core.model.types import Failure, Health, Task
from sked_web.api.paging import Indexed, Page, page
from sked_web.api.shapes import ClusterItem, HostItem, ServiceItem, TaskDefinitionItem, TaskItem
from sked_web.api.table import Call, Found, Route, get

OF_TASKS = (keys.TASKS, keys.HOST_TASKS, keys.FAILURES, keys.HEALTH)
OF_SERVICES = (keys.SERVICES, keys.CLUSTERS, keys.SERVICE_STATUS, *OF_TASKS)
OF_HOSTS = (keys.HOSTS, keys.LIVE, keys.MARKS, keys.TASKS, keys.HOST_TASKS)
MAX_REMEMBERED = 20_000
Text = Annotated[str, Meta(max_length=300)]


class TasksAsked(Page, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Tasks of one host, cluster or service."""

    host: Text = ""
    cluster: Text = ""
    service: Text = ""


class Rows:
    """Tasks as JSON, each made once for as long as nothing of it changes. Any number of threads may ask."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Held, Health | None, Failure | None, msgspec.Raw]] = {}

    def of(self, key: str, one: Held, health: Health | None, failure: Failure | None) -> msgspec.Raw:
        found = self._known.get(key)
        if found is not None and found[0] is one and found[1] == health and found[2] is failure:
            return found[3]
        made = msgspec.Raw(msgspec.json.encode(TaskRow(Item(key, one, one.made), health, failure).json()))
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[key] = (one, health, failure, made)
        return made


_rows = Rows()


class _Index:
    """The tasks of the last picture that was asked about, in order: they change seldom beside all else."""

    def __init__(self) -> None:
        self._of: tuple[object, object] = (None, None)
        self._made: Indexed[Row] = Indexed(())

    def of(self, picture: Picture) -> Indexed[Row]:
        both = (picture.area(keys.TASKS), picture.area(keys.HOST_TASKS))
        of, made = self._of, self._made
        if of[0] is both[0] and of[1] is both[1]:
            return made
        rows = (Row(key, one) for area in both for key, one in area.items() if one.made is not None)
        made = Indexed((str(row.one.made.id), row) for row in rows)
        self._made, self._of = made, both
        return made


@dataclass(frozen=True, slots=True, order=False)
class Row:
    """A task that can be read, and its key."""

    key: str
    one: Held


_index = _Index()


def _encoded(picture: Picture, found: Iterable[Row]) -> list[msgspec.Raw]:
    failures = picture.area(keys.FAILURES)
    rows = []
    for row in found:
        task: Task = row.one.made
        held = failures.get(keys.FAILURES + task.id)
        failure: Failure | None = held.made if held is not None else None
        here = failure if failure is not None and failure.host == task.host else None
        rows.append(_rows.of(row.key, row.one, None if task.rejected else picture.health.get(task.id), here))
    return rows


def tasks(call: Call) -> Found:
    asked: TasksAsked = call.query
    picture = call.seen.picture

    def wanted(row: Row) -> bool:
        task: Task = row.one.made
        return (
            (not asked.host or task.host == asked.host)
            and (not asked.cluster or task.cluster.name == asked.cluster)
            and (not asked.service or task.service == asked.service)
        )

    found, more = _index.of(picture).page(asked, wanted)
    return Found(_encoded(picture, found), more)


def task(call: Call) -> Found:
    name, picture = keys.check_task_id(call.path["id"]), call.seen.picture
    one = picture.area(keys.TASKS).get(keys.task(name))
    if one is not None and one.made is not None:
        found = [Row(keys.task(name), one)]
    else:
        found = [row for other, row in _index.of(picture).items if other == name]
    if not found:
        known("task", name, picture.tasks())
        raise NotFound(f"the record of task {name} can't be read")
    return Found(_encoded(picture, found), revision=found[0].one.revision)


def services(call: Call) -> Found:
    found, more = page(service_rows(call.seen), call.query, lambda row: row.service.name)
    return Found([row.json() for row in found], more)


def service(call: Call) -> Found:
    return _one("service", call.path["name"], service_rows(call.seen), keys.check_name)


def clusters(call: Call) -> Found:
    found, more = page(cluster_rows(call.seen), call.query, lambda row: row.cluster.name)
    return Found([row.json() for row in found], more)


def cluster(call: Call) -> Found:
    return _one("cluster", call.path["name"], cluster_rows(call.seen), keys.check_name)


def hosts(call: Call) -> Found:
    found, more = page(host_rows(call.seen), call.query, lambda row: row.host.name)
    return Found([_host(call, row.host.name, row.json()) for row in found], more)


def _host(call: Call, name: str, item: dict[str, Any]) -> dict[str, Any]:
    """``item`` with what is known of its agent besides."""
    since = call.seen.silent().get(name)
    return item if since is None else item | {"answers": False, "silent_since": since}


def host(call: Call) -> Found:
    """Its revision is that of its mark, which is what people change of it."""
    found = _one("host", call.path["name"], host_rows(call.seen), keys.check_host)
    mark = call.seen.picture.area(keys.MARKS).get(keys.mark(call.path["name"]))
    items = [_host(call, call.path["name"], item) for item in found.items]
    return Found(items, revision=mark.revision if mark is not None else 0)


def _one(kind: str, name: str, rows: Sequence[ServiceRow | ClusterRow | HostRow], check: Any) -> Found:
    by_name = {row.item.value.name: row for row in rows}
    known(kind, check(name), by_name)
    row = by_name[name]
    return Found([row.json()], revision=row.item.entry.revision)


def _definitions(picture: Picture) -> list[tuple[str, dict[str, Any], Held]]:
    """``name/version``, the item, and what it was read from."""
    users: dict[tuple[str, int], list[str]] = {}
    for one in picture.objects(keys.SERVICES).values():
        users.setdefault((one.task_name, one.task_version), []).append(one.name)
    return [
        (
            key.removeprefix(keys.TASK_DEFINITIONS),
            msgspec.json.decode(one.value) | {"used_by": users.get((one.made.name, one.made.version), [])},
            one,
        )
        for key, one in picture.area(keys.TASK_DEFINITIONS).items()
        if one.made is not None
    ]


def task_definitions(call: Call) -> Found:
    found, more = page(_definitions(call.seen.picture), call.query, lambda one: one[0])
    return Found([item for _, item, _ in found], more)


def versions(call: Call) -> Found:
    name, every = keys.check_name(call.path["name"]), _definitions(call.seen.picture)
    known("task definition", name, {one.made.name for _, _, one in every})
    found, more = page(every, call.query, lambda one: one[0], lambda one: one[2].made.name == name)
    return Found([item for _, item, _ in found], more)


def version(call: Call) -> Found:
    wanted = f"{keys.check_name(call.path['name'])}/{call.path['version']}"
    found = {name: (item, one) for name, item, one in _definitions(call.seen.picture)}
    known("task definition", wanted, found)
    item, one = found[wanted]
    return Found([item], revision=one.revision)


def routes() -> list[Route]:
    of_clusters = (keys.CLUSTERS, keys.TASKS, keys.HOST_TASKS)
    of_definitions = (keys.TASK_DEFINITIONS, keys.SERVICES)
    definition = "/v1/task-definitions"
    return [
        get("/v1/tasks", "TaskList", TaskItem, tasks, "Tasks in natural order of their ids.", query=TasksAsked,
            rests_on=OF_TASKS, quick=True),
        get("/v1/tasks/{id}", "Task", TaskItem, task, "One task.", rests_on=OF_TASKS),
        get("/v1/services", "ServiceList", ServiceItem, services, "Services, and why tasks of them wait.", query=Page,
            rests_on=OF_SERVICES),
        get("/v1/services/{name}", "Service", ServiceItem, service,
            "One service. Its ETag may be given as If-Match to what changes it.", rests_on=OF_SERVICES),
        get("/v1/clusters", "ClusterList", ClusterItem, clusters, "Clusters.", query=Page, rests_on=of_clusters),
        get("/v1/clusters/{name}", "Cluster", ClusterItem, cluster, "One cluster.", rests_on=of_clusters),
        get("/v1/hosts", "HostList", HostItem, hosts, "Hosts, with what is reserved of them.", query=Page,
            rests_on=OF_HOSTS),
        get("/v1/hosts/{name}", "Host", HostItem, host,
            "One host. Its ETag may be given as If-Match to what marks it.", rests_on=OF_HOSTS),
        get(definition, "TaskDefinitionList", TaskDefinitionItem, task_definitions,
            "All versions of all task definitions.", query=Page, rests_on=of_definitions),
        get(f"{definition}/{{name}}", "TaskDefinitionList", TaskDefinitionItem, versions,
            "All versions of one task definition.", query=Page, rests_on=of_definitions),
        get(f"{definition}/{{name}}/{{version}}", "TaskDefinition", TaskDefinitionItem, version,
            "One version of a task definition.", rests_on=of_definitions),
    ]  # fmt: skip
