"""What all tests of the Store contract need: clients of one store, watchers, and time to repeat a race in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest

from sked_core.interfaces.store import Entry, Put, Revision, Snapshot, Store
from sked_core.model.codec import MAX_OBJECT_BYTES
from sked_core.testing.needed import SampleTests
from sked_core.testing.samples import StoreSample

OpenStore = Callable[[], Store]
NEVER = Revision(0)


class StoreTests(SampleTests):
    """Fixtures, limits and helpers. ``sample`` says which store; without one the fixture ``open_store`` does."""

    sample: ClassVar[StoreSample]
    patience: float = 30.0
    """Seconds within which something that must happen has to have happened."""
    short_ttl: float = 1.0
    """Seconds asked for where a test waits for a lease to expire; the store may raise it."""
    too_large: int = 2 * MAX_OBJECT_BYTES + 1
    """Bytes that are more than the store takes as one value."""

    @pytest.fixture
    def requests_sent(self) -> Callable[[], int]:
        """How many requests the store's clients have sent so far. Override it where that can be counted: then the
        suite also holds that what is refused is never sent."""
        return lambda: 0

    @pytest.fixture
    def clients(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
        """Opens clients, and closes them in the end."""
        # Asked for by name: a fixture of this class would come before one of the author's module or conftest.
        sample = getattr(self, "sample", None)
        open_store = sample.fresh(tmp_path) if sample is not None else request.getfixturevalue("open_store")
        opened: list[Store] = []

        def open_one() -> Store:
            opened.append(open_store())
            return opened[-1]

        yield open_one
        for store in opened:
            store.close()
        if sample is not None and sample.clear is not None:
            sample.clear(tmp_path)

    @pytest.fixture
    def store(self, clients: OpenStore) -> Store:
        return clients()

    def wait_until(
        self,
        store: Store,
        seen: Snapshot,
        wanted: Callable[[Mapping[str, Entry]], bool],
        within: float,
        prefix: str = "a/",
    ) -> Snapshot:
        """The first snapshot with ``wanted`` entries, looked for only when ``wait`` wakes."""
        begun = time.monotonic()
        since = seen.revision
        while True:
            left = within - (time.monotonic() - begun)
            assert left > 0, f"not seen within {within} s"
            since = store.wait(prefix, since, left + 30)
            assert time.monotonic() - begun < within, "wait slept through the change"
            snapshot = store.read(prefix)
            if wanted(snapshot.entries):
                return snapshot

    def watching(self, store: Store, seen: Snapshot, wanted: Callable[[Mapping[str, Entry]], bool]) -> Watching:
        return Watching(lambda: self.wait_until(store, seen, wanted, self.patience))


class Watching:
    """Runs ``watch`` in a thread while the body makes the change; on leaving, its result is there."""

    def __init__(self, watch: Callable[[], Snapshot]) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._watch = watch

    def __enter__(self) -> Future[Snapshot]:
        self._seen = self._pool.submit(self._watch)
        return self._seen

    def __exit__(self, *failure: object) -> None:
        self._pool.shutdown(wait=True)


def put_all(store: Store, *keys: str) -> None:
    """Write ``keys`` in one commit."""
    store.commit([Put(key, b"x") for key in keys])


def put_many(store: Store, values: Mapping[str, bytes]) -> None:
    """Write ``values`` in as few commits as the store can do it."""
    for keys in sliced(list(values), store.max_ops):
        store.commit([Put(key, values[key]) for key in keys])


def rounds(at_most: int, *, seconds: float = 3.0, at_least: int = 3) -> Iterator[int]:
    """Numbers from 0, for something that is repeated: ``at_most`` of them, fewer where the store takes too long."""
    begun = time.monotonic()
    for number in range(at_most):
        if number >= at_least and time.monotonic() - begun > seconds:
            return
        yield number


def together(*calls: Callable[[], object]) -> list[BaseException | object]:
    """Run ``calls`` at once, each in a thread: what each returned, or the exception that it raised."""
    with ThreadPoolExecutor(len(calls)) as pool:
        running = [pool.submit(call) for call in calls]
    return [done.exception() or done.result() for done in running]


def value_of(store: Store, key: str) -> Entry | None:
    """The entry of exactly this key."""
    return store.read(key).entries.get(key)


def sliced(keys: Sequence[str], length: int) -> Iterator[Sequence[str]]:
    """``keys`` in parts of ``length``."""
    for start in range(0, len(keys), length):
        yield keys[start : start + length]
