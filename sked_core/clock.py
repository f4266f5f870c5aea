"""Time as an argument. Durations, leases and back-offs use ``monotonic`` only; ``wall`` is for display."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What code that measures or waits gets instead of the ``time`` module. All values are seconds."""

    def monotonic(self) -> float:
        """Seconds on a clock that never steps."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch, for people to read; never for a decision."""
        ...

    def wait(self, event: threading.Event, timeout: float) -> bool:
        """Wait until ``event`` is set or ``timeout`` seconds have passed; returns whether it is set."""
        ...


class SystemClock:
    """The clock of this machine."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    def wait(self, event: threading.Event, timeout: float) -> bool:
        return event.wait(timeout)
