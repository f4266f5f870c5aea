"""A store that lets other threads go on while it is asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sked_core.interfaces.store import Lease, Op, Revision, Snapshot, Store, read_again


class YieldingStore:
    """``store``, with ``monitor`` given up during each call. Whoever calls holds it. ``came_back`` is called after each
    of these."""

    def __init__(self, store: Store, monitor: threading.Lock, came_back: Callable[[], None] = lambda: None) -> None:
        self._store, self._monitor, self._came_back = store, monitor, came_back
        self.max_ops = store.max_ops

    @contextmanager
    def given_up(self) -> Iterator[None]:
        """Let others go on for the time of the body."""
        self._monitor.release()
        try:
            yield
        finally:
            self._monitor.acquire()
            self._came_back()

    def read(self, prefix: str) -> Snapshot:
        with self.given_up():
            return self._store.read(prefix)

    def read_again(self, prefix: str, known: Snapshot) -> Snapshot:
        with self.given_up():
            return read_again(self._store, prefix, known)

    def commit(self, ops: Sequence[Op]) -> Revision:
        with self.given_up():
            return self._store.commit(ops)

    def wait(self, prefix: str, since: Revision, timeout: float) -> Revision:
        """Is called by threads that watch, and only wake others: they hold nothing."""
        return self._store.wait(prefix, since, timeout)

    def grant(self, ttl: float) -> Lease:
        return self._store.grant(ttl)

    def close(self) -> None:
        self._store.close()
