"""The Store port over one DynamoDB table."""

from __future__ import annotations

from collections.abc import Sequence

from sked_core.plugin import (
    CheckOp,
    Conflict,
    Delete,
    Fence,
    InvalidValue,
    Op,
    Put,
    Revision,
    Snapshot,
    check_key,
)
from sked_dynamodb import snapshots
from sked_dynamodb.address import parse_address
from sked_dynamodb.client import Client
from sked_dynamodb.commits import MOST_BYTES, MOST_ITEMS, Commits, Condition, Part, bound, living
from sked_dynamodb.feed import Feed
from sked_dynamodb.leases import POLLS_PER_LOOK, DynamoLease, Leases, quietly
from sked_dynamodb.records import ENTRY, Change, Head
from sked_dynamodb.table import find_or_make
from sked_dynamodb.trim import Trim

MAX_VALUE_BYTES = 320 * 1024
"""DynamoDB takes 400 KB per item, names and key included."""
_ITEM_BYTES = 200
"""Of an item beside its key and value, at most."""


class DynamoStore:
    """See sked_core.interfaces.store.Store."""

    max_ops = 90
    """Of the 100 items of a transaction, two are the head and the change; each lease that is involved takes one."""

    def __init__(self, url: str) -> None:
        self._client = Client(parse_address(url), find_or_make)
        self._trim = Trim(self._client)
        self._commits = Commits(self._client, self._made)
        self._leases = Leases(self._client, self._commits)
        chores = [lambda: quietly(self._leases.look), lambda: quietly(self._trim.trim)]
        self._feed = Feed(self._client, chores, every=POLLS_PER_LOOK * self._client.address.poll)

    def __repr__(self) -> str:
        return f"DynamoStore({self._client.address})"

    def read(self, prefix: str) -> Snapshot:
        _check_prefix(prefix)
        snapshot, head = snapshots.read(self._client, prefix)
        self._feed.saw(head)
        if any(entry.lease for entry in snapshot.entries.values()):
            self._feed.start()  # whoever sees leases helps to end them
        return snapshot

    def commit(self, ops: Sequence[Op]) -> Revision:
        parts = parts_of(ops, max_ops=self.max_ops)
        return Revision(self._commits.commit(parts))

    def wait(self, prefix: str, since: Revision, timeout: float) -> Revision:
        _check_prefix(prefix)
        return Revision(self._feed.wait(prefix, since, timeout))

    def grant(self, ttl: float) -> DynamoLease:
        lease = self._leases.grant(ttl)
        self._feed.start()
        return lease

    def close(self) -> None:
        self._feed.close()
        self._client.close()

    def _made(self, head: Head, change: Change) -> None:
        self._trim.made(head.revision)
        self._feed.made(head, change)


def _check_prefix(prefix: str) -> None:
    if prefix:
        check_key(prefix, prefix=True)


def parts_of(ops: Sequence[Op], *, max_ops: int) -> list[Part]:
    """The items of a commit: one per key, its guard being the condition of its write, and one per lease.

    Raises InvalidValue past one of DynamoDB's limits, for a hostile key, and for one that is written or guarded twice.
    """
    if len(ops) > max_ops:
        raise InvalidValue(f"{len(ops)} operations are more than the {max_ops} of one commit to DynamoDB")
    guards: dict[str, Condition] = {}
    writes: dict[str, Put | Delete] = {}
    leases: set[str] = set()
    size = 0
    for op in ops:
        key = check_key(op.key)
        guarding = isinstance(op, CheckOp | Fence)
        if key in (guards if guarding else writes):
            raise InvalidValue(f"{key} is {'guarded' if guarding else 'written'} twice in one commit")
        size += 2 * len(key) + _ITEM_BYTES
        match op:
            case CheckOp():
                guards[key] = _unchanged(op)
            case Fence():
                guards[key] = bound(key, op.lease.id)
                leases.add(op.lease.id)
            case Put():
                if len(op.value) > MAX_VALUE_BYTES:
                    raise InvalidValue(f"{key}: {len(op.value)} bytes are more than the {MAX_VALUE_BYTES} of one value")
                size += len(op.value)
                writes[key] = op
                if op.lease is not None:
                    leases.add(op.lease.id)
            case Delete():
                writes[key] = op
    parts = [_part(key, writes.get(key), guards.get(key)) for key in dict.fromkeys((*guards, *writes))]
    parts += [living(lease) for lease in sorted(leases)]
    if len(parts) + 2 > MOST_ITEMS or size > MOST_BYTES:
        raise InvalidValue(
            f"a commit of {len(parts)} items and {size} bytes is more than DynamoDB takes at once "
            f"({MOST_ITEMS - 2} and {MOST_BYTES})"
        )
    return parts


def _part(key: str, write: Put | Delete | None, guard: Condition | None) -> Part:
    match write:
        case Put():
            return Part(ENTRY, key, value=write.value, lease=write.lease.id if write.lease else "", condition=guard)
        case Delete():
            return Part(ENTRY, key, condition=guard)
        case _:
            return Part(ENTRY, key, look=True, condition=guard)


def _unchanged(op: CheckOp) -> Condition:
    if op.revision == 0:
        return Condition("attribute_not_exists(body)", {}, Conflict(f"{op.key} exists already"))
    return Condition(
        "revision = :was AND attribute_exists(body)",
        {":was": {"N": str(op.revision)}},
        Conflict(f"{op.key} is not at revision {op.revision} any more"),
    )
