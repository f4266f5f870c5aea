"""What is found while a file is turned into manifests, each with its place in the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from sked_core.plugin import Document, Problem, check_spec


@dataclass(slots=True)
class Findings:
    """``wrong``: the file can't be that way. ``lost``: what the manifests lack that the file has, or have otherwise.
    ``notes``: what else whoever applies them should know."""

    document: Document
    wrong: list[Problem] = field(default_factory=list)
    lost: dict[Problem, None] = field(default_factory=dict)  # ordered, and each once
    notes: dict[Problem, None] = field(default_factory=dict)

    def refuse(self, path: str, message: str) -> None:
        self.wrong.append(Problem(path, message, self.document.file, *self._place(path)))

    def lose(self, path: str, why: str, what: str = "left out") -> None:
        """``what`` is said of it: that it is left out, unless it became something else."""
        self.lost[Problem(path, f"{what}: {why}", self.document.file, *self._place(path), warning=True)] = None

    def note(self, path: str, message: str) -> None:
        self.notes[Problem(path, message, self.document.file, *self._place(path), warning=True)] = None

    def sound(self, value: object, kind: type[msgspec.Struct], path: str) -> dict[str, Any]:
        """The fields of the mapping ``value`` that have the type that ``kind`` says, without those that say nothing
        and without extensions (``x-…``); the others are refused."""
        if not isinstance(value, Mapping):
            problems = check_spec(value, kind, path) if value is not None else []
            value = {}
        else:
            value = {name: one for name, one in value.items() if not str(name).startswith("x-")}
            problems = check_spec(value, kind, path)
        for problem in problems:
            self.refuse(problem.path, problem.message)
        broken = [problem.path[len(path) + 1 if path else 0 :] for problem in problems]
        return {
            name: one
            for name, one in value.items()
            if one is not None and not any(at == name or at.startswith((f"{name}.", f"{name}[")) for at in broken)
        }

    def _place(self, path: str) -> tuple[int, int]:
        return self.document.place(path, key=True)
