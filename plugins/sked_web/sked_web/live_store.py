"""The store as a mirror has it: reads come from the copy, and waits end with its news, however many wait."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from sked_core.client.copied.mirror import Mirror
from sked_core.client.copied.picture import PictureStore
from sked_core.plugin import Lease, Op, Revision, Snapshot, Store


class LiveStore:
    """See sked_core.interfaces.store.Store. Waits cost the store nothing; what no picture holds is read from it."""

    def __init__(self, mirror: Mirror, store: Store) -> None:
        self._mirror, self._store = mirror, store
        self.max_ops = store.max_ops

    def read(self, prefix: str) -> Snapshot:
        """Raises Unavailable as long as nothing was read."""
        return PictureStore(self._mirror.look(), self._store).read(prefix)

    def wait(self, prefix: str, since: Revision, timeout: float) -> Revision:
        """Ends with any change that the mirror sees: it may wake for nothing."""
        news = threading.Event()
        forget = self._mirror.feed.listen(news.set)
        try:
            now = self.read(prefix).revision
            if now == since and news.wait(timeout):
                now = self.read(prefix).revision
            return now
        finally:
            forget()

    def commit(self, ops: Sequence[Op]) -> Revision:
        return self._store.commit(ops)

    def grant(self, ttl: float) -> Lease:
        return self._store.grant(ttl)

    def close(self) -> None:
        """The store is closed by whoever opened it."""
