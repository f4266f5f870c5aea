"""Removes what nobody needs any more: old changes, and the traces of the deletions that they tell of."""

from __future__ import annotations

from contextlib import suppress

from sked_dynamodb.client import Client, ConditionFailed
from sked_dynamodb.records import CHANGE, CHANGES_KEPT, ENTRY, Change, change_id, change_of, key_of

COMMITS_PER_TRIM = 50
MOST_AT_ONCE = 200
_PAGE = 25


class Trim:
    """Whoever commits also trims, in proportion, in the background. Several at once do no harm."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._newest = 0
        self._trimmed_at = 0

    def made(self, revision: int) -> None:
        """Note a commit of this process."""
        self._newest = revision

    def trim(self) -> None:
        """Oldest first, and traces before the change that names them: what is cut short is found again. Raises
        Unavailable, Denied."""
        newest = self._newest
        if newest < self._trimmed_at + COMMITS_PER_TRIM:
            return
        for _ in range(MOST_AT_ONCE // _PAGE):
            values = {":until": {"S": change_id(newest - CHANGES_KEPT)}}
            items = (
                list(self._client.query(CHANGE, "id <= :until", values=values, Limit=_PAGE))
                if newest > CHANGES_KEPT
                else []
            )
            for item in items:
                self._remove(change_of(item))
            if len(items) < _PAGE:
                self._trimmed_at = newest
                return

    def _remove(self, change: Change) -> None:
        for key in change.deleted:
            with suppress(ConditionFailed):  # written again since, and then it is no trace
                self._client.call(
                    "delete_item",
                    Key=key_of(ENTRY, key),
                    ConditionExpression="revision = :revision AND attribute_not_exists(body)",
                    ExpressionAttributeValues={":revision": {"N": str(change.revision)}},
                )
        self._client.call("delete_item", Key=key_of(CHANGE, change_id(change.revision)))
