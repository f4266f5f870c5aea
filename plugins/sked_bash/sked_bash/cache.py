"""Artifacts that were fetched before, by their checksum, so that a start or a restart needs no server.

One file for each, in a folder of the agent alone; nothing there is believed before its checksum was computed again. A
file has its name only once it is whole. The lock of a checksum is an flock, so that of several starts (also of several
agents on one state folder) one fetches and the others wait for it; what a killed agent leaves of it goes with the
kernel.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import IO

from sked_core.plugin import ExecutorError

_HEX = re.compile(r"[0-9a-f]{64}\Z")
_POLL_SECONDS = 0.05
_CHUNK = 1024 * 1024

Fetch = Callable[[IO[bytes]], None]


class Cache:
    """Holds at most ``most`` bytes in ``folder``; what was not used for longest goes first."""

    def __init__(self, folder: Path, most: int) -> None:
        self._folder, self._most = folder, most

    @contextmanager
    def taken(self, checksum: str, fetch: Fetch, deadline: float, called_off: Event) -> Iterator[int]:
        """A descriptor to read the file of ``checksum`` from, which was verified; ``fetch`` gets it where it is not
        there, and has to verify it. Without a checksum, or where none may be kept, a file that is nobody else's.

        Raises what ``fetch`` raises, OSError, and ExecutorError where another start fetches it beyond ``deadline``.
        """
        self._prepare()
        if not checksum or not self._most:
            with tempfile.TemporaryFile(dir=self._folder) as file:  # it never has a name
                fetch(file)
                file.flush()
                fd = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
                try:
                    yield fd
                finally:
                    os.close(fd)
            return
        with self._locked(checksum, deadline, called_off):
            kept = self._verified(checksum)
            fd = self._fetch(checksum, fetch) if kept is None else kept
        try:
            self._prune(checksum)
            yield fd
        finally:
            os.close(fd)

    def clear(self) -> bool:
        """Give up all that is kept; whether there was anything. What is being read stays readable."""
        found = False
        for path in self._files():
            with suppress(OSError):
                path.unlink()
                found = True
        return found

    def _prepare(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = self._folder.lstat()
        if self._folder.is_symlink() or info.st_uid != os.geteuid():
            raise ExecutorError(f"{self._folder} is not a folder of the agent's own", hint="remove it")
        if info.st_mode & 0o077:
            self._folder.chmod(0o700)

    def _verified(self, checksum: str) -> int | None:
        """A descriptor of the file, if it is there and is what its name says; one that is not is removed."""
        path = self._folder / checksum
        with suppress(OSError):  # it is not there, or its disk can't be read any more
            fd = _open(path)
            try:
                if _sum(fd) == checksum:
                    os.utime(fd)
                    fd, found = -1, fd
                    return found
            finally:
                if fd >= 0:
                    os.close(fd)
        path.unlink(missing_ok=True)
        return None

    def _fetch(self, checksum: str, fetch: Fetch) -> int:
        part = self._folder / f"{checksum}.part"
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "w+b") as file:
                fetch(file)
            found = _open(part)
            try:
                part.rename(self._folder / checksum)
            except BaseException:
                os.close(found)
                raise
            return found
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def _files(self) -> list[Path]:
        """Those that are whole, the one that was not used for longest first."""
        found = []
        for path in self._folder.iterdir():
            if _HEX.match(path.name):
                with suppress(FileNotFoundError):
                    found.append((path.lstat().st_mtime, path))
        return [path for _, path in sorted(found)]

    def _prune(self, but: str) -> None:
        files = self._files()
        sizes = {path: path.lstat().st_size for path in files if path.exists()}
        total = sum(sizes.values())
        for path in files:
            if total > self._most and path.name != but:
                path.unlink(missing_ok=True)
                total -= sizes.get(path, 0)
        # What killed agents left: half a file, and locks of files that are gone.
        for lock in self._folder.glob("*.lock"):
            if (self._folder / lock.stem).exists():
                continue
            fd = _try_lock(lock)
            if fd is not None:
                (self._folder / f"{lock.stem}.part").unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
                os.close(fd)

    @contextmanager
    def _locked(self, checksum: str, deadline: float, called_off: Event) -> Iterator[None]:
        path = self._folder / f"{checksum}.lock"
        while (fd := _try_lock(path)) is None:
            if time.monotonic() >= deadline or called_off.wait(_POLL_SECONDS):
                raise ExecutorError(f"artifact sha256:{checksum}: another start still fetches it")
        try:
            yield
        finally:
            if not (self._folder / checksum).exists():
                path.unlink(missing_ok=True)
            fcntl.flock(fd, fcntl.LOCK_UN)  # a process that is just being spawned may have a copy of the descriptor
            os.close(fd)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _sum(fd: int) -> str:
    hashed = hashlib.sha256()
    with os.fdopen(os.dup(fd), "rb") as file:
        while chunk := file.read(_CHUNK):
            hashed.update(chunk)
    return hashed.hexdigest()


def _try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock; None where somebody else does, or has just removed it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_ino == path.lstat().st_ino:
            return fd
    os.close(fd)
    return None
