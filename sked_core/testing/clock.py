"""A clock that a test moves."""

from __future__ import annotations

import threading


class FakeClock:
    """A Clock that stands still until it is moved, so that a test of an hour takes no time and always goes the same.

    ``wait`` never blocks: it returns True at once if the event is set, otherwise it moves the clock by the timeout
    (as if nothing else had happened meanwhile) and looks again. So code under test that waits for its next deadline
    arrives there immediately. Made for code that one thread steps through; a thread that loops on ``wait`` in the
    background would race through time.
    """

    def __init__(self, monotonic: float = 1_000.0, wall: float = 1_700_000_000.0) -> None:
        self._lock = threading.Lock()
        self._monotonic = monotonic
        self._wall = wall

    def monotonic(self) -> float:
        with self._lock:
            return self._monotonic

    def wall(self) -> float:
        with self._lock:
            return self._wall

    def advance(self, seconds: float) -> None:
        """Move both readings forward by ``seconds``. Raises ValueError if that is negative."""
        if seconds < 0:
            raise ValueError(f"a clock can't be moved by {seconds} seconds")
        with self._lock:
            self._monotonic += seconds
            self._wall += seconds

    def wait(self, event: threading.Event, timeout: float) -> bool:
        if not event.is_set():
            self.advance(max(timeout, 0.0))
        return event.is_set()
