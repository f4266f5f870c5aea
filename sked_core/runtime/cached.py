"""A prefix of the store that is read again only after it changed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from sked_core.clock import Clock
from sked_core.interfaces.store import Entry, Revision, Store
from sked_core.runtime.loop import Watcher

RESYNC_SECONDS = 60.0
"""Longest time between two full reads, whether or not watches fire (reliability.md C2)."""


class CachedPrefix:
    """The entries below a prefix, kept until they are known to be out of date or RESYNC_SECONDS old."""

    def __init__(self, store: Store, prefix: str, *, clock: Clock) -> None:
        self._store, self._prefix, self._clock = store, prefix, clock
        self._entries: Mapping[str, Entry] = {}
        self._read_at = float("-inf")
        self._stale = threading.Event()
        self._stale.set()

    def watch(self, notify: Callable[[], None], stop: threading.Event) -> None:
        """From now on, notice changes of the prefix at once, and call ``notify`` after each."""

        def wait(since: int, timeout: float) -> int:
            return self._store.wait(self._prefix, Revision(since), timeout)

        def changed() -> None:
            self._stale.set()
            notify()

        Watcher(self._prefix, wait, changed, stop)

    def invalidate(self) -> None:
        """Have the next ``entries`` read again (after an own write, an error or a conflict)."""
        self._stale.set()

    def entries(self) -> Mapping[str, Entry]:
        """The entries as last read, read now if they may be out of date. Raises Unavailable."""
        now = self._clock.monotonic()
        if self._stale.is_set() or now - self._read_at > RESYNC_SECONDS:
            self._stale.clear()  # before reading: a change during the read makes it stale again
            try:
                self._entries = self._store.read(self._prefix).entries
            except BaseException:
                self._stale.set()
                raise
            self._read_at = now
        return self._entries
