"""What tasks have reserved of hosts, the largest first: the figures that schedulers go by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sked_core.client.looking.listing import HostRow, TaskRow, host_rows, task_rows
from sked_core.client.session import Session
from sked_core.model.types import Host
from sked_core.model.wording import natural

ORDERS: Mapping[str, Callable[[Any], float]] = {
    "memory": lambda row: row.memory_share,
    "cpu": lambda row: row.cpu_share,
    "tasks": lambda row: row.tasks,
}


@dataclass(frozen=True, slots=True)
class HostUse:
    """A host. Shares are of what its tasks may use together, from 0 to 1 (more where they were reserved before it said
    that it has less)."""

    row: HostRow

    @property
    def tasks(self) -> int:
        return self.row.tasks

    @property
    def memory_share(self) -> float:
        return _share(self.row.memory, self.row.host.memory)

    @property
    def cpu_share(self) -> float:
        return _share(self.row.cpu_units, self.row.host.cpu_units)

    @property
    def disk_share(self) -> float:
        return _share(self.row.disk, self.row.host.disk)

    def json(self) -> dict[str, Any]:
        """Reserved and whole amounts, and what part that is."""
        row, host = self.row, self.row.host
        return {
            "host": host.name,
            "state": row.state,
            "tasks": row.tasks,
            "memory": {"reserved": row.memory, "total": host.memory, "share": round(self.memory_share, 4)},
            "cpu_units": {"reserved": row.cpu_units, "total": host.cpu_units, "share": round(self.cpu_share, 4)},
            "disk": {"reserved": row.disk, "total": host.disk, "share": round(self.disk_share, 4)},
        }


@dataclass(frozen=True, slots=True)
class TaskUse:
    """A task, and the ``host`` that it is on, if that is known."""

    row: TaskRow
    host: Host | None

    tasks = 1

    @property
    def memory(self) -> int:
        return self.row.task.task_definition.total_memory

    @property
    def cpu_units(self) -> int:
        return self.row.task.task_definition.total_cpu_units

    @property
    def memory_share(self) -> float:
        return _share(self.memory, self.host.memory if self.host else 0)

    @property
    def cpu_share(self) -> float:
        return _share(self.cpu_units, self.host.cpu_units if self.host else 0)

    def json(self) -> dict[str, Any]:
        """What it has reserved, and what part of its host that is."""
        task = self.row.task
        return {
            "id": task.id,
            "host": task.host,
            "service": task.service,
            "healthy": self.row.healthy,
            "memory": {"reserved": self.memory, "share": round(self.memory_share, 4)},
            "cpu_units": {"reserved": self.cpu_units, "share": round(self.cpu_share, 4)},
        }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def hosts_by_use(sked: Session, order: str = "memory") -> list[HostUse]:
    """Hosts, those of which most is reserved first; ``order``: one of ORDERS. Raises Unavailable."""
    found = [HostUse(row) for row in host_rows(sked)]
    return sorted(found, key=lambda one: (-ORDERS[order](one), natural(one.row.host.name)))


def tasks_by_use(sked: Session, order: str = "memory") -> list[TaskUse]:
    """Tasks that were not rejected, those that take most of their hosts first. Raises Unavailable."""
    hosts = {row.host.name: row.host for row in host_rows(sked)}
    rows = [row for row in task_rows(sked, failures=False) if not row.task.rejected]
    found = [TaskUse(row, hosts.get(row.task.host)) for row in rows]
    return sorted(found, key=lambda one: (-ORDERS[order](one), natural(one.row.task.id)))
