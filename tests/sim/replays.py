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


REPLAYS = (
    Replay(
        "etcd", 4, 12, "a task was restarted as unhealthy on what had been true before its health could not be read"
    ),
    Replay("etcd", 17, 12, "the same, by an agent that had been paused"),
    Replay("etcd", 29, 12, "the same, with jobs that took long"),
)
