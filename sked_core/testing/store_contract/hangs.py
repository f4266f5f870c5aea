"""The engine hangs: connections stand, nothing answers, and later it goes on as if nothing had been."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from sked_core.errors import Unavailable
from sked_core.interfaces.store import Check, Fence, Op, Put
from sked_core.testing.store_contract.base import NEVER, OpenStore, put_all, rounds
from sked_core.testing.store_contract.faults import Engine, FaultTests, calls_of, hung, outcome_of

PAUSE_SECONDS = 2.0


class HangTests(FaultTests):
    """``pause`` and ``resume``."""

    def test_every_call_ends_while_the_engine_hangs(self, engine: Engine, clients: OpenStore) -> None:
        store = clients()
        since = store.commit([Put("a/1", b"1")])
        calls = calls_of(store, store.grant(120), store.grant(120), since)
        with ThreadPoolExecutor(len(calls)) as pool, hung(engine):
            running = {name: pool.submit(call) for name, call in calls.items()}
            for name, future in running.items():
                outcome = outcome_of(future, self.deadline)
                if name in self.hanging:
                    assert isinstance(outcome, Unavailable), f"{name}: {outcome!r}"
                elif name == "wait":  # it may not have noticed: its time is over all the same
                    assert outcome == since or isinstance(outcome, Unavailable)

    def test_a_commit_that_hung_is_carried_out_whole_or_not_at_all(self, engine: Engine, clients: OpenStore) -> None:
        store = clients()
        keys = [f"a/{number}" for number in range(store.max_ops - 1)]
        guarded = store.commit([Put("guard", b"")])
        with ThreadPoolExecutor(1) as pool, hung(engine):
            ops: list[Op] = [Check("guard", guarded), *(Put(key, b"x") for key in keys)]
            outcome = outcome_of(pool.submit(store.commit, ops), self.deadline)
            assert isinstance(outcome, Unavailable), repr(outcome)
        for _ in rounds(20, seconds=2):
            assert len(self.again(lambda: store.read("a/")).entries) in (0, len(keys))
            time.sleep(0.05)
        self.again(lambda: store.commit([Put(key, b"y") for key in keys]))
        assert {entry.value for entry in store.read("a/").entries.values()} == {b"y"}

    def test_a_client_works_on_after_the_engine_hung(self, engine: Engine, clients: OpenStore) -> None:
        store = clients()
        put_all(store, "a/1")
        lease = store.grant(120)
        store.commit([Check("lock", NEVER), Put("lock", b"", lease)])
        with ThreadPoolExecutor(1) as pool, hung(engine):
            assert isinstance(outcome_of(pool.submit(store.commit, [Put("b", b"")]), self.deadline), Unavailable)
        assert set(self.again(lambda: store.read("a/")).entries) == {"a/1"}
        self.again(lease.renew)
        revision = self.again(lambda: store.commit([Fence("lock", lease), Put("a/1", b"y")]))
        assert self.again(lambda: store.wait("a/", NEVER, 1)) >= revision
        self.again(self.again(lambda: store.grant(60)).revoke)

    def test_waits_in_progress_see_a_change_made_after_the_engine_hung(
        self, engine: Engine, clients: OpenStore
    ) -> None:
        store, writer = clients(), clients()
        put_all(store, "a/1")
        seen = {prefix: store.read(prefix) for prefix in ("a/", "empty/")}
        within = PAUSE_SECONDS + 2 * (self.deadline + self.patience)
        with ThreadPoolExecutor(2) as pool:
            waits = [
                pool.submit(self.watch_through, store, snapshot, lambda entries: "late" in str(entries), prefix, within)
                for prefix, snapshot in seen.items()
            ]
            with hung(engine):
                time.sleep(PAUSE_SECONDS)
            self.again(lambda: writer.commit([Put("a/late", b""), Put("empty/late", b"")]))
            for waiting in waits:
                waiting.result()
