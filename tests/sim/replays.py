"""Runs that found something once. Dice that change lead elsewhere: then the seed is looked for again, with the bug put
back in place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Replay:
    """One run, and what it found."""

    store: str
    seed: int
    steps: int
    found: str

    def __str__(self) -> str:
        return f"{self.store}-{self.seed}"


REPLAYS: tuple[Replay, ...] = ()
