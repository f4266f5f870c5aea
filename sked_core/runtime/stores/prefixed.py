"""The configurable prefix of the contract: one store shared by several groups of hosts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sked_core.interfaces.store import Lease, Op, Revision, Snapshot, Store, check_key, read_again, read_keys


class Prefixed:
    """``store`` seen from below ``prefix``: every key is stored as ``prefix/key``.

    Raises InvalidValue if the prefix can't start a key. Closing it closes ``store``.
    """

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = check_key(prefix.rstrip("/")) + "/"
        self.max_ops = store.max_ops

    def read(self, prefix: str) -> Snapshot:
        snapshot = self._store.read(self._prefix + prefix)
        cut = len(self._prefix)
        return Snapshot({key[cut:]: entry for key, entry in snapshot.entries.items()}, snapshot.revision)

    def read_again(self, prefix: str, known: Snapshot) -> Snapshot:
        below = {self._prefix + key: entry for key, entry in known.entries.items()}
        snapshot = read_again(self._store, self._prefix + prefix, Snapshot(below, known.revision))
        cut = len(self._prefix)
        return Snapshot({key[cut:]: entry for key, entry in snapshot.entries.items()}, snapshot.revision)

    def read_keys(self, prefix: str) -> list[str]:
        cut = len(self._prefix)
        return [key[cut:] for key in read_keys(self._store, self._prefix + prefix)]

    def commit(self, ops: Sequence[Op]) -> Revision:
        return self._store.commit([replace(op, key=self._prefix + op.key) for op in ops])

    def wait(self, prefix: str, since: Revision, timeout: float) -> Revision:
        return self._store.wait(self._prefix + prefix, since, timeout)

    def grant(self, ttl: float) -> Lease:
        return self._store.grant(ttl)

    def doubts(self) -> list[tuple[str, str]]:
        """What the store itself has to say of how it is run; see ``Store``."""
        found: list[tuple[str, str]] = getattr(self._store, "doubts", list)()
        return found

    def unguarded(self) -> list[tuple[str, str]]:
        """As ``doubts``."""
        found: list[tuple[str, str]] = getattr(self._store, "unguarded", list)()
        return found

    def close(self) -> None:
        self._store.close()
