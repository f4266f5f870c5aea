"""The database file of the embedded store: its tables, its creation, and what its failures mean.

``sked.db`` may be read and written with any SQLite tool while Sked runs: triggers number the changes of others, so
``INSERT OR REPLACE INTO entries (key, value) VALUES ('config/…', '{…}')`` and ``DELETE FROM entries WHERE key = …``
are seen at once.

SQLite syncs its write-ahead log at every commit (WAL, synchronous=FULL), so that what was acknowledged survives the
kill of any process and the loss of power. See https://www.sqlite.org/howtocorrupt.html for what the care around
creation and replacement of the file is about.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from sked_core.errors import Unavailable

DEADLINE_S = 10.0
"""Longest wait for a lock that another process holds."""
_LOOK_AGAIN_S = 0.0005

_APPLICATION_ID = 0x736B6564  # "sked", as the schema sets it
_FORMAT = 1
_SCHEMA = """
BEGIN IMMEDIATE;
-- A rowid table: with values of a kilobyte WITHOUT ROWID takes three times the space.
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY NOT NULL CHECK (typeof(key) = 'text'),
    value BLOB NOT NULL,
    revision INTEGER NOT NULL DEFAULT 0,
    lease TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS entries_by_lease ON entries (lease) WHERE lease != '';
-- Times in nanoseconds on the clock of the boot that ``boot`` names.
CREATE TABLE IF NOT EXISTS leases (
    id TEXT PRIMARY KEY NOT NULL,
    ttl INTEGER NOT NULL,
    boot TEXT NOT NULL,
    expires INTEGER NOT NULL
);
-- The latest changes: keys by line. The highest revision is the store's.
CREATE TABLE IF NOT EXISTS changes (revision INTEGER PRIMARY KEY, keys TEXT NOT NULL);
CREATE TRIGGER IF NOT EXISTS entry_deleted AFTER DELETE ON entries BEGIN
    INSERT INTO changes (keys) VALUES (OLD.key);
END;
CREATE TRIGGER IF NOT EXISTS entry_inserted_by_hand AFTER INSERT ON entries WHEN NEW.revision = 0 BEGIN
    INSERT INTO changes (keys) VALUES (NEW.key);
    UPDATE entries SET revision = (SELECT max(revision) FROM changes) WHERE key = NEW.key;
END;
CREATE TRIGGER IF NOT EXISTS entry_updated_by_hand AFTER UPDATE OF key, value ON entries
WHEN NEW.revision = OLD.revision BEGIN
    INSERT INTO changes (keys) VALUES (OLD.key || char(10) || NEW.key);
    UPDATE entries SET revision = (SELECT max(revision) FROM changes) WHERE key = NEW.key;
END;
PRAGMA application_id = 0x736B6564;
PRAGMA user_version = 1;
COMMIT;
"""

Identity = tuple[int, int]
"""Device and inode of a file: whether a path still leads to the file that was opened. An inode number is not given
out again while the old file is open."""

_opening = threading.Lock()


class Connection(sqlite3.Connection):
    """A connection that knows which file it has open."""

    identity: Identity


def identity_of(path: Path) -> Identity | None:
    """Which file is at ``path``; None where there is none."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return None


def open_database(path: Path) -> Connection:
    """A connection to the store's file, which is created, private to its owner, where it is missing.

    Raises sqlite3.Error, OSError and Unavailable: see ``failures_of``.
    """
    # One at a time: SQLite's locks of a file are dropped when this process closes any descriptor of it, also the
    # one with which it was created.
    with _opening:
        if identity_of(path) is not None:
            connection = _connect(path)
            if _is_prepared(connection, path):
                return connection
            connection.close()
        with _locked_folder(path.parent):
            _create_if_missing(path)
            connection = _connect(path)
            if not _is_prepared(connection, path):
                connection.executescript(_SCHEMA)
            return connection


def begin_writing(connection: Connection) -> None:
    """Begin a transaction as soon as no other process has one, at the latest within DEADLINE_S.

    SQLite's own waiting sleeps ever longer, up to 0.1 s: of several busy writers one would starve for seconds.
    """
    deadline = time.monotonic() + DEADLINE_S
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(_LOOK_AGAIN_S)
    finally:
        connection.execute(f"PRAGMA busy_timeout = {int(DEADLINE_S * 1000)}")


@contextlib.contextmanager
def failures_of(path: Path) -> Iterator[None]:
    """Turns every failure of the database at ``path`` into Unavailable with advice."""
    try:
        yield
    except sqlite3.Error as error:
        # Only errors of the library itself have a code; those of misuse (a connection closed meanwhile) have none.
        raise _explain(path, error, getattr(error, "sqlite_errorcode", 0) & 0xFF) from error
    except OSError as error:
        raise Unavailable(f"cannot use {path} as a store ({error.strerror or error})") from error


def _connect(path: Path) -> Connection:
    if not stat.S_ISREG(path.stat().st_mode):
        raise Unavailable(f"cannot use {path} as a store (it is not a file)")
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=rw",  # never create: the file would get the mode of the umask
        uri=True,
        timeout=DEADLINE_S,
        isolation_level=None,
        check_same_thread=False,
        factory=Connection,
    )
    try:
        found = identity_of(path)
        if found is None:
            raise FileNotFoundError(f"{path} was removed while it was being opened")
        connection.identity = found
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise Unavailable(f"{path} can't be shared between processes there", hint="put it on a local file system")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 16777216")
        connection.execute("PRAGMA cache_size = -1024")
    except BaseException:
        connection.close()
        raise
    return connection


def _is_prepared(connection: Connection, path: Path) -> bool:
    """Whether the tables are there. Raises Unavailable for a database of another program or a later format."""
    connection.execute("BEGIN")
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    connection.execute("COMMIT")
    if application == _APPLICATION_ID and found > _FORMAT:
        raise Unavailable(f"{path} was written by a later version of Sked", hint="upgrade sked-core on this host")
    if application != _APPLICATION_ID and tables:
        raise Unavailable(f"{path} is a database of another program", hint="give the store a path of its own")
    return bool(application == _APPLICATION_ID)


def _create_if_missing(path: Path) -> None:
    if path.exists():
        return
    # Leftovers of a file that was removed while in use would be taken for those of the new one.
    for suffix in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))


@contextlib.contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    """Holds the one lock under which stores of ``folder`` are created; creates the folder first."""
    for missing in reversed([part for part in (folder, *folder.parents) if not part.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Unavailable(f"{folder} stayed locked by another process for {DEADLINE_S:.0f} s") from None
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _explain(path: Path, error: sqlite3.Error, code: int) -> Unavailable:
    match code:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Unavailable(
                f"{path} stayed locked by another process for {DEADLINE_S:.0f} s",
                hint=f"look for a process that hangs: fuser {path}",
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return Unavailable(
                f"{path} is damaged, or no SQLite database ({error})",
                hint="stop Sked on this host, move the file aside, and put a backup in its place or start empty",
            )
        case sqlite3.SQLITE_FULL:
            return Unavailable(f"no space left to write {path}", hint=f"look at: df {path.parent}")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return Unavailable(
                f"cannot open {path} for writing ({error})",
                hint=f"the folder has to be writable too: ls -la {path.parent}",
            )
        case _:
            return Unavailable(f"cannot use {path} as a store ({error})")
