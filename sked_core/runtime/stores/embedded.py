"""``sqlite:///absolute/path.db``: one file as the store of one host, shared by any number of its processes."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sked_core.errors import Conflict, InvalidValue, LeaseLost, Unavailable
from sked_core.interfaces.store import Check, Delete, Entry, Fence, Lease, Op, Put, Revision, Snapshot, Store, check_key
from sked_core.model.codec import MAX_OBJECT_BYTES
from sked_core.runtime.stores.memory import check_ops
from sked_core.runtime.stores.sqlite_file import (
    DEADLINE_S,
    Connection,
    Identity,
    begin_writing,
    failures_of,
    identity_of,
    open_database,
)
from sked_core.runtime.stores.wal_watch import CommitWatch

_CHANGES_KEPT = 1000
_IDLE_CONNECTIONS = 4
_BEHIND_KEYS = "\x7f"  # sorts behind every character of a key
_File = tuple[int, Identity]
# A lease ends at its expiry, with its boot, or when it claims more time than its ttl (a clock that started over).
_ENDED = "boot != :boot OR expires <= :now OR expires > :now + ttl"


class EmbeddedStore:
    """The store in the SQLite file ``path``; file and folder are created, private to their owner, when first needed.

    Leases run by the clock of the host's current boot, and end with it; there is no minimum ttl. If the file is
    removed or replaced, the store is what is at the path now. Any call may take up to twice DEADLINE_S. A closed
    store raises Unavailable.
    """

    max_ops: int = 512
    max_value_bytes: int = 2 * MAX_OBJECT_BYTES

    def __init__(self, path: Path) -> None:
        self._path = Path(os.path.realpath(path))  # where SQLite keeps the log, if path is a link
        self._boot = _boot_id()
        self._writer = threading.Lock()  # writers of one process queue here: SQLite's own waiting is not fair
        self._guard = threading.Lock()
        self._idle: list[Connection] = []
        self._closed = False
        self._waiting: dict[threading.Event, str] = {}  # who waits for changes below which prefix
        self._told: _News | None = None
        self._watch: CommitWatch | None = None
        self._losses = 0  # how often connections were closed because of what became of the file
        self._read_from = threading.local()  # .file: the one that this thread has last read

    def read(self, prefix: str) -> Snapshot:
        check_key(prefix, prefix=True)
        with self._reading() as db:
            rows = db.execute(
                "SELECT key, CAST(value AS BLOB), revision, lease FROM entries WHERE key >= ? AND key < ?",
                (prefix, prefix + _BEHIND_KEYS),
            ).fetchall()
            entries = {key: Entry(value, Revision(revision), lease) for key, value, revision, lease in rows}
            self._read_from.file = self._file(db)
            return Snapshot(entries, _revision(db))

    def read_keys(self, prefix: str) -> list[str]:
        """As ``read``, the keys alone."""
        check_key(prefix, prefix=True)
        with self._reading() as db:
            rows = db.execute(
                "SELECT key FROM entries WHERE key >= ? AND key < ?", (prefix, prefix + _BEHIND_KEYS)
            ).fetchall()
        return [key for (key,) in rows]

    def commit(self, ops: Sequence[Op]) -> Revision:
        check_ops(ops, max_ops=self.max_ops, max_value_bytes=self.max_value_bytes)
        with self._writing() as db:
            for op in ops:
                _demand(db, op)
            return _change(db, ops)

    def wait(self, prefix: str, since: Revision, timeout: float) -> Revision:
        check_key(prefix, prefix=True)
        deadline = time.monotonic() + timeout
        known: _File | None = getattr(self._read_from, "file", None)
        woken = threading.Event()
        with self._guard:
            self._waiting[woken] = prefix
        try:
            while True:
                woken.clear()
                with self._reading() as db:
                    current = _revision(db)
                    changed = _concerns(_changes(db, since), prefix)
                    pause = self._until_expiry(db)
                    file = self._file(db)
                replaced = known not in (None, file)
                known = self._read_from.file = file
                left = deadline - time.monotonic()
                if changed or replaced or left <= 0:
                    return current
                since = current
                self._start_watch()
                woken.wait(min(left, pause))
                if self._closed:
                    return current
        finally:
            with self._guard:
                del self._waiting[woken]

    def grant(self, ttl: float) -> Lease:
        if not ttl > 0:
            raise InvalidValue(f"a lease needs a ttl of more than 0 seconds, got {ttl}")
        lease = _EmbeddedLease(os.urandom(8).hex(), ttl, self)
        with self._writing() as db:
            db.execute(
                "INSERT INTO leases (id, ttl, boot, expires) VALUES (?, ?, ?, ?)",
                (lease.id, round(ttl * 1e9), self._boot, _now() + round(ttl * 1e9)),
            )
        return lease

    def renew(self, lease: str) -> None:
        """What ``Lease.renew`` does, by the lease's id."""
        with self._writing() as db:
            if not db.execute("UPDATE leases SET expires = ? + ttl WHERE id = ?", (_now(), lease)).rowcount:
                raise LeaseLost(f"lease {lease} has ended")

    def revoke(self, lease: str) -> None:
        """What ``Lease.revoke`` does, by the lease's id."""
        with self._writing() as db:
            db.execute("DELETE FROM leases WHERE id = ?", (lease,))
            _drop_unleased(db)

    def close(self) -> None:
        with self._guard:
            self._closed = True
            idle, self._idle = self._idle, []
            watch, self._watch = self._watch, None
            for woken in self._waiting:
                woken.set()
        if watch is not None:
            watch.close()
        for connection in idle:
            connection.close()

    # --- transactions

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Connection]:
        """A connection to the file that is at the path now. What the body leaves open is rolled back."""
        with failures_of(self._path):
            connection = self._take_idle() or open_database(self._path)
            sound = False
            try:
                yield connection
                sound = True
            except (Conflict, LeaseLost):
                sound = True
                raise
            finally:
                with contextlib.suppress(sqlite3.Error):  # then the close undoes it
                    connection.rollback()
                with self._guard:
                    keep = sound and not self._closed and len(self._idle) < _IDLE_CONNECTIONS
                    if keep:
                        self._idle.append(connection)
                    self._losses += not sound
                if not keep:
                    connection.close()

    def _take_idle(self) -> Connection | None:
        current = identity_of(self._path)
        with self._guard:
            if self._closed:
                raise Unavailable(f"the store {self._path} was closed")
            while self._idle:
                connection = self._idle.pop()
                if connection.identity == current:
                    return connection
                connection.close()
                self._losses += 1
        return None

    def _file(self, db: Connection) -> _File:
        """Which file ``db`` has open. Once no connection has the last one open its inode number may be that of the
        next: so it counts too how often that can have happened."""
        return self._losses, db.identity

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        """A consistent view of the living: leases that have ended are cleared away before."""
        with self._connection() as db:
            if db.execute(f"SELECT 1 FROM leases WHERE {_ENDED}", self._moment()).fetchone():  # noqa: S608
                self.commit(())
            db.execute("BEGIN")
            yield db

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction that is carried out when the body ends well. Leases that have ended are gone in it."""
        if not self._writer.acquire(timeout=DEADLINE_S):
            raise Unavailable(f"{self._path}: another thread has been writing for {DEADLINE_S:.0f} s")
        try:
            with self._connection() as db:
                begin_writing(db)
                if db.execute(f"DELETE FROM leases WHERE {_ENDED}", self._moment()).rowcount:  # noqa: S608
                    _drop_unleased(db)
                yield db
                news = self._news(db)
                db.execute("COMMIT")
        finally:
            self._writer.release()
        self._tell(news)

    def _moment(self) -> dict[str, str | int]:
        return {"boot": self._boot, "now": _now()}

    def _until_expiry(self, db: Connection) -> float:
        """Seconds until the next lease may end."""
        expires = db.execute("SELECT min(expires) FROM leases").fetchone()[0]
        return float("inf") if expires is None else max(0.0, (expires - _now()) / 1e9) + 0.001

    # --- news for those who wait

    def _news(self, db: Connection) -> _News:
        """What ``db`` sees and those who wait have not been told."""
        told = self._told
        file = self._file(db)
        keys = _changes(db, told.revision) if told and told.file == file else None
        return _News(file, _revision(db), keys)

    def _tell(self, news: _News | None) -> None:
        """Wake the threads that ``news`` concerns; all of them if the news is that nothing can be known."""
        with self._guard:
            self._told = news
            for woken, prefix in self._waiting.items():
                if news is None or _concerns(news.keys, prefix):
                    woken.set()

    def _hear(self) -> None:
        """Called by the watch: some connection has committed."""
        news = None
        with contextlib.suppress(Unavailable), self._connection() as db:
            db.execute("BEGIN")
            news = self._news(db)
        self._tell(news)

    def _start_watch(self) -> None:
        with failures_of(self._path), self._guard:
            if self._watch is None and not self._closed:
                self._watch = CommitWatch(self._path, self._hear)


@dataclass(frozen=True, slots=True)
class _News:
    """The state of a file, and the keys that changed on the way there; None: any may have."""

    file: _File
    revision: Revision
    keys: Sequence[str] | None


@dataclass(slots=True, eq=False)
class _EmbeddedLease:
    id: str
    ttl: float
    _store: EmbeddedStore

    def renew(self) -> None:
        self._store.renew(self.id)

    def revoke(self) -> None:
        self._store.revoke(self.id)


def _demand(db: Connection, op: Op) -> None:
    """Raise unless the commit may go through as far as ``op`` is concerned."""
    match op:
        case Check(key, revision):
            found = db.execute("SELECT revision FROM entries WHERE key = ?", (key,)).fetchone() or (0,)
            if found[0] != revision:
                raise Conflict(f"{key} is at revision {found[0]}, not {revision}")
        case Fence(key, lease):
            if not db.execute("SELECT 1 FROM entries WHERE key = ? AND lease = ?", (key, lease.id)).fetchone():
                raise Conflict(f"{key} is not held by lease {lease.id}")
        case Put(key, _, lease) if lease is not None:
            if not db.execute("SELECT 1 FROM leases WHERE id = ?", (lease.id,)).fetchone():
                raise LeaseLost(f"lease {lease.id} has ended, {key} can't be bound to it")


def _change(db: Connection, ops: Sequence[Op]) -> Revision:
    """Carry out the writes; a trigger notes the deletions."""
    db.executemany("DELETE FROM entries WHERE key = ?", [(op.key,) for op in ops if isinstance(op, Delete)])
    puts = [op for op in ops if isinstance(op, Put)]
    if puts:
        keys = "\n".join(op.key for op in puts)
        revision = db.execute("INSERT INTO changes (keys) VALUES (?)", (keys,)).lastrowid
        db.executemany(
            "INSERT INTO entries (key, value, revision, lease) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE"
            " SET value = excluded.value, revision = excluded.revision, lease = excluded.lease",
            [(op.key, op.value, revision, op.lease.id if op.lease else "") for op in puts],
        )
    latest = _revision(db)
    db.execute("DELETE FROM changes WHERE revision <= ?", (latest - _CHANGES_KEPT,))
    return latest


def _drop_unleased(db: Connection) -> None:
    """Delete the keys whose lease is no more."""
    db.execute("DELETE FROM entries WHERE lease != '' AND lease NOT IN (SELECT id FROM leases)")


def _revision(db: Connection) -> Revision:
    return Revision(db.execute("SELECT max(revision) FROM changes").fetchone()[0] or 0)


def _changes(db: Connection, since: Revision) -> Sequence[str] | None:
    """The keys that changed after ``since``; None if that is further back than is remembered, or lies ahead."""
    oldest, latest = db.execute("SELECT min(revision), max(revision) FROM changes").fetchone()
    if since == (latest or 0):
        return ()
    if latest is None or since > latest or since < oldest - 1:
        return None
    rows = db.execute("SELECT keys FROM changes WHERE revision > ?", (since,))
    return [key for (keys,) in rows for key in keys.split("\n")]


def _concerns(changes: Sequence[str] | None, prefix: str) -> bool:
    return changes is None or any(key.startswith(prefix) for key in changes)


def _now() -> int:
    """Nanoseconds on a clock that all processes of the host share, and that also runs while the host sleeps."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _boot_id() -> str:
    """Names the current boot of the host; empty where the system has no name for it."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def embedded_store(url: str) -> Store:
    """The store ``sqlite:///absolute/path.db``. Raises InvalidValue for any other URL."""
    parts = urllib.parse.urlsplit(url)
    path = urllib.parse.unquote(parts.path)
    named = path.startswith("/") and not path.endswith("/") and "\0" not in path
    if parts.scheme != "sqlite" or parts.netloc or parts.query or parts.fragment or not named:
        raise InvalidValue(
            f"{url!r:.200} is not the URL of an embedded store",
            hint="write it with three slashes and an absolute path: sqlite:///var/lib/sked/sked.db",
        )
    return EmbeddedStore(Path(path))
