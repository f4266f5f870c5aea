"""Reading, writing, guarding and refusing."""

from __future__ import annotations

import string
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from sked_core.errors import Conflict, InvalidValue
from sked_core.interfaces.store import Check, Delete, Entry, Fence, Put, Revision, Store
from sked_core.model.codec import MAX_OBJECT_BYTES
from sked_core.testing.store_contract.base import NEVER, OpenStore, StoreTests, put_all

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


class DataTests(StoreTests):
    """Snapshots and commits, without leases."""

    # --- read

    def test_an_empty_store_reads_as_nothing(self, store: Store) -> None:
        assert store.read("").entries == {}
        assert store.read("a/").entries == {}

    def test_read_returns_what_starts_with_the_prefix(self, store: Store) -> None:
        put_all(store, "a/1", "a/2/x", "ab/1", "a", "b/a/1", "a0")
        assert set(store.read("a/").entries) == {"a/1", "a/2/x"}
        assert set(store.read("a").entries) == {"a", "a/1", "a/2/x", "ab/1", "a0"}
        assert set(store.read("a/2").entries) == {"a/2/x"}
        assert set(store.read("b/").entries) == {"b/a/1"}
        assert set(store.read("c/").entries) == set()
        assert len(store.read("").entries) == 6

    def test_read_tells_prefixes_literally(self, store: Store) -> None:
        put_all(store, "a_b/1", "a%b/1", "axb/1", "A_b/1", "a*/1", "a[x]/1")
        for prefix in ("a_b/", "a%b/", "axb/", "A_b/", "a*/", "a[x]/"):
            assert set(store.read(prefix).entries) == {prefix + "1"}

    def test_read_of_2000_keys(self, store: Store) -> None:
        written = {f"many/{number:05}": b"%d" % number for number in range(2000)}
        put_all(store, "manx/1", "many0/1")
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
        put_all(store, "a/1", "a/2")
        store.commit([Delete("a/1")])
        assert set(store.read("a/").entries) == {"a/2"}
        store.commit([Delete("a/1"), Delete("never/there")])
        assert set(store.read("a/").entries) == {"a/2"}

    def test_delete_removes_no_longer_keys(self, store: Store) -> None:
        put_all(store, "a", "a/1", "ab")
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
        put_all(store, *keys)
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


def _slices(keys: Sequence[str], length: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), length):
        yield keys[start : start + length]
