"""The port to a strongly consistent key-value store."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NewType, Protocol, runtime_checkable

from sked_core.errors import InvalidValue

Revision = NewType("Revision", int)
"""A store's own counter: grows with every commit. Comparable within one store only."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One value with the revision of its last change; ``lease`` is the id of the lease it is bound to, or ``""``."""

    value: bytes
    revision: Revision
    lease: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All entries below one prefix as they stood together, by full key, and the revision to wait from."""

    entries: Mapping[str, Entry]
    revision: Revision


@runtime_checkable
class Lease(Protocol):
    """A promise that expires unless renewed. Keys put with it vanish when it ends."""

    id: str
    ttl: float
    """Seconds. The store may keep the lease for up to twice as long, never for less."""

    def renew(self) -> None:
        """Start the ttl anew. Raises LeaseLost if it has ended, Unavailable if that is not known."""
        ...

    def revoke(self) -> None:
        """End it now, with its keys. Idempotent; raises Unavailable if the store can't be reached."""
        ...


@dataclass(frozen=True, slots=True)
class Put:
    """Write ``value``, whoever wrote before; with ``lease`` the key is bound to it and vanishes with it."""

    key: str
    value: bytes
    lease: Lease | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the key. Fine if it does not exist."""

    key: str


@dataclass(frozen=True, slots=True)
class Check:
    """The commit goes through only if the key's revision is exactly this; 0: it must not exist."""

    key: str
    revision: Revision


@dataclass(frozen=True, slots=True)
class Fence:
    """The commit goes through only while the key is bound to ``lease``: what makes a lock safe."""

    key: str
    lease: Lease


Op = Put | Delete | Check | Fence


class Store(Protocol):
    """A strongly consistent key-value store. Every method may be called from any thread.

    Every call ends within a deadline of its own and raises Unavailable when the store can't be reached, does not
    answer in time, or answers nonsense: an error is never an empty result. Keys are relative paths of printable
    ASCII without empty, ``.`` or ``..`` segments (a prefix may end in ``/``); others raise InvalidValue before
    anything is sent, and so does a value larger than the store can take.

    One that knows how it should be run may have ``doubts() -> list[tuple[str, str]]``, what had better be otherwise and
    what to do about it, for `sked doctor`; and ``unguarded()``, the same of what keeps strangers out, which agents and
    schedulers say as well when they start.
    """

    max_ops: int
    """Most operations that one commit may have. Callers split along tasks (see runtime.state.batches)."""

    def read(self, prefix: str) -> Snapshot:
        """Everything whose key starts with ``prefix``, read consistently (never stale)."""
        ...

    def commit(self, ops: Sequence[Op]) -> Revision:
        """Carry out all ops or none, Checks and Fences first.

        One key may have a Check or Fence and one Put or Delete. Returns the commit's revision. Raises Conflict if
        a Check or Fence does not hold, LeaseLost if a Put's lease has ended; nothing is written then. After
        Unavailable it is unknown whether it was carried out. Raises InvalidValue past ``max_ops`` or the size limit.
        """
        ...

    def wait(self, prefix: str, since: Revision, timeout: float) -> Revision:
        """Return once something under ``prefix`` may have changed after ``since``, or after ``timeout`` seconds.

        The result is the revision to wait from next (a lower one than ``since`` after the store was wiped or
        restored). It may wake for nothing, but it never misses a change. It carries no data: read afterwards.
        """
        ...

    def grant(self, ttl: float) -> Lease:
        """A new lease of ``ttl`` seconds (raised to the store's minimum: read the lease's own ``ttl``)."""
        ...

    def close(self) -> None:
        """Free connections and threads; waits in progress end. Idempotent. Leases are left to expire."""
        ...


def read_again(store: Store, prefix: str, known: Snapshot) -> Snapshot:
    """What ``store.read(prefix)`` gives, ``known`` being what this function gave before (or empty, of revision 0).

    A store may have a method ``read_again(prefix, known)`` that sends only what has changed since; its answer is the
    same in every case. One that can't tell needs none.
    """
    again = getattr(store, "read_again", None)
    found: Snapshot = store.read(prefix) if again is None else again(prefix, known)
    return found


def entry_at(store: Store, key: str) -> Entry | None:
    """What stands under ``key`` itself. Raises Unavailable."""
    return store.read(key).entries.get(key)


def read_keys(store: Store, prefix: str) -> Iterable[str]:
    """The keys that ``store.read(prefix)`` gives, in any order.

    A store may have a method ``read_keys(prefix)`` that sends no values, which are most of what a read sends; its
    answer, and what it raises, is the same in every case. One that can't do without them needs none.
    """
    alone = getattr(store, "read_keys", None)
    found: Iterable[str] = store.read(prefix).entries if alone is None else alone(prefix)
    return found


def check_key(key: str, *, prefix: bool = False) -> str:
    """``key`` if it is safe for every backend; else raises InvalidValue. Adapters call it before each request."""
    if not _is_key(key, prefix):
        hint = "such as a or a/b, in ASCII, with no spaces and no part that is empty, . or .."
        raise InvalidValue(f"{key!r:.80} can't be a key", hint=hint)
    return key


def is_key(key: str) -> bool:
    """Whether ``key`` can be read: others may have written what Sked never would."""
    return _is_key(key, False)


@functools.lru_cache(maxsize=65_536)
def _is_key(key: str, prefix: bool) -> bool:
    segments = key.split("/")
    if prefix and segments[-1] == "":
        segments = segments[:-1]
    plain = len(key) <= 1024 and key.isascii() and key.isprintable() and " " not in key
    return plain and not any(segment in ("", ".", "..") for segment in segments)
