"""The ports of one host: which are taken, which are free, and which one a task is given next."""

from __future__ import annotations

from collections.abc import Collection


class PortBook:
    """Not thread-safe. Ports outside of the host's range may be taken as well (fixed ones)."""

    __slots__ = ("_first", "_last", "_strangers", "_taken", "free")

    def __init__(self) -> None:
        self._taken: dict[int, int] = {}
        """How many tasks hold each port: two, where people issued tasks by hand."""
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
        held = self._taken.get(port, 0)
        self._taken[port] = held + 1
        if not held and self._first <= port <= self._last and port not in self._strangers:
            self.free -= 1

    def give(self, port: int) -> None:
        """A task that held ``port`` does so no more."""
        held = self._taken.get(port, 0)
        if held > 1:
            self._taken[port] = held - 1
            return
        self._taken.pop(port, None)
        if held and self._first <= port <= self._last and port not in self._strangers:
            self.free += 1

    def taken(self, port: int) -> bool:
        """Whether a task holds ``port``."""
        return port in self._taken

    def refusal(self, port: int) -> str:
        """Why a task can't have ``port`` for its own; empty if it can."""
        if port in self._taken:
            return f"port {port} is held by another task"
        return f"port {port} is in use on the host" if port in self._strangers else ""

    def pick(self, start: int) -> int:
        """A free port of the range, looked for from the ``start``-th on. Raises LookupError if none is free."""
        first, size = self._first, self._last - self._first + 1
        for offset in range(size):
            port = first + (start + offset) % size
            if port not in self._taken and port not in self._strangers:
                return port
        raise LookupError("no free port")
