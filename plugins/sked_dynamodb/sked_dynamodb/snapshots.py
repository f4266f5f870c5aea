"""All entries below a prefix as they stood together, out of reads that see each item for itself.

A query is not a snapshot: it goes page by page, and DynamoDB's guide says (Transactions, isolation levels) that a
transaction's items appear one by one until its writer has been answered. But each entry tells the revision of its
last change, a deletion leaves a trace that does so too, and each commit says which keys it touched. So what was read
is the state at revision R if, and only if,

- no entry is newer than R, and
- every key that a commit up to R touched is at least as new as that commit.

The second is asked of the commits since just before the read began: the ones before are wholly visible, for nobody
commits on top of one that is not (see commits). Keys that don't pass are read again, and the commits made meanwhile
taken in, until all pass.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from sked_core.plugin import Entry, Revision, Snapshot, Unavailable
from sked_dynamodb.client import TRY_SECONDS, Busy, Client, log, pauses
from sked_dynamodb.records import CHANGE, CHANGES_KEPT, ENTRY, Change, Head, Item, Row, change_id, change_of, row_of


def read(client: Client, prefix: str) -> tuple[Snapshot, Head]:
    """The snapshot, and the commit as of which it is.

    Raises Busy (an Unavailable) where changes below the prefix come faster than they can be read, Unavailable.
    """
    until = time.monotonic() + 2 * TRY_SECONDS
    head = client.head()
    as_of = Head(max(head.revision - 1, 0), "")
    rows = {row.key: row for row in map(row_of, _below(client, prefix))}
    touched: dict[str, int] = {}
    waits = pauses()
    while True:
        stale = [key for key, revision in touched.items() if key not in rows or not rows[key].shows(revision)]
        rows |= {row.key: row for row in map(row_of, client.items(ENTRY, stale))}
        changes = changes_from(client, as_of.revision + 1)
        for change in changes:
            if change.revision != as_of.revision + 1:
                raise Unavailable("the table changed too much while it was read, or was set back", hint="read again")
            as_of = Head(change.revision, change.mark)
            touched |= {key: change.revision for key in change.keys if key.startswith(prefix)}
        if as_of.revision >= head.revision and _shown(rows, touched, as_of.revision):
            break
        if time.monotonic() > until or as_of.revision - head.revision > CHANGES_KEPT // 2:
            raise Busy(f"{prefix or 'the store'} changes faster than it can be read", hint="try again")
        if not changes:
            time.sleep(next(waits))  # for what its writer has not been told of yet
    if strange := [row.key for row in rows.values() if row.revision < 0]:
        # No reason to stop the whole cluster; the next commit that writes the key puts it right.
        log.warning("%s: ignoring what somebody wrote past Sked: %s", client.address, ", ".join(strange)[:500])
    entries = {
        row.key: Entry(row.value, Revision(row.revision), row.lease) for row in rows.values() if row.value is not None
    }
    return Snapshot(entries, Revision(as_of.revision)), as_of


def _shown(rows: Mapping[str, Row], touched: Mapping[str, int], revision: int) -> bool:
    """Whether ``rows`` are the state as of ``revision``."""
    whole = all(key in rows and rows[key].shows(touched_at) for key, touched_at in touched.items())
    return whole and all(row.revision <= revision for row in rows.values())


def changes_from(client: Client, first: int) -> list[Change]:
    """What the commits from revision ``first`` on touched, oldest first, as far as it can be seen."""
    items = client.query(CHANGE, "id >= :first", values={":first": {"S": change_id(first)}})
    try:
        return [change_of(item) for item in items]
    except (LookupError, TypeError, ValueError):
        raise client.nonsense("a change is none of Sked's") from None


def _below(client: Client, prefix: str) -> Iterator[Item]:
    if not prefix:
        return client.query(ENTRY)
    return client.query(ENTRY, "begins_with(id, :prefix)", values={":prefix": {"S": prefix}})
