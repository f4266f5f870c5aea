"""Checks: what is stale is refused, whole commits at a time, and no update is lost."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from sked_core.errors import Conflict
from sked_core.interfaces.store import Check, Delete, Entry, Lease, Op, Put, Revision, Store
from sked_core.testing.store_contract.base import NEVER, OpenStore, StoreTests, rounds, together, value_of


def _never_existed(mine: Store, other: Store) -> Revision:
    return other.commit([Put("elsewhere", b"1")])


def _deleted(mine: Store, other: Store) -> Revision:
    seen = mine.commit([Put("a", b"1")])
    other.commit([Delete("a")])
    return seen


def _deleted_and_recreated(mine: Store, other: Store) -> Revision:
    seen = _deleted(mine, other)
    other.commit([Put("a", b"1")])
    return seen


def _changed_by_another_client(mine: Store, other: Store) -> Revision:
    seen = mine.commit([Put("a", b"1")])
    other.commit([Put("a", b"2")])
    return seen


def _changed_by_the_same_client(mine: Store, other: Store) -> Revision:
    seen = mine.commit([Put("a", b"1")])
    mine.commit([Put("a", b"2")])
    return seen


def _rewritten_with_the_same_value(mine: Store, other: Store) -> Revision:
    seen = mine.commit([Put("a", b"1")])
    other.commit([Put("a", b"1")])
    return seen


def _bound_to_a_lease_since(mine: Store, other: Store) -> Revision:
    seen = mine.commit([Put("a", b"1")])
    other.commit([Put("a", b"1", other.grant(30))])
    return seen


def _gone_with_its_lease(mine: Store, other: Store) -> Revision:
    lease = other.grant(30)
    seen = other.commit([Put("a", b"1", lease)])
    lease.revoke()
    return seen


def _created_since(mine: Store, other: Store) -> Revision:
    other.commit([Put("a", b"1")])
    return NEVER


def _from_the_future(mine: Store, other: Store) -> Revision:
    return Revision(mine.commit([Put("a", b"1")]) + 1_000_000)


def _of_another_key(mine: Store, other: Store) -> Revision:
    mine.commit([Put("a", b"1")])
    return other.commit([Put("elsewhere", b"1")])


STALE: tuple[Callable[[Store, Store], Revision], ...] = (
    _never_existed,
    _deleted,
    _deleted_and_recreated,
    _changed_by_another_client,
    _changed_by_the_same_client,
    _rewritten_with_the_same_value,
    _bound_to_a_lease_since,
    _gone_with_its_lease,
    _created_since,
    _from_the_future,
    _of_another_key,
)


class GuardTests(StoreTests):
    """Commits with Checks."""

    def test_check_zero_means_must_not_exist(self, store: Store) -> None:
        store.commit([Check("a", NEVER), Put("a", b"1")])
        with pytest.raises(Conflict):
            store.commit([Check("a", NEVER), Put("a", b"2")])
        assert store.read("a").entries["a"].value == b"1"

    def test_check_wants_exactly_this_revision(self, store: Store) -> None:
        old = store.commit([Put("a", b"1")])
        new = store.commit([Check("a", old), Put("a", b"2")])
        for stale in (old, Revision(new + 1)):
            with pytest.raises(Conflict):
                store.commit([Check("a", stale), Put("a", b"3")])
            with pytest.raises(Conflict):
                store.commit([Check("a", stale), Delete("a")])
        assert store.read("a").entries == {"a": Entry(b"2", new)}
        store.commit([Check("a", new), Delete("a")])
        assert store.read("a").entries == {}

    def test_check_may_guard_another_key(self, store: Store) -> None:
        revision = store.commit([Put("a", b"1")])
        store.commit([Put("b", b"1"), Check("a", revision)])
        store.commit([Put("a", b"2")])
        with pytest.raises(Conflict):
            store.commit([Put("b", b"2"), Check("a", revision)])
        assert store.read("b").entries["b"].value == b"1"

    @pytest.mark.parametrize("make_stale", STALE, ids=lambda make: make.__name__.strip("_").replace("_", " "))
    def test_every_kind_of_stale_check_is_a_conflict(
        self, clients: OpenStore, make_stale: Callable[[Store, Store], Revision]
    ) -> None:
        mine, other = clients(), clients()
        stale = Check("a", make_stale(mine, other))
        before = mine.read("").entries
        guarded: tuple[list[Op], ...] = ([Put("a", b"9")], [Delete("a")], [Put("b", b"9")], [])
        for ops in guarded:
            for store in (mine, other):
                with pytest.raises(Conflict):
                    store.commit([*ops, stale])
        assert mine.read("").entries == before
        current = before["a"].revision if "a" in before else NEVER
        mine.commit([Put("a", b"9"), Check("a", current)])
        assert mine.read("a").entries["a"].value == b"9"

    def test_checks_alone_make_a_commit(self, store: Store) -> None:
        revision = store.commit([Put("a", b"1")])
        for checks in ([Check("a", revision)], [Check("b", NEVER)], [Check("a", revision), Check("b", NEVER)]):
            store.commit(checks)
        with pytest.raises(Conflict):
            store.commit([Check("a", revision), Check("b", revision)])
        assert store.read("").entries == {"a": Entry(b"1", revision)}

    def test_a_conflict_writes_nothing(self, store: Store) -> None:
        kept = store.commit([Put("z/kept", b"1")])
        puts = [Put(f"z/{number}", b"2") for number in range(store.max_ops - 2)]
        with pytest.raises(Conflict):
            store.commit([*puts, Delete("z/kept"), Check("z/missing", kept)])
        assert store.read("z/").entries == {"z/kept": Entry(b"1", kept)}

    def test_of_two_commits_with_the_same_check_one_goes_through(self, clients: OpenStore) -> None:
        one, other = clients(), clients()
        seen = one.commit([Put("a", b"0")])
        for _ in rounds(30):
            outcomes = together(
                lambda: one.commit([Check("a", seen), Put("a", b"one")]),  # noqa: B023 - both end in this round
                lambda: other.commit([Check("a", seen), Put("a", b"other")]),  # noqa: B023
            )
            won = [outcome for outcome in outcomes if not isinstance(outcome, Conflict)]
            entry = one.read("a").entries["a"]
            assert won == [entry.revision]
            assert entry.value == (b"one" if isinstance(outcomes[1], Conflict) else b"other")
            seen = entry.revision

    def test_of_two_commits_that_check_what_the_other_writes_one_goes_through(self, clients: OpenStore) -> None:
        one, other = clients(), clients()
        for _ in rounds(30):
            seen = one.commit([Put("a", b""), Put("b", b"")])
            outcomes = together(
                lambda: one.commit([Check("a", seen), Put("b", b"x")]),  # noqa: B023 - both end in this round
                lambda: other.commit([Check("b", seen), Put("a", b"x")]),  # noqa: B023
            )
            assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 1
            assert sorted(entry.value for entry in other.read("").entries.values()) == [b"", b"x"]

    # --- lost update

    def test_concurrent_increments_lose_nothing(self, clients: OpenStore) -> None:
        def increment(store: Store) -> list[Op]:
            entry = value_of(store, "count") or Entry(b"0", NEVER)
            return [Check("count", entry.revision), Put("count", b"%d" % (int(entry.value) + 1))]

        _from_four_clients(clients, lambda _: increment, times=15)
        assert clients().read("count").entries["count"].value == b"60"

    def test_concurrent_increments_with_deletes_lose_nothing(self, clients: OpenStore) -> None:
        """Whoever finds five in ``count`` moves them into ``total``: key and Check come and go."""

        def increment(store: Store) -> list[Op]:
            entries = store.read("").entries
            count, total = (entries.get(key, Entry(b"0", NEVER)) for key in ("count", "total"))
            if int(count.value) < 4:
                return [Check("count", count.revision), Put("count", b"%d" % (int(count.value) + 1))]
            return [
                *(Check("count", count.revision), Delete("count")),
                *(Check("total", total.revision), Put("total", b"%d" % (int(total.value) + 5))),
            ]

        _from_four_clients(clients, lambda _: increment, times=15)
        assert {key: entry.value for key, entry in clients().read("").entries.items()} == {"total": b"60"}

    def test_concurrent_increments_with_leases_lose_nothing(self, clients: OpenStore) -> None:
        """The key passes from the lease of one client to that of the next, with every increment."""
        leases: list[Lease] = []

        def incrementing(store: Store) -> Callable[[Store], list[Op]]:
            lease = store.grant(60)
            leases.append(lease)

            def increment(store: Store) -> list[Op]:
                entry = value_of(store, "count") or Entry(b"0", NEVER)
                return [Check("count", entry.revision), Put("count", b"%d" % (int(entry.value) + 1), lease)]

            return increment

        _from_four_clients(clients, incrementing, times=15)
        last = clients().read("count").entries["count"]
        assert last.value == b"60"
        for lease in leases:
            if lease.id != last.lease:
                lease.revoke()
        assert clients().read("count").entries == {"count": last}


def _from_four_clients(
    clients: OpenStore, start: Callable[[Store], Callable[[Store], list[Op]]], *, times: int
) -> None:
    """Four clients at once read, and commit what they decide, until each has succeeded ``times`` times."""

    def work(store: Store, decide: Callable[[Store], list[Op]]) -> None:
        done = 0
        while done < times:
            try:
                store.commit(decide(store))
                done += 1
            except Conflict:
                continue

    stores = [clients() for _ in range(4)]
    works = [partial(work, store, start(store)) for store in stores]
    with ThreadPoolExecutor(len(works)) as pool:
        for running in [pool.submit(each) for each in works]:
            running.result()
