"""What nobody may do, whoever they are: every route, by every way in."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from urllib.parse import urlsplit

import httpx
import pytest

from sked_core.interfaces.store import Put
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Failure, ServiceStatus
from sked_core.serving import server
from sked_core.serving.tokens import Role
from sked_web.api.table import Route
from sked_web.app import table

from .conftest import MANIFEST, Web, tasks_of

TOKEN = {Role.READ: "read-token-0123456789", Role.OPERATE: "operate-token-0123456789"}
ADMIN = "admin-token-0123456789"
NAMES = {"name": "web", "id": "default-web-1-0", "version": "1", "number": "1"}


def every_request(web: Web) -> Iterator[tuple[Route, str]]:
    """Each route with a path that could mean something."""
    for route in table(web.state):
        yield route, route.path.format(**NAMES)


def raw(web: Web, request: bytes) -> tuple[int, bytes]:
    """The status and the whole answer to exactly these bytes; 0 for none."""
    parts = urlsplit(web.url)
    answer = b""
    with suppress(ConnectionError), socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(request)  # whoever has seen enough cuts it
        while data := connection.recv(65536):
            answer += data
    return (int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0), answer


def asked(web: Web, target: bytes, *headers: bytes, method: bytes = b"GET") -> tuple[int, bytes]:
    host = urlsplit(web.url).netloc.encode()
    lines = [method + b" " + target + b" HTTP/1.1", b"Host: " + host, b"Connection: close", *headers]
    return raw(web, b"\r\n".join(lines) + b"\r\n\r\n")


def test_without_a_token_there_is_nothing(guarded: Web) -> None:
    with guarded.client() as nobody, guarded.client("not-a-token-of-anybody") as stranger:
        for route, path in every_request(guarded):
            for client in (nobody, stranger):
                answer = client.request(route.method, path)
                assert answer.status_code == 401, (route.method, path)
                assert answer.headers["content-type"] == "application/problem+json"
        assert nobody.get("/healthz").status_code == nobody.get("/readyz").status_code == 200
        assert nobody.get("/metrics").status_code == 401


def test_a_token_does_what_its_role_may_and_no_more(guarded: Web) -> None:
    with ExitStack() as stack:
        clients = {role: stack.enter_context(guarded.client(token)) for role, token in TOKEN.items()}
        admin = stack.enter_context(guarded.client(ADMIN))
        for route, path in every_request(guarded):
            for role, client in clients.items():
                if role < route.role:
                    answer = client.request(route.method, path)
                    assert answer.status_code == 403, (role, route.method, path, answer.text)
                    assert route.role.word in answer.json()["detail"]
            if route.path != "/v1/stream":
                able = admin.request(route.method, path)
                assert able.status_code not in (401, 403, 500), (route.method, path, able.text)


def test_pages_of_other_servers_get_nothing_done(web: Web) -> None:
    web.apply()
    port = urlsplit(web.url).port
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{port + 1}"):
        with web.client(origin=origin) as client:
            for route, path in every_request(web):
                assert client.request(route.method, path).status_code == 403, (origin, path)
    for site in ("cross-site", "same-site"):
        with web.client(**{"sec-fetch-site": site}) as client:
            for route, path in every_request(web):
                if route.method != "GET":
                    assert client.request(route.method, path).status_code == 403
    with web.client(origin=web.url) as own:
        assert own.post("/v1/services/web/scale", json={"count": 3}).status_code == 200


def test_names_that_were_not_given_are_refused(web: Web) -> None:
    """A name of a stranger's that resolves to this machine."""
    for host in ("evil.example", "127.0.0.1.evil.example", "evil.example:8642", "", "localhost@evil", "a b"):
        with web.client(host=host) as client:
            for path in ("/v1/services", "/healthz", "/v1/stream", "/nothing"):
                assert client.get(path).status_code in (400, 421), host
    status, _ = raw(web, b"GET /v1/services HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert status in (0, 400, 421)
    status, _ = raw(web, b"GET /v1/services HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\nConnection: close\r\n\r\n")
    assert status in (0, 400, 421)


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"])
def test_forms_change_nothing(web: Web, api: httpx.Client, kind: str) -> None:
    """What a browser sends for any page without asking first."""
    web.apply()
    answer = api.post("/v1/services/web/scale", content=b'{"count": 9}', headers={"content-type": kind})
    assert answer.status_code == 415
    assert api.get("/v1/services/web").json()["items"][0]["desired"] == 2


@pytest.mark.parametrize(
    "target",
    [
        *(b"/v1/%2e%2e/healthz", b"/v1/../healthz", b"/v1/services/../tasks", b"//v1/tasks", b"/v1//tasks"),
        *(b"/v1/services/%2e%2e", b"/v1/services/..%2fhosts", b"/v1/services/a%2Fb", b"/v1/services/a%00b"),
        *(b"/v1/services/a%0d%0aSet-Cookie:%20x=1", b"/v1/services/%D1%81", b"/v1/services/a\\b"),
        *(b"/v1/services/web%20", b"/v1/services/web;x", b"/v1/services/" + b"a" * 5000, b"/v1/tasks/%ff%fe"),
        *(b"/v1/task-definitions/web/01", b"/v1/task-definitions/web/-1", b"/v1/task-definitions/web/1e3"),
        *(b"/v1/services/WEB", b"/V1/services", b"/v1/services/", b"http://evil.example/v1/services", b"*"),
        *(b"/v1/services/%EF%BC%B7eb", b"/v1/hosts/...", b"/v1/hosts/%2e", b"/v1/services/web%E2%80%AE"),
    ],
)
def test_odd_paths_lead_nowhere(web: Web, target: bytes) -> None:
    web.apply()
    status, answer = asked(web, target)
    assert status in (0, 400, 404, 414, 421, 431), answer
    assert b"set-cookie" not in answer.lower().partition(b"\r\n\r\n")[0]


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=1001", "limit=-1", "limit=1e9", "limit=" + "9" * 400, "limit=x", "limit=1&limit=2"),
        *("cursor=%00", "cursor=****", "cursor=" + "a" * 2001, "cursor=_w", "service=" + "a" * 301, "x=1"),
    ],
)
def test_odd_questions_are_refused(web: Web, api: httpx.Client, query: str) -> None:
    answer = api.get(f"/v1/tasks?{query}")
    assert answer.status_code == 400, answer.text
    assert len(answer.content) < 2000


