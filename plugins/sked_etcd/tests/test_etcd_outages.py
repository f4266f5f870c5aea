"""EtcdStore on a real server that is paused, away, compacted or full, and the limits of what it takes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rigs.clients import every_call, reads, unavailable_within, within
from sked_core.plugin import CheckOp, Delete, InvalidValue, LeaseLost, Put, Revision, Unavailable
from sked_etcd import client
from sked_etcd import store as store_module
from sked_etcd.store import MAX_REQUEST_BYTES


def test_every_call_to_a_paused_server_ends(
    private_etcd: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, open_store: Any
) -> None:
    server = private_etcd()
    store = open_store(server.url)
    revision = store.commit([Put("a/1", b"1")])
    lease = store.grant(300)
    monkeypatch.setattr(client, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(client, "PROBE_SECONDS", 1.0)
    server.pause()
    within(60, lambda: not reads(store))  # a signal takes a moment to reach all threads
    try:
        for call in every_call(store, lease, revision):
            unavailable_within(30, call, "cannot reach etcd")
        with ThreadPoolExecutor(8) as pool:
            begun = time.monotonic()
            assert not any(pool.map(reads, [store] * 64))
            assert time.monotonic() - begun < 40, "calls must not queue for their turn to fail"
    finally:
        server.resume()
    monkeypatch.undo()
    within(60, lambda: reads(store))
    lease.renew()


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
            other.commit([Put(f"a/{number:02}", b"2") for number in range(30)])
            server.compact()
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
    deadline = time.monotonic() + 30
    with pytest.raises(Unavailable, match="NOSPACE") as failure:
        while time.monotonic() < deadline:  # etcd looks at its size only now and then, so a number of writes won't do
            store.commit([Put("a/big", b"x" * 100_000)])
    assert "etcdctl alarm disarm" in failure.value.hint
    with pytest.raises(Unavailable, match="NOSPACE"):
        store.grant(60)
    lease.renew()
    assert set(store.read("a/").entries) == {"a/big"}
    store.commit([Delete("a/big")])
    assert store.read("").entries == {}


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


def test_errors_are_of_the_tree(free_port: Callable[[], int], open_store: Any) -> None:
    store = open_store(f"etcd://127.0.0.1:{free_port()}")
    for call in (
        lambda: store.read("a/"),
        lambda: store.commit([Put("a", b"")]),
        lambda: store.wait("a/", Revision(5), 10),
        lambda: store.grant(10),
    ):
        error = unavailable_within(30, call, r"cannot reach etcd at .* \(connection refused\)")
        assert "start one" in error.hint
