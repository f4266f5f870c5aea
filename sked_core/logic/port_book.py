"""The ports of one host: which are taken, which are free, and which one a task is given next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping

from sked_core.model.ports import counted, port_name

REST_SECONDS = 60.0
"""How long a port that a task had is given to no other one, unless no other is free. What still calls the former task
(a proxy that was not told yet, a client with a kept connection, a health check under way) would take the new one for
it. A minute is what Linux keeps its own closed connections for (TIME_WAIT), and more than proxies that watch service
discovery take; no limit holds for those that don't."""


class PortBook:
    """Not thread-safe. Ports outside of the host's range may be taken as well (fixed ones)."""

    __slots__ = ("_bits", "_first", "_freed", "_last", "_more", "_strangers", "free")

    def __init__(self) -> None:
        self._bits = bytearray()
        """One bit for each port of the range: whether a task holds it. A set would take ten times the memory, and so
        most of the time of placing many tasks, which is spent on waiting for that."""
        self._more: dict[int, int] = {}
        """How many tasks hold each port outside of the range, and how many more than one each within: two may, where
        people issued tasks by hand."""
        self._freed: OrderedDict[int, float] | None = None
        """When each port was given back, the latest last; most hosts need none."""
        self._first, self._last = 1, 0
        self._strangers: frozenset[int] = frozenset()
        self.free = 0
        """How many ports of the range could be given to a task."""

    def describe(self, first: int, last: int, strangers: Collection[int]) -> None:
        """Take over what the host says: the range from ``first`` to ``last``, and what others than tasks hold."""
        if (first, last) != (self._first, self._last):
            held = [port for port in range(self._first, self._last + 1) if self._held(port)]
            held += [port for port, count in self._more.items() for _ in range(count)]
            self._first, self._last, self._more = first, last, {}
            self._bits = bytearray(max(0, last - first) // 8 + 1)
            for port in held:
                self.take(port)
        self._strangers = frozenset(strangers)
        held_too = sum(first <= port <= last and not self._held(port) for port in self._strangers)
        self.free = max(0, last - first + 1 - int.from_bytes(self._bits, "little").bit_count() - held_too)

    def take(self, port: int) -> None:
        """A task holds ``port``."""
        at, bits = port - self._first, self._bits
        if at >= 0 and port <= self._last and not bits[at >> 3] & 1 << (at & 7):
            bits[at >> 3] |= 1 << (at & 7)
            if port not in self._strangers:
                self.free -= 1
        else:
            self._more[port] = self._more.get(port, 0) + 1

    def give(self, port: int, at: float | None = None) -> None:
        """A task that held ``port`` does so no more, since ``at`` (monotonic seconds); None: it never really did."""
        if port in self._more:
            self._more[port] -= 1
            if not self._more[port]:
                del self._more[port]
        elif self._first <= port <= self._last and self._held(port):
            offset = port - self._first
            self._bits[offset >> 3] &= ~(1 << (offset & 7))
            if port not in self._strangers:
                self.free += 1
            if at is not None:
                self._rest(port, at)

    def _rest(self, port: int, at: float) -> None:
        freed = self._freed = self._freed or OrderedDict()
        freed[port] = at
        freed.move_to_end(port)
        while freed[oldest := next(iter(freed))] <= at - REST_SECONDS:
            del freed[oldest]

    def taken(self, port: int) -> bool:
        """Whether a task holds ``port``, numbered as in ``Demand.fixed_ports``."""
        return self._held(counted(port))

    def _held(self, port: int) -> bool:
        if self._first <= port <= self._last:
            at = port - self._first
            return bool(self._bits[at >> 3] & 1 << (at & 7))
        return port in self._more

    def all_free(self, ports: frozenset[int]) -> bool:
        """Whether a task can have all of ``ports``, numbered as in ``Demand.fixed_ports``, for its own."""
        return self._strangers.isdisjoint(ports) and not any(self.taken(port) for port in ports)

    def refusal(self, port: int) -> str:
        """Why a task can't have ``port``, numbered as in ``Demand.fixed_ports``, for its own; empty if it can."""
        if self.taken(port):
            return f"port {port_name(port)} is held by another task"
        return f"port {port_name(port)} is in use on the host" if port in self._strangers else ""

    def pick(self, start: int, now: float) -> int:
        """A free port of the range, looked for from the ``start``-th on; of those that were given back less than
        REST_SECONDS before ``now`` only where there is no other, and then the one that rests for longest. Raises
        LookupError if none is free."""
        first = self._first
        size = self._last - first + 1
        if self.free and not self._freed:
            at = start % size
            if not self._bits[at >> 3] & 1 << (at & 7) and first + at not in self._strangers:
                return first + at  # which is the usual case
        freed: Mapping[int, float] = self._freed or {}
        rested: tuple[float, int] | None = None
        for offset in range(size if self.free else 0):
            port = first + (start + offset) % size
            if self._held(port) or port in self._strangers:
                continue
            given = freed.get(port)
            if given is None or given <= now - REST_SECONDS:
                return port
            if rested is None or given < rested[0]:
                rested = given, port
        if rested is None:
            raise LookupError("no free port")
        return rested[1]
