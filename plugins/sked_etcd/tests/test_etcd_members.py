"""EtcdStore with several members, of which some are dead, paused or cut off from the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from rigs.clients import unavailable_within, within
from rigs.etcd import takes_writes
from sked_core.plugin import Put, Revision, Unavailable
from sked_core.testing.stores import StoreContract
from sked_etcd import client
from sked_etcd.store import EtcdStore
from sked_etcd.wire import fields


def url_of(*members: Any) -> str:
    return "etcd://" + ",".join(each if isinstance(each, str) else each.url.removeprefix("etcd://") for each in members)


@pytest.fixture
def etcd_members(local_etcd: Callable[..., list[Any]]) -> list[Any]:
    """Three that take writes: a member that accepts connections may not have heard yet who leads."""
    members = local_etcd(3)
    for member in members:
        within(60, partial(takes_writes, f"http://{member.address}"))
    return members


@pytest.fixture
def open_store(open_store: Callable[[str], EtcdStore]) -> Callable[..., EtcdStore]:
    """Opens clients of several members, each given by itself or by its address."""
    return lambda *members: open_store(url_of(*members))


def writes(store: EtcdStore, value: bytes) -> bool:
    try:
        store.commit([Put("a/1", value)])
    except Unavailable:
        return False
    return True


def used(store: EtcdStore, members: list[Any]) -> Any:
    """The one of ``members`` that the store talks to."""
    target = store._client.member().target
    return next(member for member in members if member.url.endswith(target))


def leader(store: EtcdStore, members: list[Any]) -> Any:
    """The one of ``members`` that leads."""

    def status(member: Any) -> dict[int, Any]:
        alone = EtcdStore(url_of(member))
        try:
            answer = alone._client.call("/etcdserverpb.Maintenance/Status", b"", bytes)
        finally:
            alone.close()
        return dict(fields(answer))

    for member in members:
        found = status(member)
        if dict(fields(found[1]))[2] == found[4]:
            return member
    raise AssertionError("no member leads")


class TestClusterContract(StoreContract):
    """The whole contract over three members."""

    too_large = 1536 * 1024

    @pytest.fixture
    def open_store(self, etcd_members: list[Any]) -> Callable[[], EtcdStore]:
        return lambda: EtcdStore(url_of(*etcd_members))


def test_dead_and_paused_members_cost_no_time_while_another_answers(
    private_etcd: Callable[..., Any], free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch, open_store: Any
) -> None:
    paused, server = private_etcd(), private_etcd()
    paused.pause()
    monkeypatch.setattr(client, "ATTEMPT_SECONDS", 60.0)
    monkeypatch.setattr(client, "PROBE_SECONDS", 60.0)
    monkeypatch.setattr(client, "ANSWER_SECONDS", 120.0)
    try:
        store = open_store(f"127.0.0.1:{free_port()}", paused, server)
        begun = time.monotonic()
        store.commit([Put("a/1", b"1")])
        snapshot = store.read("a/")
        assert snapshot.entries["a/1"].value == b"1"
        assert store.wait("a/", snapshot.revision, 0) == snapshot.revision
        assert time.monotonic() - begun < 30, "a member that hangs was waited for"
        monkeypatch.undo()
        server.pause()
        try:
            with pytest.raises(Unavailable) as failure:
                open_store(f"127.0.0.1:{free_port()}", paused).read("a/")
            assert "connection refused" in str(failure.value)
            assert f"{paused.url.removeprefix('etcd://')}: " in str(failure.value), "each member's reason is told"
        finally:
            server.resume()
    finally:
        paused.resume()


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_the_member_in_use_fails(etcd_members: list[Any], open_store: Any, fault: str) -> None:
    store, writer = open_store(*etcd_members), open_store(*etcd_members)
    store.commit([Put("a/1", b"0")])
    since = store.read("a/").revision
    lease = store.grant(300)
    victim = used(store, etcd_members)
    others = [member for member in etcd_members if member is not victim]
    writer = open_store(*others)
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(_follow, store, since, b"1")
        within(60, lambda: "a/" in store._watches._watches)
        getattr(victim, fault)()
        try:
            within(60, lambda: writes(writer, b"1"))
            assert store.read("a/").entries["a/1"].value == b"1", "reads fall over within their own deadline"
            waiting.result(60)
            within(60, lambda: writes(store, b"2"))
            begun = time.monotonic()
            assert all(writes(store, b"3") for _ in range(20))
            assert time.monotonic() - begun < 30, "once it was given up, the member costs nothing"
            lease.renew()
            assert used(store, etcd_members) is not victim
        finally:
            if fault == "pause":
                victim.resume()
    if fault == "kill":
        victim.start()
    again = open_store(victim)  # not "3" for certain: a write that was sent to it may be carried out only now
    within(60, lambda: store_value(again) != b"")


def _follow(store: EtcdStore, since: Revision, value: bytes) -> None:
    """Until ``value`` is seen, looking only when a wait has returned or failed."""
    deadline = time.monotonic() + 120
    while store_value(store) != value:
        assert time.monotonic() < deadline
        try:
            since = store.wait("a/", since, 30)
        except Unavailable:
            time.sleep(0.1)


def store_value(store: EtcdStore) -> bytes:
    try:
        return store.read("a/").entries["a/1"].value
    except Unavailable:
        return b""


def test_the_leader_is_killed(etcd_members: list[Any], open_store: Any) -> None:
    store = open_store(*etcd_members)
    within(60, lambda: writes(store, b"0"))
    victim = leader(store, etcd_members)
    victim.kill()
    within(60, lambda: writes(store, b"1"))
    assert store_value(store) == b"1"


def test_a_quorum_that_is_lost_and_regained(etcd_members: list[Any], open_store: Any) -> None:
    store = open_store(*etcd_members)
    within(60, lambda: writes(store, b"0"))
    since = store.read("a/").revision
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(_follow, store, since, b"1")
        for member in etcd_members[:2]:
            member.kill()
        for call in (lambda: store.read("a/"), lambda: store.commit([Put("a/1", b"x")]), lambda: store.grant(10)):
            unavailable_within(30, call)
        etcd_members[0].start()
        within(60, lambda: writes(store, b"1"))
        waiting.result(60)


def test_an_ambiguous_write_is_not_sent_to_another_member(etcd_members: list[Any], open_store: Any) -> None:
    """Its answer is lost with the member that got it: only Unavailable tells the truth then."""
    store = open_store(*etcd_members)
    store.commit([Put("a/1", b"0")])
    victim = used(store, etcd_members)
    sent: list[str] = []
    for member in store._client._members:
        member.call = _counting(member, sent)
    victim.pause()
    outcome: list[Exception] = []

    def write() -> None:
        try:
            store.commit([Put("a/1", b"1")])
        except Unavailable as error:
            outcome.append(error)

    writing = threading.Thread(target=write)
    writing.start()
    writing.join(60)
    victim.resume()
    assert len(outcome) == 1, "it has to say that the outcome is unknown"
    assert [entry for entry in sent if entry.endswith("/Txn")] == [f"{victim.address} /etcdserverpb.KV/Txn"]


def _counting(member: Any, sent: list[str]) -> Callable[[str], Any]:
    call = type(member).call

    def counted(method: str) -> Any:
        sent.append(f"{member.target} {method}")
        return call(member, method)

    return counted
