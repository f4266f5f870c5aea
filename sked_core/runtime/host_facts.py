"""What this machine has, and what others hold of it."""

from __future__ import annotations

import errno
import platform
import socket
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from sked_core.model.amount import CPU_UNITS_PER_CORE
from sked_core.model.types import Host
from sked_core.runtime.agent_settings import AgentSettings

MB = 1024 * 1024
TCP_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
LISTEN = "0A"
"""The state in these tables (proc(5), and include/net/tcp_states.h of Linux)."""
EPHEMERAL = 32768
"""From here on Linux gives ports to outgoing connections: they come and go, and nobody should be told of each."""


class Machine(Protocol):
    """What an agent asks about its machine. This module is the one for the machine that it runs on."""

    def attributes(self) -> dict[str, str]: ...

    def memory_mb(self) -> int: ...

    def cpu_units(self) -> int: ...

    def disk_mb(self, folder: Path) -> int: ...

    def free_disk_mb(self, folder: Path) -> int: ...

    def ports_in_use(self) -> set[int]: ...

    def taken_ports(self, ports: Collection[int]) -> dict[int, str]: ...


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
    return found


def describe(
    settings: AgentSettings, machine: Machine, *, own_ports: Collection[int], executors: Collection[str]
) -> Host:
    """What an agent says of its host, whose ports in use are those that are not its tasks' own."""
    granted = capacity(settings, machine)
    return Host(
        name=settings.host,
        address=settings.address,
        memory=granted.memory,
        cpu_units=granted.cpu_units,
        disk=granted.disk,
        ports=sorted(port for port in machine.ports_in_use() if port not in own_ports and port < EPHEMERAL),
        port_range=settings.port_range,
        executors=sorted(executors),
        tags=settings.tags,
        attributes=machine.attributes(),
    )


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


def ports_in_use() -> set[int]:
    """TCP ports that somebody listens on. Cheap enough to ask every few seconds: psutil looks through the open files
    of all processes for the holders, which is most of what an agent with nothing to do would cost."""
    try:
        lines = [line for table in TCP_TABLES if table.exists() for line in table.read_text().splitlines()]
        listening = [line.split()[1] for line in lines if f" {LISTEN} " in line]
        return {int(address.rpartition(":")[2], 16) for address in listening}
    except (OSError, ValueError, IndexError):
        return set(listening_ports())


def listening_ports() -> dict[int, str]:
    """TCP ports that some process of this machine listens on, each with the holder as far as it can be told."""
    ports: dict[int, str] = {}
    for connection in psutil.net_connections(kind="tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr:
            ports.setdefault(connection.laddr.port, _process(connection.pid))
    return ports


def _process(pid: int | None) -> str:
    if pid is None:
        return "a process that can't be told"
    try:
        return f"{psutil.Process(pid).name()}, pid {pid}"
    except psutil.Error:
        return f"pid {pid}"


def taken_ports(ports: Collection[int]) -> dict[int, str]:
    """Those of ``ports`` that can't be bound now on every address, with the holder."""
    taken = [port for port in sorted(ports) if not _bindable(port)]
    holders = listening_ports() if taken else {}
    return {port: holders.get(port, "a process that can't be told") for port in taken}


def _bindable(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Connections in TIME_WAIT of a former holder don't count; a listener does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            # A port that this user may not bind is not taken: an engine may be allowed to.
            return error.errno == errno.EACCES
    return True
