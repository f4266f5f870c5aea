"""The Store port over etcd: linearizable ranges, guarded transactions, one watch stream, leases."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sked_core.plugin import (
    CheckOp,
    Conflict,
    Delete,
    Denied,
    Fence,
    InvalidValue,
    Lease,
    LeaseLost,
    Op,
    Put,
    Revision,
    Snapshot,
    Unavailable,
    check_key,
)
from sked_etcd import messages
from sked_etcd.address import parse_address
from sked_etcd.client import Client
from sked_etcd.doubts import doubts
from sked_etcd.exposure import unguarded
from sked_etcd.failures import StartOver
from sked_etcd.watches import Watches

MAX_REQUEST_BYTES = 1536 * 1024 - 1024
"""Of one transaction: etcd's --max-request-bytes as it comes, less what etcd adds."""
PAGE_KEYS = 5000
MIN_TTL_SECONDS, MAX_TTL_SECONDS = 2, 86400
_READS = 5


@dataclass(slots=True)
class EtcdLease:
    """etcd ends it within about a second after its ttl; a change of etcd's leader prolongs it."""

    id: str
    ttl: float
    client: Client

    def renew(self) -> None:
        _, left = self.client.call(messages.KEEP_ALIVE, messages.lease_request(int(self.id)), messages.lease_answer)
        if left <= 0:
            raise LeaseLost(f"etcd has ended the lease {self.id}")

    def revoke(self) -> None:
        try:
            self.client.call(messages.REVOKE, messages.lease_request(int(self.id)), len)
        except LeaseLost:
            return  # it has ended already


