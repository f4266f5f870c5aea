"""Leases without trust in anybody's clock.

A lease is an item whose ``beat`` its holder raises. Whoever waits for changes also looks at the leases, and once one
has kept the same beat for its whole ttl, counted on the looker's own monotonic clock from after it first saw that
beat, ends it: on condition that the beat is still the same. So a lease never ends before its ttl, whatever the clocks
say, and ends within twice its ttl as long as anybody looks. Ending has two steps: a mark that no renewal, Put or
Fence gets past, then the deletion of the keys. A process that dies between them leaves the rest to the others.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sked_core.plugin import Conflict, InvalidValue, LeaseLost, SkedError
from sked_dynamodb.client import Client, ConditionFailed, log
from sked_dynamodb.commits import Commits
from sked_dynamodb.parts import Part, bound
from sked_dynamodb.records import BY_LEASE, ENTRY, LEASE, key_of

MAX_TTL_SECONDS = 86400.0
POLLS_PER_LOOK, POLLS_PER_TTL = 6, 20
"""In units of the poll interval: how often leases are looked at, and the shortest ttl. A lease is seen to be still
within one look of its last renewal and judged within one more: ttl + 2 looks stay well below 2 ttl."""
DRIFT = 1.01
"""Monotonic clocks of two machines may run at different speeds, but never by a hundredth."""
_KEYS_PER_COMMIT = 90
_ENDS_TRIED = 20


@dataclass(slots=True)
class DynamoLease:
    """See sked_core.interfaces.store.Lease."""

    id: str
    ttl: float
    _leases: Leases

    def renew(self) -> None:
        self._leases.renew(self.id)

    def revoke(self) -> None:
        self._leases.revoke(self.id)


class Leases:
    """Grants, renews and ends the leases of one table."""

    def __init__(self, client: Client, commits: Commits) -> None:
        self._client, self._commits = client, commits
        self._min_ttl = POLLS_PER_TTL * client.address.poll
        self._seen: dict[str, tuple[object, float]] = {}  # lease: its state, when it was first seen in it

    def grant(self, ttl: float) -> DynamoLease:
        if not (math.isfinite(ttl) and ttl > 0):
            raise InvalidValue(f"a lease needs a ttl of more than 0 seconds, got {ttl}")
        seconds = min(max(ttl, self._min_ttl), MAX_TTL_SECONDS)
        lease = secrets.token_hex(12)
        item = {**key_of(LEASE, lease), "beat": {"N": "0"}, "seconds": {"N": f"{seconds:g}"}}
        self._client.call("put_item", Item=item)
        return DynamoLease(lease, seconds, self)

    def renew(self, lease: str) -> None:
        try:
            self._update(
                lease, "ADD beat :one", "attribute_exists(beat) AND attribute_not_exists(ended)", {":one": "1"}
            )
        except ConditionFailed:
            raise LeaseLost(f"the lease {lease} has ended") from None

    def revoke(self, lease: str) -> None:
        """End it, with its keys. Idempotent."""
        try:
            self._update(lease, "SET ended = :one", "attribute_exists(beat)", {":one": "1"})
        except ConditionFailed:
            return  # it ended before, and its keys went first
        self._remove(lease)

    def look(self) -> None:
        """End the leases whose time has come, and finish what others began to end. Raises Unavailable, Denied."""
        items = {item["id"]["S"]: item for item in self._client.query(LEASE, consistent=False)}
        # An old answer (not read consistently: half the price) shows an old beat, which the condition then refuses.
        now = time.monotonic()
        self._seen = {
            lease: self._seen[lease] if self._seen.get(lease, (None,))[0] == state else (state, now)
            for lease, state in ((lease, (item.get("beat"), item.get("ended"))) for lease, item in items.items())
        }
        for lease, item in items.items():
            still = now - self._seen[lease][1]
            if "ended" in item:
                if still > self._min_ttl:  # whoever ended it has not removed it
                    self._remove(lease)
            elif still > _seconds(item, self._min_ttl) * DRIFT:
                self._expire(lease, item["beat"]["N"])

    def _expire(self, lease: str, beat: str) -> None:
        condition = "beat = :beat AND attribute_not_exists(ended)"
        try:
            self._update(lease, "SET ended = :one", condition, {":one": "1", ":beat": beat})
        except ConditionFailed:
            return  # renewed after all, or somebody else ends it
        log.info("the lease %s was not renewed in time and ends", lease)
        self._remove(lease)

    def _remove(self, lease: str) -> None:
        """Delete the keys of a lease that is marked as ended, and then the lease.

        Looks for keys once more after the commit: a commit that was under way when the lease was marked may have
        bound one that could not be seen yet. It can be now, since ours stands on top of it.
        """
        keys = self._keys(lease)
        for _ in range(_ENDS_TRIED):
            parts = [Part(ENTRY, key, condition=bound(key, lease)) for key in keys[:_KEYS_PER_COMMIT]]
            try:
                self._commits.commit(parts)
            except Conflict:
                log.debug("a key of the lease %s was taken over meanwhile", lease)
                keys = self._keys(lease)
                continue
            if not (keys := self._keys(lease)):
                self._client.call("delete_item", Key=key_of(LEASE, lease))
                return

    def _keys(self, lease: str) -> list[str]:
        values = {":lease": {"S": lease}}
        return [
            item["id"]["S"] for item in self._client.query(ENTRY, "lease = :lease", values=values, IndexName=BY_LEASE)
        ]

    def _update(self, lease: str, update: str, condition: str, numbers: Mapping[str, str]) -> None:
        self._client.call(
            "update_item",
            Key=key_of(LEASE, lease),
            UpdateExpression=update,
            ConditionExpression=condition,
            ExpressionAttributeValues={name: {"N": number} for name, number in numbers.items()},
        )


def _seconds(item: Mapping[str, Any], least: float) -> float:
    try:
        return float(item["seconds"]["N"])
    except (LookupError, TypeError, ValueError):
        return least


def quietly(chore: Any) -> None:
    """Run one of the chores that the next round repeats."""
    try:
        chore()
    except SkedError as error:
        log.debug("put off: %s", error)
