"""A bounded memory of numbered changes, for those who want to know what is new since they looked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

KEPT_CHANGES = 20_000
"""How many changes are remembered: whoever is further behind reads everything."""


@dataclass(frozen=True, slots=True)
class Change:
    """That something changed in the picture of this ``number``. ``kind`` and ``name`` as in ``picture.KINDS``; of tasks
    also whose they are and where; ``gone``: it is not there any more. An event without a name: old ones were removed.
    """

    number: int
    kind: str
    name: str
    service: str = ""
    host: str = ""
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Staleness:
    """Since when (seconds since the epoch, for people) the store has given no answer, and what went wrong."""

    since: float
    trouble: str


class Feed:
    """Callable from any thread. Numbers grow by one from change to change."""

    def __init__(self, kept: int = KEPT_CHANGES) -> None:
        self._kept, self._last = kept, 0
        self._changes: list[Change] = []
        self._listeners: list[Callable[[], None]] = []
        self._guard = threading.Lock()

    def add(self, changes: Sequence[Change]) -> None:
        """Remember ``changes``, the first of which has the number after that of the last one so far."""
        with self._guard:
            self._changes = [*self._changes, *changes][-self._kept :]
            self._last = changes[-1].number if changes else self._last

    def after(self, number: int) -> Sequence[Change] | None:
        """The changes after ``number``; None where they are not known any more, or never were."""
        with self._guard:
            first = self._last - len(self._changes)
            return self._changes[number - first :] if first <= number <= self._last else None

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have ``listener`` called by ``tell``, from any thread; it must not wait nor raise. Returns what ends that."""
        with self._guard:
            self._listeners.append(listener)
        return partial(self._forget, listener)

    def tell(self) -> None:
        """Have everybody who listens look again."""
        with self._guard:
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def _forget(self, listener: Callable[[], None]) -> None:
        with self._guard:
            if listener in self._listeners:
                self._listeners.remove(listener)
