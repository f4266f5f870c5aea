"""Reading and writing."""

from __future__ import annotations

import string
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from sked_core.errors import Conflict, InvalidValue, Unavailable
from sked_core.interfaces.store import Check, Delete, Entry, Op, Put, Revision, Snapshot, Store, read_again, read_keys
from sked_core.model.codec import MAX_OBJECT_BYTES
from sked_core.testing.store_contract.base import NEVER, OpenStore, StoreTests, put_all, put_many, sliced, value_of

ALL_CHARACTERS = "".join(sorted(set(string.printable) - set(string.whitespace) - {"/"}))
CLOSE_PREFIXES = ("a_b/", "a%b/", "axb/", "A_b/", "a*/", "a[x]/", "a.b/", "a?b/", "a#b/", "a\\b/", "a%2Fb/", "a+b/")


class DataTests(StoreTests):
    """Snapshots and plain commits."""

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
        put_all(store, *(prefix + "1" for prefix in CLOSE_PREFIXES))
        for prefix in CLOSE_PREFIXES:
            assert set(store.read(prefix).entries) == {prefix + "1"}

    def test_reading_again_gives_what_a_read_gives_whatever_happened_between(self, clients: OpenStore) -> None:
        reader, writer = clients(), clients()
        known = read_again(reader, "a/", Snapshot({}, Revision(0)))
        assert known.entries == {}
        changes: list[list[Op]] = [
            [Put("a/1", b"1"), Put("a/2", b"2"), Put("ab", b"")],
            [Put("b/1", b"elsewhere")],
            [Put("a/2", b"changed")],
            [Delete("a/1")],
            [Put("a/1", b"back"), Delete("a/2")],
            [Delete("a/1"), Put("a/3", b"3")],
            [],
        ]
        for ops in changes:
            if ops:
                writer.commit(ops)
            known = read_again(reader, "a/", known)
            found = reader.read("a/")
            assert known.entries == found.entries and known.revision <= found.revision
        other = read_again(clients(), "a/", known)  # which has never read it
        assert other.entries == known.entries

    def test_keys_alone_are_those_that_a_read_gives(self, store: Store) -> None:
        put_all(store, "a/1", "a/2/x", "a2", "b/1", *(prefix + "1" for prefix in CLOSE_PREFIXES))
        for prefix in ("a/", "a/2", "", "none/", *CLOSE_PREFIXES):
            found = list(read_keys(store, prefix))
            assert len(found) == len(set(found)) and set(found) == set(store.read(prefix).entries)
        with pytest.raises(InvalidValue):
            read_keys(store, "a//b")

    def test_a_read_of_10000_keys_is_one_snapshot_while_a_writer_moves_keys(self, clients: OpenStore) -> None:
        reader, writer = clients(), clients()
        written = {f"many/{number:05}": b"%d" % number for number in range(10_000)}
        put_all(writer, "manx/1", "many0/1")
        put_many(writer, written)
        assert {key: entry.value for key, entry in reader.read("many/").entries.items()} == written
        done = threading.Event()

        def move_keys() -> int:
            moved = 0
            while not done.is_set() and moved < len(written) // 2:
                ops: list[Delete | Put] = []
                for number in range(moved, moved + writer.max_ops // 2):  # from the front to behind the end
                    ops += [Delete(f"many/{number:05}"), Put(f"many/{number + 10_000:05}", b"%d" % number)]
                writer.commit(ops)
                moved += writer.max_ops // 2
            return moved

        def snapshot_of() -> Snapshot:
            while True:
                try:
                    return reader.read("many/")
                except Unavailable:  # it may be too busy for that, never show half of a change
                    if moving.done():
                        raise

        with ThreadPoolExecutor(1) as pool:
            moving = pool.submit(move_keys)
            snapshots = [snapshot_of() for _ in range(5)]
            done.set()
            assert moving.result() > 0
        values = sorted(written.values())
        for snapshot in snapshots:
            assert sorted(entry.value for entry in snapshot.entries.values()) == values
        revisions = [snapshot.revision for snapshot in snapshots]
        assert revisions == sorted(revisions)

    def test_a_read_never_shows_less_than_an_earlier_commit_of_another_client(self, clients: OpenStore) -> None:
        one, other = clients(), clients()
        for number in range(20):
            written = one.commit([Put("a", b"%d" % number)])
            assert other.read("a").entries == {"a": Entry(b"%d" % number, written)}
            one, other = other, one

    # --- put and delete

    @pytest.mark.parametrize(
        "value",
        [b"", b"{}", b"\x00", b"\x00\xff\xfe\x80", "é\u202e".encode(), bytes(range(256)) * (MAX_OBJECT_BYTES // 256)],
        ids=["empty", "json", "nul", "not utf-8", "utf-8", "largest"],
    )
    def test_values_come_back_byte_by_byte(self, clients: OpenStore, value: bytes) -> None:
        revision = clients().commit([Put("a/value", value)])
        found = clients().read("a/").entries
        # Told by name: in CI pytest shows the whole of two values that differ, and takes minutes for large ones.
        assert found.keys() == {"a/value"}
        came_back = found["a/value"] == Entry(value, revision)
        assert came_back, "the value, its revision or its lease are not those that were written"

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
        keys = {f"a/{character}" for character in ALL_CHARACTERS if character != "."}
        keys |= {f"a/{character}x{character}/{character}y" for character in ALL_CHARACTERS}
        keys |= {"a/" + ALL_CHARACTERS, "a/" + ALL_CHARACTERS + "/b", "a/" + "b" * 200, "a/" * 200 + "b"}
        keys |= {"a/...", "a/..b", "a/.b", "a/b.", "a/%2e%2e", "a/%2F", "a/%", "a/%00", "a/a+b", "a/a?b=c&d#e"}
        put_many(store, {key: key.encode() for key in keys})
        assert {key: entry.value for key, entry in store.read("a/").entries.items()} == {k: k.encode() for k in keys}
        for key in ("a/" + ALL_CHARACTERS, "a/%2F", "a/%00", "a/?", "a/#", "a/a?b=c&d#e"):
            entry = value_of(store, key)
            assert entry is not None
            with pytest.raises(Conflict):
                store.commit([Check(key, NEVER), Put(key, b"")])
            store.commit([Check(key, entry.revision), Put(key, b"again")])
            assert store.wait(key, entry.revision, 60) > entry.revision
        for part in sliced(sorted(keys), store.max_ops):
            store.commit([Delete(key) for key in part])
        assert store.read("a/").entries == {}

    # --- all or nothing

    def test_a_commit_shows_in_all_its_keys_under_one_revision(self, store: Store) -> None:
        keys = [f"a/{number}" for number in range(store.max_ops)]
        put_all(store, *keys[::2])
        revision = store.commit([Put(key, b"y") for key in keys])
        assert store.read("a/").entries == {key: Entry(b"y", revision) for key in keys}

    def test_readers_see_all_of_a_commit_or_none(self, clients: OpenStore) -> None:
        writer, reader = clients(), clients()
        keys = [f"a/{number}" for number in range(min(writer.max_ops, 50))]

        def write() -> None:
            for number in range(30):
                writer.commit([Put(key, b"%d" % number) for key in keys])
                if number % 5 == 4:
                    writer.commit([Delete(key) for key in keys])

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            while not writing.done():
                entries = reader.read("a/").entries
                assert len(entries) in (0, len(keys))
                assert len({(entry.value, entry.revision) for entry in entries.values()}) <= 1
            writing.result()

    def test_what_moves_between_keys_is_never_lost_nor_doubled(self, clients: OpenStore) -> None:
        """Several clients move money between accounts, each under Checks of both; the sum stands in every snapshot."""
        accounts = [f"account/{number}" for number in range(5)]
        put_many(clients(), dict.fromkeys(accounts, b"100"))

        def move_money(store: Store, start: int) -> None:
            for turn in range(start, start + 15):
                _repeat_on_conflict(partial(_move_one, store, accounts[turn % 4], accounts[4]))

        reader = clients()
        with ThreadPoolExecutor(3) as pool:
            moves = [pool.submit(move_money, clients(), start) for start in range(3)]
            while not all(move.done() for move in moves):
                entries = reader.read("account/").entries
                assert sum(int(entry.value) for entry in entries.values()) == 500
            for move in moves:
                move.result()
        amounts = [int(entry.value) for entry in reader.read("account/").entries.values()]
        assert sorted(amounts)[4] == 100 + 3 * 15
        assert sum(amounts) == 500


def _move_one(store: Store, source: str, target: str) -> Revision:
    entries = store.read("account/").entries
    return store.commit(
        [
            Check(source, entries[source].revision),
            Check(target, entries[target].revision),
            Put(source, b"%d" % (int(entries[source].value) - 1)),
            Put(target, b"%d" % (int(entries[target].value) + 1)),
        ]
    )


def _repeat_on_conflict(attempt: Callable[[], Revision]) -> Revision:
    while True:
        try:
            return attempt()
        except Conflict:
            continue
