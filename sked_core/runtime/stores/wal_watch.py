"""Tells at once, and at no cost while nothing happens, that some process has committed to a SQLite database."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sked_core.errors import Unavailable
from sked_core.runtime.stores.sqlite_file import (
    DEADLINE_S,
    Connection,
    Identity,
    failures_of,
    identity_of,
    open_database,
)

if TYPE_CHECKING:
    from inotify_simple import INotify  # type: ignore[import-untyped]

_WRITTEN, _LINKED = 0x2, 0x4  # IN_MODIFY; IN_ATTRIB, which also tells that the file was removed
_SLOW_POLL_S = 1.0
_FAST_POLL_S = 0.05  # where the kernel can't tell: other systems, or its limits are reached; 0.5 % of a core
# SQLite publishes a commit only after the write that the kernel reports, one sync later: look again after these
# pauses, which begin anew with every write. All of them, also when a commit was found: it may have been an earlier one.
_PUBLISHED_AFTER_S = (0.0, 0.001, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256)


class CommitWatch:
    """Calls ``changed`` from a thread of its own soon after a commit to the database at ``path``, made by any
    process; also when the file was replaced, and every now and then while the database can't be read."""

    def __init__(self, path: Path, changed: Callable[[], None]) -> None:
        self._path = path
        self._changed = changed
        self._connection: Connection | None = None
        self._version: int | None = None
        self._pauses: Iterator[float] = iter(())
        self._closed = False
        self._log = _LogWatch(path.with_name(path.name + "-wal"))
        self._thread = threading.Thread(target=self._run, name="sked-commit-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread. Called once, not from ``changed``."""
        self._closed = True
        self._log.interrupt()
        self._thread.join(DEADLINE_S)

    def _run(self) -> None:
        while not self._closed:
            if self._committed():
                self._changed()
            if self._log.wait(next(self._pauses, _SLOW_POLL_S)):
                self._pauses = iter(_PUBLISHED_AFTER_S)
        self._drop_connection()
        self._log.close()

    def _committed(self) -> bool:
        """Whether there was a commit since the last look, or may have been."""
        try:
            with failures_of(self._path):
                connection = self._connection_to(identity_of(self._path))
                self._log.arm()  # before the look, so that nothing falls between
                seen, self._version = self._version, _data_version(connection)
                return seen != self._version
        except Unavailable:
            self._drop_connection()
            return True  # whoever waits finds out by itself what is wrong

    def _connection_to(self, current: Identity | None) -> Connection:
        if self._connection is not None and self._connection.identity != current:
            self._drop_connection()
        if self._connection is None:
            self._connection = open_database(self._path)
            _data_version(self._connection)  # makes SQLite open the log
            self._version = None
            self._pauses = iter(_PUBLISHED_AFTER_S)  # a commit may have been written before there was a watch
        return self._connection

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _LogWatch:
    """Waits for writes to a file that may come and go. ``interrupt`` may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._pipe: tuple[int, int] | None = os.pipe()
        self._poll = select.poll()
        self._poll.register(self._pipe[0], select.POLLIN)
        self._inotify: INotify | None = None
        if sys.platform == "linux":
            from inotify_simple import INotify  # here, so that commands that never wait don't load ctypes

            with contextlib.suppress(OSError):
                self._inotify = INotify()
                self._poll.register(self._inotify.fileno(), select.POLLIN)

    def arm(self) -> None:
        """Watch the file that is at the path now, if there is one. One that is watched already stays so."""
        if self._inotify is None:
            return
        try:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # the next look finds what comes
                self._inotify.add_watch(self._path, _WRITTEN | _LINKED)
        except OSError:
            self._poll.unregister(self._inotify.fileno())
            self._inotify.close()
            self._inotify = None

    def wait(self, timeout: float) -> bool:
        """Return after a write (True), an interrupt, or ``timeout`` seconds; sooner where writes can't be told."""
        pause = min(timeout, _FAST_POLL_S) if self._inotify is None else timeout
        ready = [descriptor for descriptor, _ in self._poll.poll(pause * 1000)]
        if self._inotify is None or self._inotify.fileno() not in ready:
            return False
        self._inotify.read(timeout=0)
        return True

    def interrupt(self) -> None:
        """End the wait in progress, or the next one."""
        with self._lock:
            if self._pipe is not None:
                os.write(self._pipe[1], b".")

    def close(self) -> None:
        with self._lock:
            pipe, self._pipe = self._pipe, None
        for descriptor in pipe or ():
            os.close(descriptor)
        if self._inotify is not None:
            self._inotify.close()


def _data_version(connection: Connection) -> int:
    """A number that changes with the commits of all other connections, in this process or another."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])
