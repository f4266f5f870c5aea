"""What a store takes at most, and what it refuses before it sends anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from sked_core.errors import InvalidValue
from sked_core.interfaces.store import Check, Delete, Fence, Lease, Op, Put, Revision, Store
from sked_core.model.codec import MAX_OBJECT_BYTES
from sked_core.testing.store_contract.base import NEVER, OpenStore, StoreTests, put_all

HOSTILE = (
    *("", ".", "..", "/", "//", "/a", "a/", "a//b", "a/../b", "a/./b", "../a", "a/..", "a/.", "./a"),
    *("a\0b", "a\nb", "a\r\nb", "a\tb", "a b", " a", "a\x7fb", "a\x1b[2Jb"),
    *("a\u202eb", "é", "a\u00a0b", "ａ", "a\ud800b", "a" * 1025),
)
"""Path tricks, ends of lines, what terminals obey, what looks like something else, what encodes to nothing."""
PREFIXES = ("", "a/")  # no keys, but to be read
MOST_TOGETHER = 100
"""No more values of the largest size in one commit: 16 MB tell as much as 80."""


def _puts_over_existing_keys(store: Store, keys: Sequence[str]) -> list[Op]:
    put_all(store, *keys)
    return [Put(key, b"new") for key in keys]


def _puts_with_a_lease_over_existing_keys(store: Store, keys: Sequence[str]) -> list[Op]:
    put_all(store, *keys)
    lease = store.grant(60)
    return [Put(key, b"new", lease) for key in keys]


def _puts_over_keys_of_another_lease(store: Store, keys: Sequence[str]) -> list[Op]:
    before, after = store.grant(60), store.grant(60)
    store.commit([Put(key, b"old", before) for key in keys])
    return [Put(key, b"new", after) for key in keys]


def _checked_puts(store: Store, keys: Sequence[str]) -> list[Op]:
    keys = keys[: len(keys) // 2]
    revision = store.commit([Put(key, b"old") for key in keys])
    return [op for key in keys for op in (Check(key, revision), Put(key, b"new"))]


def _checked_puts_of_new_keys(store: Store, keys: Sequence[str]) -> list[Op]:
    return [op for key in keys[: len(keys) // 2] for op in (Check(key, NEVER), Put(key, b"new"))]


def _checked_deletes(store: Store, keys: Sequence[str]) -> list[Op]:
    keys = keys[: len(keys) // 2]
    revision = store.commit([Put(key, b"old") for key in keys])
    return [op for key in keys for op in (Check(key, revision), Delete(key))]


def _fenced_puts_with_a_lease(store: Store, keys: Sequence[str]) -> list[Op]:
    keys = keys[: len(keys) // 2]
    lease = store.grant(60)
    store.commit([Put(key, b"old", lease) for key in keys])
    return [op for key in keys for op in (Fence(key, lease), Put(key, b"new", lease))]


def _checks_and_puts_of_different_keys(store: Store, keys: Sequence[str]) -> list[Op]:
    half = len(keys) // 2
    revision = store.commit([Put(key, b"old") for key in keys])
    return [*(Check(key, revision) for key in keys[half:]), *(Put(key, b"new") for key in keys[:half])]


def _deletes(store: Store, keys: Sequence[str]) -> list[Op]:
    put_all(store, *keys[::2])
    return [Delete(key) for key in keys]


MIXES: tuple[Callable[[Store, Sequence[str]], list[Op]], ...] = (
    _puts_over_existing_keys,
    _puts_with_a_lease_over_existing_keys,
    _puts_over_keys_of_another_lease,
    _checked_puts,
    _checked_puts_of_new_keys,
    _checked_deletes,
    _fenced_puts_with_a_lease,
    _checks_and_puts_of_different_keys,
    _deletes,
)


class LimitTests(StoreTests):
    """Sizes, counts and names."""

    @pytest.mark.parametrize("key", HOSTILE, ids=lambda key: ascii(key)[:20])
    def test_hostile_keys_reach_no_store(self, store: Store, requests_sent: Callable[[], int], key: str) -> None:
        lease: Lease = store.grant(30)
        revision = store.commit([Put("fine", b"1")])
        sent = requests_sent()
        for op in (Put(key, b"x"), Put(key, b"x", lease), Delete(key), Check(key, NEVER), Fence(key, lease)):
            with pytest.raises(InvalidValue):
                store.commit([Put("fine", b"2"), op])
        if key not in PREFIXES:
            with pytest.raises(InvalidValue):
                store.read(key)
            with pytest.raises(InvalidValue):
                store.wait(key, NEVER, 0.1)
        assert requests_sent() == sent
        entries = store.read("").entries
        assert set(entries) == {"fine"}
        assert entries["fine"].revision == revision

    def test_a_value_past_the_limit_is_refused(self, store: Store) -> None:
        sample = getattr(self, "sample", None)
        size = (sample.too_large if sample is not None else 0) or self.too_large
        with pytest.raises(InvalidValue):
            store.commit([Put("fine", b"x"), Put("a", b"x" * size)])
        assert store.read("").entries == {}

    def test_a_value_of_any_size_is_taken_whole_or_refused(self, clients: OpenStore) -> None:
        store, reader = clients(), clients()
        taken = b""
        for size in (MAX_OBJECT_BYTES * times for times in (1, 2, 3, 4, 6, 8, 16, 32, 64)):
            value = bytes([size // MAX_OBJECT_BYTES]) * size
            try:
                store.commit([Put("a", value), Put("b", b"%d" % size)])
                taken = value
            except InvalidValue as refusal:
                assert str(refusal).strip(), "it must say why"
            entries = reader.read("").entries
            assert entries["a"].value == taken
            assert entries["b"].value == b"%d" % len(taken)
        assert len(taken) >= MAX_OBJECT_BYTES

    def test_values_that_are_too_much_together_are_taken_whole_or_refused(self, clients: OpenStore) -> None:
        store, reader = clients(), clients()
        value = bytes(range(256)) * (MAX_OBJECT_BYTES // 256)
        number = min(store.max_ops, MOST_TOGETHER)
        for count in (2, 3, 4, 8, number):
            before = reader.read("").entries
            try:
                revision = store.commit([Put(f"a/{count}/{each}", value) for each in range(count)])
            except InvalidValue as refusal:
                assert str(refusal).strip(), "it must say why"
                untouched = reader.read("").entries == before
                assert untouched, "a commit that is refused has changed something"
            else:
                entries = reader.read(f"a/{count}/").entries
                assert [(entry.value == value, entry.revision) for entry in entries.values()] == [
                    (True, revision)
                ] * count
        assert len(reader.read("a/2/").entries) == 2, "two objects of the largest size have to fit"
        store.commit([Put("b", b"still of use")])

    def test_too_many_operations_are_refused(self, store: Store, requests_sent: Callable[[], int]) -> None:
        puts = [Put(f"a/{number}", b"x") for number in range(store.max_ops + 1)]
        sent = requests_sent()
        with pytest.raises(InvalidValue):
            store.commit(puts)
        assert requests_sent() == sent
        assert store.read("").entries == {}
        store.commit(puts[1:])
        assert len(store.read("").entries) == store.max_ops

    @pytest.mark.parametrize("mix", MIXES, ids=lambda mix: mix.__name__.strip("_").replace("_", " "))
    def test_max_ops_is_true_of_every_mix(self, store: Store, mix: Callable[[Store, Sequence[str]], list[Op]]) -> None:
        ops = mix(store, [f"a/{number}" for number in range(store.max_ops - store.max_ops % 2)])
        revision: Revision = store.commit(ops)
        written = {op.key: op.value for op in ops if isinstance(op, Put)}
        deleted = {op.key for op in ops if isinstance(op, Delete)}
        entries = store.read("a/").entries
        assert {key: entries[key].value for key in written} == written
        assert {entries[key].revision for key in written} <= {revision}
        assert not deleted & set(entries)

    def test_a_key_is_written_once_in_a_commit(self, store: Store) -> None:
        revision = store.commit([Put("a", b"1")])
        both: tuple[list[Op], ...] = (
            [Put("a", b"2"), Delete("a")],
            [Delete("a"), Put("a", b"2")],
            [Put("a", b"2"), Put("a", b"3")],
        )
        for ops in both:
            with pytest.raises(InvalidValue):
                store.commit(ops)
        assert store.read("a").entries["a"].revision == revision
