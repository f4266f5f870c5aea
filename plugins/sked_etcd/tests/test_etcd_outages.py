"""EtcdStore on a real server that is paused, killed, wiped, compacted or full."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sked_core.plugin import (
    CheckOp,
    Delete,
    InvalidValue,
    LeaseLost,
    Put,
    Revision,
    SkedError,
    Unavailable,
)
from sked_etcd import client
from sked_etcd import store as store_module
from sked_etcd.store import MAX_REQUEST_BYTES, EtcdStore
from sked_etcd.wire import field


@pytest.fixture
def open_store() -> Iterator[Callable[[str], EtcdStore]]:
    opened: list[EtcdStore] = []

    def open_one(url: str) -> EtcdStore:
        opened.append(EtcdStore(url))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


def within(seconds: float, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def reads(store: EtcdStore) -> bool:
    try:
        store.read("a/")
    except Unavailable:
        return False
    return True


def compact(store: EtcdStore, revision: int) -> None:
    """As ``etcdctl compact`` does it, done when it returns."""
    store._client.call("/etcdserverpb.KV/Compact", field(1, revision) + field(2, 1), bytes)


def waiting_on(store: EtcdStore, prefix: str) -> bool:
    watch = store._watches._watches.get(prefix)
    return watch is not None and watch.waiting > 0


def test_every_call_to_a_paused_server_ends(
    private_etcd: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, open_store: Any
) -> None:
    monkeypatch.setattr(client, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(client, "PROBE_SECONDS", 1.0)
    server = private_etcd()
    store = open_store(server.url)
    revision = store.commit([Put("a/1", b"1")])
    lease = store.grant(30)
    server.pause()
    within(5, lambda: not reads(store))  # a signal takes a moment to reach all threads
    try:
        for call in (
            lambda: store.read("a/"),
            lambda: store.commit([Put("a/1", b"2")]),
            lambda: store.grant(10),
            lease.renew,
            lease.revoke,
            lambda: store.wait("a/", revision, 0.5),
        ):
            begun = time.monotonic()
            with pytest.raises(Unavailable, match="cannot reach etcd"):
                call()
            assert time.monotonic() - begun < 8
        with ThreadPoolExecutor(8) as pool:
            begun = time.monotonic()
            assert not any(pool.map(reads, [store] * 16))
            assert time.monotonic() - begun < 10, "calls must not queue for their turn to fail"
    finally:
        server.resume()
    within(20, lambda: reads(store))
    lease.renew()


def test_a_wait_notices_that_its_server_hangs(private_etcd: Callable[..., Any], open_store: Any) -> None:
    server = private_etcd()
    store = open_store(server.url)
    store.commit([Put("a/1", b"1")])
    since = store.read("a/").revision
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.wait, "a/", since, 120)
        within(5, lambda: waiting_on(store, "a/"))
        server.pause()
        try:
            with pytest.raises(Unavailable):
                waiting.result(60)
        finally:
            server.resume()
    within(20, lambda: reads(store))


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
        within(10, lambda: reads(other))
        other.commit([Put("a/1", value)])
        within(20, lambda: seen[-1:] == [value])

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            for number in range(3):
                restart_and_write(b"round %d" % number)
        finally:
            stop.set()
        watching.result(20)


def test_a_wait_notices_that_the_server_was_wiped(private_etcd: Callable[..., Any], open_store: Any) -> None:
    server = private_etcd()
    store = open_store(server.url)
    for number in range(20):
        store.commit([Put("a/1", b"%d" % number)])
    since = store.read("a/").revision
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.wait, "a/", since, 60)
        within(5, lambda: waiting_on(store, "a/"))
        server.wipe()
        with pytest.raises(Unavailable):
            waiting.result(20)
    with pytest.raises(Unavailable, match="connection refused"):
        store.read("a/")
    server.start()
    within(10, lambda: reads(store))
    begun = time.monotonic()
    lower = store.wait("a/", since, 30)
    assert lower < since
    assert time.monotonic() - begun < 5
    assert store.read("a/").entries == {}
    other = open_store(server.url)  # one that has no connection yet, and a revision from before
    begun = time.monotonic()
    assert other.wait("a/", since, 30) < since
    assert time.monotonic() - begun < 5


def test_a_wiped_server_that_has_grown_past_what_was_seen(private_etcd: Callable[..., Any], open_store: Any) -> None:
    server = private_etcd()
    store = open_store(server.url)
    store.commit([Put("a/1", b"old")])
    since = store.read("a/").revision
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.wait, "a/", since, 60)
        within(5, lambda: waiting_on(store, "a/"))
        server.wipe()
        server.start()
        other = open_store(server.url)
        within(10, lambda: reads(other))
        other.commit([Put("a/1", b"new")])
        for _ in range(20):
            other.commit([Put("b", b"")])
        try:
            assert waiting.result(20) > since
        except Unavailable:
            within(20, lambda: reads(store))
            begun = time.monotonic()
            assert store.wait("a/", since, 60) > since, "a change below the old revision would be missed"
            assert time.monotonic() - begun < 5


def test_compaction_under_a_wait(private_etcd: Callable[..., Any], open_store: Any) -> None:
    server = private_etcd()
    store, other = open_store(server.url), open_store(server.url)
    store.commit([Put("a/1", b"1")])
    since = store.read("a/").revision
    for number in range(10):
        store.commit([Put("b/1", b"%d" % number)])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.wait, "a/", since, 60)
        within(5, lambda: waiting_on(store, "a/"))
        since = other.commit([Put("a/1", b"1b")])
        assert waiting.result(10) == since, "it watches"
        waiting = pool.submit(store.wait, "a/", since, 60)
        within(5, lambda: waiting_on(store, "a/"))
        last = other.commit([Put("b/1", b"")])
        compact(store, last)
        assert not waiting.done(), "compaction is no change"
        changed = other.commit([Put("a/1", b"2")])
        assert waiting.result(10) == changed
    last = other.commit([Put("b/1", b"")])
    compact(other, last)
    begun = time.monotonic()
    fresh = open_store(server.url)
    for revision in (since, last):
        fresh._watches.note("a/", fresh._client.epoch, revision)  # as if it had read before the compaction
    assert fresh.wait("a/", since, 60) > since, "what happened between is not known any more"
    assert time.monotonic() - begun < 10


def test_compaction_between_two_pages(
    private_etcd: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, open_store: Any
) -> None:
    monkeypatch.setattr(store_module, "PAGE_KEYS", 10)
    server = private_etcd()
    store, other = open_store(server.url), open_store(server.url)
    store.commit([Put(f"a/{number:02}", b"1") for number in range(30)])
    call, asked = store._client.call, []

    def compacting(method: str, request: bytes, *rest: Any, **more: Any) -> Any:
        asked.append(request)
        answer = call(method, request, *rest, **more)
        if len(asked) == 1:
            compact(other, other.commit([Put(f"a/{number:02}", b"2") for number in range(30)]))
        return answer

    store._client.call = compacting
    snapshot = store.read("a/")
    assert {entry.value for entry in snapshot.entries.values()} == {b"2"}
    assert len(snapshot.entries) == 30
    assert len(asked) == 5  # one page, one refusal, three pages


def test_12000_keys_are_read_at_one_revision(etcd: str, open_store: Any) -> None:
    store, writer = open_store(etcd), open_store(etcd)
    prefix = f"test-{uuid.uuid4().hex}/"
    keys = [f"{prefix}{number:05}" for number in range(12_000)]

    def write(value: bytes) -> None:
        for start in range(0, len(keys), store.max_ops):
            writer.commit([Put(key, value) for key in keys[start : start + store.max_ops]])

    write(b"0")
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write, b"1")
        while True:
            ended = writing.done()
            snapshot = store.read(prefix)
            assert list(snapshot.entries) == keys
            values = [entry.value for entry in snapshot.entries.values()]
            assert values == sorted(values, reverse=True), "written in the order of the keys, so read as one cut"
            assert max(entry.revision for entry in snapshot.entries.values()) <= snapshot.revision
            if ended:
                break
        writing.result()
    assert set(values) == {b"1"}
    for start in range(0, len(keys), store.max_ops):
        writer.commit([Delete(key) for key in keys[start : start + store.max_ops]])


def test_the_limits_of_one_commit(etcd: str, open_store: Any) -> None:
    store = open_store(etcd)
    prefix = f"test-{uuid.uuid4().hex}/"
    overhead = len(store_module._part(Put(f"{prefix}a", b"x" * MAX_REQUEST_BYTES))) - MAX_REQUEST_BYTES
    with pytest.raises(InvalidValue, match="is more than"):
        store.commit([Put(f"{prefix}a", b"x" * (MAX_REQUEST_BYTES - overhead + 1))])
    largest = b"x" * (MAX_REQUEST_BYTES - overhead)
    store.commit([Put(f"{prefix}a", largest)])
    assert store.read(prefix).entries[f"{prefix}a"].value == largest
    keys = [f"{prefix}{number}" for number in range(store.max_ops // 2)]
    store.commit([*(CheckOp(key, Revision(0)) for key in keys), *(Put(key, b"") for key in keys)])
    every = [Put(f"{prefix}b{number}", b"") for number in range(store.max_ops)]
    store.commit(every)
    store.commit([Delete(op.key) for op in every])
    store.commit([Delete(key) for key in [*keys, f"{prefix}a"]])


def test_a_server_that_is_smaller_than_usual_says_so(private_etcd: Callable[..., Any], open_store: Any) -> None:
    store = open_store(private_etcd(max_txn_ops=4, max_request_bytes=2000).url)
    with pytest.raises(InvalidValue, match="too many operations"):
        store.commit([Put(f"a/{number}", b"") for number in range(5)])
    with pytest.raises(InvalidValue, match="too large"):
        store.commit([Put("a", b"x" * 3000)])
    with pytest.raises(InvalidValue, match="larger than max"):
        store.commit([Put("a", b"x" * 600_000)])
    assert store.read("").entries == {}


def test_a_full_store_names_the_alarm_and_the_remedy(private_etcd: Callable[..., Any], open_store: Any) -> None:
    store = open_store(private_etcd(quota_backend_bytes=1_000_000).url)
    lease = store.grant(60)
    with pytest.raises(Unavailable, match="NOSPACE") as failure:
        for number in range(50):
            store.commit([Put("a/big", b"%d" % number + b"x" * 100_000)])
    assert "etcdctl alarm disarm" in failure.value.hint
    with pytest.raises(Unavailable, match="NOSPACE"):
        store.grant(60)
    lease.renew()
    assert set(store.read("a/").entries) == {"a/big"}
    store.commit([Delete("a/big")])
    assert store.read("").entries == {}


def test_many_waits_share_one_connection(etcd: str, open_store: Any) -> None:
    store, writer = open_store(etcd), open_store(etcd)
    prefix = f"test-{uuid.uuid4().hex}"
    store.commit([Put(f"{prefix}/{number}", b"") for number in range(60)])
    since = [store.read(f"{prefix}/{number}").revision for number in range(60)]
    with ThreadPoolExecutor(60) as pool:
        waits = [pool.submit(store.wait, f"{prefix}/{number}", since[number], 60) for number in range(60)]
        within(20, lambda: all(waiting_on(store, f"{prefix}/{number}") for number in range(60)))
        begun = time.monotonic()
        last = writer.commit([Put(f"{prefix}/{number}", b"x") for number in range(60)])
        assert [waiting.result(10) for waiting in waits] == [last] * 60
        assert time.monotonic() - begun < 8
    within(10, lambda: len(store._watches._watches) <= 5)
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
        within(5, lambda: waiting_on(store, f"{prefix}/mine/"))
        for number in range(200):
            writer.commit([Put(f"{prefix}/other", b"%d" % number)])
        assert not waiting.done()
        changed = writer.commit([Put(f"{prefix}/mine/1", b"")])
        assert waiting.result(10) == changed
    assert asked == []
    writer.commit([Delete(f"{prefix}/other"), Delete(f"{prefix}/mine/1")])


def test_close_ends_a_wait_at_once(etcd: str, open_store: Any) -> None:
    store = open_store(etcd)
    prefix = f"test-{uuid.uuid4().hex}/"
    since = store.read(prefix).revision
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.wait, prefix, since, 60)
        within(5, lambda: waiting_on(store, prefix))
        begun = time.monotonic()
        store.close()
        with pytest.raises(Unavailable, match="closed"):
            waiting.result(8)
        assert time.monotonic() - begun < 8
    for call in (lambda: store.read(prefix), lambda: store.wait(prefix, since, 1), lambda: store.grant(5)):
        with pytest.raises(Unavailable, match="closed"):
            call()


def test_a_lease_that_an_operator_revoked_is_lost(etcd: str, open_store: Any) -> None:
    store, operator = open_store(etcd), open_store(etcd)
    key = f"test-{uuid.uuid4().hex}"
    lease = store.grant(1)
    assert lease.ttl == 2, "etcd has no shorter ones"
    store.commit([Put(key, b"me", lease)])
    store_module.EtcdLease(lease.id, lease.ttl, operator._client).revoke()
    assert store.read(key).entries == {}
    with pytest.raises(LeaseLost):
        lease.renew()
    with pytest.raises(LeaseLost):
        store.commit([Put(key, b"me", lease)])
    lease.revoke()


def test_a_lease_of_another_store_is_refused(etcd: str, open_store: Any) -> None:
    store = open_store(etcd)
    foreign = store_module.EtcdLease("6f1c-session-of-consul", 10, store._client)
    with pytest.raises(InvalidValue, match="no lease of etcd"):
        store.commit([Put("a", b"", foreign)])


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
        out, err = process.communicate(timeout=40)
    assert (out, err) == ("Unavailable\n", "")


def test_errors_are_of_the_tree(free_port: Callable[[], int], open_store: Any) -> None:
    store = open_store(f"etcd://127.0.0.1:{free_port()}")
    for call in (
        lambda: store.read("a/"),
        lambda: store.commit([Put("a", b"")]),
        lambda: store.wait("a/", Revision(5), 10),
        lambda: store.grant(10),
    ):
        begun = time.monotonic()
        with pytest.raises(SkedError, match=r"cannot reach etcd at .* \(connection refused\)") as failure:
            call()
        assert isinstance(failure.value, Unavailable)
        assert "start one" in failure.value.hint
        assert time.monotonic() - begun < 3
