"""A store that fails the way real ones do, by dice: calls that are lost on the way or on the way back, or carried out
later than anybody waits for; leases that live on for up to twice their ttl; outages, data that is gone, older data.

``SimStore`` is the server: linearizable, one commit after another, with an account of them all. ``client`` gives the
Store of one process. Without faults it passes the StoreContract like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, TypeVar

from sked_core.clock import Clock
from sked_core.errors import InvalidValue, LeaseLost, SkedError, Unavailable
from sked_core.interfaces.store import Entry, Lease, Op, Put, Revision, Snapshot, check_key
from sked_core.model.codec import MAX_OBJECT_BYTES
from sked_core.runtime.stores.memory import MemoryStore, _Data, check_ops

T = TypeVar("T")


class Killed(BaseException):
    """The process that makes the call is gone. No code of it may run any more, so nothing catches this."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What tells one store from another. ``expiry``: how many ttls a lease lives that is not renewed, from and to."""

    name: str
    max_ops: int
    max_commit_bytes: int
    min_ttl: float
    expiry: tuple[float, float]


KINDS = {
    "consul": Kind("consul", max_ops=30, max_commit_bytes=380 * 1024, min_ttl=10.0, expiry=(1.0, 2.0)),
    "etcd": Kind("etcd", max_ops=128, max_commit_bytes=1536 * 1024, min_ttl=2.0, expiry=(1.0, 1.2)),
}


@dataclass(slots=True)
class Faults:
    """The chance of each call to go wrong. ``dropped``: it never arrives. ``lost``: it is carried out, the answer is
    lost. ``late``: as lost, and carried out only after others. ``slow``: time passes before it arrives."""

    dropped: float = 0.0
    lost: float = 0.0
    late: float = 0.0
    slow: float = 0.0

    @property
    def any(self) -> bool:
        return bool(self.dropped or self.lost or self.late or self.slow)


@dataclass(frozen=True, slots=True)
class Commit:
    """One change of the data, as the store carried it out. ``who``: the process, "" where leases ended. ``reset``: all
    of the data from now on, where it was wiped or set back. ``late``: it was sent long ago."""

    at: float
    revision: Revision
    who: str
    puts: Mapping[str, tuple[bytes, str]] = field(default_factory=dict)
    deletes: Sequence[str] = ()
    late: bool = False
    reset: Mapping[str, Entry] | None = None


@dataclass(frozen=True, slots=True)
class Copy:
    """The data as it once was."""

    entries: dict[str, Entry]
    revision: Revision
    leases: frozenset[str]


class _SimData(_Data):
    """The data, with an account of what changed it. ``who`` is whose call is being carried out."""

    def __init__(self, clock: Clock, rng: Random, kind: Kind) -> None:
        super().__init__(clock)
        self.rng, self.kind, self.who, self.late = rng, kind, "", False
        self.ttls: dict[str, float] = {}
        self.owners: dict[str, str] = {}
        self.log: list[Commit] = []
        self._next_end = 0.0

    def renewed(self, lease: str) -> None:
        self.expiry[lease] = self.clock.monotonic() + self.ttls[lease] * self.rng.uniform(*self.kind.expiry)
        self._next_end = min(self._next_end, self.expiry[lease])

    def sweep(self) -> None:
        if self.clock.monotonic() >= self._next_end:
            former, self.who = self.who, ""  # nobody's doing
            super().sweep()
            self.who, self._next_end = former, self.next_expiry()

    def change(self, *, puts: Mapping[str, tuple[bytes, str]], deletes: Iterable[str]) -> None:
        before, gone = self.revision, [key for key in deletes if key in self.entries]
        super().change(puts=puts, deletes=gone)
        if self.revision != before:
            self.log.append(Commit(self.clock.monotonic(), self.revision, self.who, puts, gone, self.late))


