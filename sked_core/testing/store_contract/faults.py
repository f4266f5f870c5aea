"""What the tests need in which an engine hangs, dies, or loses its data."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from typing import Protocol, TypeVar

import pytest

from sked_core.errors import Unavailable
from sked_core.interfaces.store import Entry, Lease, Put, Revision, Snapshot, Store
from sked_core.testing.store_contract.base import OpenStore, StoreTests

T = TypeVar("T")


class Engine(Protocol):
    """The engine behind a store, in the hands of a test. It runs when a test begins; each call may be repeated."""

    def start(self) -> None:
        """Run it, on the address and with the data that it had; return once it takes writes."""
        ...

    def kill(self) -> None:
        """End it at once, as SIGKILL does; its data stays."""
        ...

    def pause(self) -> None:
        """Freeze it, as SIGSTOP does; return once nothing answers. Connections stay open."""
        ...

    def resume(self) -> None:
        """Let it go on."""
        ...

    def wipe(self) -> None:
        """Kill it and remove its data: after the next ``start`` it is an empty store."""
        ...


class FaultTests(StoreTests):
    """Fixtures and helpers. An engine that can drop its history has a method ``compact`` too."""

    deadline: float = 30.0
    """Seconds within which every call has to end, whatever the engine does."""
    hanging: Collection[str] = ("read", "commit", "grant", "renew", "revoke")
    """The calls that need an answer of the engine that ``pause`` freezes."""

    @pytest.fixture
    def address(self) -> str:
        """``host:port`` at which the engine takes connections."""
        pytest.skip("its engine takes no connections over TCP")

    @pytest.fixture
    def open_at(self) -> Callable[[str], Store]:
        """Opens a client of the engine at the ``host:port`` that it is given."""
        pytest.skip("its engine takes no connections over TCP")

    @pytest.fixture
    def open_store(self, address: str, open_at: Callable[[str], Store]) -> OpenStore:
        return lambda: open_at(address)

    def again(self, call: Callable[[], T], within: float = 0.0) -> T:
        """The result of ``call``, which is repeated, at a calm pace, while it raises Unavailable."""
        end = time.monotonic() + (within or self.deadline + self.patience)
        while time.monotonic() < end:
            with contextlib.suppress(Unavailable):
                return call()
            time.sleep(0.1)
        return call()

    def watch_through(
        self, store: Store, seen: Snapshot, wanted: Callable[[Mapping[str, Entry]], bool], prefix: str, within: float
    ) -> Snapshot:
        """The first snapshot with ``wanted`` entries, looked for only when ``wait`` wakes; Unavailable is survived."""
        end, since = time.monotonic() + within, seen.revision
        while (left := end - time.monotonic()) > 0:
            try:
                since = store.wait(prefix, since, left + 30)
            except Unavailable:
                time.sleep(0.2)
                continue
            assert time.monotonic() < end, f"wait slept through what happened below {prefix}"
            snapshot = self.again(lambda: store.read(prefix))
            if wanted(snapshot.entries):
                return snapshot
        raise AssertionError(f"what happened below {prefix} was not seen within {within:g} s")


@contextlib.contextmanager
def hung(engine: Engine) -> Iterator[None]:
    """``engine`` is frozen in the body."""
    engine.pause()
    try:
        yield
    finally:
        engine.resume()


def calls_of(store: Store, lease: Lease, other: Lease, since: Revision) -> dict[str, Callable[[], object]]:
    """One of each. ``lease`` is renewed, ``other`` is revoked."""
    return {
        "read": lambda: store.read("a/"),
        "commit": lambda: store.commit([Put("b/late", b"")]),
        "grant": lambda: store.grant(60),
        "renew": lease.renew,
        "revoke": other.revoke,
        "wait": lambda: store.wait("a/", since, 0.5),
    }


def outcome_of(future: Future[T], within: float) -> T | BaseException:
    """What a call returned or raised; fails if it is still going on after ``within`` seconds."""
    try:
        return future.exception(within) or future.result()
    except TimeoutError:
        raise AssertionError(f"a call did not end within {within:g} s") from None
