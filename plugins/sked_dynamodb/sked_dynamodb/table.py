"""The table: found, or made on first use."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from sked_core.plugin import InvalidValue, Unavailable
from sked_dynamodb.client import Busy, Client, Missing
from sked_dynamodb.records import BY_LEASE

MAKING_SECONDS = 60.0
"""DynamoDB takes some ten seconds to make a table."""
LOOK_SECONDS = 0.5

_SCHEMA = [{"AttributeName": "kind", "KeyType": "HASH"}, {"AttributeName": "id", "KeyType": "RANGE"}]
_INDEX_SCHEMA = [{"AttributeName": "kind", "KeyType": "HASH"}, {"AttributeName": "lease", "KeyType": "RANGE"}]
_DEFINITION: dict[str, Any] = {
    "BillingMode": "PAY_PER_REQUEST",
    "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in ("kind", "id", "lease")],
    "KeySchema": _SCHEMA,
    "LocalSecondaryIndexes": [
        {"IndexName": BY_LEASE, "KeySchema": _INDEX_SCHEMA, "Projection": {"ProjectionType": "KEYS_ONLY"}}
    ],
}


def find_or_make(client: Client) -> None:
    """Return once the table can be used. Raises Denied, Unavailable, and InvalidValue for somebody else's table."""
    until = time.monotonic() + MAKING_SECONDS
    asked = False
    while time.monotonic() < until:
        try:
            table = client.call("describe_table")["Table"]
            if table.get("TableStatus") in ("ACTIVE", "UPDATING"):
                return _check(client, table)
        except Missing:
            if not asked:
                asked = True
                with suppress(Busy):  # somebody else is making it
                    client.once("create_table", **_DEFINITION)
                continue
        time.sleep(LOOK_SECONDS)
    raise Unavailable(
        f"{client.address} did not become usable within {MAKING_SECONDS:g} s", hint="try again in a minute"
    )


def _check(client: Client, table: dict[str, Any]) -> None:
    indexes = {index.get("IndexName"): index.get("KeySchema") for index in table.get("LocalSecondaryIndexes", ())}
    if table.get("KeySchema") != _SCHEMA or indexes.get(BY_LEASE) != _INDEX_SCHEMA:
        raise InvalidValue(
            f"{client.address} is not one of Sked's: it has other keys, or lacks the index {BY_LEASE}",
            hint="name another table in the URL of the store; Sked makes it",
        )
