"""Host ports with their protocol and address: what containers bind, and the number that each is counted by."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sked_core.errors import InvalidValue

MAX_PORTS = 1000
"""Host ports of one container: each is a number that hosts, schedulers and the room of a port range are asked for."""
PROTOCOLS = ("tcp", "udp", "sctp")
EVERY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 - told apart from others, not bound
_BITS = 16
_COUNTED = (1 << _BITS + 2) - 1
_NARROW = 1 << _BITS + 2


@dataclass(frozen=True, slots=True, order=True)
class Binding:
    """A host port that a container binds. ``address``: an IP address of the host, empty for every one, IPv4 and IPv6;
    ``protocol``: tcp, udp or sctp. Raises InvalidValue for what can't be bound."""

    port: int
    address: str = ""
    protocol: str = "tcp"

    def __post_init__(self) -> None:
        if not isinstance(self.port, int) or not 1 <= self.port <= 65535 or self.protocol not in PROTOCOLS:
            raise InvalidValue(f"expected a port from 1 to 65535 of {', '.join(PROTOCOLS)}, got {self!r:.80}")

    @property
    def number(self) -> int:
        """What it is in ``Demand.fixed_ports``: a TCP port on every address is its own number; other protocols, and
        ports on one address only, have numbers above 65535."""
        return self.port | PROTOCOLS.index(self.protocol) << _BITS | (0 if self.address in EVERY_ADDRESS else _NARROW)


class _Binds(Protocol):
    def ports(self, spec: Mapping[str, Any], port: int) -> frozenset[int]: ...


def bindings_of(executor: _Binds, spec: Mapping[str, Any], port: int) -> frozenset[Binding]:
    """What a container binds, ``port`` being its task's own (0: none): the executor's own answer; where it has no
    ``bindings``, its ``ports`` on every address. Raises InvalidValue for more than MAX_PORTS, or what is no port."""
    tell = getattr(executor, "bindings", None)
    given = list(itertools.islice(executor.ports(spec, port) if tell is None else tell(spec, port), MAX_PORTS + 1))
    if len(given) > MAX_PORTS:
        raise InvalidValue(f"a container takes {MAX_PORTS} host ports at most, its executor told of more")
    found = frozenset(map(Binding, given) if tell is None else given)
    if wrong := [one for one in found if not isinstance(one, Binding)]:
        raise InvalidValue(f"expected a port from 1 to 65535 of {', '.join(PROTOCOLS)}, got {wrong[0]!r:.80}")
    return found


def counted(number: int) -> int:
    """The number under which a port is reserved: no two tasks of one host have one port, whatever their addresses."""
    return number & _COUNTED


def counted_all(bindings: Iterable[Binding]) -> frozenset[int]:
    """The numbers under which the ports of ``bindings`` are reserved."""
    return frozenset(counted(one.number) for one in bindings)


def port_name(number: int) -> str:
    """A port as people write it: ``5000``, ``53/udp``."""
    protocol = PROTOCOLS[counted(number) >> _BITS]
    port = number & (1 << _BITS) - 1
    return str(port) if protocol == "tcp" else f"{port}/{protocol}"
