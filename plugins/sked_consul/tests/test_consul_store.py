"""ConsulStore holds the contract of the Store port, against a real agent."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from sked_consul.store import ConsulStore
from sked_core.plugin import Delete
from sked_core.runtime.prefixed import Prefixed
from sked_core.testing.stores import StoreContract


class TestConsulStore(StoreContract):
    too_large = 360 * 1024 + 1  # 480 KiB of base64

    @pytest.fixture
    def open_store(self, consul: str) -> Iterator[Callable[[], Prefixed]]:
        prefix = f"test-{uuid.uuid4().hex[:12]}/"
        yield lambda: Prefixed(ConsulStore(consul), prefix)
        store = ConsulStore(consul)
        while keys := list(store.read(prefix).entries):
            store.commit([Delete(key) for key in keys[: store.max_ops]])
        store.close()
