"""``memory://``: the reference implementation of the Store port, for tests and simulation. Nothing outlives the
process."""

from __future__ import annotations

import bisect
import itertools
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sked_core.clock import Clock, SystemClock
from sked_core.errors import Conflict, InvalidValue, LeaseLost, Unavailable
from sked_core.interfaces.store import Check, Delete, Entry, Fence, Lease, Op, Put, Revision, Snapshot, Store, check_key
from sked_core.model.codec import MAX_OBJECT_BYTES

_SYSTEM_CLOCK = SystemClock()
_COMMITS_REMEMBERED = 10_000
_AFTER = "\x7f"
"""Sorts behind every character that a key may have."""


class MemoryStore:
    """A store in this process's memory. ``client()`` gives further clients of the same data.

    Leases expire by ``clock``, exactly after their ttl; there is no minimum. A closed client raises Unavailable.
    """

    max_ops: int = 128
    max_value_bytes: int = 2 * MAX_OBJECT_BYTES

    def __init__(self, clock: Clock = _SYSTEM_CLOCK) -> None:
        self._data = _Data(clock)
        self._closed = False

    def client(self) -> MemoryStore:
        """Another client of the same data, to be closed by itself."""
        other = MemoryStore(self._data.clock)
        other._data = self._data
        return other

    def read(self, prefix: str) -> Snapshot:
        check_key(prefix, prefix=True)
        data = self._data
        with data.lock:
            self._check_open()
            data.sweep()
            entries = data.entries
            return Snapshot({key: entries[key] for key in data.keys_below(prefix)}, data.revision)

    def commit(self, ops: Sequence[Op]) -> Revision:
        check_ops(ops, max_ops=self.max_ops, max_value_bytes=self.max_value_bytes)
        data = self._data
        with data.lock:
            self._check_open()
            data.sweep()
            for op in ops:
                data.demand(op)
            data.change(
                puts={op.key: (op.value, op.lease.id if op.lease else "") for op in ops if isinstance(op, Put)},
                deletes=[op.key for op in ops if isinstance(op, Delete)],
            )
            return data.revision

    def wait(self, prefix: str, since: Revision, timeout: float) -> Revision:
        check_key(prefix, prefix=True)
        data = self._data
        deadline = data.clock.monotonic() + timeout
        woken = threading.Event()
        with data.lock:
            self._check_open()
            data.waiters.add(woken)
        try:
            while True:
                with data.lock:
                    woken.clear()
                    data.sweep()
                    left = deadline - data.clock.monotonic()
                    if left <= 0 or self._closed or data.changed(prefix, since):
                        return data.revision
                    since = data.revision
                    pause = min(left, data.next_expiry() - data.clock.monotonic())
                data.clock.wait(woken, pause)
        finally:
            with data.lock:
                data.waiters.discard(woken)

    def grant(self, ttl: float) -> Lease:
        if not ttl > 0:
            raise InvalidValue(f"a lease needs a ttl of more than 0 seconds, got {ttl}")
        data = self._data
        with data.lock:
            self._check_open()
            data.granted += 1
            lease = _MemoryLease(f"lease-{data.granted}", ttl, data)
            data.expiry[lease.id] = data.clock.monotonic() + ttl
            return lease

    def close(self) -> None:
        with self._data.lock:
            self._closed = True
            self._data.wake()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("this client of the memory store was closed")


@dataclass(slots=True, eq=False)
class _MemoryLease:
    id: str
    ttl: float
    _data: _Data

    def renew(self) -> None:
        data = self._data
        with data.lock:
            data.sweep()
            if self.id not in data.expiry:
                raise LeaseLost(f"lease {self.id} has ended")
            data.expiry[self.id] = data.clock.monotonic() + self.ttl

    def revoke(self) -> None:
        with self._data.lock:
            self._data.end([self.id])


