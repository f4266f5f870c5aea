"""etcd with authentication switched on: users, roles, tokens that expire."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sked_core.plugin import CheckOp, Denied, Put, Revision, Unavailable
from sked_etcd.store import EtcdStore
from sked_etcd.wire import field

READ, READ_WRITE = 0, 2


class Admin:
    """What ``etcdctl user``, ``role`` and ``auth`` do."""

    def __init__(self, store: EtcdStore) -> None:
        self._call = store._client.call

    def add_user(self, name: str, password: str, role: str) -> None:
        self._auth("UserAdd", field(1, name) + field(2, password))
        self._auth("UserGrantRole", field(1, name) + field(2, role))

    def add_role(self, name: str, **permissions: int) -> None:
        self._auth("RoleAdd", field(1, name))
        for prefix, kind in permissions.items():
            span = field(2, f"{prefix}/") + field(3, f"{prefix}0")
            self._auth("RoleGrantPermission", field(1, name) + field(2, field(1, kind) + span))

    def enable(self) -> None:
        self._auth("AuthEnable", b"")

    def _auth(self, method: str, request: bytes) -> None:
        self._call(f"/etcdserverpb.Auth/{method}", request, bytes)


@pytest.fixture
def open_store(open_store: Callable[[str], EtcdStore], monkeypatch: pytest.MonkeyPatch) -> Callable[..., EtcdStore]:
    """Opens clients that sign in as a user."""

    def open_one(url: str, user: str = "", password: str = "") -> EtcdStore:
        monkeypatch.setenv("ETCDCTL_USER", user)
        monkeypatch.setenv("ETCDCTL_PASSWORD", password)
        return open_store(url)

    return open_one


@pytest.fixture
def guarded(local_etcd: Callable[..., Any], open_store: Any) -> Any:
    """An etcd that wants users: root, and ``agent`` who may read config/ and write state/. Tokens live for 1 s."""
    (server,) = local_etcd(auth_token_ttl=1)
    anybody = open_store(server.url)
    anybody.commit([Put("config/a", b"c"), Put("state/a", b"s"), Put("secret/a", b"x")])
    admin = Admin(anybody)
    admin.add_role("root")
    admin.add_user("root", "root-password", "root")
    admin.add_role("agent", config=READ, state=READ_WRITE)
    admin.add_user("agent", "agent:password", "agent")
    admin.enable()
    return server


def test_a_user_does_what_its_role_allows_and_no_more(guarded: Any, open_store: Any) -> None:
    store = open_store(guarded.url, "agent", "agent:password")
    lease = store.grant(30)
    store.commit([Put("state/lock", b"me", lease)])
    since = store.read("state/").revision
    assert set(store.read("state/").entries) == {"state/a", "state/lock"}
    assert set(store.read("config/").entries) == {"config/a"}
    lease.renew()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.wait, "state/", since, 60)
        changed = store.commit([Put("state/b", b"")])
        assert waiting.result(60) == changed
    for denied in (
        lambda: store.read("secret/"),
        lambda: store.read(""),
        lambda: store.commit([Put("config/a", b"x")]),
        lambda: store.commit([CheckOp("secret/a", Revision(1)), Put("state/b", b"")]),
        lambda: store.wait("secret/", changed, 5),
    ):
        begun = time.monotonic()
        with pytest.raises(Denied, match="lacks a permission") as failure:
            denied()
        assert time.monotonic() - begun < 30
        assert "password" not in str(failure.value)
    assert "grant-permission" in failure.value.hint
    lease.revoke()
    assert set(store.read("state/").entries) == {"state/a", "state/b"}


def test_a_token_that_has_expired_is_got_anew(guarded: Any, open_store: Any) -> None:
    store = open_store(guarded.url, "agent", "agent:password")
    since = store.read("state/").revision
    first = store._client._token
    assert first
    deadline = time.monotonic() + 60
    while store._client._token == first:
        assert time.monotonic() < deadline
        time.sleep(2.5)  # etcd prolongs a token that is used: only rest ends it
        store.commit([Put("state/a", b"again")])
    time.sleep(2.5)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.wait, "state/", since, 60)
        assert waiting.result(60) > since
    since = store.read("state/").revision
    time.sleep(2.5)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.wait, "state/", since, 60)
        time.sleep(2.5)
        changed = open_store(guarded.url, "agent", "agent:password").commit([Put("state/a", b"once more")])
        assert waiting.result(60) == changed


def test_a_restart_forgets_tokens_but_nobody_notices(guarded: Any, open_store: Any) -> None:
    store = open_store(guarded.url, "root", "root-password")
    store.read("")
    guarded.kill()
    guarded.start()
    deadline = time.monotonic() + 60
    while True:
        try:
            assert set(store.read("").entries) == {"config/a", "secret/a", "state/a"}
            break
        except Unavailable:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_without_the_right_user_nothing_is_empty_but_all_is_denied(guarded: Any, open_store: Any) -> None:
    for user, password, words in (
        ("", "", "no user was given"),
        ("agent", "wrong-secret", "does not accept user agent"),
        ("nobody", "wrong-secret", "does not accept user nobody"),
    ):
        store = open_store(guarded.url, user, password)
        for call in (
            lambda store=store: store.read("state/"),
            lambda store=store: store.commit([Put("state/x", b"")]),
            lambda store=store: store.wait("state/", Revision(1), 5),
        ):
            with pytest.raises(Denied, match=words) as failure:
                call()
            assert "secret" not in f"{failure.value} {failure.value.hint}"
            assert "ETCDCTL_USER" in failure.value.hint


def test_one_that_asks_for_users_keeps_strangers_out_wherever_it_is(
    guarded: Any, open_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sked_etcd.exposure.beyond_this_machine", lambda host: True)
    said = [what for what, _ in open_store(guarded.url, "root", "root-password").unguarded()]
    assert len(said) == 1 and "can be read on the way" in said[0]


def test_a_user_that_nobody_asked_for_does_no_harm(etcd: str, open_store: Any) -> None:
    store = open_store(etcd, "me", "password")
    assert store.read("nothing/here/").entries == {}


def test_authentication_switched_on_under_a_running_process(private_etcd: Callable[..., Any], open_store: Any) -> None:
    server = private_etcd()
    store = open_store(server.url, "root", "root-password")
    store.commit([Put("state/a", b"")])
    admin = Admin(open_store(server.url))
    admin.add_role("root")
    admin.add_user("root", "root-password", "root")
    admin.enable()
    assert set(store.read("").entries) == {"state/a"}
