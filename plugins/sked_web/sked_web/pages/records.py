"""The state as it is stored: keys and values, and what was declared, issued and found out side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sked_core.errors import InvalidValue, NotFound
from sked_core.model import keys
from sked_core.model.spec import known
from sked_core.model.types import Task
from sked_web.pages.site import Ask

PREFIXES = (
    keys.SERVICES,
    keys.CLUSTERS,
    keys.TASK_DEFINITIONS,
    keys.HOSTS,
    keys.TASKS,
    keys.HOST_TASKS,
    keys.LIVE,
    keys.MARKS,
    keys.SERVICE_STATUS,
    keys.ROLLOUTS,
    keys.MOVES,
    keys.FAILURES,
    keys.SCHEDULERS,
    keys.EVENTS,
)
MOST_KEYS = 1000
Records = list[tuple[str, Any]]


def state(ask: Ask) -> Mapping[str, Any]:
    """The keys below a prefix, and one value."""
    prefix, key = ask.arg("prefix"), ask.arg("key")
    entries = None
    if prefix or key:
        found = ask.sked.store.read(_checked(prefix or key)).entries
        entries = sorted(found.items())
        if key and key not in found:
            raise NotFound(f"nothing stands under {key}")
    return {
        "prefix": prefix,
        "key": key,
        "entry": dict(entries or ()).get(key),
        "entries": entries,
        "prefixes": PREFIXES,
        "most": MOST_KEYS,
    }


def _checked(prefix: str) -> str:
    if prefix.startswith("/") or not prefix.isprintable() or len(prefix) > 500:
        raise InvalidValue(f"{prefix!r:.60} is no key: keys begin without a slash, such as config/services/")
    return prefix


def of_service(ask: Ask) -> Mapping[str, Any]:
    name = known("service", ask.path("service"), ask.sight.services)

    def sides() -> Sequence[tuple[str, str, Records]]:
        row = ask.sight.services[name]
        desired = [keys.service(name), *(keys.cluster(one) for one in ask.sight.clusters_of(name))]
        if row.service is not None:
            desired.append(keys.task_definition(row.service.task_name, row.service.task_version))
        issued = [keys.task(one.task.id) for one in row.tasks]
        status = [keys.service_status(name), keys.rollout(name), keys.moves(name)]
        return [
            ("Desired", "what people declared", _read(ask, desired)),
            ("Issued", "what schedulers made of it", _read(ask, [*status, *issued])),
            ("Actual", "what agents and checks say", [one for row in row.tasks for one in _actual(ask, row.task)]),
        ]

    return {"about": f"service {name}", "sides": sides}


def of_task(ask: Ask) -> Mapping[str, Any]:
    name = known("task", ask.path("task"), ask.sight.tasks)

    def sides() -> Sequence[tuple[str, str, Records]]:
        task = ask.sight.tasks[name].task
        one = task.task_definition
        desired = [keys.service(task.service), keys.cluster(task.cluster.name)]
        desired.append(keys.task_definition(one.name, one.version))
        issued = [keys.task(task.id), keys.host_task(task.host, task.id), keys.service_status(task.service)]
        return [
            ("Desired", "what people declared", _read(ask, desired)),
            ("Issued", "what schedulers made of it", _read(ask, issued)),
            ("Actual", "what agents and checks say", _actual(ask, task)),
        ]

    return {"about": f"task {name}", "sides": sides}


def _actual(ask: Ask, task: Task) -> Records:
    health = ask.sight.facts.health.get(task.id)
    said = None if health is None else {"healthy": health.healthy, "output": health.output}
    return [(f"health of {task.id}", said), *_read(ask, [keys.failure(task.id)])]


def _read(ask: Ask, wanted: Sequence[str]) -> Records:
    """The values that stand under these keys, as far as any do."""
    found: Records = []
    for key in wanted:
        entry = ask.sked.store.read(key).entries.get(key)
        if entry is not None:
            found.append((key, entry.value))
    return found
