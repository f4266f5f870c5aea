"""A history: what every process did, put into the order in which the store carried it out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from history.recorder import PREFIX, digest
from sked_core.interfaces.store import Entry

SCHEDULER = "scheduler"
"""What the names of scheduler processes begin with."""


@dataclass(frozen=True, slots=True)
class Put:
    """A key that a commit wrote. ``lease``: what it is bound to, or ``""``; ``facts``: what is known of the value."""

    key: str
    lease: str
    digest: str
    facts: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit as its process saw it, and as the store did.

    ``began`` and ``ended``: seconds on the machine's monotonic clock, just before it was sent and just after its
    answer; ``end``: ``ok``, ``conflict``, ``lease lost``, ``unknown``, ``refused``, or empty where the process died
    before it knew. ``told``: the revision in the answer; ``revision``: the one that the store has it at, 0 where it
    was not carried out.
    """

    process: str
    number: int
    began: float
    revision: int = 0
    end: str = "ok"
    ended: float = float("inf")
    told: int = 0
    checks: Mapping[str, int] = field(default_factory=dict)
    fences: Mapping[str, str] = field(default_factory=dict)
    puts: Sequence[Put] = ()
    deletes: Sequence[str] = ()
    stopped: bool = False
    """Whether the process was stopped between the proof of its lease and the commit."""

    @property
    def name(self) -> str:
        return f"{self.process}/{self.number}"

    @property
    def by_scheduler(self) -> bool:
        return self.process.startswith(SCHEDULER)


@dataclass(frozen=True, slots=True)
class Event:
    """One change in the store's own history: a key that was written (``digest``) or removed (``digest`` empty)."""

    revision: int
    key: str
    digest: str
    lease: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """How a key stood in a snapshot."""

    revision: int
    lease: str
    digest: str


@dataclass(frozen=True, slots=True)
class Look:
    """A consistent read of one prefix."""

    prefix: str
    revision: int
    entries: Mapping[str, Held]

    @classmethod
    def of(cls, prefix: str, revision: int, entries: Mapping[str, Entry]) -> Look:
        return cls(
            prefix,
            revision,
            {key: Held(entry.revision, entry.lease, digest(entry.value)) for key, entry in entries.items()},
        )


@dataclass(frozen=True, slots=True)
class History:
    """All that is known of a run. ``strays``: commits in the store that no process wrote down. ``events``: the
    store's own history, complete and in its order; None where the engine keeps none."""

    commits: Sequence[Commit]
    strays: Sequence[str] = ()
    events: Sequence[Event] | None = None
    looks: Sequence[Look] = ()

    @property
    def effective(self) -> list[Commit]:
        """The commits that were carried out, in the store's order."""
        return sorted((one for one in self.commits if one.revision), key=lambda one: one.revision)


def revisions(entries: Mapping[str, Entry]) -> dict[str, int]:
    """``process/number`` and revision of every commit that the store carried out, from all that is below PREFIX."""
    return {key.removeprefix(PREFIX): entry.revision for key, entry in entries.items()}


def read_commits(folder: Path, carried_out: Mapping[str, int]) -> tuple[list[Commit], list[str]]:
    """The commits in the lines of all processes, and the names in ``carried_out`` that none of them has."""
    commits: list[Commit] = []
    for path in sorted(folder.glob("*.jsonl")):
        commits += _commits(path.stem, path.read_bytes(), carried_out)
    names = {one.name for one in commits}
    return commits, sorted(carried_out.keys() - names)


def _commits(process: str, data: bytes, carried_out: Mapping[str, int]) -> Iterable[Commit]:
    begun: dict[int, dict[str, Any]] = {}
    for raw in data.split(b"\n")[:-1]:  # what follows the last newline was cut off by a kill: it was never sent
        line = json.loads(raw)
        if "ops" in line:
            begun[line["n"]] = line
        else:
            begun[line["n"]][line.get("order", "answer")] = line
    for number, line in begun.items():
        ops, answer = line["ops"], line.get("answer", {})
        yield Commit(
            process=process,
            number=number,
            began=line["at"],
            revision=carried_out.get(f"{process}/{number}", 0),
            end=answer.get("end", ""),
            ended=answer.get("at", float("inf")),
            told=answer.get("revision", 0),
            checks={op[1]: op[2] for op in ops if op[0] == "check"},
            fences={op[1]: op[2] for op in ops if op[0] == "fence"},
            puts=[Put(*op[1:]) for op in ops if op[0] == "put"],
            deletes=[op[1] for op in ops if op[0] == "delete"],
            stopped="stop" in line,
        )
