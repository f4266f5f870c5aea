"""A store in front of another one, which does something around each call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager

from sked_core.interfaces.store import Lease, Op, Revision, Snapshot, Store, read_again


class StoreAround(ABC):
    """``store``, each of whose calls is made within ``around`` it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.max_ops = store.max_ops

    @abstractmethod
    def around(self, operation: str) -> AbstractContextManager[None]:
        """What is done around a ``read``, ``commit``, ``wait`` or ``grant``."""

    def read(self, prefix: str) -> Snapshot:
        with self.around("read"):
            return self._store.read(prefix)

    def read_again(self, prefix: str, known: Snapshot) -> Snapshot:
        with self.around("read"):
            return read_again(self._store, prefix, known)

    def commit(self, ops: Sequence[Op]) -> Revision:
        with self.around("commit"):
            return self._store.commit(ops)

    def wait(self, prefix: str, since: Revision, timeout: float) -> Revision:
        with self.around("wait"):
            return self._store.wait(prefix, since, timeout)

    def grant(self, ttl: float) -> Lease:
        with self.around("grant"):
            return self._store.grant(ttl)

    def close(self) -> None:
        self._store.close()
