"""Which tasks are to be scraped, as the target groups of Prometheus' file and HTTP service discovery."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from sked_core.plugin import Host, SeenHost, SeenTask, Task

_PATH = re.compile(r"/[\x21-\x7e]*")
_NO_LABEL = re.compile(r"[^a-zA-Z0-9_]")


def groups(
    tasks: Iterable[SeenTask], hosts: Iterable[SeenHost], *, tag: str = "prometheus", healthy: bool = False
) -> list[dict[str, Any]]:
    """A group for each task that has a port and the tag ``tag``, or ``tag:/path``. ``healthy``: no others. Tasks that
    their host has refused, or that are to stop, are none."""
    known: Mapping[str, Host] = {one.host.name: one.host for one in hosts}
    return [
        _group(one.task, known.get(one.task.host), path)
        for one in tasks
        if one.task.port and one.task.host and one.task.scheduled and not one.task.rejected
        if one.healthy or not healthy
        if (path := path_of(one.task, tag)) is not None
    ]


def path_of(task: Task, tag: str) -> str | None:
    """Where the task shows its figures: ``""`` for where Prometheus looks by itself, None if it is not to be asked."""
    for one in task.task_definition.tags or ():
        name, mark, path = one.partition(":")
        if name == tag and (not mark or _PATH.fullmatch(path)):
            return path
    return None


def written(found: list[dict[str, Any]]) -> str:
    """The groups as both kinds of discovery read them."""
    return json.dumps(found, indent=2) + "\n"


def _group(task: Task, host: Host | None, path: str) -> dict[str, Any]:
    address = (host.address if host is not None else "") or task.host
    labels = {
        "cluster": task.cluster.name,
        "service": task.service,
        "task": task.id,
        "host": task.host,
        "version": str(task.task_definition.version),
        "__meta_sked_datacenter": task.cluster.datacenter,
        # Between commas, so that one tag can be looked for by ,name,
        "__meta_sked_tags": "".join(f",{one}" for one in task.task_definition.tags or ()) + ",",
    }
    tags = host.tags if host is not None else {}
    labels |= {f"__meta_sked_host_tag_{_NO_LABEL.sub('_', name)}": value for name, value in tags.items()}
    if path:
        labels["__metrics_path__"] = path
    return {"targets": [f"[{address}]:{task.port}" if ":" in address else f"{address}:{task.port}"], "labels": labels}
