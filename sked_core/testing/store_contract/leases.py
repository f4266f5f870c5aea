"""Leases, and the locks that are made of them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sked_core.errors import Conflict, LeaseLost
from sked_core.interfaces.store import Check, Delete, Entry, Fence, Lease, Put, Store
from sked_core.testing.store_contract.base import NEVER, OpenStore, StoreTests


class LeaseTests(StoreTests):
    """What a lease promises, and what a Fence refuses."""

    def test_grant_gives_at_least_the_ttl(self, store: Store) -> None:
        one, two = store.grant(self.short_ttl), store.grant(60)
        assert one.ttl >= self.short_ttl
        assert two.ttl >= 60
        assert one.id
        assert one.id != two.id

    def test_put_with_a_lease_binds_the_key(self, store: Store) -> None:
        lease = store.grant(30)
        revision = store.commit([Put("a/lock", b"me", lease), Put("a/free", b"")])
        assert store.read("a/").entries == {
            "a/lock": Entry(b"me", revision, lease.id),
            "a/free": Entry(b"", revision, ""),
        }

    def test_a_revoked_lease_takes_its_keys_along(self, clients: OpenStore) -> None:
        store, other = clients(), clients()
        lease, living = store.grant(30), store.grant(30)
        store.commit([Put("a/1", b"", lease), Put("a/2", b"", lease), Put("a/3", b"", living), Put("a/4", b"")])
        before = other.read("a/").revision
        lease.revoke()
        after = other.read("a/")
        assert set(after.entries) == {"a/3", "a/4"}
        assert after.revision > before
        lease.revoke()
        assert set(other.read("a/").entries) == {"a/3", "a/4"}

    def test_a_revoked_lease_is_lost(self, store: Store) -> None:
        lease = store.grant(30)
        lease.renew()
        lease.revoke()
        with pytest.raises(LeaseLost):
            lease.renew()
        with pytest.raises(LeaseLost):
            store.commit([Put("fine", b""), Put("a/1", b"", lease)])
        assert store.read("").entries == {}

    def test_an_expired_lease_is_lost_with_its_keys(self, clients: OpenStore) -> None:
        store, watcher = clients(), clients()
        lease = store.grant(self.short_ttl)
        store.commit([Put("a/lock", b"me", lease)])
        before = watcher.read("a/")
        assert before.entries["a/lock"].lease == lease.id
        renewed = time.monotonic()
        lease.renew()
        while time.monotonic() - renewed < 0.9 * lease.ttl and watcher.read("a/").entries:
            time.sleep(lease.ttl / 20)
        gone = self.wait_until(watcher, before, lambda entries: not entries, 2 * lease.ttl + self.patience)
        assert time.monotonic() - renewed >= lease.ttl, "a lease must live for its ttl"
        assert gone.revision > before.revision
        with pytest.raises(LeaseLost):
            lease.renew()
        with pytest.raises(LeaseLost):
            store.commit([Put("a/lock", b"me", lease)])
        with pytest.raises((Conflict, LeaseLost)):
            store.commit([Fence("a/lock", lease), Put("a/work", b"")])
        lease.revoke()
        assert store.read("a/").entries == {}

    def test_a_renewed_lease_lives_on(self, store: Store) -> None:
        lease = store.grant(self.short_ttl)
        store.commit([Put("a/lock", b"me", lease)])
        end = time.monotonic() + 2.5 * lease.ttl
        while time.monotonic() < end:
            lease.renew()
            assert set(store.read("a/").entries) == {"a/lock"}
            time.sleep(lease.ttl / 5)
        store.commit([Fence("a/lock", lease), Put("a/work", b"")])
        assert set(store.read("a/").entries) == {"a/lock", "a/work"}

    def test_fence_lets_only_the_holder_through(self, clients: OpenStore) -> None:
        store, other = clients(), clients()
        mine, theirs = store.grant(30), other.grant(30)
        store.commit([Check("lock", NEVER), Put("lock", b"me", mine)])
        store.commit([Fence("lock", mine), Put("work", b"1")])
        with pytest.raises(Conflict):
            other.commit([Fence("lock", theirs), Put("work", b"2")])
        with pytest.raises(Conflict):
            store.commit([Fence("no-lock", mine), Put("work", b"2")])
        assert store.read("work").entries["work"].value == b"1"

    def test_fence_stops_the_holder_of_a_revoked_lease(self, store: Store) -> None:
        lease = store.grant(30)
        store.commit([Put("lock", b"me", lease)])
        lease.revoke()
        with pytest.raises((Conflict, LeaseLost)):
            store.commit([Fence("lock", lease), Put("work", b"")])
        assert store.read("").entries == {}

    @pytest.mark.parametrize("op", [Delete("lock"), Put("lock", b"operator")], ids=["deleted", "overwritten"])
    def test_fence_stops_a_holder_whose_lock_an_operator_touched(self, clients: OpenStore, op: Delete | Put) -> None:
        holder, operator = clients(), clients()
        lease = holder.grant(30)
        holder.commit([Put("lock", b"me", lease)])
        operator.commit([op])
        with pytest.raises(Conflict):
            holder.commit([Fence("lock", lease), Put("work", b"")])
        assert "work" not in holder.read("").entries
        lease.revoke()
        assert set(holder.read("").entries) == ({"lock"} if isinstance(op, Put) else set())

    def test_put_with_another_lease_takes_the_key_over(self, clients: OpenStore) -> None:
        store, other = clients(), clients()
        mine, theirs = store.grant(30), other.grant(30)
        held = store.commit([Put("lock", b"me", mine)])
        taken = other.commit([Check("lock", held), Put("lock", b"them", theirs)])
        assert other.read("lock").entries == {"lock": Entry(b"them", taken, theirs.id)}
        with pytest.raises(Conflict):
            store.commit([Fence("lock", mine), Put("work", b"")])
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

    def test_one_of_many_contenders_gets_the_lock(self, clients: OpenStore) -> None:
        def contend(store: Store) -> Lease | None:
            lease = store.grant(30)
            try:
                store.commit([Check("lock", NEVER), Put("lock", b"me", lease)])
            except Conflict:
                return None
            return lease

        with ThreadPoolExecutor(8) as pool:
            winners = [lease for lease in pool.map(contend, [clients() for _ in range(8)]) if lease]
        assert [lease.id for lease in winners] == [clients().read("lock").entries["lock"].lease]
