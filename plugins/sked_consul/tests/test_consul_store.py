"""ConsulStore holds the contract of the Store port, against a real agent."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from sked_consul import client, store
from sked_consul.store import ConsulStore
from sked_core.runtime.stores.prefixed import Prefixed
from sked_core.testing.stores import OpenStore, StoreContract


class TestConsulStore(StoreContract):
    short_ttl = 3.0
    too_large = 360 * 1024 + 1  # 480 KiB of base64

    @pytest.fixture
    def open_store(self, brisk_consul: Any, monkeypatch: pytest.MonkeyPatch) -> OpenStore:
        monkeypatch.setattr(store, "MIN_TTL_SECONDS", 1.0)
        prefix = f"test-{uuid.uuid4().hex[:12]}/"
        return lambda: Prefixed(ConsulStore(brisk_consul.url), prefix)

    @pytest.fixture
    def requests_sent(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
        sent: list[str] = []
        exchange = client.Transport._exchange

        def counted(transport: client.Transport, method: str, target: str, *rest: Any) -> Any:
            sent.append(target)
            return exchange(transport, method, target, *rest)

        monkeypatch.setattr(client.Transport, "_exchange", counted)
        return lambda: len(sent)


def test_leases_are_at_least_as_long_as_a_consul_takes_them_that_was_not_told_otherwise(consul: str) -> None:
    plain = ConsulStore(consul)
    lease = plain.grant(1)
    assert lease.ttl == 10
    lease.renew()
    lease.revoke()
    plain.close()
