"""EtcdStore under the shipped suite of faults: its engine hangs, dies, loses data or history, connections break."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sked_core.testing.stores import Engine, StoreFaultContract
from sked_etcd.store import EtcdStore


class TestEtcdFaults(StoreFaultContract):
    @pytest.fixture
    def engine(self, private_etcd: Callable[..., Any]) -> Engine:
        started: Engine = private_etcd()
        return started

    @pytest.fixture
    def address(self, engine: Any) -> str:
        return str(engine.url).removeprefix("etcd://")

    @pytest.fixture
    def open_at(self) -> Callable[[str], EtcdStore]:
        return lambda address: EtcdStore(f"etcd://{address}")
