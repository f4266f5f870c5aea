"""Reads manifests from files, folders and standard input. Only plain files are opened, and only so much is read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from sked_core.errors import Problem
from sked_core.model.spec import plain
from sked_core.model.yaml_source import MAX_BYTES, Source, parse

SUFFIXES = (".yml", ".yaml", ".json")


def load_sources(paths: Iterable[str], stdin: BinaryIO) -> tuple[Source, ...]:
    """Every file that ``paths`` name: a file, ``-`` for ``stdin``, or a folder for its ``*.yml``, ``*.yaml`` and
    ``*.json`` (sorted by name, not those of folders inside it). A file that is named twice is read once.

    Never raises for a file's sake: one that is missing, can't be read or is no plain file is a source with a
    problem.
    """
    sources: dict[str, Source] = {}
    for path in paths:
        for name in [path] if path == "-" else _files(path):
            key = name if name == "-" else os.path.realpath(name.replace("\0", ""))  # follows no symlink for ever
            if key not in sources:
                sources[key] = _read(name, stdin)
    return tuple(sources.values())


def _files(path: str) -> list[str]:
    folder = Path(path)
    try:
        if folder.is_dir():
            inside = sorted(str(file) for file in folder.iterdir() if file.suffix in SUFFIXES and not file.is_dir())
            return inside or [path]
    except (OSError, ValueError):
        return [path]
    return [path]


def _read(name: str, stdin: BinaryIO) -> Source:
    if name == "-":
        return parse(stdin.read(MAX_BYTES + 1), "<stdin>")
    try:
        # Not blocking: opening a FIFO would otherwise wait for a writer, maybe for ever.
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                return _unreadable(name, f"is {_kind(mode)}, not a file; use - to read from a pipe")
            return parse(file.read(MAX_BYTES + 1), name)
    except IsADirectoryError:
        return _unreadable(name, f"the folder holds no {', '.join('*' + suffix for suffix in SUFFIXES)}")
    except FileNotFoundError:
        return _unreadable(name, "no such file")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return _unreadable(name, f"can't be read: {reason}")


def _unreadable(name: str, message: str) -> Source:
    return Source(plain(name), problems=(Problem("", plain(message), plain(name)),))


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"
