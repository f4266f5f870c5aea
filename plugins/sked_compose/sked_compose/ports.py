"""Published ports: one becomes the task's own port, the others fixed ports of the container."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sked_compose.findings import Findings
from sked_compose.shape import PORT

MAX_RANGE = 100
_SHORT = re.compile(
    r"(?:(?:(?P<address>\[[0-9a-fA-F:.]+\]|[0-9.]+):)?(?P<host>[0-9]*(?:-[0-9]+)?):)?"
    r"(?P<target>[0-9]+(?:-[0-9]+)?)(?:/(?P<protocol>tcp|udp|sctp))?"
)
_EVERY_ADDRESS = ("", "0.0.0.0", "[::]", "::")  # noqa: S104  compared with, not listened on


@dataclass(frozen=True, slots=True)
class Port:
    """``host`` 0: any port of the host."""

    path: str
    target: int
    host: int = 0
    address: str = ""
    protocol: str = "tcp"

    @property
    def fixed(self) -> str:
        """As the docker executor has it under ``ports``."""
        protocol = "" if self.protocol == "tcp" else f"/{self.protocol}"
        return f"{self.address}:{self.host}:{self.target}{protocol}".lstrip(":")


@dataclass(frozen=True, slots=True)
class Ports:
    """``own``: the one that becomes the task's; ``provided``: of which the host picks the number."""

    own: Port | None
    provided: bool
    fixed: list[str]

    @property
    def binds(self) -> bool:
        """Whether only one such task can be on a host."""
        return bool(self.fixed) or (self.own is not None and not self.provided)


def read(items: list[Any], path: str, findings: Findings) -> list[Port]:
    """All ports of a service's list; what is wrong with others is refused."""
    found: list[Port] = []
    for index, item in enumerate(items):
        at = f"{path}[{index}]"
        try:
            found += _long(item, at, findings) if isinstance(item, dict) else _short(str(item), at)
        except ValueError as error:
            findings.refuse(at, str(error))
    return found


def share(ports: list[Port], provide: bool, findings: Findings) -> Ports:
    """Which port becomes the task's own. ``provide``: have the host pick its number even where the file has one."""
    open_tcp = [port for port in ports if port.protocol == "tcp" and not port.address]
    own = next((port for port in open_tcp if port.host or provide), None) or next(iter(open_tcp), None)
    fixed = []
    for port in ports:
        if port is own:
            continue
        if port.host:
            fixed.append(port.fixed)
            findings.note(port.path, f"the host's policy has to open it: docker: {{ports: [{port.host}]}}")
        else:
            why = "a task has one port that its host picks; give this one a fixed number"
            findings.lose(port.path, why if own else "only a TCP port on every address can be picked by the host")
    return Ports(own, own is not None and (provide or not own.host), fixed)


def _short(text: str, path: str) -> Iterator[Port]:
    match = _SHORT.fullmatch(text)
    if match is None:
        raise ValueError(f'expected a port such as "8080:80", got "{text[:60]}"')
    targets, hosts = _range(match["target"]), _range(match["host"] or "")
    address = "" if match["address"] in (None, *_EVERY_ADDRESS) else match["address"]
    if hosts and len(hosts) != len(targets):
        raise ValueError("a range of ports of the host needs as many ports of the container")
    for index, target in enumerate(targets):
        yield Port(path, target, hosts[index] if hosts else 0, address, match["protocol"] or "tcp")


def _long(item: dict[str, Any], path: str, findings: Findings) -> Iterator[Port]:
    said = findings.sound(item, PORT, path)
    for name, why in (("name", "it is for people"), ("app_protocol", "nothing asks for it")):
        if name in said:
            findings.lose(f"{path}.{name}", why)
    if said.get("mode", "host") != "host":
        findings.lose(f"{path}.mode", "a port leads to the task on its own host; a load balancer is not part of Sked")
    if "target" not in said:
        raise ValueError("target: required, but missing")
    hosts = _range(str(said.get("published", "")))
    if len(hosts) > 1:
        findings.lose(f"{path}.published", f"of several the first is taken, {hosts[0]}", "changed")
    address = str(said.get("host_ip", ""))
    address = "" if address in _EVERY_ADDRESS else address
    if ":" in address:
        address = f"[{address.strip('[]')}]"
    protocol = str(said.get("protocol", "tcp"))
    if protocol not in ("tcp", "udp", "sctp"):
        raise ValueError(f'protocol: expected tcp, udp or sctp, got "{protocol[:20]}"')
    yield Port(path, _range(str(said["target"]))[0], hosts[0] if hosts else 0, address, protocol)


def _range(text: str) -> list[int]:
    first, _, last = text.partition("-")
    if not first and not last:
        return []
    if not (first.isdecimal() and (last or first).isdecimal() and len(text) <= 11):
        raise ValueError(f'expected a port from 1 to 65535, got "{text[:20]}"')
    low, high = int(first), int(last or first)
    if not 1 <= low <= high <= 65535:
        raise ValueError(f'expected ports from 1 to 65535, got "{text[:20]}"')
    if high - low >= MAX_RANGE:
        raise ValueError(f"a range of more than {MAX_RANGE} ports")
    return list(range(low, high + 1))
