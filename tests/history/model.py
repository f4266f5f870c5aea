"""What a store holds, worked out by replaying a history: the judge's own idea of it, not any store's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from history.records import Commit, Put
from sked_core.model import keys


@dataclass(frozen=True, slots=True)
class Kept:
    """A key's last write: at which revision, what, and by which process."""

    revision: int
    put: Put
    process: str


Pair = tuple[str, str]
"""A cluster and a service."""


class Model:
    """The keys as they stand after the commits that were applied, and what follows from them about tasks."""

    def __init__(self) -> None:
        self.keys: dict[str, Kept] = {}
        self.ended: set[str] = set()
        """Leases that are known to be over."""
        self.lapsed: set[str] = set()
        """Keys that went with their lease and have not come back since."""
        self.hosts_of: dict[str, set[str]] = {}
        """Under which hosts each task id stands."""
        self.counted: Counter[Pair] = Counter()
        """How many tasks of each pair count against ``max``: all but the rejected ones, also those being stopped."""
        self._leased: dict[str, set[str]] = {}

    def apply(self, commit: Commit) -> None:
        """Carry the commit out, whatever its guards say."""
        for key in commit.deletes:
            self._remove(key)
        for put in commit.puts:
            self._remove(put.key)
            self._add(Kept(commit.revision, put, commit.process))

    def end(self, lease: str) -> None:
        """The lease is over, and its keys with it."""
        self.ended.add(lease)
        for key in self._leased.pop(lease, set()):
            self._remove(key)
            self.lapsed.add(key)

    def revision(self, key: str) -> int:
        """The key's revision; 0 if it is not there."""
        return self.keys[key].revision if key in self.keys else 0

    def lease(self, key: str) -> str:
        """The lease that the key is bound to; empty if there is none."""
        return self.keys[key].put.lease if key in self.keys else ""

    def below(self, prefix: str) -> Iterator[tuple[str, Kept]]:
        return ((key, kept) for key, kept in self.keys.items() if key.startswith(prefix))

    def _add(self, kept: Kept) -> None:
        key, put = kept.put.key, kept.put
        self.keys[key] = kept
        self.lapsed.discard(key)
        if put.lease:
            self._leased.setdefault(put.lease, set()).add(key)
        if key.startswith(keys.HOST_TASKS):
            self.hosts_of.setdefault(keys.last_segment(key), set()).add(host_of(key))
        self._count(put, 1)

    def _remove(self, key: str) -> None:
        kept = self.keys.pop(key, None)
        if kept is None:
            return
        self._leased.get(kept.put.lease, set()).discard(key)
        if key.startswith(keys.HOST_TASKS):
            self.hosts_of[keys.last_segment(key)].discard(host_of(key))
        self._count(kept.put, -1)

    def _count(self, put: Put, sign: int) -> None:
        if put.key.startswith(keys.TASKS) and put.facts and not put.facts["rejected"]:
            self.counted[put.facts["cluster"], put.facts["service"]] += sign


def host_of(key: str) -> str:
    """The host of ``state/hosts/<host>/<task id>``."""
    return key.removeprefix(keys.HOST_TASKS).partition("/")[0]
