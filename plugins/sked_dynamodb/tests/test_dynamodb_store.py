"""DynamoStore holds the contract of the Store port, against DynamoDB Local."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sked_core.testing.stores import StoreContract
from sked_dynamodb.client import Client


class TestDynamoStore(StoreContract):
    short_ttl = 4.0  # to open eight clients alone takes a busy machine seconds

    @pytest.fixture
    def requests_sent(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
        sent: list[str] = []
        once = Client.once

        def counted(client: Client, operation: str, **arguments: Any) -> Any:
            if operation != "query":  # the looks at leases, which go on beside the test
                sent.append(operation)
            return once(client, operation, **arguments)

        monkeypatch.setattr(Client, "once", counted)
        return lambda: len(sent)
