"""What `sked plugins check` tries this package with: a table of its own in the region that AWS_REGION names, made
for the check and deleted after it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress

from sked_core.plugin import SkedError
from sked_core.testing.samples import Sample, StoreSample
from sked_core.testing.scratch import Scratch
from sked_dynamodb.address import parse_address
from sked_dynamodb.client import Client, Missing
from sked_dynamodb.plugin import open_store

VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")


def samples() -> Sequence[Sample]:
    """One of the store."""
    table = f"sked-check-{secrets.token_hex(8)}"

    def url() -> str:
        region = next(filter(None, map(os.environ.get, VARIABLES)), "")
        return f"dynamodb://{region}/{table}"

    scratch = Scratch(lambda: open_store(url()))

    def needs() -> str:
        if not any(map(os.environ.get, VARIABLES)):
            return "AWS_REGION: where a table sked-check-… may be made, and deleted afterwards"
        client = _client(url())
        try:
            client.once("describe_table")
        except Missing:
            return ""
        except SkedError as error:
            return f"a DynamoDB that answers in the region of AWS_REGION: {error}"
        finally:
            client.close()
        return "a table that nobody else has"

    def end() -> None:
        client = _client(url())
        try:
            with suppress(Missing):  # no test came so far as to make it
                client.once("delete_table")
        finally:
            client.close()

    # Nothing has to be cleared: the table goes with all that is in it.
    return [StoreSample(scheme="dynamodb", fresh=scratch.fresh, needs=needs, end=end)]


def _client(url: str) -> Client:
    return Client(parse_address(url), lambda _: None)
