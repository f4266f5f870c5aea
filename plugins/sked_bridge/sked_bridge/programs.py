"""Which programs there are: files of one folder, by their names alone, and whether they may be run."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from sked_core.plugin import InvalidValue, PluginError, open_trusted, plain

VARIABLE = "SKED_BRIDGE_PROGRAMS"
FOLDER = Path("/etc/sked/programs")
"""Looked into where no other is named; the only one that may be missing."""
_NAME = re.compile(r"(executor|scheduler|secrets)-([a-z0-9][a-z0-9_-]{0,62})\Z")


@dataclass(frozen=True, slots=True)
class Program:
    """An executable file. ``kind``: executor, scheduler or secrets; ``name``: what it is offered as."""

    kind: str
    name: str
    path: Path

    def __str__(self) -> str:
        return f"program {plain(str(self.path))}"

    def judged(self) -> tuple[Path, int, int]:
        """The path to run it by, on which there is no link that somebody might turn elsewhere since, and what tells
        this file from one that replaces it. Raises PluginError if it must not be run with the agent's rights, or can't
        be."""
        try:
            file = open_trusted(self.path)
        except InvalidValue as error:
            raise PluginError(f"{self} is not run: {error}", hint=error.hint) from None
        except OSError as error:
            what = "it is a symbolic link: copy the file itself" if self.path.is_symlink() else error.strerror
            raise PluginError(f"{self} is not run: {what}") from None
        try:
            facts, real = os.fstat(file), Path(f"/proc/self/fd/{file}").readlink()
        finally:
            os.close(file)
        if not facts.st_mode & 0o111:
            raise PluginError(f"{self} is not run: it is not executable", hint=f"chmod +x {plain(str(self.path))}")
        return real, facts.st_ino, facts.st_mtime_ns


def found(kind: str) -> list[Program]:
    """The programs of one kind, by name. Files of other names are none of ours, and those that nobody may execute are
    none yet; whether the agent may run one is asked when it does. Raises PluginError where the folder that is named
    can't be looked into."""
    return [one for one in _named() if one.kind == kind and _executable(one.path)]


def problems() -> list[str]:
    """What keeps programs from being offered, or run, by whoever asks: a line each."""
    try:
        programs = _named()
    except PluginError as error:
        return [str(error)]
    lines = []
    for program in programs:
        try:
            program.judged()
        except PluginError as error:
            lines.append("; ".join(filter(None, (str(error), error.hint))))
    return lines


def _executable(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & 0o111)
    except OSError:
        return True  # a link to nowhere, say: it is named where it is asked for, with the reason


def _named() -> list[Program]:
    """All files with names of programs. Raises PluginError."""
    named = os.environ.get(VARIABLE, "")
    folder = Path(named or FOLDER).absolute()
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        if not named and isinstance(error, FileNotFoundError):
            return []
        where = f"{VARIABLE} names it" if named else "programs are looked for there"
        raise PluginError(f"{plain(str(folder))}: {error.strerror} ({where})") from None
    matches = ((_NAME.match(path.name), path) for path in paths)
    return [Program(match[1], match[2], path) for match, path in matches if match]
