"""The connections to the engine break, fall silent, or find nobody for a while."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from sked_core.errors import Conflict, Unavailable
from sked_core.interfaces.store import Check, Put, Revision, Store
from sked_core.testing.store_contract.base import NEVER, OpenStore, put_all, rounds
from sked_core.testing.store_contract.faults import Engine, FaultTests
from sked_core.testing.store_contract.proxy import Proxy

WAITING = 20
OUTAGE_SECONDS = 4.0
BACK_OFF_SECONDS = 0.5
RECONNECTS_PER_SECOND = 10


class ConnectionTests(FaultTests):
    """The same engine through a TCP proxy of the suite's own."""

    @pytest.fixture
    def proxy(self, address: str) -> Iterator[Proxy]:
        with Proxy(address) as proxy:
            yield proxy

    @pytest.fixture
    def remote(self, proxy: Proxy, open_at: Callable[[str], Store]) -> Iterator[Store]:
        """A client that reaches the engine through the proxy."""
        store = open_at(proxy.address)
        yield store
        store.close()

    def test_a_broken_connection_is_no_answer(self, proxy: Proxy, remote: Store, clients: OpenStore) -> None:
        """The only writer of a key commits while its connections are cut every few milliseconds: what it is told
        has happened has happened, and what it is told has not has not."""
        direct, stop = clients(), threading.Event()
        chance = random.Random(7)  # noqa: S311 - pauses

        def cut() -> None:
            while not stop.wait(chance.uniform(0.001, 0.03)):
                proxy.cut()

        known, unknown = NEVER, False
        with ThreadPoolExecutor(1) as pool:
            cutting = pool.submit(cut)
            try:
                for number in rounds(300, seconds=5, at_least=20):
                    value = b"%d" % number
                    try:
                        known = remote.commit([Check("a", known), Put("a", value)])
                        unknown = False
                        entry = direct.read("a").entries["a"]
                        assert (entry.value, entry.revision) == (value, known)
                        continue
                    except Conflict:
                        found = direct.read("a").entries.get("a")
                        assert found is None or found.value != value, "it was refused, and carried out"
                        assert unknown, "nobody else writes: what should it conflict with?"
                    except Unavailable:
                        unknown = True
                        found = direct.read("a").entries.get("a")
                    known = found.revision if found else NEVER
            finally:
                stop.set()
            cutting.result(self.patience)
        assert self.again(lambda: remote.read("a")).entries == direct.read("a").entries
        assert proxy.accepted > 3, "the proxy has to have hit something"

    def test_a_connection_that_falls_silent_is_given_up(self, proxy: Proxy, remote: Store, clients: OpenStore) -> None:
        """As behind a firewall that forgets: nothing is closed, and nothing comes."""
        direct = clients()
        put_all(direct, "a/1")
        seen = remote.read("a/")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self._seen_by_short_waits, remote, seen.revision)
            time.sleep(0.3)
            proxy.silence()
            put_all(direct, "a/late")
            waiting.result(2 * self.deadline)
        assert set(self.again(lambda: remote.read("a/")).entries) == {"a/1", "a/late"}
        self.again(lambda: remote.commit([Put("b", b"")]))

    def _seen_by_short_waits(self, store: Store, revision: Revision) -> None:
        end = time.monotonic() + self.deadline
        while time.monotonic() < end:
            try:
                revision = store.wait("a/", revision, 2)
                if "a/late" in store.read("a/").entries:
                    return
            except Unavailable:
                time.sleep(0.2)
        raise AssertionError("the change was not seen: it waits on a dead connection")

    def test_waits_reconnect_after_an_outage_without_a_storm(
        self, engine: Engine, proxy: Proxy, remote: Store, clients: OpenStore
    ) -> None:
        """Twenty threads wait over an outage, and wait again half a second after each failure, as Sked's own loops
        do. The engine sees no more connections than there were calls, and not many more than it needs."""
        put_all(remote, *(f"p/{number}/1" for number in range(WAITING)))
        calls = [0] * WAITING

        def watch(number: int, since: Revision) -> None:
            prefix, end = f"p/{number}/", time.monotonic() + OUTAGE_SECONDS + 2 * (self.deadline + self.patience)
            while time.monotonic() < end:
                calls[number] += 1
                try:
                    since = remote.wait(prefix, since, 30)
                    if f"{prefix}late" in remote.read(prefix).entries:
                        return
                except Unavailable:
                    time.sleep(BACK_OFF_SECONDS)
            raise AssertionError(f"the change below {prefix} was not seen")

        with ThreadPoolExecutor(WAITING) as pool:
            seen = [remote.read(f"p/{number}/").revision for number in range(WAITING)]
            waits = [pool.submit(watch, number, seen[number]) for number in range(WAITING)]
            before, begun = proxy.accepted, time.monotonic()
            engine.kill()
            time.sleep(OUTAGE_SECONDS)
            engine.start()
            writer = clients()
            for number in range(WAITING):
                self.again(partial(put_all, writer, f"p/{number}/late"))
            for waiting in waits:
                waiting.result()
        connected, lasted = proxy.accepted - before, time.monotonic() - begun
        allowed = sum(calls) + WAITING + RECONNECTS_PER_SECOND * lasted
        assert connected <= allowed, f"{connected} connections for {sum(calls)} calls within {lasted:.0f} s"
