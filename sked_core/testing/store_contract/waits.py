"""Waking: nothing is missed, nothing hangs, nothing spins."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from sked_core.errors import Unavailable
from sked_core.interfaces.store import Delete, Entry, Put, Revision, Store
from sked_core.testing.store_contract.base import NEVER, OpenStore, StoreTests, put_all, rounds

SEED = 7


class WaitTests(StoreTests):
    """``wait``, and ``close``, which ends it."""

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

    def test_wait_from_long_ago_returns_where_something_has_changed(self, store: Store) -> None:
        since = store.commit([Put("a/1", b"1")])
        store.commit([Put("a/1", b"2")])
        for number in rounds(300):
            store.commit([Put(f"b/{number % 7}", b"%d" % number)])
        begun = time.monotonic()
        store.wait("a/", since, 60)
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
            with self.watching(watcher, snapshot, partial(_holds, put)) as seen:
                writer.commit([put])
            snapshot = seen.result()
        with self.watching(watcher, snapshot, lambda entries: "a/1" not in entries) as seen:
            writer.commit([Delete("a/1")])
        assert set(seen.result().entries) == {"a/0", "a/2"}

    def test_wait_wakes_for_a_change_of_the_same_client(self, store: Store) -> None:
        with self.watching(store, store.read("a/"), lambda entries: "a/1" in entries) as seen:
            store.commit([Put("a/1", b"")])
        assert set(seen.result().entries) == {"a/1"}

    def test_wait_wakes_when_a_lease_is_revoked(self, clients: OpenStore) -> None:
        watcher, holder = clients(), clients()
        lease = holder.grant(30)
        holder.commit([Put("a/lock", b"", lease)])
        with self.watching(watcher, watcher.read("a/"), lambda entries: not entries) as seen:
            lease.revoke()
        assert seen.result().entries == {}

    def test_a_watcher_arrives_at_the_last_of_many_changes(self, clients: OpenStore) -> None:
        """Bursts of changes at random pauses, some of them deletions; the watcher reads only when ``wait`` returned."""
        watcher, writer = clients(), clients()
        chance = random.Random(SEED)  # noqa: S311 - pauses
        snapshot = watcher.read("a/")
        for burst in rounds(8, seconds=6):
            last = Put("a/last", b"%d" % burst)
            with self.watching(watcher, snapshot, partial(_holds, last)) as seen:
                for number in rounds(50, seconds=1, at_least=5):
                    key = f"a/{chance.randrange(5)}"
                    writer.commit([Delete(key) if chance.random() < 0.2 else Put(key, b"%d" % number)])
                    time.sleep(chance.choice((0.0, 0.0, 0.001, 0.003, 0.01)))
                writer.commit([last])
            snapshot = seen.result()

    def test_no_generation_of_a_handshake_is_missed(self, clients: OpenStore) -> None:
        """Two clients answer one another: each writes the next number only after it woke for that of the other."""
        one, other = clients(), clients()
        begun, stop = other.read("ask/").revision, threading.Event()

        def answer() -> int:
            since, answered = begun, 0
            while not stop.is_set():
                since = other.wait("ask/", since, 3 * self.patience)
                asked = other.read("ask/").entries.get("ask/now")
                if asked is not None and int(asked.value) > answered:
                    answered = int(asked.value)
                    other.commit([Put("answer/now", b"%d" % answered)])
            return answered

        with ThreadPoolExecutor(1) as pool:
            answering = pool.submit(answer)
            try:
                seen = one.read("answer/")
                for number in rounds(200, seconds=5, at_least=5):
                    one.commit([Put("ask/now", b"%d" % (number + 1))])
                    wanted = partial(_holds, Put("answer/now", b"%d" % (number + 1)))
                    seen = self.wait_until(one, seen, wanted, self.patience, prefix="answer/")
            finally:
                stop.set()
                one.commit([Put("ask/now", b"0")])
            assert answering.result(4 * self.patience) == number + 1

    def test_waits_on_nested_and_neighbouring_prefixes_wake_each_for_its_own(self, clients: OpenStore) -> None:
        watcher, writer = clients(), clients()
        prefixes = ("", "a", "a/", "a/b/", "a/b/c", "b/")
        put_all(writer, "a/b/c", "a/x", "b/1", "ab/1")
        for key, concerned in (
            ("a/b/c", prefixes[:5]),
            ("b/1", ("", "b/")),
            ("ab/1", ("", "a")),
            ("a/x", prefixes[:3]),
        ):
            seen = {prefix: watcher.read(prefix) for prefix in prefixes}
            with ThreadPoolExecutor(len(prefixes)) as pool:
                waits = [
                    pool.submit(
                        self.wait_until, watcher, seen[prefix], partial(_changed, seen[prefix], key), 30, prefix
                    )
                    for prefix in concerned
                ]
                writer.commit([Put(key, b"again")])
                for waiting in waits:
                    assert key in waiting.result().entries

    def test_twenty_waits_of_one_client_all_wake(self, clients: OpenStore) -> None:
        watcher, writer = clients(), clients()
        put_many = [Put(f"p/{number}/x", b"") for number in range(20)]
        chance = random.Random(SEED)  # noqa: S311 - an order
        writer.commit(put_many[:10])
        writer.commit(put_many[10:])
        with ThreadPoolExecutor(20) as pool:
            for turn in range(2):
                waits = [
                    pool.submit(
                        self.wait_until,
                        watcher,
                        watcher.read(f"p/{number}/"),
                        partial(_holds, Put(f"p/{number}/x", b"%d" % turn)),
                        2 * self.patience,
                        f"p/{number}/",
                    )
                    for number in range(20)
                ]
                for number in chance.sample(range(20), 20):
                    writer.commit([Put(f"p/{number}/x", b"%d" % turn)])
                for waiting in waits:
                    waiting.result()
                assert watcher.read("p/1/").entries["p/1/x"].value == b"%d" % turn, "waits leave room for other calls"

    def test_a_wait_on_an_empty_prefix_does_not_spin_while_others_are_written(self, clients: OpenStore) -> None:
        watcher, writer = clients(), clients()
        since = watcher.read("empty/").revision
        stop = threading.Event()

        def write_elsewhere() -> int:
            written = 0
            while not stop.wait(0.004):
                writer.commit([Put(f"other/{written % 3}", b"%d" % written)])
                written += 1
            return written

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write_elsewhere)
            try:
                woken, end = 0, time.monotonic() + 2
                while (left := end - time.monotonic()) > 0:
                    since = watcher.wait("empty/", since, left)
                    woken += 1
                assert woken <= 60, f"{woken} wake-ups within 2 s for nothing"
                with ThreadPoolExecutor(1) as waiter:
                    waiting = waiter.submit(
                        self.wait_until, watcher, watcher.read("empty/"), lambda entries: bool(entries), 10, "empty/"
                    )
                    writer.commit([Put("empty/no-more", b"")])
                    assert set(waiting.result().entries) == {"empty/no-more"}
            finally:
                stop.set()
            assert writing.result() > 5

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


def _holds(put: Put, entries: Mapping[str, Entry]) -> bool:
    return put.key in entries and entries[put.key].value == put.value


def _changed(seen: object, key: str, entries: Mapping[str, Entry]) -> bool:
    """Whether ``key`` is another entry than in the snapshot ``seen``."""
    return key in entries and entries[key] != getattr(seen, "entries", {}).get(key)
