"""The simulated store keeps the contract as both stores that it stands for do; its faults are what they are called."""

from __future__ import annotations

from random import Random

import pytest

from sked_core.clock import SystemClock
from sked_core.errors import Conflict, LeaseLost, Unavailable
from sked_core.interfaces.store import Check, Fence, Put, Revision
from sked_core.testing.clock import FakeClock
from sked_core.testing.sim.store import KINDS, Faults, Killed, SimStore
from sked_core.testing.stores import OpenStore, StoreContract


class TestSimConsul(StoreContract):
    short_ttl = 0.2

    @pytest.fixture
    def open_store(self) -> OpenStore:
        return SimStore(SystemClock(), Random(1), KINDS["consul"], min_ttl=0.0).client


class TestSimEtcd(StoreContract):
    short_ttl = 0.2

    @pytest.fixture
    def open_store(self) -> OpenStore:
        return SimStore(SystemClock(), Random(1), KINDS["etcd"], min_ttl=0.0).client


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> SimStore:
    return SimStore(clock, Random(1), KINDS["consul"])


def test_a_lost_request_leaves_nothing_and_a_lost_answer_leaves_all(store: SimStore) -> None:
    client = store.client("a")
    store.faults = Faults(dropped=1.0)
    with pytest.raises(Unavailable):
        client.commit([Put("a", b"")])
    assert not store.entries
    store.faults = Faults(lost=1.0)
    with pytest.raises(Unavailable):
        client.commit([Put("a", b"")])
    assert set(store.entries) == {"a"}


def test_a_late_write_is_judged_by_what_is_true_when_it_arrives(store: SimStore) -> None:
    client = store.client("a")
    store.faults = Faults(late=1.0)
    for key in "ab":
        with pytest.raises(Unavailable):
            client.commit([Check(key, Revision(0)), Put(key, b"late")])
    store.faults = Faults()
    assert not store.entries
    client.commit([Put("a", b"soon")])
    store.deliver(0)
    store.deliver(0)
    assert store.entries["a"].value == b"soon"
    assert store.entries["b"].value == b"late"


def test_leases_end_between_one_and_two_ttls(store: SimStore, clock: FakeClock) -> None:
    client = store.client("a")
    lived = []
    for number in range(50):
        lease, key, begun = client.grant(10.0), f"lock/{number}", clock.monotonic()
        client.commit([Put(key, b"", lease)])
        while key in client.read("lock/").entries:
            clock.advance(0.5)
        lived.append(clock.monotonic() - begun)
        with pytest.raises(LeaseLost):
            lease.renew()
        with pytest.raises(Conflict):
            client.commit([Fence(key, lease), Put("a", b"")])
    assert 10 <= min(lived) < 12
    assert 18 < max(lived) <= 20.5


def test_data_that_is_set_back_or_wiped_takes_leases_and_revisions_with_it(store: SimStore) -> None:
    client = store.client("a")
    client.commit([Put("a", b"1")])
    copy = store.copy()
    lease = client.grant(10.0)
    client.commit([Put("a", b"2"), Put("lock", b"", lease)])
    store.reset(copy)
    assert {key: entry.value for key, entry in client.read("").entries.items()} == {"a": b"1"}
    assert client.read("").revision == copy.revision
    with pytest.raises(LeaseLost):
        lease.renew()
    store.reset()
    assert client.read("").entries == {}
    assert client.commit([Put("a", b"")]) == 1


def test_a_process_that_was_killed_makes_no_call(store: SimStore) -> None:
    client = store.client("a")
    client.dead = True
    with pytest.raises(Killed):
        client.read("")
