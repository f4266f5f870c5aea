"""The contract of the Store port as tests. To hold a store to it, in a test file of your own::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def open_store(self, tmp_path):
            return lambda: MyStore(...)

``open_store`` is a callable. Each call returns a new client of one and the same store (or of one part of it, by a
prefix), which is empty when a test begins. The suite closes the clients. The tests take real time: a few that
watch a lease expire need up to twice the store's shortest ttl.
"""

from __future__ import annotations

import string
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest

from sked_core.errors import Conflict, InvalidValue, LeaseLost, Unavailable
from sked_core.interfaces.store import Check, Delete, Entry, Fence, Lease, Put, Revision, Snapshot, Store
from sked_core.model.codec import MAX_OBJECT_BYTES

OpenStore = Callable[[], Store]
NEVER = Revision(0)
HOSTILE = (
    "",
    ".",
    "..",
    "/a",
    "a/../b",
    "a/./b",
    "a//b",
    "../a",
    "a/..",
    "a\0b",
    "a\nb",
    "a b",
    "a\u202eb",
    "é",
    "a" * 1025,
)
ALL_CHARACTERS = "".join(sorted(set(string.printable) - set(string.whitespace) - {"/"}))


class StoreContract:
    """Inherit, provide the fixture ``open_store``, and every test below runs against your store."""

    patience: float = 10.0
    """Seconds within which something that must happen has to have happened."""
    short_ttl: float = 1.0
    """Seconds asked for where a test waits for a lease to expire; the store may raise it."""
    too_large: int = 2 * MAX_OBJECT_BYTES + 1
    """Bytes that are more than the store takes as one value."""

    @pytest.fixture
    def clients(self, open_store: OpenStore) -> Iterator[OpenStore]:
        """Opens clients, and closes them in the end."""
        opened: list[Store] = []

        def open_one() -> Store:
            opened.append(open_store())
            return opened[-1]

        yield open_one
        for store in opened:
            store.close()

    @pytest.fixture
    def store(self, clients: OpenStore) -> Store:
        return clients()

    # --- read

    def test_an_empty_store_reads_as_nothing(self, store: Store) -> None:
        assert store.read("").entries == {}
        assert store.read("a/").entries == {}

    def test_read_returns_what_starts_with_the_prefix(self, store: Store) -> None:
        _put(store, "a/1", "a/2/x", "ab/1", "a", "b/a/1", "a0")
        assert set(store.read("a/").entries) == {"a/1", "a/2/x"}
        assert set(store.read("a").entries) == {"a", "a/1", "a/2/x", "ab/1", "a0"}
        assert set(store.read("a/2").entries) == {"a/2/x"}
        assert set(store.read("b/").entries) == {"b/a/1"}
        assert set(store.read("c/").entries) == set()
        assert len(store.read("").entries) == 6

    def test_read_tells_prefixes_literally(self, store: Store) -> None:
        _put(store, "a_b/1", "a%b/1", "axb/1", "A_b/1", "a*/1", "a[x]/1")
        for prefix in ("a_b/", "a%b/", "axb/", "A_b/", "a*/", "a[x]/"):
            assert set(store.read(prefix).entries) == {prefix + "1"}

    def test_read_of_2000_keys(self, store: Store) -> None:
        written = {f"many/{number:05}": b"%d" % number for number in range(2000)}
        _put(store, "manx/1", "many0/1")
        for keys in _slices(list(written), store.max_ops):
            store.commit([Put(key, written[key]) for key in keys])
        assert {key: entry.value for key, entry in store.read("many/").entries.items()} == written

    # --- put and delete

    @pytest.mark.parametrize(
        "value",
        [b"", b"{}", b"\x00", b"\x00\xff\xfe\x80", "é\u202e".encode(), bytes(range(256)) * (MAX_OBJECT_BYTES // 256)],
        ids=["empty", "json", "nul", "not utf-8", "utf-8", "largest"],
    )
    def test_values_come_back_byte_by_byte(self, clients: OpenStore, value: bytes) -> None:
        revision = clients().commit([Put("a/value", value)])
        assert clients().read("a/").entries == {"a/value": Entry(value, revision)}

    def test_put_replaces(self, store: Store) -> None:
        first = store.commit([Put("a", b"1")])
        second = store.commit([Put("a", b"2")])
        assert second > first
        assert store.read("a").entries == {"a": Entry(b"2", second)}

    def test_delete_removes_and_may_be_repeated(self, store: Store) -> None:
        _put(store, "a/1", "a/2")
        store.commit([Delete("a/1")])
        assert set(store.read("a/").entries) == {"a/2"}
        store.commit([Delete("a/1"), Delete("never/there")])
        assert set(store.read("a/").entries) == {"a/2"}

    def test_delete_removes_no_longer_keys(self, store: Store) -> None:
        _put(store, "a", "a/1", "ab")
        store.commit([Delete("a")])
        assert set(store.read("").entries) == {"a/1", "ab"}

    def test_revisions_grow(self, store: Store) -> None:
        seen = [store.read("").revision]
        for number in range(3):
            revision = store.commit([Put("a", b"%d" % number)])
            assert store.read("a").entries["a"].revision == revision
            assert store.read("a").revision >= revision
            seen.append(revision)
        seen.append(store.commit([Put("b", b"")]))
        assert seen == sorted(set(seen))
        assert store.read("a").entries["a"].revision == seen[-2], "a change elsewhere is none of this key"

    def test_every_allowed_character_makes_a_key(self, store: Store) -> None:
        keys = {
            "a/" + ALL_CHARACTERS,
            "a/" + ALL_CHARACTERS + "/b",
            "a/...",
            "a/..b",
            "a/.b",
            "a/b.",
            "a/%2e%2e",
            "a/%2F",
        }
        _put(store, *keys)
        assert set(store.read("a/").entries) == keys
        store.commit([Delete(key) for key in keys])
        assert store.read("a/").entries == {}

    # --- check

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

    def test_check_of_a_key_that_is_gone(self, store: Store) -> None:
        revision = store.commit([Put("a", b"1")])
        store.commit([Delete("a")])
        with pytest.raises(Conflict):
            store.commit([Check("a", revision), Put("a", b"2")])
        store.commit([Check("a", NEVER), Put("a", b"1")])
        with pytest.raises(Conflict):
            store.commit([Check("a", revision), Put("a", b"2")])

    def test_check_may_guard_another_key(self, store: Store) -> None:
        revision = store.commit([Put("a", b"1")])
        store.commit([Put("b", b"1"), Check("a", revision)])
        store.commit([Put("a", b"2")])
        with pytest.raises(Conflict):
            store.commit([Put("b", b"2"), Check("a", revision)])
        assert store.read("b").entries["b"].value == b"1"

    def test_a_conflict_writes_nothing(self, store: Store) -> None:
        kept = store.commit([Put("z/kept", b"1")])
        puts = [Put(f"z/{number}", b"2") for number in range(store.max_ops - 2)]
        with pytest.raises(Conflict):
            store.commit([*puts, Delete("z/kept"), Check("z/missing", kept)])
        assert store.read("z/").entries == {"z/kept": Entry(b"1", kept)}

    def test_readers_see_all_of_a_commit_or_none(self, clients: OpenStore) -> None:
        writer, reader = clients(), clients()
        keys = [f"a/{number}" for number in range(min(writer.max_ops, 50))]
        ended = threading.Event()

        def write() -> None:
            for number in range(30):
                writer.commit([Put(key, b"%d" % number) for key in keys])
                if number % 5 == 4:
                    writer.commit([Delete(key) for key in keys])
            ended.set()

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            while not ended.is_set() and not writing.done():
                entries = reader.read("a/").entries
                assert len(entries) in (0, len(keys))
                assert len({(entry.value, entry.revision) for entry in entries.values()}) <= 1
            writing.result()

    def test_concurrent_increments_lose_nothing(self, clients: OpenStore) -> None:
        def increment(store: Store) -> None:
            for _ in range(15):
                while True:
                    entry = store.read("count").entries.get("count", Entry(b"0", NEVER))
                    try:
                        store.commit([Check("count", entry.revision), Put("count", b"%d" % (int(entry.value) + 1))])
                        break
                    except Conflict:
                        continue

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(increment, [clients() for _ in range(4)]))
        assert clients().read("count").entries["count"].value == b"60"

    # --- what is refused

    @pytest.mark.parametrize("key", HOSTILE, ids=ascii)
    def test_hostile_keys_reach_no_store(self, store: Store, key: str) -> None:
        lease = store.grant(30)
        for op in (Put(key, b"x"), Delete(key), Check(key, NEVER), Fence(key, lease)):
            with pytest.raises(InvalidValue):
                store.commit([Put("fine", b"x"), op])
        if key:
            with pytest.raises(InvalidValue):
                store.read(key)
            with pytest.raises(InvalidValue):
                store.wait(key, NEVER, 0.1)
        assert store.read("").entries == {}

    def test_a_value_past_the_limit_is_refused(self, store: Store) -> None:
        with pytest.raises(InvalidValue):
            store.commit([Put("fine", b"x"), Put("a", b"x" * self.too_large)])
        assert store.read("").entries == {}

    def test_too_many_operations_are_refused(self, store: Store) -> None:
        puts = [Put(f"a/{number}", b"x") for number in range(store.max_ops + 1)]
        with pytest.raises(InvalidValue):
            store.commit(puts)
        assert store.read("").entries == {}
        store.commit(puts[1:])
        assert len(store.read("").entries) == store.max_ops

    # --- leases and locks

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
        lease.renew()
        renewed = time.monotonic()
        before = watcher.read("a/")
        assert before.entries["a/lock"].lease == lease.id
        gone = self._wait_until(watcher, before, lambda entries: not entries, 2 * lease.ttl + self.patience)
        assert time.monotonic() - renewed >= lease.ttl - 0.05, "a lease must live for its ttl"
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

    # --- wait

    def test_wait_ends_after_the_timeout(self, store: Store) -> None:
        since = store.commit([Put("a/1", b"")])
        for timeout in (0.0, 0.3):
            begun = time.monotonic()
            since = store.wait("a/", since, timeout)
            assert time.monotonic() - begun < timeout + self.patience
        assert store.read("a/").revision >= since

    def test_wait_does_not_miss_what_came_before_it(self, store: Store) -> None:
        since = store.read("a/").revision
        for op in (Put("a/1", b"1"), Put("a/1", b"2"), Delete("a/1")):
            store.commit([op])
            begun = time.monotonic()
            since = store.wait("a/", since, 60)
            assert time.monotonic() - begun < self.patience

    def test_wait_from_zero_returns_where_something_is(self, store: Store) -> None:
        store.commit([Put("a/1", b"1")])
        begun = time.monotonic()
        store.wait("a/", NEVER, 60)
        assert time.monotonic() - begun < self.patience

    def test_wait_from_a_future_revision_does_not_hang(self, store: Store) -> None:
        """After a wipe or a restore the revision that a client remembers lies ahead of the store's."""
        current = store.commit([Put("a/1", b"1")])
        begun = time.monotonic()
        assert store.wait("a/", Revision(current + 1_000_000), 3 * self.patience) < current + 1_000_000
        assert time.monotonic() - begun < self.patience

    def test_wait_wakes_for_every_change_of_another_client(self, clients: OpenStore) -> None:
        watcher, writer = clients(), clients()
        snapshot = watcher.read("a/")
        for number in range(10):
            put = Put(f"a/{number % 3}", b"%d" % number)
            with self._watching(watcher, snapshot, partial(_holds, put)) as seen:
                writer.commit([put])
            snapshot = seen.result()
        with self._watching(watcher, snapshot, lambda entries: "a/1" not in entries) as seen:
            writer.commit([Delete("a/1")])
        assert set(seen.result().entries) == {"a/0", "a/2"}

    def test_wait_wakes_for_a_change_of_the_same_client(self, store: Store) -> None:
        with self._watching(store, store.read("a/"), lambda entries: "a/1" in entries) as seen:
            store.commit([Put("a/1", b"")])
        assert set(seen.result().entries) == {"a/1"}

    def test_wait_wakes_when_a_lease_is_revoked(self, clients: OpenStore) -> None:
        watcher, holder = clients(), clients()
        lease = holder.grant(30)
        holder.commit([Put("a/lock", b"", lease)])
        with self._watching(watcher, watcher.read("a/"), lambda entries: not entries) as seen:
            lease.revoke()
        assert seen.result().entries == {}

    # --- close

    def test_close_ends_waits_and_may_be_repeated(self, clients: OpenStore) -> None:
        store, other = clients(), clients()
        since = store.commit([Put("a/1", b"")])

        def wait() -> None:
            until = time.monotonic() + 60
            revision = since
            while time.monotonic() < until:
                try:
                    revision = store.wait("a/", revision, 60)
                except Unavailable:
                    return
                if closing.is_set():
                    return

        closing = threading.Event()
        with ThreadPoolExecutor(2) as pool:
            waits = [pool.submit(wait) for _ in range(2)]
            closing.set()
            begun = time.monotonic()
            store.close()
            for waiting in waits:
                waiting.result(timeout=self.patience)
            assert time.monotonic() - begun < self.patience
        store.close()
        assert set(other.read("a/").entries) == {"a/1"}, "closing one client leaves the others alone"

    # --- helpers

    def _wait_until(
        self, store: Store, seen: Snapshot, wanted: Callable[[Mapping[str, Entry]], bool], within: float
    ) -> Snapshot:
        """The first snapshot with ``wanted`` entries, looked for only when ``wait`` wakes."""
        prefix, begun = "a/", time.monotonic()
        since = seen.revision
        while True:
            left = within - (time.monotonic() - begun)
            assert left > 0, f"not seen within {within} s"
            since = store.wait(prefix, since, left + 30)
            assert time.monotonic() - begun < within, "wait slept through the change"
            snapshot = store.read(prefix)
            if wanted(snapshot.entries):
                return snapshot

    def _watching(self, store: Store, seen: Snapshot, wanted: Callable[[Mapping[str, Entry]], bool]) -> _Watching:
        return _Watching(lambda: self._wait_until(store, seen, wanted, self.patience))


class _Watching:
    """Runs ``watch`` in a thread while the body makes the change; on leaving, its result is there."""

    def __init__(self, watch: Callable[[], Snapshot]) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._watch = watch

    def __enter__(self) -> Future[Snapshot]:
        self._seen = self._pool.submit(self._watch)
        return self._seen

    def __exit__(self, *failure: object) -> None:
        self._pool.shutdown(wait=True)


def _put(store: Store, *keys: str) -> None:
    store.commit([Put(key, b"x") for key in keys])


def _holds(put: Put, entries: Mapping[str, Entry]) -> bool:
    return put.key in entries and entries[put.key].value == put.value


def _slices(keys: Sequence[str], length: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), length):
        yield keys[start : start + length]
