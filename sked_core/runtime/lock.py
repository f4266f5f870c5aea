"""Leases that expire by themselves, and locks that are fenced in the store.

A process has one lease. It is renewed by a thread, and trusted only until a margin before it could have ended,
counted on the monotonic clock from the moment *before* the last renewal was sent. A process that was paused or cut
off thus stops by itself; should it write all the same, the Fence that every commit carries makes the store refuse.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from sked_core.clock import Clock
from sked_core.errors import Conflict, LeaseLost, SkedError, Unavailable
from sked_core.interfaces.failpoints import failpoint
from sked_core.interfaces.store import Check, Delete, Fence, Lease, Op, Put, Revision, Store, entry_at
from sked_core.runtime.journal import utc

log = logging.getLogger("sked.lock")
LEASE_TTL_SECONDS = 15.0


class LeaseKeeper:
    """Keeps one lease of this process alive for all its parts: each calls ``serve`` once. Callable from any thread."""

    def __init__(self, store: Store, clock: Clock, *, ttl: float = LEASE_TTL_SECONDS) -> None:
        self._store, self._clock, self._ttl = store, clock, ttl
        self._lease: Lease | None = None
        self._proven = 0.0
        self.losses = 0
        """How many leases of this process ended before it gave them back."""
        self._mutex = threading.Lock()
        self._users: list[threading.Event] = []
        self.missed: Callable[[], None] = lambda: None
        """Called, from any thread, when the store says that the lease has ended: what was bound to it is gone."""
        self._thread: threading.Thread | None = None

    def lease(self) -> Lease:
        """The lease, granted now if there is none. Raises LeaseLost where it can't be proven, Unavailable."""
        with self._mutex:
            if self._lease is None:
                before = self._clock.monotonic()
                self._lease = self._store.grant(self._ttl)
                self._proven = before
            if not self._trusted(self._lease):
                raise LeaseLost("the lease could not be renewed in time")
            return self._lease

    def _trusted(self, lease: Lease) -> bool:
        # A margin of a third of the ttl (reliability.md B2): time for a commit that is under way.
        return self._clock.monotonic() < self._proven + lease.ttl * 2 / 3

    def renew_if_due(self) -> None:
        """Renew when a fifth of the ttl has passed. A lease that is gone is dropped: the next use grants a new one."""
        with self._mutex:
            lease, now = self._lease, self._clock.monotonic()
            if lease is None or now < self._proven + lease.ttl / 5:
                return
        try:
            lease.renew()
        except LeaseLost as error:
            log.warning("lease lost: %s", error)
            self._forget(lease)
            self.missed()
        except Unavailable as error:
            log.debug("lease not renewed: %s", error)
        else:
            with self._mutex:
                self._proven = max(self._proven, now)

    def _forget(self, lease: Lease) -> None:
        with self._mutex:
            if self._lease is lease:
                self._lease = None
                self.losses += 1

    def age(self) -> float | None:
        """Seconds since the lease was last known to live; None while there is none."""
        with self._mutex:
            return None if self._lease is None else self._clock.monotonic() - self._proven

    def now(self) -> str:
        """The time as people read it."""
        return utc(self._clock.wall())

    def drop(self) -> None:
        """Give the lease up without asking the store (it said that the lease is gone)."""
        with self._mutex:
            self.losses += self._lease is not None
            self._lease = None

    def serve(self, stop: threading.Event) -> threading.Thread:
        """Renew in a thread, which is returned, until every ``stop`` that was given is set; then revoke the lease, so
        that others need not wait for its expiry."""
        with self._mutex:
            self._users.append(stop)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
                self._thread.start()
            return self._thread

    def _run(self) -> None:
        failing = False
        while user := next((stop for stop in self._users if not stop.is_set()), None):
            user.wait(min(1.0, self._ttl / 10))
            try:
                self.renew_if_due()
            except Exception as error:  # noqa: BLE001 - whatever it is, the lease ends by itself if it lasts
                log.log(logging.DEBUG if failing else logging.WARNING, "the lease is not renewed: %s", error)
                failing = True
            else:
                failing = False
        with self._mutex:
            lease, self._lease = self._lease, None
        if lease is not None:
            try:
                lease.revoke()
            except SkedError as error:
                log.debug("lease left to expire: %s", error)


class Lock:
    """One held lock: a key bound to the holder's lease."""

    def __init__(self, store: Store, keeper: LeaseKeeper, key: str, lease: Lease) -> None:
        self._store, self._keeper, self.key, self._lease = store, keeper, key, lease

    def commit(self, ops: list[Op], *, release: bool = False) -> Revision:
        """Commit ``ops`` only while the lock is still held, giving it up in the same step with ``release``.

        Raises LeaseLost without asking the store when the lease can't be proven any more, Conflict when the store
        knows that the lock is gone or a Check of ``ops`` fails, Unavailable.
        """
        if self._keeper.lease() is not self._lease:
            raise LeaseLost(f"the lease of {self.key} has been replaced")
        last: list[Op] = [Delete(self.key)] if release else []
        failpoint("committing")
        revision = self._store.commit([Fence(self.key, self._lease), *ops, *last])
        failpoint("committed")
        return revision

    def release(self) -> None:
        """Give it up; one that is lost already is fine. Raises Unavailable: it may be held on, until its lease ends."""
        try:
            self.commit([], release=True)
        except (Conflict, LeaseLost) as error:
            log.debug("lock %s is not held: %s", self.key, error)


def try_lock(store: Store, keeper: LeaseKeeper, key: str, holder: str) -> Lock | None:
    """Take the lock without waiting; None if somebody else has it. ``holder`` is stored for people to read, with the
    time.

    Idempotent for one process: a lock that it holds already (a commit whose answer was lost) is taken over.
    Raises Unavailable and LeaseLost.
    """
    lease = keeper.lease()
    try:
        store.commit([Check(key, Revision(0)), Put(key, f"{holder} since {keeper.now()}".encode(), lease)])
    except Conflict:
        entry = entry_at(store, key)
        if entry is None or entry.lease != lease.id:
            return None
    except LeaseLost:
        keeper.drop()
        raise
    return Lock(store, keeper, key, lease)
