"""The reference implementation passes the contract first."""

from __future__ import annotations

import pytest

from sked_core.errors import InvalidValue, Unavailable
from sked_core.interfaces.store import Delete, Put, Store
from sked_core.runtime.stores.memory import MemoryStore, memory_store
from sked_core.runtime.stores.prefixed import Prefixed
from sked_core.testing.clock import FakeClock
from sked_core.testing.stores import OpenStore, StoreContract


class TestMemoryStore(StoreContract):
    short_ttl = 1.0

    @pytest.fixture
    def open_store(self) -> OpenStore:
        return MemoryStore().client


class TestPrefixedStore(StoreContract):
    short_ttl = 1.0

    @pytest.fixture
    def open_store(self) -> OpenStore:
        memory = MemoryStore()
        memory.commit([Put("team", b"x"), Put("team-b/state/x", b"x"), Put("state/x", b"x")])
        return lambda: Prefixed(memory.client(), "team/a")


def test_the_prefix_stands_before_every_key() -> None:
    memory = MemoryStore()
    store: Store = Prefixed(memory, "team/a/")
    store.commit([Put("config/x", b"1")])
    assert set(memory.read("").entries) == {"team/a/config/x"}
    assert set(store.read("config/").entries) == {"config/x"}
    for prefix in ("", "/", "..", "a b"):
        with pytest.raises(InvalidValue):
            Prefixed(memory, prefix)


def test_leases_expire_by_the_clock_that_was_given() -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    lease = store.grant(10)
    store.commit([Put("a/lock", b"", lease), Put("b/other", b"")])
    clock.advance(9.9)
    assert set(store.read("a/").entries) == {"a/lock"}
    lease.renew()
    since = store.read("b/").revision
    began = clock.monotonic()
    assert store.wait("a/", since, 60) > since
    assert clock.monotonic() - began == pytest.approx(10)
    assert store.read("a/").entries == {}
    assert store.wait("b/", since, 60) == since + 1, "nothing below b/ has changed"
    assert clock.monotonic() - began == pytest.approx(70)


def test_a_wait_from_long_ago_wakes() -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    since = store.commit([Put("a", b"")])
    for _ in range(10_001):
        store.commit([Put("b", b"")])
    before = clock.monotonic()
    assert store.wait("a", since, 60) == store.read("").revision
    assert clock.monotonic() == before


def test_a_key_is_written_once_in_a_commit() -> None:
    store = MemoryStore()
    with pytest.raises(InvalidValue, match="written twice"):
        store.commit([Put("a", b""), Delete("a")])
    with pytest.raises(InvalidValue, match="ttl"):
        store.grant(0)


def test_one_store_per_name() -> None:
    memory_store("memory://one").commit([Put("a", b"")])
    assert set(memory_store("memory://one").read("").entries) == {"a"}
    assert memory_store("memory://two").read("").entries == {}
    with pytest.raises(InvalidValue):
        memory_store("sqlite:///x")


def test_a_closed_client_is_unavailable() -> None:
    memory = MemoryStore()
    memory.client().close()
    assert memory.read("").entries == {}
    memory.close()
    with pytest.raises(Unavailable):
        memory.read("")
