"""One commit is one transaction that takes the next revision: the place in the order that nobody else may take too.

Each transaction replaces the head item on condition that it still is the one before. So commits have one order, two
never have one revision, and a commit whose answer was lost is asked again safely: its mark tells whether it took the
place. Since DynamoDB shows the items of a transaction one by one until it has answered its writer, a commit is only
made on top of one that is wholly there: then only the newest can be half visible, and readers know which keys to look
at (see snapshots).

Whoever committed last is the quickest to commit again, since it need not look whether the last commit is whole, and
could keep others out for good. So one that has lost the race twice takes a turn first: a note at the head that lets
nobody else past. A turn whose owner has fallen silent is overruled by whoever saw it stand for TURN_SECONDS.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence

from sked_core.plugin import SkedError, Unavailable
from sked_dynamodb.client import TRY_SECONDS, Busy, Cancelled, Client, ConditionFailed, log, pauses, transaction_busy
from sked_dynamodb.parts import Part, action
from sked_dynamodb.records import (
    CHANGE,
    EMPTY,
    ENTRY,
    HEAD,
    Change,
    Head,
    Item,
    change_id,
    change_item,
    change_of,
    head_item,
    head_of,
    key_of,
    row_of,
)

LOSSES_BEFORE_TURN = 2
TURN_SECONDS = 1.0


class Commits:
    """Makes the commits of one client, one after the other."""

    def __init__(self, client: Client, made: Callable[[Head, Change], None]) -> None:
        self._client, self._made = client, made
        self._one = threading.Lock()
        self._known: Head | None = None  # the last commit as far as known, and wholly there
        self._turn = ""  # the one that is taken

    def commit(self, parts: Sequence[Part]) -> int:
        """Carry out all parts or none; returns the revision. Raises what the condition that does not hold says, and
        Unavailable. After Unavailable it is unknown whether it was carried out."""
        until = time.monotonic() + TRY_SECONDS
        if not self._one.acquire(timeout=TRY_SECONDS):
            raise Unavailable("other commits of this process still wait for DynamoDB's answer")
        try:
            before = self._known or self._settled(self._client.head(), until)
            self._known = None
            self._known = self._take_place(before, parts, until)
            return self._known.revision
        finally:
            if self._turn:
                self._give_up_turn()
            self._one.release()

    def _take_place(self, before: Head, parts: Sequence[Part], until: float) -> Head:
        place, change = _place(before, parts)
        unsure, losses = False, 0
        for pause in pauses():
            try:
                self._send(before, place, change, parts)
                break
            except Cancelled as error:
                failed = error.failed()
                if 0 in failed:
                    found = head_of(error.reasons[0].get("Item"))
                    if found == place or (unsure and self._took(place)):
                        break
                    _raise_first(parts, failed)
                    losses += 1
                    if losses >= LOSSES_BEFORE_TURN or found.turn:
                        found = self._take_turn(until)
                    before = self._settled(found, until)
                    place, change = _place(before, parts)
                    unsure, pause = False, 0.0
                elif failed and not unsure:
                    _raise_first(parts, failed)
                elif failed:
                    lost = "an answer of DynamoDB was lost, and whether the commit was made is unknown"
                    raise Unavailable(lost) from None
                elif meaning := transaction_busy(error):
                    raise meaning from None
                _past(until - pause)
            except Busy:
                _past(until - pause)
            except Unavailable:
                unsure = True  # asked again as it was: it has this place, or can't get it any more
                if time.monotonic() + pause > until:
                    raise
            time.sleep(pause)
        self._turn = ""  # the new head bears none
        self._made(place, change)
        return place

    def _send(self, before: Head, place: Head, change: Change, parts: Sequence[Part]) -> None:
        table = self._client.address.table
        if before == EMPTY:
            condition: Item = {"ConditionExpression": "attribute_not_exists(mark)"}
        else:
            values = {":revision": {"N": str(before.revision)}, ":mark": {"S": before.mark}}
            free = "attribute_not_exists(turn)"
            if self._turn:
                free, values[":turn"] = "turn = :turn", {"S": self._turn}
            condition = {
                "ConditionExpression": f"revision = :revision AND mark = :mark AND {free}",
                "ExpressionAttributeValues": values,
            }
        condition["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        items = [
            {"Put": {"TableName": table, "Item": head_item(place), **condition}},
            {"Put": {"TableName": table, "Item": change_item(change)}},
            *({verb: {"TableName": table, **what}} for verb, what in (action(part, place.revision) for part in parts)),
        ]
        self._client.once("transact_write_items", TransactItems=items, ClientRequestToken=place.mark)

    # --- turns

    def _take_turn(self, until: float) -> Head:
        """Take a turn; returns the head that bears it. Raises Busy, Unavailable."""
        mine, stands, since = secrets.token_hex(8), "", 0.0
        self._turn = mine
        tries = pauses()
        while True:
            values = {":mine": {"S": mine}, ":silent": {"S": stands if since and _age(since) > TURN_SECONDS else mine}}
            try:
                answer = self._client.once(
                    "update_item",
                    Key=key_of(HEAD, HEAD),
                    UpdateExpression="SET turn = :mine",
                    ConditionExpression="attribute_exists(mark) AND (attribute_not_exists(turn) OR turn = :silent)",
                    ExpressionAttributeValues=values,
                    ReturnValues="ALL_NEW",
                )
                return head_of(answer.get("Attributes"))
            except ConditionFailed:
                head = self._client.head()
                if head == EMPTY or head.turn == mine:
                    return head
                if head.turn != stands:
                    stands, since = head.turn, time.monotonic()
            except Busy:
                log.debug("a transaction goes on at the head")
            pause = next(tries)
            _past(until - pause)
            time.sleep(pause)

    def _give_up_turn(self) -> None:
        values = {":mine": {"S": self._turn}}
        self._turn = ""
        try:
            self._client.once(
                "update_item",
                Key=key_of(HEAD, HEAD),
                UpdateExpression="REMOVE turn",
                ConditionExpression="turn = :mine",
                ExpressionAttributeValues=values,
            )
        except (ConditionFailed, SkedError) as error:
            log.debug("a turn is left to be overruled: %s", error)

    # --- what the last commit is

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


def _place(before: Head, parts: Sequence[Part]) -> tuple[Head, Change]:
    place = Head(before.revision + 1, secrets.token_hex(16))
    entries = [part for part in parts if part.kind == ENTRY and not part.look]
    written = tuple(part.name for part in entries if part.value is not None)
    deleted = tuple(part.name for part in entries if part.value is None)
    return place, Change(place.revision, place.mark, written, deleted)


def _raise_first(parts: Sequence[Part], failed: Sequence[int]) -> None:
    """Raise for the first part whose condition did not hold; the head and the change stand before the parts."""
    for place in failed:
        if place >= 2 and (condition := parts[place - 2].condition) is not None:
            raise condition.otherwise


def _age(since: float) -> float:
    return time.monotonic() - since


def _past(until: float) -> None:
    if time.monotonic() > until:
        raise Busy(
            f"a commit found no gap between those of others within {TRY_SECONDS:g} s",
            hint="too many writers for one table: run fewer schedulers",
        )
