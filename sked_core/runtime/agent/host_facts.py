"""What this machine has, and what others hold of it."""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from sked_core.interfaces.executor import Executor
from sked_core.model.amount import CPU_UNITS_PER_CORE
from sked_core.model.ports import Binding
from sked_core.model.types import Host
from sked_core.runtime.agent.host_ports import Range
from sked_core.runtime.agent.host_ports import outgoing_ports as outgoing_ports
from sked_core.runtime.agent.host_ports import ports_in_use as ports_in_use
from sked_core.runtime.agent.host_ports import reserved_ports as reserved_ports
from sked_core.runtime.agent.host_ports import taken_ports as taken_ports
from sked_core.runtime.agent.settings import AgentSettings

MB = 1024 * 1024


class Machine(Protocol):
    """What an agent asks about its machine. This module is the one for the machine that it runs on."""

    def attributes(self) -> dict[str, str]: ...

    def memory_mb(self) -> int: ...

    def cpu_units(self) -> int: ...

    def disk_mb(self, folder: Path) -> int: ...

    def free_disk_mb(self, folder: Path) -> int: ...

    def ports_in_use(self) -> set[int]: ...

    def taken_ports(self, bindings: Collection[Binding]) -> dict[Binding, str]: ...

    def outgoing_ports(self) -> list[Range]: ...

    def reserved_ports(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Capacity:
    """What tasks may use together: MB of memory, cpu units, MB of disk."""

    memory: int
    cpu_units: int
    disk: int


def capacity(settings: AgentSettings, machine: Machine) -> Capacity:
    """What the operator grants of the machine; all that it has where nothing was said."""
    return Capacity(
        memory=settings.memory or machine.memory_mb(),
        cpu_units=settings.cpu_units or machine.cpu_units(),
        disk=settings.disk or machine.disk_mb(settings.state_dir),
    )


def doubts(settings: AgentSettings, machine: Machine) -> list[str]:
    """What the operator had better look at before tasks suffer from it."""
    found: list[str] = []
    for option, granted, there in (
        ("--memory", settings.memory, machine.memory_mb()),
        ("--disk", settings.disk, machine.disk_mb(settings.state_dir)),
    ):
        if granted > there:
            found.append(f"{option}: tasks are granted {granted} MB, this machine has {there} MB")
    first, last = settings.port_range
    shared = [(max(first, a), min(last, b)) for a, b in machine.outgoing_ports() if a <= last and b >= first]
    if shared:
        ranges = ", ".join(f"{a}-{b}" for a, b in shared)
        reserved = ",".join(filter(None, (machine.reserved_ports(), f"{first}-{last}")))
        found.append(
            f"ports {ranges} of those for tasks ({first}-{last}) are given to outgoing connections too, "
            "which may have one when its task is to start: "
            f"sysctl -w net.ipv4.ip_local_reserved_ports={reserved} (in /etc/sysctl.d as well, for the next boot), "
            "or choose another --port-range"
        )
    return found


def describe(
    settings: AgentSettings, machine: Machine, *, own_ports: Collection[int], executors: Mapping[str, Executor]
) -> Host:
    """What an agent says of its host, whose ports in use are those that are not its tasks' own, and what its
    ``executors``, by type, say of it."""
    granted = capacity(settings, machine)
    (first, last), passing = settings.port_range, machine.outgoing_ports()

    def lasting(port: int) -> bool:
        """Others than those that come and go with what somebody calls: nobody should be told of each."""
        return first <= port <= last or not any(a <= port <= b for a, b in passing)

    return Host(
        name=settings.host,
        address=settings.address,
        memory=granted.memory,
        cpu_units=granted.cpu_units,
        disk=granted.disk,
        ports=sorted(port for port in machine.ports_in_use() - {*own_ports} if lasting(port)),
        port_range=settings.port_range,
        executors=sorted(executors),
        tags=settings.tags,
        attributes={**_told(executors), **machine.attributes()},
    )


def _told(executors: Mapping[str, Executor]) -> dict[str, str]:
    return {
        name: value
        for kind in sorted(executors)
        for name, value in getattr(executors[kind], "attributes", dict)().items()
    }


def attributes() -> dict[str, str]:
    """What services may ask of their hosts, beside amounts and tags; only what stays the same while the agent runs."""
    return {
        "arch": platform.machine(),
        "os": platform.system().lower(),
        "kernel": platform.release(),
        "cores": str(psutil.cpu_count() or 1),
    }


def memory_mb() -> int:
    """Physical memory in MB."""
    return int(psutil.virtual_memory().total // MB)


def cpu_units() -> int:
    """1024 for each core."""
    return (psutil.cpu_count() or 1) * CPU_UNITS_PER_CORE


def disk_mb(folder: Path) -> int:
    """Size in MB of the file system that holds ``folder``, or its nearest existing parent."""
    return int(psutil.disk_usage(str(_existing(folder))).total // MB)


def free_disk_mb(folder: Path) -> int:
    """MB that are free there now."""
    return int(psutil.disk_usage(str(_existing(folder))).free // MB)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())
