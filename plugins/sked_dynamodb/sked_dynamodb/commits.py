"""One commit is one transaction that takes the next revision: the place in the order that nobody else may take too.

Each transaction replaces the head item on condition that it still is the one before. So commits have one order, two
never have one revision, and a commit whose answer was lost is asked again safely: its mark tells whether it took the
place. Since DynamoDB shows the items of a transaction one by one until it has answered its writer, a commit is only
made on top of one that is wholly there: then only the newest can be half visible, and readers know which keys to look
at (see snapshots).
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sked_core.plugin import Conflict, LeaseLost, SkedError, Unavailable
from sked_dynamodb.client import TRY_SECONDS, Busy, Cancelled, Client, pauses, transaction_busy
from sked_dynamodb.records import (
    CHANGE,
    EMPTY,
    ENTRY,
    LEASE,
    Change,
    Head,
    Item,
    change_id,
    change_item,
    change_of,
    entry_item,
    head_item,
    head_of,
    key_of,
    row_of,
    trace_item,
)

MOST_ITEMS = 100
"""DynamoDB's limit for one transaction. Two are ours: the head and the change."""
MOST_BYTES = 3_900_000
"""Of all items of one transaction; DynamoDB takes 4 MB."""


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


class Commits:
    """Makes the commits of one client, one after the other."""

    def __init__(self, client: Client, made: Callable[[Head, Change], None]) -> None:
        self._client, self._made = client, made
        self._turn = threading.Lock()
        self._known: Head | None = None  # the last commit as far as known, and wholly there

    def commit(self, parts: Sequence[Part]) -> int:
        """Carry out all parts or none; returns the revision. Raises what the condition that does not hold says, and
        Unavailable. After Unavailable it is unknown whether it was carried out."""
        until = time.monotonic() + TRY_SECONDS
        if not self._turn.acquire(timeout=TRY_SECONDS):
            raise Unavailable("other commits of this process still wait for DynamoDB's answer")
        try:
            before = self._known or self._settled(self._client.head(), until)
            self._known = None
            self._known = self._take_place(before, parts, until)
            return self._known.revision
        finally:
            self._turn.release()

    def _take_place(self, before: Head, parts: Sequence[Part], until: float) -> Head:
        place, change, unsure = _place(before, parts)
        for pause in pauses():
            try:
                self._send(before, place, change, parts)
            except Cancelled as error:
                failed = error.failed()
                if 0 in failed:
                    found = head_of(error.reasons[0].get("Item"))
                    if found == place or (unsure and self._took(place)):
                        break
                    _raise_first(parts, failed)
                    before = self._settled(found, until)
                    place, change, unsure = _place(before, parts)
                    if time.monotonic() < until:
                        continue
                elif failed and not unsure:
                    _raise_first(parts, failed)
                elif failed:
                    raise Unavailable(
                        "an answer of DynamoDB was lost, and whether the commit was made is unknown"
                    ) from None
                elif meaning := transaction_busy(error):
                    raise meaning from None
                if time.monotonic() + pause > until:
                    raise Busy(
                        f"a commit found no gap between those of others within {TRY_SECONDS:g} s",
                        hint="too many writers for one table: run fewer schedulers",
                    ) from None
            except Busy:
                if time.monotonic() + pause > until:
                    raise
            except Unavailable:
                unsure = True  # asked again as it was: it has this place, or can't get it any more
                if time.monotonic() + pause > until:
                    raise
            else:
                break
            time.sleep(pause)
        self._made(place, change)
        return place

    def _send(self, before: Head, place: Head, change: Change, parts: Sequence[Part]) -> None:
        table = self._client.address.table
        if before == EMPTY:
            condition: Item = {"ConditionExpression": "attribute_not_exists(mark)"}
        else:
            values = {":revision": {"N": str(before.revision)}, ":mark": {"S": before.mark}}
            condition = {
                "ConditionExpression": "revision = :revision AND mark = :mark",
                "ExpressionAttributeValues": values,
            }
        condition["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        items = [
            {"Put": {"TableName": table, "Item": head_item(place), **condition}},
            {"Put": {"TableName": table, "Item": change_item(change)}},
            *({verb: {"TableName": table, **what}} for verb, what in (_action(part, place.revision) for part in parts)),
        ]
        self._client.once("transact_write_items", TransactItems=items, ClientRequestToken=place.mark)

    def _took(self, place: Head) -> bool:
        item = self._client.item(CHANGE, change_id(place.revision))
        return item is not None and change_of(item).mark == place.mark

    def _settled(self, head: Head, until: float) -> Head:
        """``head``, once all that its commit wrote can be seen. Raises Unavailable if that takes too long."""
        for pause in pauses():
            if head == EMPTY or self._is_whole(head):
                return head
            if time.monotonic() + pause > until:
                break
            time.sleep(pause)
            head = self._client.head()  # it may have moved on
        raise Busy("DynamoDB still carries out somebody's last commit", hint="try again")

    def _is_whole(self, head: Head) -> bool:
        item = self._client.item(CHANGE, change_id(head.revision))
        if item is None or (change := change_of(item)).mark != head.mark:
            return False
        rows = {row.key: row for row in map(row_of, self._client.items(ENTRY, change.keys))}
        return all(key in rows and rows[key].shows(head.revision) for key in change.keys)


def _place(before: Head, parts: Sequence[Part]) -> tuple[Head, Change, bool]:
    place = Head(before.revision + 1, secrets.token_hex(16))
    entries = [part for part in parts if part.kind == ENTRY and not part.look]
    written = tuple(part.name for part in entries if part.value is not None)
    deleted = tuple(part.name for part in entries if part.value is None)
    return place, Change(place.revision, place.mark, written, deleted), False


def _action(part: Part, revision: int) -> tuple[str, dict[str, Any]]:
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


def _raise_first(parts: Sequence[Part], failed: Sequence[int]) -> None:
    """Raise for the first part whose condition did not hold; the head and the change stand before the parts."""
    for place in failed:
        if place >= 2 and (condition := parts[place - 2].condition) is not None:
            raise condition.otherwise