def test_what_is_too_large_is_not_read(web: Web, api: httpx.Client) -> None:
    web.apply()
    huge = b"x" * (9 * 1024 * 1024)
    host = urlsplit(web.url).netloc.encode()
    head = b"POST /v1/apply HTTP/1.1\r\nHost: " + host + b"\r\nContent-Type: application/yaml\r\nContent-Length: "
    status, _ = raw(web, head + str(len(huge)).encode() + b"\r\n\r\n")  # refused before any of it was sent
    assert status == 413
    yaml = {"content-type": "application/yaml"}
    assert api.post("/v1/plan", content=b"# " + b"x" * (2 * 1024 * 1024), headers=yaml).status_code == 422
    large = json.dumps({"count": 1, "why": "x" * 100_000}).encode()
    plain_json = {"content-type": "application/json"}
    assert api.post("/v1/services/web/scale", content=large, headers=plain_json).status_code == 413
    status, _ = asked(web, b"/v1/tasks", b"X-Long: " + b"a" * 600_000)
    assert status in (0, 400, 431)
    status, _ = asked(web, b"/v1/tasks?service=" + b"a" * 600_000)
    assert status in (0, 400, 414, 431)


def test_bombs_do_not_go_off(web: Web, api: httpx.Client) -> None:
    laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    yaml, plain_json = {"content-type": "application/yaml"}, {"content-type": "application/json"}
    for bomb in (laughs, "a: " + "[" * 100_000, "? " * 50_000, "&a [*a]", "!!python/object/apply:os.system [id]"):
        for path in ("/v1/validate", "/v1/plan", "/v1/apply"):
            assert api.post(path, content=bomb.encode(), headers=yaml).status_code == 422, bomb[:40]
        answer = api.post("/v1/simulate", json={"manifest": bomb[:60_000]})
        assert answer.status_code in (413, 422), answer.text
    for bomb in ("[" * 60_000, '{"a":' * 10_000, '{"count": ' + "9" * 5000 + "}", '{"count": 1e999}', '"\\ud800"'):
        assert api.post("/v1/services/web/scale", content=bomb.encode(), headers=plain_json).status_code == 400


