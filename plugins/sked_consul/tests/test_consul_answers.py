"""Whatever answers in Consul's place: nothing is taken for "there is nothing", and every call ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from rigs.clients import unavailable_within
from sked_consul import client
from sked_consul.health import ConsulHealth
from sked_consul.store import CONNECTIONS, ConsulLease, ConsulStore
from sked_core.plugin import HealthContext, InvalidValue, LeaseLost, Put, SkedError, SystemClock, Unavailable

INDEX = {"X-Consul-Index": "7"}
Reply = tuple[int, dict[str, str], bytes]


class Impostor:
    """A server that gives one reply to every request, and remembers what it was asked."""

    def __init__(self) -> None:
        self.reply: Reply | None = (200, INDEX, b"[]")
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.drip = 0.0
        self.ended = threading.Event()
        impostor = self

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                impostor.asked.append((self.command, self.path, dict(self.headers)))
                if impostor.reply is None:
                    impostor.ended.wait(60)
                    self.close_connection = True
                    return
                status, headers, body = impostor.reply
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    if value:
                        self.send_header(name, value)
                self.end_headers()
                if not impostor.drip:
                    self.wfile.write(body)
                for byte in body if impostor.drip else b"":
                    if impostor.ended.wait(impostor.drip):
                        break
                    self.wfile.write(bytes([byte]))

            do_PUT = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                """Nothing on the terminal of the test run."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.server.daemon_threads = True
        self.url = f"consul://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def impostor() -> Iterator[Impostor]:
    server = Impostor()
    yield server
    server.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER_SECONDS", 1.0)


def health_of(url: str) -> ConsulHealth:
    return ConsulHealth(HealthContext(store=ConsulStore(url), url=url, host="h", clock=SystemClock()))


def calls(url: str) -> list[Callable[[], object]]:
    """Everything that asks Consul for something."""
    store, health = ConsulStore(url), health_of(url)
    lease = ConsulLease("5e55-10n", 10, store._client)
    return [
        lambda: store.read("state/"),
        lambda: store.wait("state/", 7, 0.2),  # type: ignore[arg-type]
        lambda: store.commit([Put("state/x", b"1")]),
        lambda: store.grant(10),
        lease.renew,
        lambda: health.health([("default", "web")]),
        health.registered,
        lambda: health.wait(0, 0.2),
    ]


NONSENSE: dict[str, Reply] = {
    "500": (500, {}, b"rpc error: boom"),
    "no leader": (500, INDEX, b"No cluster leader"),
    "503": (503, {}, b""),
    "429": (429, {}, b"Your IP is issuing too many concurrent connections"),
    "html": (200, {"Content-Type": "text/html"} | INDEX, b"<html>Sign in to the network</html>"),
    "html 404": (404, {"Content-Type": "text/html"}, b"<html>Not here</html>"),
    "null": (200, INDEX, b"null"),
    "truncated json": (200, INDEX, b'[{"Key": "state/a", "Val'),
    "truncated body": (200, INDEX | {"Content-Length": "1000"}, b"[]"),
    "nothing": (200, INDEX, b""),
    "a number": (200, INDEX, b"7"),
    "nulls": (200, INDEX, b"[null]"),
    "deep": (200, INDEX, b"[" * 100_000),
    "301": (301, INDEX | {"Location": "/v1/kv/elsewhere"}, b""),
    "307": (307, INDEX | {"Location": "/v1/kv/elsewhere"}, b""),
    "204": (204, INDEX, b""),
}


