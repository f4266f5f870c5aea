"""ConsulStore on a real server that is paused, killed, wiped, or asks for a token."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rigs.clients import every_call, opening, reads, unavailable_within, within
from sked_consul import client, health
from sked_consul.health import ConsulHealth
from sked_consul.store import CONNECTIONS, ConsulStore
from sked_core.model.types import Cluster
from sked_core.plugin import (
    Delete,
    HealthContext,
    Put,
    SkedError,
    SystemClock,
    Task,
    TaskDefinition,
    TaskId,
    Unavailable,
)


@pytest.fixture
def open_store() -> Iterator[Callable[[str], ConsulStore]]:
    with opening(ConsulStore) as open_one:
        yield open_one


def test_the_environment_does_not_override_the_url(
    consul: str, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch, open_store: Any
) -> None:
    monkeypatch.setenv("CONSUL_HTTP_ADDR", f"127.0.0.1:{free_port()}")
    monkeypatch.setenv("CONSUL_HTTP_SSL_VERIFY", "false")
    assert open_store(consul).read(f"test-{uuid.uuid4().hex}/").entries == {}
    monkeypatch.setenv("CONSUL_HTTP_ADDR", consul.removeprefix("consul://"))
    assert open_store("consul://").read(f"test-{uuid.uuid4().hex}/").entries == {}


def test_every_call_to_a_paused_server_ends(
    private_consul: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, open_store: Any
) -> None:
    server = private_consul()
    store = open_store(server.url)
    revision = store.commit([Put("a/1", b"1")])
    lease = store.grant(10)
    monkeypatch.setattr(client, "ANSWER_SECONDS", 1.0)
    server.pause()
    within(60, lambda: not reads(store))  # a signal takes a moment to reach all threads
    try:
        for call in every_call(store, lease, revision):
            unavailable_within(30, call, "no answer within")
    finally:
        server.resume()
    monkeypatch.undo()
    within(60, lambda: reads(store))
    assert store.read("a/").entries["a/1"].value in (b"1", b"2")


def _registers(provider: ConsulHealth, task: Task) -> bool:
    try:
        provider.register(task)
    except Unavailable:
        return False
    return True


def test_deregistrations_do_not_queue_behind_a_server_that_hangs(
    private_consul: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, open_store: Any
) -> None:
    server = private_consul()
    context = HealthContext(open_store(server.url), server.url, "a", SystemClock())
    provider = ConsulHealth(context)
    task = Task(cluster=Cluster(name="t"), task_definition=TaskDefinition(name="s", version=1), service="s", host="a")

    def failure_of(call: Callable[[], object]) -> str:
        with pytest.raises(Unavailable) as failure:
            call()
        return str(failure.value)

    provider.register(task)
    server.pause()
    within(60, lambda: _is_silent(server.http))
    try:
        with ThreadPoolExecutor(5) as pool:
            hanging = pool.submit(failure_of, lambda: provider.deregister(TaskId("t-s-1-0")))
            within(60, provider._lock.locked)
            queued = [pool.submit(failure_of, lambda: provider.deregister(task.id)) for _ in range(4)]
            assert all("has not answered an earlier call" in each.result(60) for each in queued)
            assert not hanging.done(), "they fail before it"
            monkeypatch.setattr(health, "FAILED_SECONDS", 600.0)
            assert "no answer within" in hanging.result(60)
        assert "not asked again yet" in failure_of(provider.registered)
    finally:
        server.resume()
    monkeypatch.undo()
    within(60, lambda: _registers(provider, task))
    assert task.id in provider.registered()
    provider.close()


def _is_silent(http: str) -> bool:
    try:
        urllib.request.urlopen(f"{http}/v1/status/leader", timeout=0.5).close()
    except TimeoutError:
        return True
    return False


def test_a_wait_notices_that_the_server_was_wiped(private_consul: Callable[..., Any], open_store: Any) -> None:
    server = private_consul()
    store = open_store(server.url)
    for number in range(20):
        since = store.commit([Put("a/1", b"%d" % number)])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.wait, "a/", since, 30)
        time.sleep(0.3)
        server.wipe()
        with pytest.raises(Unavailable):
            waiting.result(60)
    with pytest.raises(Unavailable, match="connection refused"):
        store.read("a/")
    server.start()
    begun = time.monotonic()
    lower = store.wait("a/", since, 120)
    assert lower < since
    assert time.monotonic() - begun < 60
    assert store.read("a/").entries == {}


def test_a_wait_notices_that_a_snapshot_was_restored(private_consul: Callable[..., Any], open_store: Any) -> None:
    server = private_consul()
    store = open_store(server.url)
    store.commit([Put("a/1", b"old")])
    with urllib.request.urlopen(f"{server.http}/v1/snapshot", timeout=30) as answer:
        snapshot = answer.read()
    for number in range(20):
        since = store.commit([Put("a/1", b"%d" % number)])
    assert store.read("a/").revision == since
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.wait, "a/", since, 60)
        time.sleep(0.3)
        begun = time.monotonic()
        request = urllib.request.Request(f"{server.http}/v1/snapshot", data=snapshot, method="PUT")
        urllib.request.urlopen(request, timeout=30).close()
        assert waiting.result(70) < since
        assert time.monotonic() - begun < 30
    assert store.read("a/").entries["a/1"].value == b"old"


def test_an_empty_prefix_does_not_wake_for_writes_elsewhere(consul: str, open_store: Any) -> None:
    store, writer = open_store(consul), open_store(consul)
    prefix = f"test-{uuid.uuid4().hex}"
    since = store.read(f"{prefix}/empty/").revision
    stop = threading.Event()

    def write_elsewhere() -> None:
        while not stop.wait(0.005):
            writer.commit([Put(f"{prefix}/elsewhere", b"")])

    asked: list[str] = []
    exchange = store._client.http._exchange

    def counted(method: str, target: str, *rest: Any) -> Any:
        asked.append(target)
        return exchange(method, target, *rest)

    store._client.http._exchange = counted
    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(write_elsewhere)
        try:
            begun = time.monotonic()
            since = store.wait(f"{prefix}/empty/", since, 1.5)
            assert time.monotonic() - begun >= 1.5, "it woke for what is not its own"
            assert len(asked) <= 20, "it must not spin"
            waiting = pool.submit(store.wait, f"{prefix}/empty/", since, 120)
            time.sleep(0.3)
            assert not waiting.done(), "it woke for what is not its own"
            writer.commit([Put(f"{prefix}/empty/a", b"")])
            waiting.result(60)
            assert set(store.read(f"{prefix}/empty/").entries) == {f"{prefix}/empty/a"}
        finally:
            stop.set()
        writing.result(60)
    writer.commit([Delete(f"{prefix}/elsewhere"), Delete(f"{prefix}/empty/a")])


def test_more_waits_than_connections_still_see_changes_and_leave_room(consul: str, open_store: Any) -> None:
    store = open_store(consul)
    prefix = f"test-{uuid.uuid4().hex}"
    since = store.commit([Put(f"{prefix}/{number}", b"") for number in range(10)])
    with ThreadPoolExecutor(10) as pool:
        waits = [pool.submit(store.wait, f"{prefix}/{number}", since, 120) for number in range(10)]
        time.sleep(0.3)
        begun = time.monotonic()
        last = store.commit([Put(f"{prefix}/{number}", b"x") for number in range(10)])
        assert time.monotonic() - begun < 25, "a commit must find a connection"
        assert min(waiting.result(60) for waiting in waits) >= last
    assert len(store._client.http._connections) <= CONNECTIONS
    store.commit([Delete(f"{prefix}/{number}") for number in range(10)])


def test_close_ends_a_wait_at_once(consul: str, open_store: Any) -> None:
    store = open_store(consul)
    prefix = f"test-{uuid.uuid4().hex}/"
    since = store.read(prefix).revision
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.wait, prefix, since, 60)
        time.sleep(0.3)
        begun = time.monotonic()
        store.close()
        waiting.result(60)
        assert time.monotonic() - begun < 25
    with pytest.raises(Unavailable, match="closed"):
        store.read(prefix)


def test_a_session_that_an_operator_ended_is_lost(consul: str, open_store: Any) -> None:
    store = open_store(consul)
    key = f"test-{uuid.uuid4().hex}"
    lease = store.grant(10)
    store.commit([Put(key, b"me", lease)])
    address = consul.replace("consul://", "http://")
    held = json.loads(urllib.request.urlopen(f"{address}/v1/kv/{key}", timeout=60).read())
    assert held[0]["Session"] == lease.id
    request = urllib.request.Request(f"{address}/v1/session/destroy/{lease.id}", method="PUT")
    urllib.request.urlopen(request, timeout=60).close()
    assert store.read(key).entries == {}
    with pytest.raises(SkedError, match="has ended the"):
        lease.renew()


def test_a_token_that_may_not_read_gets_an_error_not_an_empty_store(
    private_consul: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, open_store: Any
) -> None:
    master = str(uuid.uuid4())
    server = private_consul(
        primary_datacenter="dc1",
        acl={"enabled": True, "default_policy": "allow", "tokens": {"master": master}},
    )

    def call(path: str, value: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            server.http + path, data=json.dumps(value).encode(), method="PUT", headers={"X-Consul-Token": master}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())  # type: ignore[no-any-return]

    rules = 'key_prefix "state/" { policy = "deny" } session_prefix "" { policy = "deny" }'
    call("/v1/acl/policy", {"Name": "narrow", "Rules": rules})
    narrow = call("/v1/acl/token", {"Policies": [{"Name": "narrow"}]})["SecretID"]
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", master)
    open_store(server.url).commit([Put("state/x", b"1")])
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", narrow)
    store = open_store(server.url)
    for denied in (
        lambda: store.read("state/"),
        lambda: store.commit([Put("state/x", b"2")]),
        lambda: store.grant(10),
    ):
        with pytest.raises(SkedError, match="lacks a permission") as failure:
            denied()
        assert narrow not in str(failure.value)
    assert store.read("config/").entries == {}
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", str(uuid.uuid4()))
    with pytest.raises(SkedError, match="ACL not found"):
        open_store(server.url).read("state/")


def test_an_idle_client_finds_that_a_wiped_server_has_come_to_the_same_index(
    private_consul: Callable[..., Any], open_store: Any
) -> None:
    """Nothing was asked while the server was away: the connection that has to be made anew is all that tells."""
    server = private_consul()
    store = open_store(server.url)
    for number in range(30):
        store.commit([Put("a/1", b"%d" % number)])
    seen = store.read("a/").revision
    server.wipe()
    server.start()
    writer = open_store(server.url)
    while writer.read("").revision < seen - 1:
        writer.commit([Put("filler", b"")])
    writer.commit([Put("a/other", b"")])
    begun = time.monotonic()
    store.wait("a/", seen, 60)
    assert time.monotonic() - begun < 25
    assert set(store.read("a/").entries) == {"a/other"}
