"""The engine is killed, started again, or comes back without its data or its history."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from sked_core.errors import Conflict, LeaseLost, Unavailable
from sked_core.interfaces.store import Check, Fence, Put, Store
from sked_core.testing.store_contract.base import NEVER, OpenStore, put_all
from sked_core.testing.store_contract.faults import Engine, FaultTests, calls_of, outcome_of


class OutageTests(FaultTests):
    """``kill``, ``start``, ``wipe`` and ``compact``."""

    def test_while_the_engine_is_down_a_call_is_an_error_and_never_an_empty_result(
        self, engine: Engine, clients: OpenStore
    ) -> None:
        store = clients()
        since = store.commit([Put("a/1", b"1"), Put("a/2", b"2")])
        lease, other = store.grant(120), store.grant(120)
        stop = threading.Event()

        def read_on() -> int:
            answered = 0
            while not stop.wait(0.02):
                try:
                    assert set(store.read("a/").entries) == {"a/1", "a/2"}
                    answered += 1
                except Unavailable:
                    continue
            return answered

        with ThreadPoolExecutor(4) as pool:
            reading = pool.submit(read_on)
            try:
                engine.kill()
                for name, call in calls_of(store, lease, other, since).items():
                    outcome = outcome_of(pool.submit(call), self.deadline)
                    assert isinstance(outcome, Unavailable) or name == "wait", f"{name}: {outcome!r}"
                engine.start()
                self.again(lambda: store.commit([Put("b", b"")]))
            finally:
                stop.set()
            reading.result(self.deadline)
        assert set(self.again(lambda: store.read("a/")).entries) == {"a/1", "a/2"}

    def test_what_was_acknowledged_survives_a_kill(self, engine: Engine, clients: OpenStore) -> None:
        """Three writers, killed in the midst of it: what was acknowledged is there, and every commit is whole."""
        stop = threading.Event()
        acknowledged: list[list[int]] = [[], [], []]

        def write(store: Store, own: int) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                try:
                    store.commit([Put(f"one/{own}/{number}", b""), Put(f"two/{own}/{number}", b"")])
                    acknowledged[own].append(number)
                except Unavailable:
                    time.sleep(0.1)

        def all_get_on() -> None:
            before, end = [len(each) for each in acknowledged], time.monotonic() + self.deadline + self.patience
            while any(len(each) < count + 5 for each, count in zip(acknowledged, before, strict=True)):
                assert time.monotonic() < end, "the writers don't get on"
                time.sleep(0.01)

        with ThreadPoolExecutor(3) as pool:
            writing = [pool.submit(write, clients(), own) for own in range(3)]
            try:
                for _ in range(2):
                    all_get_on()
                    engine.kill()
                    engine.start()
                all_get_on()
            finally:
                stop.set()
            for each in writing:
                each.result(self.deadline)
        reader = clients()
        one, two = (set(self.again(lambda p=prefix: reader.read(p)).entries) for prefix in ("one/", "two/"))  # type: ignore[misc]
        assert {key.removeprefix("one/") for key in one} == {key.removeprefix("two/") for key in two}
        for own, numbers in enumerate(acknowledged):
            assert {f"one/{own}/{number}" for number in numbers} <= one

    def test_waits_in_progress_see_a_change_made_after_a_restart(self, engine: Engine, clients: OpenStore) -> None:
        store = clients()
        put_all(store, "a/1")
        seen = {prefix: store.read(prefix) for prefix in ("a/", "empty/", "")}
        within = 2 * (self.deadline + self.patience)
        with ThreadPoolExecutor(3) as pool:
            waits = [
                pool.submit(self.watch_through, store, snapshot, lambda entries: "late" in str(entries), prefix, within)
                for prefix, snapshot in seen.items()
            ]
            engine.kill()
            engine.start()
            self.again(lambda: clients().commit([Put("a/late", b""), Put("empty/late", b"")]))
            for waiting in waits:
                waiting.result()

    def test_a_change_made_after_a_restart_before_the_wait_is_seen(self, engine: Engine, clients: OpenStore) -> None:
        store = clients()
        put_all(store, "a/1")
        seen = store.read("a/")
        engine.kill()
        engine.start()
        self.again(lambda: clients().commit([Put("a/late", b"")]))
        self.watch_through(store, seen, lambda entries: "a/late" in entries, "a/", self.deadline + self.patience)

    def test_a_lease_survives_a_short_restart(self, engine: Engine, clients: OpenStore) -> None:
        store = clients()
        lease = store.grant(120)
        bound = store.commit([Check("lock", NEVER), Put("lock", b"me", lease)])
        engine.kill()
        engine.start()
        self.again(lease.renew)
        entry = self.again(lambda: store.read("lock")).entries["lock"]
        assert (entry.lease, entry.revision) == (lease.id, bound)
        self.again(lambda: store.commit([Fence("lock", lease), Put("work", b"")]))
        with pytest.raises(Conflict):
            self.again(lambda: clients().commit([Check("lock", NEVER), Put("lock", b"them")]))

    # --- without data

    def test_after_a_wipe_waits_return_and_the_store_is_empty(self, engine: Engine, clients: OpenStore) -> None:
        store = clients()
        lease = store.grant(120)
        for number in range(20):
            put_all(store, f"a/{number}")
        bound = store.commit([Put("lock", b"", lease)])
        seen = store.read("a/")
        assert len(seen.entries) == 20
        within = 2 * (self.deadline + self.patience)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self.watch_through, store, seen, lambda entries: not entries, "a/", within)
            engine.wipe()
            engine.start()
            waiting.result()
        assert self.again(lambda: store.read("lock")).entries == {}
        with pytest.raises(LeaseLost):
            self.again(lease.renew)
        for guard in (Fence("lock", lease), Check("lock", bound)):
            with pytest.raises((Conflict, LeaseLost)):
                self.again(lambda guard=guard: store.commit([guard, Put("work", b"")]))  # type: ignore[misc]
        revision = self.again(lambda: store.commit([Put("a/new", b"")]))
        assert store.read("a/").entries["a/new"].revision == revision

    def test_a_wait_returns_where_a_wiped_store_has_come_to_the_same_revision(
        self, engine: Engine, clients: OpenStore
    ) -> None:
        """The number alone does not tell that it is another store: its client has to."""
        store = clients()
        for number in range(40):
            store.commit([Put("a/1", b"%d" % number)])
        seen = store.read("a/")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(store.wait, "a/", seen.revision, 5)
            engine.wipe()
            engine.start()
            writer = clients()
            while self.again(lambda: writer.read("")).revision < seen.revision - 1:
                writer.commit([Put("filler", b"")])
            writer.commit([Put("a/other", b"")])
            outcome = outcome_of(waiting, self.deadline)
        if isinstance(outcome, Unavailable) or outcome == seen.revision:  # else it has woken
            self.watch_through(store, seen, lambda entries: "a/other" in entries, "a/", self.deadline + self.patience)
        else:
            assert not isinstance(outcome, BaseException), repr(outcome)

    # --- without history

    @pytest.fixture
    def compact(self, engine: Engine) -> Callable[[], None]:
        """Drops the engine's history."""
        found: Callable[[], None] | None = getattr(engine, "compact", None)
        if found is None:
            pytest.skip("its engine keeps no history that it could drop")
        return found

    def test_a_wait_from_before_a_compaction_returns(self, compact: Callable[[], None], clients: OpenStore) -> None:
        store, writer = clients(), clients()
        put_all(writer, "a/1")
        seen = store.read("a/")
        writer.commit([Put("a/1", b"2")])
        for number in range(20):
            put_all(writer, f"b/{number}")
        compact()
        self.watch_through(store, seen, lambda entries: entries["a/1"].value == b"2", "a/", self.patience)

    def test_waits_in_progress_see_a_change_made_after_a_compaction(
        self, compact: Callable[[], None], clients: OpenStore
    ) -> None:
        store, writer = clients(), clients()
        put_all(writer, "a/1")
        seen = store.read("a/")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(
                self.watch_through, store, seen, lambda entries: "a/late" in entries, "a/", 3 * self.patience
            )
            for number in range(20):
                put_all(writer, f"b/{number}")
            compact()
            put_all(writer, "a/late")
            waiting.result()