@pytest.mark.parametrize("reply", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_unavailable_and_never_empty(impostor: Impostor, reply: Reply, quick: None) -> None:
    impostor.reply = reply
    for call in calls(impostor.url):
        with pytest.raises(Unavailable):
            call()
    assert not [path for _, path, _ in impostor.asked if "elsewhere" in path], "no redirect is followed"


def test_a_404_with_an_index_is_empty(impostor: Impostor) -> None:
    impostor.reply = (404, INDEX, b"")
    snapshot = ConsulStore(impostor.url).read("state/")
    assert (snapshot.entries, snapshot.revision) == ({}, 7)


def test_an_answer_that_does_not_come_ends_by_the_deadline(impostor: Impostor, quick: None) -> None:
    impostor.reply = None
    for call in calls(impostor.url)[:1] + calls(impostor.url)[2:]:
        unavailable_within(30, call, "no answer within 1 s")


def test_an_answer_that_dribbles_ends_by_the_deadline(impostor: Impostor, quick: None) -> None:
    impostor.reply, impostor.drip = (200, INDEX | {"Transfer-Encoding": "identity"}, b"[" * 1000), 0.1
    unavailable_within(30, lambda: ConsulStore(impostor.url).read("state/"))


CHUNKED = {"Content-Length": "", "Transfer-Encoding": "chunked"}


@pytest.mark.parametrize(
    ("reply", "drip"),
    [
        ((200, INDEX, b"[" * 1000), 0.1),
        ((200, INDEX | CHUNKED, b"1000\r\n" + b"[" * 1000), 0.1),
        ((200, INDEX | CHUNKED, b"no length at all\r\n"), 0.0),
        (NONSENSE["truncated body"], 0.0),
        (NONSENSE["500"], 0.0),
        (NONSENSE["301"], 0.0),
        (None, 0.0),
    ],
    ids=["slow", "slow chunks", "broken chunks", "truncated", "500", "301", "none"],
)
def test_broken_answers_use_up_no_connections(
    impostor: Impostor, monkeypatch: pytest.MonkeyPatch, reply: Reply | None, drip: float
) -> None:
    """A call whose answer came too late, as after a pause of the process, once kept its connection for ever."""
    monkeypatch.setattr(client, "ANSWER_SECONDS", 0.3)
    store = ConsulStore(impostor.url)
    impostor.reply, impostor.drip = reply, drip
    for _ in range(CONNECTIONS + 1):
        with pytest.raises(Unavailable):
            store.read("state/")
    impostor.reply, impostor.drip = (200, INDEX, b"[]"), 0.0
    monkeypatch.setattr(client, "ANSWER_SECONDS", 60.0)
    assert store.read("state/").revision == 7


def test_nobody_there_says_what_to_do(free_port: Callable[[], int]) -> None:
    port = free_port()
    with pytest.raises(Unavailable) as failure:
        ConsulStore(f"consul://127.0.0.1:{port}").read("")
    assert str(failure.value) == f"cannot reach Consul at http://127.0.0.1:{port} (connection refused)"
    assert failure.value.hint == "start one:       consul agent -dev\nor try without:  sked run combined"


@pytest.mark.parametrize("given", ["", "secret-canary"])
def test_a_denied_call_names_the_permission(impostor: Impostor, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", given)
    impostor.reply = (403, {}, b"Permission denied for secret-canary")
    for call in calls(impostor.url):
        with pytest.raises(SkedError, match=r"denied /v1/.* permission") as failure:
            call()
        assert not isinstance(failure.value, Unavailable)
        assert "policy needs" in failure.value.hint
        assert not given or "canary" not in str(failure.value) + failure.value.hint
    assert {headers.get("X-Consul-Token", "") for _, _, headers in impostor.asked} == {given}


def test_the_token_is_in_no_representation(impostor: Impostor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "secret-canary")
    store = ConsulStore(impostor.url)
    assert "canary" not in repr(store) + repr(store.grant) + repr(health_of(impostor.url))
    impostor.reply = (500, {}, b"secret-canary \x1b[2J\r\nboom")
    with pytest.raises(Unavailable) as failure:
        store.read("")
    assert "<token> [2J boom" in str(failure.value)


def test_proxies_and_the_address_of_the_environment_don_t_count(
    impostor: Impostor, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("CONSUL_HTTP_ADDR", f"127.0.0.1:{free_port()}")
    assert ConsulStore(impostor.url).read("").entries == {}


def test_only_consul_s_own_word_ends_a_lease(impostor: Impostor) -> None:
    lease = ConsulLease("5e55-10n", 10, ConsulStore(impostor.url)._client)
    impostor.reply = (404, {}, b"404 page not found")
    with pytest.raises(Unavailable):
        lease.renew()
    impostor.reply = (404, {}, b"Session id '5e55-10n' not found")
    with pytest.raises(LeaseLost):
        lease.renew()


def test_what_consul_will_not_take_is_an_invalid_value(impostor: Impostor) -> None:
    impostor.reply = (413, {}, b"Request body(9) too large")
    with pytest.raises(InvalidValue, match="too large"):
        ConsulStore(impostor.url).commit([Put("a", b"")])


def test_a_transaction_keeps_to_consul_s_limits(impostor: Impostor) -> None:
    store = ConsulStore(impostor.url)
    with pytest.raises(InvalidValue, match="operations"):
        store.commit([Put(f"a/{number}", b"") for number in range(store.max_ops + 1)])
    with pytest.raises(InvalidValue, match="bytes"):
        store.commit([Put(f"a/{number}", b"x" * 20_000) for number in range(store.max_ops)])
    assert impostor.asked == [], "nothing was sent"


def test_redirected_writes_go_nowhere(impostor: Impostor) -> None:
    impostor.reply = (301, {"Location": f"{impostor.url.replace('consul', 'http')}/v1/kv/config/x"}, b"")
    with pytest.raises(Unavailable, match="redirect"):
        ConsulStore(impostor.url).commit([Put("a", json.dumps({}).encode())])
    assert len(impostor.asked) == 1


def test_what_a_dead_host_left_behind_gives_way(impostor: Impostor) -> None:
    """A lost host's service stays in the catalog as it was last seen; the task runs elsewhere under the same id."""

    def instance(serf: str, status: str) -> dict[str, Any]:
        return {
            "Service": {"ID": "t-web-1-0", "Meta": {"sked": "h"}},
            "Checks": [
                {"CheckID": "serfHealth", "ServiceID": "", "Status": serf, "Output": ""},
                {"CheckID": "service:t-web-1-0", "ServiceID": "t-web-1-0", "Status": status, "Output": "said"},
            ],
        }

    for pair in ([instance("critical", "critical"), instance("passing", "passing")],) * 2:
        pair.reverse()
        impostor.reply = (200, INDEX, json.dumps(pair).encode())
        (found,) = health_of(impostor.url).health([("t", "web")]).values()
        assert found.healthy


def test_an_index_that_goes_back_wakes_and_is_waited_from(impostor: Impostor) -> None:
    """So it does when Consul reaps what it remembered of deleted keys: the index of the rest is lower."""
    store = ConsulStore(impostor.url)
    impostor.reply = (200, {"X-Consul-Index": "20"}, b'["state/a"]')
    assert store.wait("state/", 7, 5) == 20  # type: ignore[arg-type]
    impostor.reply = (200, {"X-Consul-Index": "10"}, b'["state/a"]')
    assert store.wait("state/", 20, 5) == 10  # type: ignore[arg-type]
    asked = len(impostor.asked)
    assert store.wait("state/", 10, 0.2) == 10  # type: ignore[arg-type]
    assert len(impostor.asked) > asked
