"""Locks, which are keys bound to leases: one holder at a time, and no writing for a stale one."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sked_core.errors import Conflict, LeaseLost
from sked_core.interfaces.store import Check, Delete, Entry, Fence, Lease, Put, Revision, Store
from sked_core.testing.store_contract.base import NEVER, OpenStore, StoreTests, value_of


def _take(store: Store, lease: Lease) -> Revision:
    return store.commit([Check("lock", NEVER), Put("lock", b"me", lease)])


def _assert_refused(store: Store, lease: Lease) -> None:
    """Whoever was the holder by ``lease`` can't write any more, neither below the lock nor the lock itself."""
    before = store.read("").entries
    for ops in ([Put("work", b"stale")], [Put("lock", b"stale", lease)], [Delete("lock")], []):
        with pytest.raises((Conflict, LeaseLost)):
            store.commit([Fence("lock", lease), *ops])
    assert store.read("").entries == before


class LockTests(StoreTests):
    """What a Fence lets through and what it refuses."""

    def test_fence_lets_only_the_holder_through(self, clients: OpenStore) -> None:
        store, other = clients(), clients()
        mine, theirs = store.grant(30), other.grant(30)
        _take(store, mine)
        store.commit([Fence("lock", mine), Put("work", b"1")])
        store.commit([Fence("lock", mine)])
        with pytest.raises(Conflict):
            other.commit([Fence("lock", theirs), Put("work", b"2")])
        with pytest.raises(Conflict):
            store.commit([Fence("no-lock", mine), Put("work", b"2")])
        assert store.read("work").entries["work"].value == b"1"

    def test_fence_stops_the_holder_of_a_revoked_lease(self, store: Store) -> None:
        lease = store.grant(30)
        _take(store, lease)
        lease.revoke()
        _assert_refused(store, lease)
        assert store.read("").entries == {}

    @pytest.mark.parametrize("op", [Delete("lock"), Put("lock", b"operator")], ids=["deleted", "overwritten"])
    def test_fence_stops_a_holder_whose_lock_an_operator_touched(self, clients: OpenStore, op: Delete | Put) -> None:
        holder, operator = clients(), clients()
        lease = holder.grant(30)
        _take(holder, lease)
        operator.commit([op])
        with pytest.raises(Conflict):
            holder.commit([Fence("lock", lease), Put("work", b"")])
        assert "work" not in holder.read("").entries
        lease.revoke()
        assert set(holder.read("").entries) == ({"lock"} if isinstance(op, Put) else set())

    def test_put_with_another_lease_takes_the_key_over(self, clients: OpenStore) -> None:
        store, other = clients(), clients()
        mine, theirs = store.grant(30), other.grant(30)
        held = _take(store, mine)
        taken = other.commit([Check("lock", held), Put("lock", b"them", theirs)])
        assert other.read("lock").entries == {"lock": Entry(b"them", taken, theirs.id)}
        _assert_refused(store, mine)
        mine.revoke()
        assert set(other.read("").entries) == {"lock"}
        other.commit([Fence("lock", theirs), Put("work", b"")])

    def test_the_holder_may_rewrite_its_key(self, store: Store) -> None:
        lease = store.grant(30)
        store.commit([Put("lock", b"1", lease)])
        revision = store.commit([Fence("lock", lease), Put("lock", b"2", lease)])
        assert store.read("lock").entries == {"lock": Entry(b"2", revision, lease.id)}
        lease.revoke()
        assert store.read("lock").entries == {}

    def test_a_stale_holder_is_refused_after_somebody_else_took_the_lock(self, clients: OpenStore) -> None:
        store, other = clients(), clients()
        mine, theirs = store.grant(30), other.grant(30)
        _take(store, mine)
        mine.revoke()
        _take(other, theirs)
        _assert_refused(store, mine)
        other.commit([Fence("lock", theirs), Put("work", b"theirs")])
        _assert_refused(store, mine)
        assert store.read("work").entries["work"].value == b"theirs"

    def test_a_stale_lease_is_refused_after_the_same_client_took_the_lock_with_a_new_one(self, store: Store) -> None:
        old, new = store.grant(30), store.grant(30)
        _take(store, old)
        old.revoke()
        _take(store, new)
        _assert_refused(store, old)
        store.commit([Fence("lock", new), Put("work", b"new")])
        assert store.read("work").entries["work"].value == b"new"

    def test_a_living_lease_is_refused_where_its_client_holds_the_lock_by_another(self, store: Store) -> None:
        old, new = store.grant(30), store.grant(30)
        _take(store, old)
        store.commit([Put("lock", b"me", new)])
        _assert_refused(store, old)
        old.renew()
        store.commit([Fence("lock", new), Put("work", b"new")])

    def test_one_of_many_contenders_gets_the_lock(self, clients: OpenStore) -> None:
        def contend(store: Store) -> Lease | None:
            lease = store.grant(30)
            try:
                _take(store, lease)
            except Conflict:
                return None
            return lease

        with ThreadPoolExecutor(8) as pool:
            winners = [lease for lease in pool.map(contend, [clients() for _ in range(8)]) if lease]
        assert [lease.id for lease in winners] == [clients().read("lock").entries["lock"].lease]

    def test_two_holders_never_work_at_once(self, clients: OpenStore) -> None:
        """Four clients take the lock, work under the Fence, and give it back: each sees only its own work."""
        guard = threading.Lock()
        turns: list[bool] = []

        def work(store: Store) -> None:
            deadline = time.monotonic() + 3 * self.patience
            done = 0
            while done < 5 and time.monotonic() < deadline:
                lease = store.grant(60)
                try:
                    _take(store, lease)
                    alone = guard.acquire(blocking=False)
                    turns.append(alone)
                    for step in range(3):
                        store.commit([Fence("lock", lease), Put("work", b"%s %d" % (lease.id.encode(), step))])
                        alone = alone and store.read("work").entries["work"].value.startswith(lease.id.encode())
                    turns.append(alone)
                    guard.release()
                    done += 1
                except Conflict:
                    store.wait("lock", store.read("lock").revision, 0.1)
                lease.revoke()
            assert done == 5

        with ThreadPoolExecutor(4) as pool:
            for running in [pool.submit(work, clients()) for _ in range(4)]:
                running.result()
        assert turns == [True] * 40

    def test_an_expired_lock_is_taken_over_exactly_once(self, clients: OpenStore) -> None:
        """The holder falls silent; eight contenders watch the lock, and each tries whenever it is free."""
        holder = clients()
        leases = [(store, store.grant(60)) for store in (clients() for _ in range(8))]
        begun = time.monotonic()
        lost = holder.grant(self.short_ttl)
        _take(holder, lost)
        deadline = begun + 2 * lost.ttl + self.patience

        def contend(store: Store, lease: Lease) -> Revision | None:
            while time.monotonic() < deadline:
                seen = store.read("lock")
                if "lock" not in seen.entries:
                    try:
                        taken = _take(store, lease)
                    except Conflict:
                        continue
                    assert time.monotonic() - begun >= lost.ttl, "it was not free yet"
                    return taken
                if seen.entries["lock"].lease != lost.id:
                    return None
                store.wait("lock", seen.revision, deadline - time.monotonic())
            raise AssertionError("the lock never came free")

        with ThreadPoolExecutor(8) as pool:
            outcomes = [running.result() for running in [pool.submit(contend, *each) for each in leases]]
        (taken,) = (outcome for outcome in outcomes if outcome is not None)
        entry = value_of(holder, "lock")
        assert entry is not None
        assert entry.revision == taken
        assert entry.lease in {lease.id for _, lease in leases}
        _assert_refused(holder, lost)
        with pytest.raises(LeaseLost):
            lost.renew()
