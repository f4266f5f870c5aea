"""Calls at their time, on few threads: what probing hundreds of tasks costs is a timer and some sockets."""

from __future__ import annotations

import heapq
import itertools
import logging
import queue
import threading
from collections.abc import Callable

from sked_core.clock import Clock

log = logging.getLogger("sked.health")
Call = Callable[[], None]
IDLE = 3600.0


class ProbePool:
    """Runs calls when they are due, on at most ``threads`` threads, and as many again for the slow ones.

    A call that is known to be slow (its target hung the last time) is scheduled with ``slow``, and so keeps no
    thread from the others. Threads start when they are needed, and none runs before the first call.
    """

    def __init__(self, *, clock: Clock, threads: int = 16) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._due: list[tuple[float, int, bool, Call]] = []
        self._order = itertools.count()
        self._wake = threading.Event()
        self._closed = False
        self._timer: threading.Thread | None = None
        self._lanes = {False: _Lane("probe", threads), True: _Lane("slow-probe", threads)}

    def schedule(self, delay: float, call: Call, *, slow: bool = False) -> None:
        """Run ``call`` once, ``delay`` seconds from now; does nothing after ``close``."""
        with self._lock:
            if self._closed:
                return
            heapq.heappush(self._due, (self._clock.monotonic() + delay, next(self._order), slow, call))
            if self._timer is None:
                self._timer = threading.Thread(target=self._run, name="sked-probe-timer", daemon=True)
                self._timer.start()
        self._wake.set()

    def close(self) -> None:
        """Start no further call; those under way end by themselves. Idempotent."""
        with self._lock:
            self._closed = True
            self._due.clear()
        self._wake.set()
        for lane in self._lanes.values():
            lane.close()

    def _run(self) -> None:
        while True:
            self._wake.clear()
            with self._lock:
                if self._closed:
                    return
                now = self._clock.monotonic()
                while self._due and self._due[0][0] <= now:
                    _, _, slow, call = heapq.heappop(self._due)
                    self._lanes[slow].submit(call)
                pause = self._due[0][0] - now if self._due else IDLE
            self._clock.wait(self._wake, pause)


class _Lane:
    """A queue with up to ``limit`` daemon threads; one more starts whenever a call would have to wait."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._free = 0

    def submit(self, call: Call) -> None:
        with self._lock:
            self._free -= 1
            start = self._free < 0 and self._threads < self._limit
            if start:
                self._threads += 1
                self._free += 1
                threading.Thread(target=self._work, name=f"sked-{self._name}-{self._threads}", daemon=True).start()
        self._calls.put(call)

    def close(self) -> None:
        with self._lock:
            for _ in range(self._threads):
                self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception:  # a fault in one probe must not end the thread that serves the others
                log.exception("a probe failed unexpectedly")
            with self._lock:
                self._free += 1
