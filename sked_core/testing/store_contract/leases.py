"""Leases: what they keep alive, how they end, and what races with their end."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from sked_core.errors import Conflict, LeaseLost
from sked_core.interfaces.store import Check, Delete, Entry, Fence, Lease, Op, Put, Store
from sked_core.testing.store_contract.base import OpenStore, StoreTests, rounds, together, value_of


class LeaseTests(StoreTests):
    """What a lease promises."""

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

    def test_put_without_a_lease_frees_the_key(self, store: Store) -> None:
        lease = store.grant(30)
        store.commit([Put("a", b"1", lease)])
        revision = store.commit([Put("a", b"2")])
        lease.revoke()
        assert store.read("a").entries == {"a": Entry(b"2", revision, "")}

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

    def test_a_revocation_racing_a_commit_leaves_nothing_behind(self, clients: OpenStore) -> None:
        """Whichever comes first: no key outlives its lease, and what was refused wrote nothing."""
        holder, other = clients(), clients()
        for number in rounds(30):
            lease = other.grant(30)
            holder.commit([Put("lock", b"", lease)])
            ops: list[Op] = [Fence("lock", lease), Put("a/bound", b"", lease), Put("a/work", b"%d" % number)]
            outcome, revoked = together(partial(holder.commit, ops), lease.revoke)
            assert revoked is None
            work = value_of(other, "a/work")
            assert set(other.read("").entries) <= {"a/work"}
            if isinstance(outcome, BaseException):
                assert isinstance(outcome, Conflict | LeaseLost)
                assert work is None or work.value != b"%d" % number
            else:
                assert work is not None
                assert (work.value, work.revision) == (b"%d" % number, outcome)

    # --- expiry: the names of these hold "expire", so that -k "not expire" leaves out what takes longest

    def test_an_expired_lease_is_lost_with_its_keys(self, clients: OpenStore) -> None:
        store, watcher = clients(), clients()
        lease = store.grant(self.short_ttl)
        bound = store.commit([Put("a/lock", b"me", lease)])
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
        for ops in ([Put("a/lock", b"")], [Delete("a/lock")], [Put("a/work", b"")]):
            with pytest.raises(Conflict):
                store.commit([*ops, Check("a/lock", bound)])
        lease.revoke()
        assert store.read("a/").entries == {}

    def test_a_lease_that_is_renewed_does_not_expire(self, store: Store) -> None:
        lease = store.grant(self.short_ttl)
        store.commit([Put("a/lock", b"me", lease)])
        end = time.monotonic() + 2.5 * lease.ttl
        while time.monotonic() < end:
            lease.renew()
            assert set(store.read("a/").entries) == {"a/lock"}
            time.sleep(lease.ttl / 5)
        store.commit([Fence("a/lock", lease), Put("a/work", b"")])
        assert set(store.read("a/").entries) == {"a/lock", "a/work"}

    def test_a_lease_that_two_threads_renew_without_pause_does_not_expire(self, store: Store) -> None:
        lease = store.grant(self.short_ttl)
        bound = store.commit([Put("a/lock", b"me", lease)])
        end = time.monotonic() + 2.2 * lease.ttl

        def renew() -> int:
            renewed = 0
            while time.monotonic() < end:
                lease.renew()
                renewed += 1
            return renewed

        for renewed in together(renew, renew):
            assert isinstance(renewed, int), renewed
            assert renewed > 0
        assert store.read("a/").entries == {"a/lock": Entry(b"me", bound, lease.id)}

    def test_a_renewal_that_races_the_expiry_holds_or_says_that_it_is_lost(self, clients: OpenStore) -> None:
        """Sixteen leases, each renewed once at another moment from just before its ttl on until twice as long."""
        store, other = clients(), clients()

        def renew_late(number: int) -> bool:
            lease = store.grant(self.short_ttl)
            store.commit([Put(f"a/{number}", b"", lease)])
            begun = time.monotonic()
            lease.renew()
            time.sleep(lease.ttl * (0.98 + number / 15))
            renewing = time.monotonic()
            try:
                lease.renew()
            except LeaseLost:
                assert renewing - begun >= 0.98 * lease.ttl, "a lease must live for its ttl"
                assert value_of(other, f"a/{number}") is None, "a key must not outlive its lease"
                return False
            while time.monotonic() - renewing < 0.9 * lease.ttl:
                seen = value_of(other, f"a/{number}")
                assert seen is not None or time.monotonic() - renewing > lease.ttl, "what was renewed must live on"
                time.sleep(lease.ttl / 4)
            return True

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(renew_late, range(16)))

    def test_many_leases_expire_each_with_its_own_keys(self, clients: OpenStore) -> None:
        store, other = clients(), clients()
        begun = time.monotonic()
        leases: list[Lease] = [store.grant(self.short_ttl) for _ in range(10)]
        kept = store.grant(60)
        for number, lease in enumerate(leases):
            store.commit([Put(f"a/{number}", b"", lease), Put(f"a/kept/{number}", b"", kept)])
        seen = other.read("a/")
        left = self.wait_until(other, seen, lambda entries: len(entries) <= 10, 2 * leases[0].ttl + self.patience)
        assert time.monotonic() - begun >= leases[0].ttl, "a lease must live for its ttl"
        assert set(left.entries) == {f"a/kept/{number}" for number in range(10)}
        kept.renew()
