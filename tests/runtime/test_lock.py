"""Leases that expire by themselves and locks that the store fences, on a clock that the tests move."""

from __future__ import annotations

import threading

import pytest

from sked_core.errors import Conflict, LeaseLost, Unavailable
from sked_core.interfaces.store import Check, Delete, Fence, Put, Revision
from sked_core.runtime.lock import LeaseKeeper, Lock, try_lock
from sked_core.runtime.stores.memory import MemoryStore
from sked_core.testing.clock import FakeClock
from sked_core.testing.fakes import RecordingStore

TTL = 15.0
KEY = "locks/services/web"
VALUE = "state/tasks/default-web-1-0"


class Rig:
    """Keepers of separate processes on one store and one clock."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.memory = MemoryStore(self.clock)
        self.store = RecordingStore(self.memory)

    def keeper(self) -> LeaseKeeper:
        return LeaseKeeper(self.store, self.clock, ttl=TTL)

    def lock(self, keeper: LeaseKeeper, holder: str = "me") -> Lock:
        lock = try_lock(self.store, keeper, KEY, holder)
        assert lock is not None
        return lock

    def value(self, key: str) -> bytes | None:
        entry = self.memory.read(key).entries.get(key)
        return entry.value if entry else None


@pytest.fixture
def rig() -> Rig:
    return Rig()


class TestLease:
    def test_it_is_granted_at_the_first_use_and_kept(self, rig: Rig) -> None:
        keeper = rig.keeper()
        assert keeper.lease() is keeper.lease()

    def test_it_is_not_trusted_from_two_thirds_of_the_ttl_on_without_asking_the_store(self, rig: Rig) -> None:
        keeper = rig.keeper()
        lease = keeper.lease()
        rig.store.down = "cut off"
        rig.clock.advance(TTL * 2 / 3 - 0.01)
        assert keeper.lease() is lease
        rig.clock.advance(0.02)
        with pytest.raises(LeaseLost):
            keeper.lease()
        # The store keeps it for longer than its holder trusts it: that is the margin.
        lease.renew()

    def test_it_counts_from_before_the_renewal_was_sent_not_from_its_answer(self, rig: Rig) -> None:
        keeper = rig.keeper()
        lease = keeper.lease()
        rig.clock.advance(4.0)
        renew = lease.renew

        class Slow:
            id, ttl = lease.id, lease.ttl

            def renew(self) -> None:
                renew()
                rig.clock.advance(6.0)  # the answer takes its time

        keeper._lease = Slow()  # type: ignore[assignment]
        keeper.renew_if_due()
        rig.clock.advance(3.99)  # 9.99 s after the renewal was sent, 3.99 s after its answer
        keeper.lease()
        rig.clock.advance(0.02)
        with pytest.raises(LeaseLost):
            keeper.lease()

    def test_renewals_keep_it_for_as_long_as_one_likes(self, rig: Rig) -> None:
        keeper = rig.keeper()
        lease = keeper.lease()
        for _ in range(100):
            rig.clock.advance(TTL / 4)
            keeper.renew_if_due()
            assert keeper.lease() is lease

    def test_it_is_not_renewed_before_a_fifth_of_the_ttl(self, rig: Rig) -> None:
        keeper = rig.keeper()
        keeper.lease()
        rig.clock.advance(TTL / 5 - 0.01)
        keeper.renew_if_due()
        rig.clock.advance(TTL * 2 / 3 - TTL / 5 + 0.02)
        with pytest.raises(LeaseLost):
            keeper.lease()

    def test_an_outage_leaves_it_to_time_and_a_renewal_that_succeeds_in_time_saves_it(self, rig: Rig) -> None:
        keeper = rig.keeper()
        lease = keeper.lease()
        outage = _Outage(lease)
        keeper._lease = outage  # type: ignore[assignment]
        rig.clock.advance(9.0)
        keeper.renew_if_due()
        assert keeper.lease() is outage
        rig.clock.advance(2.0)
        with pytest.raises(LeaseLost):
            keeper.lease()
        outage.over = True
        keeper.renew_if_due()
        assert keeper.lease() is outage

    def test_a_lease_that_the_store_has_ended_is_replaced_at_the_next_use(self, rig: Rig) -> None:
        keeper = rig.keeper()
        lease = keeper.lease()
        lock = rig.lock(keeper)
        rig.clock.advance(TTL + 1)
        with pytest.raises(LeaseLost):
            lock.commit([Put(VALUE, b"x")])
        keeper.renew_if_due()
        assert keeper.lease().id != lease.id
        # A lock that was taken under the former lease is not revived by the new one.
        with pytest.raises(LeaseLost, match="replaced"):
            lock.commit([Put(VALUE, b"x")])
        assert rig.value(VALUE) is None

    def test_the_thread_gives_it_back_when_it_is_told_to_end(self, rig: Rig) -> None:
        keeper = rig.keeper()
        rig.lock(keeper)
        stop = threading.Event()
        stop.set()
        keeper.serve(stop).join(60)
        assert rig.value(KEY) is None

    def test_it_is_kept_for_as_long_as_any_part_of_the_process_uses_it(self, rig: Rig) -> None:
        keeper = rig.keeper()
        rig.lock(keeper)
        agent, scheduler = threading.Event(), threading.Event()
        thread = keeper.serve(agent)
        assert keeper.serve(scheduler) is thread
        agent.set()
        thread.join(0.3)
        assert thread.is_alive()
        assert rig.value(KEY) is not None
        scheduler.set()
        thread.join(60)
        assert rig.value(KEY) is None

    def test_a_store_that_is_away_does_not_keep_the_thread_from_ending(self, rig: Rig) -> None:
        keeper = rig.keeper()
        keeper._lease = _Outage(keeper.lease())  # type: ignore[assignment]
        stop = threading.Event()
        stop.set()
        keeper.serve(stop).join(60)


class _Outage:
    """A lease of a store that does not answer until ``over``."""

    def __init__(self, lease) -> None:
        self.id, self.ttl, self.over, self._lease = lease.id, lease.ttl, False, lease

    def renew(self) -> None:
        if not self.over:
            raise Unavailable("no answer")
        self._lease.renew()

    def revoke(self) -> None:
        raise Unavailable("no answer")


class TestLock:
    def test_of_eight_contenders_exactly_one_gets_it(self, rig: Rig) -> None:
        barrier = threading.Barrier(8)
        got: list[Lock | None] = []

        def contend(number: int) -> None:
            keeper = rig.keeper()
            barrier.wait(60)
            got.append(try_lock(rig.store, keeper, KEY, f"scheduler-{number}"))

        threads = [threading.Thread(target=contend, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(got) == 8
        assert sum(lock is not None for lock in got) == 1

    def test_the_holders_name_and_since_when_stand_in_the_store(self, rig: Rig) -> None:
        rig.lock(rig.keeper(), "web-3:4711")
        assert rig.value(KEY) == b"web-3:4711 since 2023-11-14T22:13:20Z"

    def test_a_commit_whose_answer_was_lost_is_taken_for_what_it_was(self, rig: Rig) -> None:
        keeper = rig.keeper()
        rig.lock(keeper)
        again = rig.lock(keeper)
        again.commit([Put(VALUE, b"x")])
        assert rig.value(VALUE) == b"x"

    def test_release_frees_it_for_the_next_one_and_ends_it_for_the_holder(self, rig: Rig) -> None:
        first, second = rig.keeper(), rig.keeper()
        lock = rig.lock(first)
        assert try_lock(rig.store, second, KEY, "other") is None
        lock.release()
        assert rig.value(KEY) is None
        rig.lock(second, "other")
        with pytest.raises(Conflict):
            lock.commit([Put(VALUE, b"x")])
        lock.release()  # what is not one's own any more is not given up for others
        assert rig.value(KEY) == b"other since 2023-11-14T22:13:20Z"
        assert rig.value(VALUE) is None

    def test_a_commit_can_release_in_the_same_step(self, rig: Rig) -> None:
        rig.lock(rig.keeper()).commit([Put(VALUE, b"x")], release=True)
        assert (rig.value(VALUE), rig.value(KEY)) == (b"x", None)
        assert [type(op) for op in rig.store.commits[-1]] == [Fence, Put, Delete]

    @pytest.mark.parametrize(
        "meddling",
        [Delete(KEY), Put(KEY, b"me"), Put(KEY, b"somebody else")],
        ids=["deleted", "written anew", "overwritten"],
    )
    def test_once_an_operator_touched_the_key_nothing_is_written_under_the_lock(self, rig: Rig, meddling) -> None:
        lock = rig.lock(rig.keeper())
        rig.memory.commit([meddling])
        for ops in ([Put(VALUE, b"x")], [Put(VALUE, b"x"), Put("state/hosts/h/default-web-1-0", b"x")]):
            with pytest.raises(Conflict):
                lock.commit(ops)
        assert rig.memory.read("state/").entries == {}

    def test_a_check_that_fails_writes_nothing_and_keeps_the_lock(self, rig: Rig) -> None:
        lock = rig.lock(rig.keeper())
        with pytest.raises(Conflict):
            lock.commit([Check(VALUE, Revision(99)), Put("state/other", b"x")], release=True)
        assert (rig.value("state/other"), rig.value(KEY)) == (None, b"me since 2023-11-14T22:13:20Z")

    def test_a_holder_that_slept_past_its_lease_can_not_write_whatever_it_believes(self, rig: Rig) -> None:
        sleeper, other = rig.keeper(), rig.keeper()
        lock, lease = rig.lock(sleeper, "sleeper"), sleeper.lease()
        rig.clock.advance(TTL + 1)
        rig.lock(other, "other").commit([Put(VALUE, b"other's")])
        with pytest.raises(LeaseLost):
            lock.commit([Put(VALUE, b"sleeper's")])
        # The same with the self-expiry out of the way: the store itself refuses.
        with pytest.raises(Conflict):
            rig.store.commit([Fence(KEY, lease), Put(VALUE, b"sleeper's")])
        assert rig.value(VALUE) == b"other's"

    def test_a_lease_that_ended_before_the_lock_was_taken_is_dropped(self, rig: Rig) -> None:
        keeper = rig.keeper()
        keeper.lease().revoke()
        with pytest.raises(LeaseLost):
            try_lock(rig.store, keeper, KEY, "me")
        rig.lock(keeper)
