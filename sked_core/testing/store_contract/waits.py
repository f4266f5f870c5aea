"""Waking: nothing is missed, nothing hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from sked_core.errors import Unavailable
from sked_core.interfaces.store import Delete, Entry, Put, Revision, Store
from sked_core.testing.store_contract.base import NEVER, OpenStore, StoreTests


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
