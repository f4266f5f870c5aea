"""How a store lies in its table: four kinds of items, and their way to DynamoDB's notation and back.

===========  ==================  =====================================================================
``kind``     ``id``              other attributes
===========  ==================  =====================================================================
``entry``    the key             ``revision``; ``body`` (text, or binary where it is no UTF-8) and, where
                                 it is bound to one, ``lease``. Without a body it is the trace of a
                                 deletion, kept for the next CHANGES_KEPT commits
``head``     ``head``            ``revision`` and ``mark`` of the last commit, the change counter; at times ``turn``
``change``   revision, 20        ``mark`` (random, of this commit), ``written`` and ``deleted`` (keys)
             digits
``lease``    the lease's id      ``beat`` (counts renewals), ``seconds`` (ttl), ``ended`` once it has
===========  ==================  =====================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Item = dict[str, Any]

ENTRY, HEAD, CHANGE, LEASE = "entry", "head", "change", "lease"
BY_LEASE = "by-lease"
"""Local index of the entries that are bound to a lease. Local, since only such an index can be read consistently."""
CHANGES_KEPT = 1000
"""Commits whose change items and traces of deletions are kept. A read that lasts longer than they do is refused."""


@dataclass(frozen=True, slots=True)
class Head:
    """The last commit. Its mark tells it from the commit of the same revision in another life of the table."""

    revision: int
    mark: str
    turn: str = field(default="", compare=False)
    """Whose turn it is to commit next; see commits. Empty: whoever comes first."""


EMPTY = Head(0, "")


@dataclass(frozen=True, slots=True)
class Change:
    """Which keys one commit touched."""

    revision: int
    mark: str
    written: tuple[str, ...]
    deleted: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return (*self.written, *self.deleted)


@dataclass(frozen=True, slots=True)
class Row:
    """One entry; ``value`` is None for the trace of a deletion, ``revision`` -1 where somebody wrote past Sked."""

    key: str
    revision: int
    value: bytes | None
    lease: str

    def shows(self, revision: int) -> bool:
        """Whether what the commit of ``revision`` did to it can be seen, or is overwritten."""
        return self.revision >= revision or self.revision < 0


def key_of(kind: str, name: str) -> Item:
    return {"kind": {"S": kind}, "id": {"S": name}}


def change_id(revision: int) -> str:
    return f"{revision:020}"


def entry_item(key: str, revision: int, value: bytes, lease: str) -> Item:
    body: Item
    try:
        body = {"S": value.decode()}  # for people who look at the table with tools of their own
    except UnicodeDecodeError:
        body = {"B": value}
    bound = {"lease": {"S": lease}} if lease else {}
    return {**key_of(ENTRY, key), "revision": {"N": str(revision)}, "body": body, **bound}


def trace_item(key: str, revision: int) -> Item:
    return {**key_of(ENTRY, key), "revision": {"N": str(revision)}}


def head_item(head: Head) -> Item:
    return {**key_of(HEAD, HEAD), "revision": {"N": str(head.revision)}, "mark": {"S": head.mark}}


def change_item(change: Change) -> Item:
    lists = {"written": change.written, "deleted": change.deleted}
    keys = {name: {"L": [{"S": key} for key in group]} for name, group in lists.items()}
    return {**key_of(CHANGE, change_id(change.revision)), "mark": {"S": change.mark}, **keys}


def row_of(item: Mapping[str, Any]) -> Row:
    try:
        body = item.get("body")
        value = None if body is None else body["S"].encode() if "S" in body else bytes(body["B"])
        lease = item["lease"]["S"] if "lease" in item else ""
        return Row(item["id"]["S"], int(item["revision"]["N"]), value, lease)
    except (LookupError, TypeError, ValueError):
        return Row(item["id"]["S"], -1, None, "")


def head_of(item: Mapping[str, Any] | None) -> Head:
    """Raises LookupError, TypeError or ValueError for an item that Sked did not write; so does ``change_of``."""
    if not item:
        return EMPTY
    turn = item["turn"]["S"] if "turn" in item else ""
    return Head(int(item["revision"]["N"]), item["mark"]["S"], turn)


def change_of(item: Mapping[str, Any]) -> Change:
    written, deleted = (tuple(key["S"] for key in item[name]["L"]) for name in ("written", "deleted"))
    return Change(int(item["id"]["S"]), item["mark"]["S"], written, deleted)