class SimStore:
    """One simulated store. ``before`` (with the kind of call, the prefix that is read and the ops to be committed) and
    ``after`` are called around each call of a client, for a driver to let others act meanwhile, or to raise Killed.
    Not thread-safe while faults are on."""

    def __init__(self, clock: Clock, rng: Random, kind: Kind, *, min_ttl: float | None = None) -> None:
        self.data = _SimData(clock, rng, kind)
        self.kind, self.clock, self.rng = kind, clock, rng
        self.min_ttl = kind.min_ttl if min_ttl is None else min_ttl
        self.faults = Faults()
        self.down = False
        self.late: list[tuple[str, Callable[[], object]]] = []
        """Writes that are still on their way, with whose they are."""
        self.before: Callable[[SimClient, str, str, Sequence[Op]], None] | None = None
        self.after: Callable[[SimClient, str, str], None] | None = None

    def client(self, who: str = "client") -> SimClient:
        """The store as process ``who`` reaches it."""
        return SimClient(self, who)

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The data as it is now."""
        return self.data.entries

    def deliver(self, number: int) -> str:
        """Carry out a late write now, whatever has happened since; returns what came of it, for people."""
        who, carry_out = self.late.pop(number)
        self.data.who, self.data.late = who, True
        try:
            carry_out()
        except SkedError as error:  # the store refuses it, and nobody waits for the answer
            return f"a late write of {who} is refused: {error}"
        finally:
            self.data.late = False
        return f"a late write of {who} is carried out"

    def copy(self) -> Copy:
        """The data as it is now, to be set back to later."""
        return Copy(dict(self.data.entries), self.data.revision, frozenset(self.data.expiry))

    def reset(self, copy: Copy | None = None) -> None:
        """Wipe the data, or set it back to ``copy``. What was on its way is lost."""
        data = self.data
        data.entries = dict(copy.entries) if copy else {}
        data.keys = sorted(data.entries)
        data.revision = copy.revision if copy else Revision(0)
        data.changes.clear()
        data.expiry = {}
        for lease in sorted(copy.leases if copy else ()):
            data.renewed(lease)
        self.late.clear()
        data.log.append(Commit(data.clock.monotonic(), data.revision, "", reset=dict(data.entries)))
        data.wake()


class SimClient(MemoryStore):
    """The Store of one process. ``cut``: it does not reach the store. ``dead``: the process was killed. ``sure``: none
    of its calls gets lost. ``process`` is whatever a driver keeps there."""

    _data: _SimData
    process: Any = None
    sure = False

    def __init__(self, store: SimStore, who: str) -> None:
        self._store, self._data, self._closed, self.who = store, store.data, False, who
        self.max_ops = store.kind.max_ops
        self.max_value_bytes = 2 * MAX_OBJECT_BYTES
        self.cut = self.dead = False

    def client(self) -> SimClient:
        return SimClient(self._store, self.who)

    def read(self, prefix: str) -> Snapshot:
        check_key(prefix, prefix=True)
        return self.call("read", partial(MemoryStore.read, self, prefix), prefix, writes=False)

    def commit(self, ops: Sequence[Op]) -> Revision:
        check_ops(ops, max_ops=self.max_ops, max_value_bytes=self.max_value_bytes)
        size, most = sum(len(op.value) for op in ops if isinstance(op, Put)), self._store.kind.max_commit_bytes
        if size > most and len(ops) > 1:
            raise InvalidValue(f"a commit of {size} bytes is more than the {most} that the store takes")
        return self.call("commit", lambda: MemoryStore.commit(self, ops), ops=ops)

    def grant(self, ttl: float) -> Lease:
        if not ttl > 0:
            raise InvalidValue(f"a lease needs a ttl of more than 0 seconds, got {ttl}")

        def grant() -> Lease:
            data = self._data
            with data.lock:
                self._check_open()
                data.granted += 1
                lease = SimLease(f"lease-{data.granted}", max(ttl, self._store.min_ttl), self)
                data.ttls[lease.id], data.owners[lease.id] = lease.ttl, self.who
                data.renewed(lease.id)
                return lease

        began = self._data.clock.monotonic()
        lease = self.call("grant", grant)
        lease.proven = began  # type: ignore[attr-defined]
        return lease

    def call(
        self, what: str, carry_out: Callable[[], T], prefix: str = "", ops: Sequence[Op] = (), *, writes: bool = True
    ) -> T:
        """One call over the simulated network. ``prefix`` or ``ops``: what is read or to be committed."""
        store, data = self._store, self._data
        if self.dead:
            raise Killed
        if store.before is not None:
            store.before(self, what, prefix, ops)
        lost = False
        if store.faults.any and not self.sure:
            dice = store.rng.random()
            dice -= store.faults.dropped
            if dice < 0:
                raise Unavailable("the request was lost")
            dice -= store.faults.lost
            lost = dice < 0
            if not lost and writes and dice < store.faults.late:
                store.late.append((self.who, carry_out))
                raise Unavailable("no answer came in time")
        if store.down or self.cut:
            raise Unavailable("the store can't be reached")
        data.who = self.who
        result = carry_out()
        if store.after is not None:
            store.after(self, what, prefix)
        if lost:
            raise Unavailable("the answer was lost")
        return result


@dataclass(slots=True, eq=False)
class SimLease:
    """A lease. ``proven``: when the last renewal was sent that its holder knows of (monotonic seconds)."""

    id: str
    ttl: float
    client: SimClient
    proven: float = 0.0

    def renew(self) -> None:
        data = self.client._data

        def renew() -> None:
            with data.lock:
                data.sweep()
                if self.id not in data.expiry:
                    raise LeaseLost(f"lease {self.id} has ended")
                data.renewed(self.id)

        began = data.clock.monotonic()
        self.client.call("renew", renew)
        self.proven = began

    def revoke(self) -> None:
        data = self.client._data

        def revoke() -> None:
            with data.lock:
                data.end([self.id])

        self.client.call("revoke", revoke)
