"""What every benchmark shares: repeated timing of two things side by side, and one line that says how they compare.

Figures of a shared machine are noise; ratios within one run are not. So each subject and its peer take turns in the
same run, medians are compared, and a goal is a ratio or a limit.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """Seconds of one subject, one sample a turn."""

    name: str
    samples: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def percentile(self, percent: float) -> float:
        """The smallest sample that ``percent`` of all samples do not exceed (nearest rank)."""
        rank = math.ceil(len(self.samples) * percent / 100)
        return sorted(self.samples)[max(rank, 1) - 1]

    def __str__(self) -> str:
        return f"{self.name}: median {milliseconds(self.median)}, p95 {milliseconds(self.percentile(95))}"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def take_turns(subjects: Mapping[str, Callable[[], object]], *, turns: int, warm_up: int = 1) -> dict[str, Figure]:
    """Time every subject once a turn, so that whatever slows the machine down slows all of them down."""
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    for turn in range(warm_up + turns):
        for name, subject in subjects.items():
            begun = time.perf_counter()
            subject()
            took = time.perf_counter() - begun
            if turn >= warm_up:
                samples[name].append(took)
    return {name: Figure(name, taken) for name, taken in samples.items()}


def verdict(subject: Figure, peer: Figure, *, at_most: float) -> str:
    """``sked --help: 1.4 times python -c 'import click' (goal: at most 2): reached``."""
    ratio = subject.median / peer.median
    word = "reached" if ratio <= at_most else "missed"
    return f"{subject.name}: {ratio:.2f} times {peer.name} (goal: at most {at_most:g}): {word}"
