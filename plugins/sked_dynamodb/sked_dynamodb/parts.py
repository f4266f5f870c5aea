"""What a commit consists of, and the limits that DynamoDB sets to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sked_core.plugin import (
    CheckOp,
    Conflict,
    Delete,
    Fence,
    InvalidValue,
    LeaseLost,
    Op,
    Put,
    SkedError,
    check_key,
)
from sked_dynamodb.records import ENTRY, LEASE, Item, entry_item, key_of, trace_item

MAX_OPS = 90
"""Of the 100 items of a transaction, two are the head and the change, and each lease that is involved takes one."""
MOST_ITEMS = 100
"""DynamoDB's limit for one transaction. Two are ours: the head and the change."""
MOST_BYTES = 3_900_000
"""Of all items of one transaction; DynamoDB takes 4 MB."""
MAX_VALUE_BYTES = 320 * 1024
"""DynamoDB takes 400 KB per item, names and key included."""
_ITEM_BYTES = 200
"""Of an item beside its key and value, at most."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold of an item, in DynamoDB's notation, and what to raise where it does not."""

    expression: str
    values: Item
    otherwise: SkedError


@dataclass(frozen=True, slots=True)
class Part:
    """One item of a commit: ``value`` to be written, or deleted (None), or only looked at (``look``)."""

    kind: str
    name: str
    look: bool = False
    value: bytes | None = None
    lease: str = ""
    condition: Condition | None = None


def living(lease: str) -> Part:
    """The part of a commit that lets it through only while the lease lives."""
    lost = LeaseLost(f"the lease {lease} has ended")
    return Part(
        LEASE, lease, look=True, condition=Condition("attribute_exists(beat) AND attribute_not_exists(ended)", {}, lost)
    )


def bound(key: str, lease: str) -> Condition:
    """That ``key`` is bound to ``lease``."""
    return Condition("lease = :lease", {":lease": {"S": lease}}, Conflict(f"{key} is not held by the lease {lease}"))


def parts_of(ops: Sequence[Op]) -> list[Part]:
    """The items of a commit: one per key, its guard being the condition of its write, and one per lease.

    Raises InvalidValue past one of DynamoDB's limits, for a hostile key, and for one that is written or guarded twice.
    """
    if len(ops) > MAX_OPS:
        raise InvalidValue(f"{len(ops)} operations are more than the {MAX_OPS} of one commit to DynamoDB")
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


def action(part: Part, revision: int) -> tuple[str, dict[str, Any]]:
    """The part as the item of a transaction that makes the commit of ``revision``: its kind, and its content."""
    what: dict[str, Any] = {}
    if part.condition is not None:
        what["ConditionExpression"] = part.condition.expression
        if part.condition.values:
            what["ExpressionAttributeValues"] = part.condition.values
    if part.look:
        return "ConditionCheck", {"Key": key_of(part.kind, part.name), **what}
    if part.value is None:
        return "Put", {"Item": trace_item(part.name, revision), **what}
    return "Put", {"Item": entry_item(part.name, revision, part.value, part.lease), **what}
