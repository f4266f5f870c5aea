"""What wakes and ends a wait of EtcdStore, on a real server that is paused, killed, wiped or compacted."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rigs.clients import reads, within
from sked_core.plugin import Delete, Put, Revision, Unavailable
from sked_etcd.store import EtcdStore


def waiting_on(store: EtcdStore, prefix: str) -> bool:
    watch = store._watches._watches.get(prefix)
    return watch is not None and watch.waiting > 0


def test_a_wait_notices_that_its_server_hangs(private_etcd: Callable[..., Any], open_store: Any) -> None:
    server = private_etcd()
    store = open_store(server.url)
    store.commit([Put("a/1", b"1")])
    since = store.read("a/").revision
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.wait, "a/", since, 120)
        within(60, lambda: waiting_on(store, "a/"))
        server.pause()
        try:
            with pytest.raises(Unavailable):
                waiting.result(60)
        finally:
            server.resume()
    within(60, lambda: reads(store))


def test_a_wait_goes_on_after_a_restart_and_misses_nothing(private_etcd: Callable[..., Any], open_store: Any) -> None:
    server = private_etcd()
    store = open_store(server.url)
    store.commit([Put("a/1", b"1")])
    stop, seen = threading.Event(), []

    def watch() -> None:
        since, failed = Revision(0), False
        while not stop.is_set():
            try:
                revision = store.wait("a/", since, 1)
                if revision != since or failed:
                    seen.append(store.read("a/").entries["a/1"].value)
                since, failed = revision, False
            except Unavailable:
                failed = True
                stop.wait(0.1)

    def restart_and_write(value: bytes) -> None:
        server.kill()
        server.start()
        other = open_store(server.url)
        within(60, lambda: reads(other))
        other.commit([Put("a/1", value)])
        within(60, lambda: seen[-1:] == [value])

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            for number in range(3):
                restart_and_write(b"round %d" % number)
        finally:
            stop.set()
        watching.result(60)


def test_a_wait_notices_that_the_server_was_wiped(private_etcd: Callable[..., Any], open_store: Any) -> None:
    server = private_etcd()
    store = open_store(server.url)
    for number in range(20):
        store.commit([Put("a/1", b"%d" % number)])
    since = store.read("a/").revision
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.wait, "a/", since, 60)
        within(60, lambda: waiting_on(store, "a/"))
        server.wipe()
        with pytest.raises(Unavailable):
            waiting.result(60)
    with pytest.raises(Unavailable, match="connection refused"):
        store.read("a/")
    server.start()
    within(60, lambda: reads(store))
    begun = time.monotonic()
    lower = store.wait("a/", since, 60)
    assert lower < since
    assert time.monotonic() - begun < 25
    assert store.read("a/").entries == {}
    other = open_store(server.url)  # one that has no connection yet, and a revision from before
    begun = time.monotonic()
    assert other.wait("a/", since, 60) < since
    assert time.monotonic() - begun < 25


def test_a_wiped_server_that_has_grown_past_what_was_seen(private_etcd: Callable[..., Any], open_store: Any) -> None:
    server = private_etcd()
    store = open_store(server.url)
    store.commit([Put("a/1", b"old")])
    since = store.read("a/").revision
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.wait, "a/", since, 60)
        within(60, lambda: waiting_on(store, "a/"))
        server.wipe()
        server.start()
        other = open_store(server.url)
        within(60, lambda: reads(other))
        other.commit([Put("a/1", b"new")])
        for _ in range(20):
            other.commit([Put("b", b"")])
        try:
            assert waiting.result(60) > since
        except Unavailable:
            within(60, lambda: reads(store))
            begun = time.monotonic()
            assert store.wait("a/", since, 60) > since, "a change below the old revision would be missed"
            assert time.monotonic() - begun < 25


def test_compaction_under_a_wait(private_etcd: Callable[..., Any], open_store: Any) -> None:
    server = private_etcd()
    store, other = open_store(server.url), open_store(server.url)
    store.commit([Put("a/1", b"1")])
    since = store.read("a/").revision
    for number in range(10):
        store.commit([Put("b/1", b"%d" % number)])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.wait, "a/", since, 60)
        within(60, lambda: waiting_on(store, "a/"))
        since = other.commit([Put("a/1", b"1b")])
        assert waiting.result(60) == since, "it watches"
        waiting = pool.submit(store.wait, "a/", since, 60)
        within(60, lambda: waiting_on(store, "a/"))
        other.commit([Put("b/1", b"")])
        server.compact()
        assert not waiting.done(), "compaction is no change"
        changed = other.commit([Put("a/1", b"2")])
        assert waiting.result(60) == changed
    last = other.commit([Put("b/1", b"")])
    server.compact()
    begun = time.monotonic()
    fresh = open_store(server.url)
    for revision in (since, last):
        fresh._watches.note("a/", fresh._client.epoch, revision)  # as if it had read before the compaction
    assert fresh.wait("a/", since, 60) > since, "what happened between is not known any more"
    assert time.monotonic() - begun < 30


def test_many_waits_share_one_connection(etcd: str, open_store: Any) -> None:
    store, writer = open_store(etcd), open_store(etcd)
    prefix = f"test-{uuid.uuid4().hex}"
    store.commit([Put(f"{prefix}/{number}", b"") for number in range(60)])
    since = [store.read(f"{prefix}/{number}").revision for number in range(60)]
    with ThreadPoolExecutor(60) as pool:
        waits = [pool.submit(store.wait, f"{prefix}/{number}", since[number], 60) for number in range(60)]
        within(60, lambda: all(waiting_on(store, f"{prefix}/{number}") for number in range(60)))
        begun = time.monotonic()
        last = writer.commit([Put(f"{prefix}/{number}", b"x") for number in range(60)])
        assert min(waiting.result(60) for waiting in waits) >= last, "later ones are those of other tests"
        assert time.monotonic() - begun < 30
    within(60, lambda: len(store._watches._watches) <= 5)
    store.commit([Delete(f"{prefix}/{number}") for number in range(60)])


def test_a_wait_costs_nothing_while_other_keys_change(etcd: str, open_store: Any) -> None:
    store, writer = open_store(etcd), open_store(etcd)
    prefix = f"test-{uuid.uuid4().hex}"
    since = store.read(f"{prefix}/mine/").revision
    asked, call = [], store._client.call

    def counted(method: str, *rest: Any, **more: Any) -> Any:
        asked.append(method)
        return call(method, *rest, **more)

    store._client.call = counted
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.wait, f"{prefix}/mine/", since, 60)
        within(60, lambda: waiting_on(store, f"{prefix}/mine/"))
        for number in range(200):
            writer.commit([Put(f"{prefix}/other", b"%d" % number)])
        assert not waiting.done()
        changed = writer.commit([Put(f"{prefix}/mine/1", b"")])
        assert waiting.result(60) >= changed, "a later one is that of another test"
    assert asked == []
    writer.commit([Delete(f"{prefix}/other"), Delete(f"{prefix}/mine/1")])


def test_close_ends_a_wait_at_once(etcd: str, open_store: Any) -> None:
    store = open_store(etcd)
    prefix = f"test-{uuid.uuid4().hex}/"
    since = store.read(prefix).revision
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.wait, prefix, since, 60)
        within(60, lambda: waiting_on(store, prefix))
        begun = time.monotonic()
        store.close()
        with pytest.raises(Unavailable, match="closed"):
            waiting.result(60)
        assert time.monotonic() - begun < 30
    for call in (lambda: store.read(prefix), lambda: store.wait(prefix, since, 1), lambda: store.grant(5)):
        with pytest.raises(Unavailable, match="closed"):
            call()


def test_a_process_ends_while_it_waits_and_prints_nothing(etcd: str) -> None:
    program = (
        "import sys, threading, time\n"
        "from sked_etcd.store import EtcdStore\n"
        "store = EtcdStore(sys.argv[1])\n"
        "since = store.read('a/').revision\n"
        "threading.Thread(target=store.wait, args=('a/', since, 60), daemon=True).start()\n"
        "time.sleep(0.5)\n"
        "print('done')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, etcd], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


def test_nothing_is_printed_about_a_lost_connection(private_etcd: Callable[..., Any]) -> None:
    server = private_etcd()
    program = (
        "import sys\n"
        "from sked_etcd.store import EtcdStore\n"
        "store = EtcdStore(sys.argv[1])\n"
        "since = store.read('a/').revision\n"
        "print('ready', flush=True)\n"
        "try:\n"
        "    store.wait('a/', since, 60)\n"
        "except Exception as error:\n"
        "    print(type(error).__name__)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, server.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        server.kill()
        out, err = process.communicate(timeout=60)
    assert (out, err) == ("Unavailable\n", "")
