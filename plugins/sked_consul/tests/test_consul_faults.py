"""ConsulStore holds the contract while its agent hangs, dies and comes back, with its data or without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sked_consul import client
from sked_consul.store import ConsulStore
from sked_core.testing.stores import Engine, StoreFaultContract


class TestConsulFaults(StoreFaultContract):
    @pytest.fixture
    def engine(self, private_consul: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> Engine:
        monkeypatch.setattr(client, "ANSWER_SECONDS", 3.0)
        return private_consul()

    @pytest.fixture
    def address(self, engine: Any) -> str:
        return str(engine.url).removeprefix("consul://")

    @pytest.fixture
    def open_at(self) -> Callable[[str], ConsulStore]:
        return lambda address: ConsulStore(f"consul://{address}")