def test_texts_of_tasks_and_stores_stay_texts(web: Web, api: httpx.Client) -> None:
    web.apply()
    hostile = "</script><script>alert(1)</script>\x1b[2J\x1b]0;owned\x07\r\nSet-Cookie: x=1\u202e"
    tasks = tasks_of(1)
    web.issue(*tasks)
    failure = Failure(host=tasks[0].host, reason=hostile, output=hostile, log=[hostile])
    web.store.commit([Put(keys.failure(tasks[0].id), encode(failure)), Put("config/services/<b>", hostile.encode())])
    web.store.commit([Put("status/services/<b>", encode(ServiceStatus(scheduler=hostile)))])
    web.settled()
    for path in ("/v1/tasks", "/v1/services", "/v1/status", "/v1/tasks/default-web-1-0/story"):
        answer = api.get(path)
        assert answer.status_code == 200, (path, answer.text)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "set-cookie" not in answer.headers
        for raw_byte in (b"\x1b", b"\x07", b"\r"):
            assert raw_byte not in answer.content
    assert any("config/services/<b> is left out" in one for one in api.get("/v1/services").json()["notices"])
    said = api.get("/v1/services/%3Cimg src=x%3E")
    assert (said.status_code, said.headers["content-type"]) == (400, "application/problem+json")


def test_slow_and_silent_connections_are_cut_and_keep_nobody_from_being_served(
    web: Web, api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.5)
    parts = urlsplit(web.url)
    with ExitStack() as stack:
        idle = [
            stack.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=30)) for _ in range(300)
        ]
        for number, connection in enumerate(idle):
            connection.sendall([b"", b"GET /v1/tas", b"GET /v1/tasks HTTP/1.1\r\nHost: x\r\nX: "][number % 3] or b"P")
        assert api.get("/v1/services").status_code == 200
        assert all(connection.recv(100) == b"" for connection in idle)
    assert api.get("/v1/services").status_code == 200


def test_a_manifest_is_not_kept_for_others(web: Web, api: httpx.Client) -> None:
    """Answers are for one reader: nothing on the way may keep them."""
    web.apply(MANIFEST)
    assert api.get("/v1/services").headers["cache-control"] == "no-cache"
    assert api.get("/v1/nothing").headers["cache-control"] == "no-store"
    assert api.post("/v1/services/web/scale", json={"count": 2}).headers["cache-control"] == "no-store"


def test_json_drives_no_terminal_and_turns_no_text_around(web: Web, api: httpx.Client) -> None:
    """Whoever looks at an answer with curl sees what stands there."""
    web.apply()
    odd = "a\u202eb\x9b31mc\x85d\u2066e"
    web.issue(*(task := tasks_of(1)))
    web.store.commit([Put(keys.failure(task[0].id), encode(Failure(host="h0", reason=odd)))])
    web.settled()
    answers = [api.get(f"/v1/tasks/{task[0].id}"), api.get("/v1/tasks", params={"service": odd, "limit": "0"})]
    assert odd in [one["reason"] for one in _objects(answers[0].json()) if "reason" in one]
    for answer in answers:
        assert not set(answer.text) & set("\u202e\x9b\x85\u2066")


def _objects(value: object) -> Iterator[dict[str, object]]:
    if isinstance(value, dict):
        yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _objects(one)