class _Data:
    """What all clients of one memory store share. Every field and method but ``clock`` needs ``lock`` held."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.lock = threading.Lock()
        self.entries: dict[str, Entry] = {}
        self.keys: list[str] = []  # of entries, in order
        self.expiry: dict[str, float] = {}  # of living leases, by id
        self.granted = 0
        self.revision = Revision(0)
        self.changes: deque[tuple[Revision, tuple[str, ...]]] = deque(maxlen=_COMMITS_REMEMBERED)
        self.waiters: set[threading.Event] = set()

    def keys_below(self, prefix: str) -> Sequence[str]:
        first = bisect.bisect_left(self.keys, prefix)
        return self.keys[first : bisect.bisect_left(self.keys, prefix + _AFTER, first)]

    def demand(self, op: Op) -> None:
        """Raise unless the commit may go through as far as ``op`` is concerned."""
        entry = self.entries.get(op.key)
        match op:
            case Check(key, revision):
                found = entry.revision if entry else 0
                if found != revision:
                    raise Conflict(f"{key} is at revision {found}, not {revision}")
            case Fence(key, lease):
                if entry is None or entry.lease != lease.id:
                    raise Conflict(f"{key} is not held by lease {lease.id}")
            case Put(key, _, lease) if lease and lease.id not in self.expiry:
                raise LeaseLost(f"lease {lease.id} has ended, {key} can't be bound to it")

    def change(self, *, puts: Mapping[str, tuple[bytes, str]], deletes: Iterable[str]) -> None:
        """Carry out one commit under the next revision; without any effect the revision stays."""
        gone = [key for key in deletes if key in self.entries]
        if not puts and not gone:
            return
        self.revision = Revision(self.revision + 1)
        for key in gone:
            del self.entries[key]
            del self.keys[bisect.bisect_left(self.keys, key)]
        for key, (value, lease) in puts.items():
            if key not in self.entries:
                bisect.insort(self.keys, key)
            self.entries[key] = Entry(value, self.revision, lease)
        self.changes.append((self.revision, (*gone, *puts)))
        self.wake()

    def end(self, leases: Iterable[str]) -> None:
        """End ``leases``, with the keys that are bound to them."""
        ended = {lease for lease in leases if self.expiry.pop(lease, None) is not None}
        if ended:
            self.change(puts={}, deletes=[key for key, entry in self.entries.items() if entry.lease in ended])

    def sweep(self) -> None:
        """End every lease whose time has come."""
        now = self.clock.monotonic()
        self.end([lease for lease, expiry in self.expiry.items() if expiry <= now])

    def next_expiry(self) -> float:
        return min(self.expiry.values(), default=float("inf"))

    def changed(self, prefix: str, since: Revision) -> bool:
        """Whether something below ``prefix`` may have changed after ``since``."""
        if since >= self.revision:
            return since > self.revision
        if self.changes[0][0] > since + 1:
            return True  # further back than is remembered
        newer = itertools.takewhile(lambda change: change[0] > since, reversed(self.changes))
        return any(key.startswith(prefix) for _, keys in newer for key in keys)

    def wake(self) -> None:
        for waiter in self.waiters:
            waiter.set()


def check_ops(ops: Sequence[Op], *, max_ops: int, max_value_bytes: int) -> None:
    """Raises InvalidValue for too many ops, a bad key, a value over ``max_value_bytes``, and for a key that is
    written or guarded twice."""
    if len(ops) > max_ops:
        raise InvalidValue(f"{len(ops)} operations in one commit are more than the {max_ops} that the store takes")
    seen: set[tuple[str, bool]] = set()
    for op in ops:
        check_key(op.key)
        guards = isinstance(op, Check | Fence)
        if (op.key, guards) in seen:
            raise InvalidValue(f"{op.key} is {'guarded' if guards else 'written'} twice in one commit")
        seen.add((op.key, guards))
        if isinstance(op, Put) and len(op.value) > max_value_bytes:
            raise InvalidValue(f"{op.key}: {len(op.value)} bytes are more than the {max_value_bytes} of one value")


_named: dict[str, MemoryStore] = {}
_named_lock = threading.Lock()


def memory_store(url: str) -> Store:
    """A new client of the store ``memory://NAME``: one store per name in this process, empty at first."""
    scheme, _, name = url.partition("://")
    if scheme != "memory":
        raise InvalidValue(f"{url!r:.200} is not the URL of a memory store", hint="write it as memory://NAME")
    with _named_lock:
        return _named.setdefault(name, MemoryStore()).client()
