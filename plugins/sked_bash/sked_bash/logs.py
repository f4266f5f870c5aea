"""The output of a container: files that never grow for long past their cap, and that need no process of their own.

A task writes to ``output.log`` itself, through a descriptor opened for appending, so that it goes on when the agent
dies (a pipe to the agent would kill it by SIGPIPE). Nothing in the kernel caps such a file, so the agent looks at
its size a few times a second, and past the cap copies its end to ``output.log.1`` and truncates it: what is written
between copy and truncation is lost, and a flood can overshoot by what the disk takes in a quarter of a second.
While no agent runs, nobody looks.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

NAME = "output.log"
MAX_BYTES = 10 * 1024 * 1024
MAX_FILES = 3
TAIL_BYTES = 256 * 1024
"""How far back the last lines are looked for."""


def open_log(folder: Path) -> int:
    """A descriptor of the log in ``folder`` that appends, for the caller to close."""
    return os.open(folder / NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def roll(folder: Path) -> None:
    """Make room for the log of a new instance: the one before becomes ``output.log.1``, the oldest goes."""
    path = folder / NAME
    if path.is_symlink() or (path.exists() and path.stat().st_size > MAX_BYTES):
        cap(folder)
    if path.exists() and path.stat().st_size > 0:
        _shift(folder)
        path.rename(_older(folder, 1))


def cap(folder: Path) -> int:
    """Cut the log where it is past MAX_BYTES, keeping its end as ``output.log.1``. Returns the size that it had.

    Something else in the log's place (a symlink or a device that the task put there) is removed.
    """
    path = folder / NAME
    try:
        found = path.lstat()
    except FileNotFoundError:
        return 0
    if not stat.S_ISREG(found.st_mode):
        path.unlink()
        return 0
    if found.st_size > MAX_BYTES:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _shift(folder)
            _copy_end(fd, _older(folder, 1))
        finally:
            os.ftruncate(fd, 0)  # also on a full disk: it is the truncation that makes room
            os.close(fd)
    return found.st_size


def tail(folder: Path, lines: int) -> list[str]:
    """The last lines of the log; none if there is none, or something else stands in its place."""
    try:
        fd = os.open(folder / NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            return []
        raise
    try:
        found = os.fstat(fd)
        start = max(0, found.st_size - TAIL_BYTES)
        text = os.pread(fd, TAIL_BYTES, start) if stat.S_ISREG(found.st_mode) else b""
    finally:
        os.close(fd)
    pieces = text.removesuffix(b"\n").split(b"\n") if text else []
    if start and len(pieces) > 1:
        del pieces[0]  # cut somewhere in its middle
    return [piece.rstrip(b"\r").decode("utf-8", "replace") for piece in pieces[-lines:]]


def drop_empty(folder: Path) -> None:
    """Remove a log to which nothing was written."""
    path = folder / NAME
    if path.is_symlink() or (path.exists() and path.stat().st_size == 0):
        path.unlink()


def _shift(folder: Path) -> None:
    for number in range(MAX_FILES - 2, 0, -1):
        if _older(folder, number).exists():
            _older(folder, number).rename(_older(folder, number + 1))


def _older(folder: Path, number: int) -> Path:
    return folder / f"{NAME}.{number}"


def _copy_end(source: int, target: Path) -> None:
    offset = max(0, os.fstat(source).st_size - MAX_BYTES)
    left = MAX_BYTES
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        while left and (sent := os.sendfile(fd, source, offset, left)):
            offset, left = offset + sent, left - sent
    finally:
        os.close(fd)
