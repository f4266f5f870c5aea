"""A lost lock stops its holder's writes: the holder is paused past its lease's end, on real stores."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sked_core.clock import SystemClock
from sked_core.errors import Unavailable
from sked_core.interfaces.store import Put, Store
from sked_core.runtime.lock import LeaseKeeper, Lock, try_lock
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins

HOLDER = """
import sys, threading
from sked_core.clock import SystemClock
from sked_core.errors import SkedError
from sked_core.interfaces.store import Fence, Put
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.lock import LeaseKeeper, try_lock
from sked_core.runtime.plugins.registry import Plugins

url, ttl, name, way = sys.argv[1:]
store = open_store(url, Plugins.load())
keeper = LeaseKeeper(store, SystemClock(), ttl=float(ttl))
lock = try_lock(store, keeper, "locks/services/" + name, "paused")
lease = keeper.lease()
ops = [Put("values/" + name, b"of the paused one")]
if way == "renewing":
    keeper.serve(threading.Event())
print("locked", flush=True)
sys.stdin.readline()
try:
    if way == "fence alone":
        store.commit([Fence(lock.key, lease), *ops])
    else:
        lock.commit(ops)
    print("written", flush=True)
except SkedError as error:
    print(type(error).__name__, flush=True)
"""
WAYS = {"expiring": {"LeaseLost"}, "renewing": {"LeaseLost", "Conflict"}, "fence alone": {"Conflict"}}
"""How a holder goes about its write, and how that may end. Expiring by itself, with a renewal that races with the
write, and with all that the holder knows of time out of the way: then the store itself has to refuse."""


class Holder:
    """A process that holds a lock and has its write ready."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def pause(self, store: Store) -> None:
        """Once it stands still, and not amid a write: with an embedded store, nobody else could write then."""
        while True:
            self.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)
            try:
                store.commit([Put("probe", b"")])
                return
            except Unavailable:
                self.process.send_signal(signal.SIGCONT)
                time.sleep(0.1)

    def write(self) -> str:
        """Let it write; returns what came of it."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.line()


@contextlib.contextmanager
def holders(url: str, ttl: float) -> Iterator[dict[str, Holder]]:
    """A holder for each of WAYS, each with a lock of its own, so that all of them sleep at the same time."""
    found = {way: Holder(url, str(ttl), way.replace(" ", "-"), way) for way in WAYS}
    try:
        yield found
    finally:
        for one in found.values():
            one.process.kill()
            one.process.wait(60)


def take(store: Store, keeper: LeaseKeeper, name: str, seconds: float) -> Lock:
    """The lock, once its lease has run out."""
    deadline = time.monotonic() + seconds
    while (lock := try_lock(store, keeper, f"locks/services/{name}", "second")) is None:
        assert time.monotonic() < deadline, f"the lease of {name} never ends"
        time.sleep(0.1)
    return lock


def pause_take_resume(url: str, ttl: float) -> None:
    store = open_store(url, Plugins.load())
    keeper, stop = LeaseKeeper(store, SystemClock()), threading.Event()
    renewing = keeper.serve(stop)
    with holders(url, ttl) as paused:
        assert [one.line() for one in paused.values()] == ["locked"] * len(WAYS)
        for one in paused.values():
            one.pause(store)
        for way in WAYS:
            name = way.replace(" ", "-")
            lock = take(store, keeper, name, 4 * ttl + 60)
            lock.commit([Put(f"values/{name}", b"of the second")])
        for way, one in paused.items():
            one.process.send_signal(signal.SIGCONT)
            assert one.write() in WAYS[way]
        values = {key: entry.value for key, entry in store.read("values/").entries.items()}
        assert values == {f"values/{way.replace(' ', '-')}": b"of the second" for way in WAYS}
        locks = {entry.value for entry in store.read("locks/").entries.values()}
        assert {value.partition(b" since ")[0] for value in locks} == {b"second"}
    stop.set()
    renewing.join(60)
    store.close()


def holder_that_is_in_time_writes(url: str) -> None:
    with holders(url, 60) as found:
        for one in found.values():
            assert one.line() == "locked"
            assert one.write() == "written"


@pytest.fixture
def embedded(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path / 'sked.db'}"


def test_a_paused_holder_can_not_write_on_the_embedded_store(embedded):
    pause_take_resume(embedded, 2.0)


def test_a_paused_holder_can_not_write_on_consul(private_consul):
    pause_take_resume(private_consul().url, 15.0)


def test_a_paused_holder_can_not_write_on_etcd(private_etcd):
    pause_take_resume(private_etcd().url, 3.0)


def test_a_holder_that_is_in_time_writes_in_every_way(embedded):
    holder_that_is_in_time_writes(embedded)
