"""The Store port over one DynamoDB table."""

from __future__ import annotations

from collections.abc import Sequence

from sked_core.plugin import Op, Revision, Snapshot, check_key
from sked_dynamodb import snapshots
from sked_dynamodb.address import parse_address
from sked_dynamodb.client import Client
from sked_dynamodb.commits import Commits
from sked_dynamodb.feed import Feed
from sked_dynamodb.leases import POLLS_PER_LOOK, DynamoLease, Leases, quietly
from sked_dynamodb.parts import MAX_OPS, parts_of
from sked_dynamodb.records import Change, Head
from sked_dynamodb.table import find_or_make
from sked_dynamodb.trim import Trim


class DynamoStore:
    """See sked_core.interfaces.store.Store."""

    max_ops = MAX_OPS

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
        parts = parts_of(ops)
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
