"""The ports of this machine: who listens, what can be bound now, and what the kernel gives to outgoing connections."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import psutil

from sked_core.model.ports import Binding

TCP_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
LISTEN = "0A"
"""The state in these tables (proc(5), and include/net/tcp_states.h of Linux)."""
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
RESERVED = Path("/proc/sys/net/ipv4/ip_local_reserved_ports")
"""Both hold for IPv6 as well (Documentation/networking/ip-sysctl.rst of Linux)."""
DEFAULT_EPHEMERAL = (32768, 60999)
UNKNOWN_HOLDER = "a process that can't be told"
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_BOTH = ("", "::")
"""What binds :: takes IPv4 as well, unless it asks for less."""
Range = tuple[int, int]


def ports_in_use() -> set[int]:
    """TCP ports that somebody listens on. Cheap enough to ask every few seconds: psutil looks through the open files
    of all processes for the holders, which is most of what an agent with nothing to do would cost."""
    try:
        lines = [line for table in TCP_TABLES if table.exists() for line in table.read_text().splitlines()]
        listening = [line.split()[1] for line in lines if f" {LISTEN} " in line]
        return {int(address.rpartition(":")[2], 16) for address in listening}
    except (OSError, ValueError, IndexError):
        return {one.laddr.port for one in _sockets("tcp") if _listens(one)}


def outgoing_ports() -> list[Range]:
    """The ranges of ports that the kernel gives to outgoing connections, without those that are reserved; what Linux
    has by default where that can't be told."""
    try:
        first, last = (int(word) for word in EPHEMERAL.read_text().split())
    except (OSError, ValueError):
        first, last = DEFAULT_EPHEMERAL
    left: list[Range] = []
    for begin, end in sorted(_ranges(reserved_ports())):
        if begin > first:
            left.append((first, min(last, begin - 1)))
        first = max(first, end + 1)
    return [one for one in (*left, (first, last)) if one[0] <= one[1]]


def reserved_ports() -> str:
    """The ports that outgoing connections are never given, as the kernel writes them: ``8080,9000-9099``."""
    with contextlib.suppress(OSError):
        return RESERVED.read_text().strip()
    return ""


def _ranges(text: str) -> Iterable[Range]:
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        with contextlib.suppress(ValueError):
            yield int(first), int(last or first)


def taken_ports(bindings: Collection[Binding]) -> dict[Binding, str]:
    """Those of ``bindings`` that can't be bound now, with the holder. SCTP ports are left to the engine."""
    taken = [one for one in sorted(bindings) if one.protocol in _KINDS and not _bindable(one)]
    return {one: _holder(one) for one in taken}


def _bindable(binding: Binding) -> bool:
    """Whether each of the addresses that a task would bind could be bound now."""
    return not any(_in_the_way(binding, family, address) for family, address in _addresses(binding))


def _addresses(binding: Binding) -> list[tuple[int, str]]:
    if binding.address in _BOTH:
        return [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]  # noqa: S104 - what tasks do is what is tried
    return [(socket.AF_INET6 if ":" in binding.address else socket.AF_INET, binding.address)]


def _in_the_way(binding: Binding, family: int, address: str) -> bool:
    """Whether somebody holds the port on ``address``. What goes wrong for any other reason (no IPv6 here, no such
    address) is not for this to tell: an engine finds better words, or is able to."""
    try:
        with socket.socket(family, _KINDS[binding.protocol]) as probe:
            if binding.protocol == "tcp":
                # Connections in TIME_WAIT of a former holder don't count; a listener does.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 is tried by itself
            probe.bind((address, binding.port))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):  # this user may not, an engine may be allowed to
            return any(_listens(one) and _overlaps(one, binding, address) for one in _sockets(binding.protocol))
        return error.errno == errno.EADDRINUSE
    return False


def _holder(binding: Binding) -> str:
    """Who is in the way of ``binding``, as far as it can be told: the listener, else whoever else has the port."""
    there = [one for one in _sockets(binding.protocol) if _overlaps(one, binding, binding.address)]
    for one in (*filter(_listens, there), *there):
        where = f"on {one.laddr.ip}" if _listens(one) else "for a connection"
        return f"{_process(one.pid)}, {where}"
    return UNKNOWN_HOLDER


def _listens(one: Any) -> bool:
    return one.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)  # udp knows no states


def _sockets(protocol: str) -> list[Any]:
    """What psutil finds, without connections that have ended: those are in nobody's way."""
    with contextlib.suppress(psutil.Error, OSError):
        found = psutil.net_connections(kind=protocol)
        return [one for one in found if one.laddr and one.status != psutil.CONN_TIME_WAIT]
    return []


def _overlaps(one: Any, binding: Binding, address: str) -> bool:
    """Whether a socket of psutil has the port on ``address``."""
    if one.laddr.port != binding.port:
        return False
    if address in _BOTH:
        return True
    theirs, ours = _ip(one.laddr.ip), _ip(address)
    if theirs is None or ours is None or theirs == ours:
        return True
    if theirs.version == ours.version:
        return theirs.is_unspecified or ours.is_unspecified
    return theirs.version == 6 and theirs.is_unspecified  # one that takes both


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _process(pid: int | None) -> str:
    if pid is None:
        return UNKNOWN_HOLDER
    try:
        process = psutil.Process(pid)
        name = process.name()
    except psutil.Error:
        return f"pid {pid}"
    with contextlib.suppress(psutil.Error, OSError):
        if task := process.environ().get("SKED_TASK_ID"):
            return f"{name}, pid {pid}, of task {task}"
    return f"{name}, pid {pid}"


def own_address() -> str:
    """The address that this machine would send from to reach others; the loopback one where there is no route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737); a datagram socket sends nothing by connecting
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
