"""The output of a container: files that never grow for long past their cap, and that need no process of their own.

A task writes to ``output.log`` itself, through a descriptor opened for appending, so that it goes on when the agent
dies (a pipe to the agent would kill it by SIGPIPE). Nothing in the kernel caps such a file, so the agent looks at
its size a few times a second, and past the cap copies its end to ``output.log.1`` and truncates it: what is written
between copy and truncation is lost, and a flood can overshoot by what the disk takes in a quarter of a second.
While no agent runs, nobody looks.

Which instance wrote which part of what is kept stands in ``output.json``: a place in the output of an instance is the
number of bytes that it wrote before, however often the file was cut since. Without that file, or where it is wrong,
less is found again; nothing depends on it otherwise.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

import msgspec

NAME = "output.log"
MAX_BYTES = 10 * 1024 * 1024
MAX_FILES = 3
TAIL_BYTES = 256 * 1024
"""How far back the last lines are looked for."""
BOOK = "output.json"
_moving = threading.Lock()
"""Held while files change their names or are cut, so that whoever reads finds each byte once."""
_log = logging.getLogger(__name__)


class Part(msgspec.Struct, frozen=True):
    """One file: ``instance`` wrote it, and it holds what that one wrote from byte ``start`` to ``end``."""

    instance: str
    start: int
    end: int


class Book(msgspec.Struct, frozen=True):
    """``output.log`` is of ``instance``, and its first byte that one's byte ``start``. ``elders``: newest first."""

    instance: str = ""
    start: int = 0
    elders: list[Part] = []


def open_log(folder: Path) -> int:
    """A descriptor of the log in ``folder`` that appends, for the caller to close."""
    return os.open(folder / NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def begin(folder: Path, instance: str) -> None:
    """Make room for the log of a new instance: the one before becomes ``output.log.1``, the oldest goes."""
    path = folder / NAME
    if path.is_symlink() or (path.exists() and path.stat().st_size > MAX_BYTES):
        cap(folder)
    with _moving:
        book = _book(folder)
        elders = book.elders
        if path.exists() and (size := path.stat().st_size) > 0:
            _shift(folder)
            path.rename(_older(folder, 1))
            elders = [Part(book.instance, book.start, book.start + size), *elders]
        _note(folder, Book(instance, 0, elders[: MAX_FILES - 1]))


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
        with _moving:
            _cut(folder)
    return found.st_size


def _cut(folder: Path) -> None:
    fd = os.open(folder / NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    book, kept, size = _book(folder), (0, 0), 0
    try:
        _shift(folder)
        kept = _copy_end(fd, _older(folder, 1))
    finally:
        size = os.fstat(fd).st_size
        os.ftruncate(fd, 0)  # also on a full disk: it is the truncation that makes room
        os.close(fd)
        elders = [Part(book.instance, book.start + kept[0], book.start + kept[1]), *book.elders]
        _note(folder, Book(book.instance, book.start + size, elders[: MAX_FILES - 1]))


def tail(folder: Path, lines: int) -> list[str]:
    """The last lines of the log; none if there is none, or something else stands in its place."""
    path = folder / NAME
    try:
        start = max(0, path.lstat().st_size - TAIL_BYTES)
    except FileNotFoundError:
        return []
    text = _read(path, start, TAIL_BYTES)
    pieces = text.removesuffix(b"\n").split(b"\n") if text else []
    if start and len(pieces) > 1:
        del pieces[0]  # cut somewhere in its middle
    return [piece.rstrip(b"\r").decode("utf-8", "replace") for piece in pieces[-lines:]]


def drop_empty(folder: Path) -> None:
    """Remove a log to which nothing was written."""
    path = folder / NAME
    if path.is_symlink() or (path.exists() and path.stat().st_size == 0):
        path.unlink()
    if not any(folder.glob(f"{NAME}*")):
        (folder / BOOK).unlink(missing_ok=True)


def parts(folder: Path) -> list[Part]:
    """What is kept, oldest first; the last one is of the newest instance, however little that wrote."""
    with _moving:
        return [part for _, part in _files(folder)]


def piece(folder: Path, instance: str, start: int, most: int) -> tuple[int, bytes]:
    """What ``instance`` wrote at byte ``start``, ``most`` bytes at most, or where that is not kept, at the first byte
    behind it that is. Returns where that was; nothing where there is no more. Raises OSError."""
    with _moving:
        for path, part in _files(folder):
            if part.instance == instance and part.end > start:
                at = max(start, part.start)
                return at, _read(path, at - part.start, min(most, part.end - at))
    return start, b""


def _files(folder: Path) -> list[tuple[Path, Part]]:
    book = _book(folder)
    found = [(_older(folder, number), part) for number, part in enumerate(book.elders, 1)]
    size = 0
    with suppress(OSError):
        size = (folder / NAME).lstat().st_size
    return [*reversed(found), (folder / NAME, Part(book.instance, book.start, book.start + size))]


def _read(path: Path, offset: int, most: int) -> bytes:
    """Nothing where something else stands in the file's place."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            return b""
        raise
    try:
        return os.pread(fd, most, offset) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)


def _book(folder: Path) -> Book:
    try:
        return msgspec.json.decode((folder / BOOK).read_bytes(), type=Book)
    except (OSError, msgspec.MsgspecError):
        return Book()


def _note(folder: Path, book: Book) -> None:
    draft = folder / f"{BOOK}.new"
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(book))
        draft.replace(folder / BOOK)
    except OSError as error:
        _log.warning("what is kept in %s is not on record: %s", folder, error)


def _shift(folder: Path) -> None:
    for number in range(MAX_FILES - 2, 0, -1):
        if _older(folder, number).exists():
            _older(folder, number).rename(_older(folder, number + 1))


def _older(folder: Path, number: int) -> Path:
    return folder / f"{NAME}.{number}"


def _copy_end(source: int, target: Path) -> tuple[int, int]:
    """Returns which bytes were copied: from, and up to."""
    start = offset = max(0, os.fstat(source).st_size - MAX_BYTES)
    left = MAX_BYTES
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        while left and (sent := os.sendfile(fd, source, offset, left)):
            offset, left = offset + sent, left - sent
    finally:
        os.close(fd)
    return start, offset
