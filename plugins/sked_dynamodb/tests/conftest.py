"""Credentials that no AWS would take, and clients with leases short enough for tests."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from rigs.clients import opening
from sked_dynamodb.store import DynamoStore

REGION = "eu-central-1"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of this machine, if there are any, must not get into a test."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_DYNAMODB"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "sked",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)


def url_of(endpoint: str, table: str, poll: str = "50ms") -> str:
    """With the shortest poll interval leases may be as short as a second."""
    return f"dynamodb://{REGION}/{table}?endpoint={endpoint}&poll={poll}"


@pytest.fixture
def table() -> str:
    """The name of a table that is not there yet."""
    return f"sked-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def open_store(dynamodb: str, table: str) -> Iterator[Callable[[], DynamoStore]]:
    """Opens a client of a store of the test's own."""
    with opening(lambda: DynamoStore(url_of(dynamodb, table))) as open_one:
        yield open_one