class EtcdStore:
    """See sked_core.interfaces.store.Store."""

    max_ops = 128  # etcd's --max-txn-ops as it comes; it counts compares apart from changes

    def __init__(self, url: str) -> None:
        self._client = Client(parse_address(url, os.environ))
        self._watches = Watches(self._client)
        self._last_read: dict[str, tuple[int, int]] = {}  # by ``read_again``: prefix: epoch, revision

    def __repr__(self) -> str:
        return f"EtcdStore({self._client.address})"

    def read(self, prefix: str) -> Snapshot:
        return self._whole(prefix)

    def read_keys(self, prefix: str) -> Collection[str]:
        """As ``read``, the keys alone."""
        return self._whole(prefix, keys_only=True).entries

    def _whole(self, prefix: str, *, keys_only: bool = False) -> Snapshot:
        if prefix:
            check_key(prefix, prefix=True)
        for _ in range(_READS):
            try:
                return self._read(prefix, keys_only)
            except StartOver:
                continue
            except Denied as error:
                raise Denied(f"{error}: reading {prefix!r}", hint=error.hint) from None
        raise Unavailable(f"{prefix!r} could not be read from one revision of etcd in {_READS} attempts")

    def _read(self, prefix: str, keys_only: bool) -> Snapshot:
        epoch = self._client.epoch
        key, end = messages.span(prefix)
        request = messages.range_request(key, end, limit=PAGE_KEYS, keys_only=keys_only)
        first = page = self._client.call(messages.RANGE, request, messages.range_answer)
        self._watches.note(prefix, epoch, first.revision)
        entries, epoch = first.entries, self._client.epoch
        while page.more and page.entries:
            key = next(reversed(page.entries)).encode() + b"\0"
            request = messages.range_request(key, end, limit=PAGE_KEYS, revision=first.revision, keys_only=keys_only)
            page = self._client.call(messages.RANGE, request, messages.range_answer)
            if self._client.epoch != epoch:
                raise StartOver  # the pages may be of two different stores
            entries.update(page.entries)
        return Snapshot(entries, Revision(first.revision))

    def read_again(self, prefix: str, known: Snapshot) -> Snapshot:
        """As ``read``, but only what has changed since ``known`` is sent, where it was what this gave last."""
        epoch = self._client.epoch
        found = self._read_on(prefix, known) if self._last_read.get(prefix) == (epoch, known.revision) else None
        if found is None or self._client.epoch != epoch:
            epoch, found = self._client.epoch, self.read(prefix)
        if len(self._last_read) > 100:
            self._last_read.clear()
        self._last_read[prefix] = epoch, found.revision
        return found

    def _read_on(self, prefix: str, known: Snapshot) -> Snapshot | None:
        """None where what changed does not tell it all: something is gone, or it is too much."""
        check_key(prefix, prefix=True)
        request = messages.range_request(*messages.span(prefix), limit=PAGE_KEYS, changed_from=known.revision + 1)
        try:
            page = self._client.call(messages.RANGE, request, messages.range_answer)
        except (StartOver, Denied):
            return None
        self._watches.note(prefix, self._client.epoch, page.revision)
        entries = {**known.entries, **page.entries}
        whole = not page.more and len(entries) == page.count and page.revision >= known.revision
        return Snapshot(entries, Revision(page.revision)) if whole else None

    def commit(self, ops: Sequence[Op]) -> Revision:
        if len(ops) > self.max_ops:
            raise InvalidValue(f"{len(ops)} operations are more than the {self.max_ops} of one etcd transaction")
        body = messages.txn_request([_part(op) for op in ops])
        if len(body) > MAX_REQUEST_BYTES:
            raise InvalidValue(f"a commit of {len(body)} bytes is more than the {MAX_REQUEST_BYTES} that etcd takes")
        epoch = self._client.epoch
        try:
            succeeded, revision = self._client.call(messages.TXN, body, messages.txn_answer, repeatable=False)
        except Denied as error:
            raise Denied(f"{error}: one of {_names([op.key for op in ops])}", hint=error.hint) from None
        self._watches.committed(epoch, revision)
        if not succeeded:
            guarded = [op.key for op in ops if isinstance(op, CheckOp | Fence)]
            raise Conflict(f"{_names(guarded)}: changed by somebody else")
        return Revision(revision)

    def wait(self, prefix: str, since: Revision, timeout: float) -> Revision:
        if prefix:
            check_key(prefix, prefix=True)
        return Revision(self._watches.wait(prefix, since, timeout))

    def grant(self, ttl: float) -> EtcdLease:
        seconds = min(max(math.ceil(ttl), MIN_TTL_SECONDS), MAX_TTL_SECONDS)
        # Repeated where the answer was lost: a lease that nobody knows of binds nothing and ends by itself.
        lease, granted = self._client.call(messages.GRANT, messages.grant_request(seconds), messages.lease_answer)
        if lease <= 0 or granted <= 0:
            raise Unavailable("etcd granted a lease without an id or a ttl")
        return EtcdLease(str(lease), float(granted), self._client)

    def unguarded(self) -> list[tuple[str, str]]:
        """What keeps nobody out, where other machines reach it; said at the start of agents and schedulers."""
        return unguarded(self._client.address)

    def doubts(self) -> list[tuple[str, str]]:
        """What of etcd had better be otherwise, for `sked doctor`."""
        return doubts(self._client)

    def close(self) -> None:
        self._client.close()
        self._watches.close()


def _part(op: Op) -> bytes:
    """The compare or the change that ``op`` stands for."""
    key = check_key(op.key)
    match op:
        case CheckOp(revision=0):
            return messages.absent(key)
        case CheckOp():
            return messages.unchanged(key, op.revision)
        case Fence():
            return messages.bound(key, _lease_id(op.lease))
        case Delete():
            return messages.delete(key)
        case Put():
            return messages.put(key, op.value, _lease_id(op.lease) if op.lease else 0)


def _names(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (", …" if len(keys) > 3 else "")


def _lease_id(lease: Lease) -> int:
    try:
        return int(lease.id)
    except ValueError:
        raise InvalidValue(f"{lease.id!r:.80} is no lease of etcd") from None
