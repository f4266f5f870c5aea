"""DynamoStore under the shipped suite of faults: DynamoDB hangs, dies, comes back empty, connections to it break."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rigs.dynamodb import PrivateDynamo
from sked_core.plugin import Store
from sked_core.testing.stores import Engine, OpenStore, StoreFaultContract
from sked_dynamodb import client, commits
from sked_dynamodb.store import DynamoStore


@pytest.fixture(scope="module")
def running(dynamodb_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateDynamo]:
    engine = PrivateDynamo(dynamodb_program, tmp_path_factory.mktemp("dynamodb"))
    yield engine
    engine.kill()


class TestDynamoFaults(StoreFaultContract):
    @pytest.fixture
    def engine(self, running: PrivateDynamo) -> Engine:
        """One for all, since a Java takes long to start; each test has a table of its own."""
        running.start()
        return running

    @pytest.fixture
    def address(self, engine: PrivateDynamo) -> str:
        return engine.address

    @pytest.fixture
    def open_at(self, table: str) -> Callable[[str], DynamoStore]:
        return lambda address: DynamoStore(f"dynamodb://eu-central-1/{table}?endpoint=http://{address}&poll=50ms")

    def test_a_broken_connection_is_no_answer(
        self, proxy: Any, remote: Store, clients: OpenStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With less patience than it has: else a commit is tried until it gets through, and nobody sees it fail."""
        clients().read("")  # makes the table
        remote.read("")
        for module in (client, commits):
            monkeypatch.setattr(module, "TRY_SECONDS", 0.0)
        super().test_a_broken_connection_is_no_answer(proxy, remote, clients)  # type: ignore[no-untyped-call]
