"""EtcdStore holds the contract of the Store port, against a real etcd."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sked_core.plugin import Delete
from sked_core.runtime.stores.prefixed import Prefixed
from sked_core.testing.stores import StoreContract
from sked_etcd.client import Client
from sked_etcd.store import EtcdStore


class TestEtcdStore(StoreContract):
    short_ttl = 3.0
    too_large = 1536 * 1024

    @pytest.fixture
    def open_store(self, etcd: str) -> Iterator[Callable[[], Prefixed]]:
        prefix = f"test-{uuid.uuid4().hex[:12]}/"
        yield lambda: Prefixed(EtcdStore(etcd), prefix)
        store = EtcdStore(etcd)
        while keys := list(store.read(prefix).entries):
            store.commit([Delete(key) for key in keys[: store.max_ops]])
        store.close()

    @pytest.fixture
    def requests_sent(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
        sent: list[str] = []
        call = Client.call

        def counted(client: Client, method: str, *rest: Any, **more: Any) -> Any:
            sent.append(method)
            return call(client, method, *rest, **more)

        monkeypatch.setattr(Client, "call", counted)
        return lambda: len(sent)
