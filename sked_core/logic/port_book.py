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

    __slots__ = ("_first", "_freed", "_last", "_strangers", "_taken", "free")

    def __init__(self) -> None:
        self._taken: dict[int, int] = {}
        """How many tasks hold each port: two, where people issued tasks by hand."""
        self._freed: OrderedDict[int, float] | None = None
        """When each port was given back, the latest last; most hosts need none."""
        self._first, self._last = 1, 0
        self._strangers: frozenset[int] = frozenset()
        self.free = 0
        """How many ports of the range could be given to a task."""

    def describe(self, first: int, last: int, strangers: Collection[int]) -> None:
        """Take over what the host says: the range from ``first`` to ``last``, and what others than tasks hold."""
        self._first, self._last, self._strangers = first, last, frozenset(strangers)
        held = self._strangers | self._taken.keys()
        self.free = max(0, last - first + 1 - sum(first <= port <= last for port in held))

    def take(self, port: int) -> None:
        """A task holds ``port``."""
        taken = self._taken
        if port in taken:
            taken[port] += 1
            return
        taken[port] = 1
        if self._first <= port <= self._last and port not in self._strangers:
            self.free -= 1

    def give(self, port: int, at: float | None = None) -> None:
        """A task that held ``port`` does so no more, since ``at`` (monotonic seconds); None: it never really did."""
        held = self._taken.get(port, 0)
        if held > 1:
            self._taken[port] = held - 1
            return
        self._taken.pop(port, None)
        if held and self._first <= port <= self._last and port not in self._strangers:
            self.free += 1
        if held and at is not None and self._first <= port <= self._last:
            self._rest(port, at)

    def _rest(self, port: int, at: float) -> None:
        freed = self._freed = self._freed or OrderedDict()
        freed[port] = at
        freed.move_to_end(port)
        while freed[oldest := next(iter(freed))] <= at - REST_SECONDS:
            del freed[oldest]

    def taken(self, port: int) -> bool:
        """Whether a task holds ``port``, numbered as in ``Demand.fixed_ports``."""
        return counted(port) in self._taken

    def all_free(self, ports: frozenset[int]) -> bool:
        """Whether a task can have all of ``ports``, numbered as in ``Demand.fixed_ports``, for its own."""
        return self._strangers.isdisjoint(ports) and not any(counted(port) in self._taken for port in ports)

    def refusal(self, port: int) -> str:
        """Why a task can't have ``port``, numbered as in ``Demand.fixed_ports``, for its own; empty if it can."""
        if counted(port) in self._taken:
            return f"port {port_name(port)} is held by another task"
        return f"port {port_name(port)} is in use on the host" if port in self._strangers else ""

    def pick(self, start: int, now: float) -> int:
        """A free port of the range, looked for from the ``start``-th on; of those that were given back less than
        REST_SECONDS before ``now`` only where there is no other, and then the one that rests for longest. Raises
        LookupError if none is free."""
        first, size = self._first, self._last - self._first + 1
        port = first + start % size if size > 0 else 0
        if not self._freed and self.free and port not in self._taken and port not in self._strangers:
            return port  # which is the usual case
        freed: Mapping[int, float] = self._freed or {}
        rested: tuple[float, int] | None = None
        for offset in range(size if self.free else 0):
            port = first + (start + offset) % size
            if port in self._taken or port in self._strangers:
                continue
            at = freed.get(port)
            if at is None or at <= now - REST_SECONDS:
                return port
            if rested is None or at < rested[0]:
                rested = at, port
        if rested is None:
            raise LookupError("no free port")
        return rested[1]
