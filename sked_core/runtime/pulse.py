"""Whether a loop still does its rounds: noted by the loop, asked by those who watch over it (metrics, systemd)."""

from __future__ import annotations

from collections.abc import Mapping

from sked_core.clock import Clock

HUNG_SECONDS = 60.0
"""A loop that is late by more than that hangs: the slowest call of a store gives up sooner."""


class Pulse:
    """Of one loop: ``begin`` and ``rest`` in its own thread, the rest from any. All times are seconds."""

    __slots__ = ("_begun", "_clock", "_due", "busy", "rounds")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begun = self._due = clock.monotonic()
        self.rounds = 0
        self.busy = 0.0
        """How long all rounds that have ended took together."""

    def begin(self) -> None:
        """A round begins."""
        self._begun = self._due = self._clock.monotonic()

    def go_on(self) -> None:
        """The round has come further: it may last, if it only does not stand still. From any thread."""
        self._due = self._clock.monotonic()

    def rest(self, pause: float) -> None:
        """The round is over; the next one begins in ``pause`` seconds at the latest."""
        now = self._clock.monotonic()
        self.rounds += 1
        self.busy += now - self._begun
        self._due = now + pause

    def late(self) -> float:
        """For how long a round has come no further, or the next one should have begun; 0 while the loop rests. Grows
        without end once the loop hangs."""
        return max(0.0, self._clock.monotonic() - self._due)


def hung(pulses: Mapping[str, Pulse], patience: float) -> list[str]:
    """The names of the loops that are late by more than ``patience`` seconds."""
    return [name for name, pulse in pulses.items() if pulse.late() > patience]
