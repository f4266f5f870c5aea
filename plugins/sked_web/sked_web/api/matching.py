"""If-Match: a change that goes through only if the object is still the one that was looked at."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from sked_core.errors import InvalidValue
from sked_core.plugin import CheckOp, Conflict, Lease, Op, Revision, SkedError, Snapshot, Store

_TAG = re.compile(r'(?:W/)?"(\d{1,18})(?:\.[0-9a-zA-Z-]*)?"')


@dataclass(frozen=True, slots=True)
class Match:
    """The object under ``key`` has to have this revision; 0: it must not exist; None: it has to exist."""

    key: str
    revision: Revision | None

    @classmethod
    def of(cls, key: str, header: str) -> Match:
        """What an If-Match header says of ``key``. Raises InvalidValue."""
        found = _TAG.fullmatch(header.strip())
        if header.strip() == "*":
            return cls(key, None)
        if found is None:
            raise InvalidValue("If-Match has to be one ETag as a GET of this object gave it, or *")
        return cls(key, Revision(int(found[1])))


class Changed(SkedError):
    """The object is not what If-Match says: ``now`` is what stands there (None: nothing), of this ``revision``."""

    def __init__(self, key: str, now: Any, revision: int) -> None:
        super().__init__(f"{key} is not what it was when it was looked at", hint="GET it again, and look what changed")
        self.key, self.now, self.revision = key, now, revision


class MatchedStore:
    """See sked_core.interfaces.store.Store: every commit carries the condition. ``begin`` first."""

    def __init__(self, store: Store, match: Match) -> None:
        self._store, self._match = store, match
        self.max_ops = store.max_ops - 1
        self._checked = False

    def begin(self) -> Revision:
        """The revision that the object has. Raises Changed if the condition does not hold at all."""
        key = self._match.key
        entry = self._store.read(key).entries.get(key)
        revision = entry.revision if entry else Revision(0)
        if (revision != self._match.revision) if self._match.revision is not None else entry is None:
            try:
                now = msgspec.json.decode(entry.value) if entry else None
            except (msgspec.DecodeError, RecursionError, ValueError):
                now = None
            raise Changed(key, now, revision)
        return revision

    def read(self, prefix: str) -> Snapshot:
        return self._store.read(prefix)

    def commit(self, ops: Sequence[Op]) -> Revision:
        match = self._match
        if self._checked:  # the first commit of several has changed it: this is what was wanted
            return self._store.commit(ops)
        known = [op for op in ops if isinstance(op, CheckOp) and op.key == match.key]
        wanted = self.begin() if match.revision is None else match.revision
        if any(op.revision != wanted for op in known):
            self.begin()
        try:
            done = self._store.commit(ops if known else [CheckOp(match.key, wanted), *ops])
        except Conflict:
            self.begin()
            raise
        self._checked = True
        return done

    def wait(self, prefix: str, since: Revision, timeout: float) -> Revision:
        return self._store.wait(prefix, since, timeout)

    def grant(self, ttl: float) -> Lease:
        return self._store.grant(ttl)

    def close(self) -> None:
        """The store is closed by whoever opened it."""
