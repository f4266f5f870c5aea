"""The third door: the HTTP API and the page. Manifests are answered with problems and their places; whatever stands in
the store is shown without harm; requests that mean harm are refused. Never is anything answered with 500."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from hostile.conftest import SECRET, Notes
from hostile.corpus import Case, manifests, records
from hostile.make import HERE, manifest
from rigs import raw
from rigs.contents import contents
from sked_core.client import settings
from sked_core.client.acting.declaring import declare
from sked_core.client.copied.mirror import Mirror
from sked_core.client.session import open_session
from sked_core.model.yaml_source import parse
from sked_core.serving.listening import Listen, open_tcp
from sked_core.serving.server import HttpServer
from sked_web.app import build
from sked_web.state import State

DOOR = "api"
YAML = {"content-type": "application/yaml"}
JSON = {"content-type": "application/json"}
TOKENS = "ann admin admin-token-0123456789\nrea read read-token-0123456789\n"
LOOKS = ("/v1/status", "/v1/tasks", "/v1/services", "/v1/clusters", "/v1/hosts", "/v1/events", "/v1/endings", "/v1/rollouts",
         "/v1/rebalance", "/v1/state", "/v1/task-definitions/hostile/diff", "/v1/services/c20-deadline",
         "/v1/services/c21-prefer", "/v1/hosts/i03-host", "/v1/tasks/default-i02-reason-1-0", "/", "/services", "/tasks", "/hosts",
         "/topology", "/events", "/state", "/plan", "/services/c20-deadline", "/services/c21-require", "/hosts/i03-host",
         "/tasks/default-i02-reason-1-0", "/state/service/c20-deadline", "/state/task/default-i02-reason-1-0",
         "/search?q=%3Cscript%3E", "/healthz")  # fmt: skip


class Served:
    def __init__(
        self, url: str, store: str, settled: Callable[[], object], all_of_it: Callable[[], dict[str, bytes]]
    ) -> None:
        self.url, self.store, self.settled, self.contents = url, store, settled, all_of_it


@pytest.fixture(scope="module", params=["clean", "hostile"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The API on an embedded store with a service, ``hostile``: and every record of the corpus in it."""
    folder = tmp_path_factory.mktemp("api")
    (folder / "tokens").write_text(TOKENS)
    (folder / "tokens").chmod(0o600)
    store = f"sqlite://{folder / 'sked.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "SYSTEM_FILE", folder / "sked.toml")
        with open_session(settings.resolve(backend=store), "tester") as sked:
            good = manifest(service={"name": "good"}, clusters=[{"name": "default", "services": ["good"]}])
            import json

            declare(sked, [parse(json.dumps(good).encode(), "good.json")], "test")
            if request.param == "hostile":
                raw.write(store, {key: case.data for case in records() for key in case.keys("h1")})
            mirror = Mirror(sked)
            mirror.start()
            assert mirror.ready(60)
            listener = open_tcp(Listen("127.0.0.1:0", tokens=folder / "tokens"))
            server = HttpServer(build(State(sked, mirror)), [listener])
            server.start()
            try:
                yield Served(listener.url, store, lambda: mirror.settle(30), lambda: contents(sked.store))
            finally:
                server.stop()
                mirror.close()


@pytest.fixture
def api(served: Served) -> Iterator[httpx.Client]:
    headers = {"authorization": "Bearer admin-token-0123456789"}
    with httpx.Client(base_url=served.url, headers=headers, timeout=60, trust_env=False) as client:
        yield client


def harmless(answer: httpx.Response) -> None:
    assert answer.status_code < 500, f"{answer.request.url}: {answer.text[:2000]}"
    assert SECRET not in answer.text and "Traceback" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    kind = answer.headers["content-type"]
    if "html" in kind:
        assert "default-src" in answer.headers["content-security-policy"]
        assert "<script>alert" not in answer.text and "<img src=x" not in answer.text
    unseen = {one for one in answer.text if one != "\n" and not one.isprintable()}
    assert not unseen & set("\x00\x07\x08\x1b\x7f\x9b\u202e"), (answer.request.url, unseen)


clean = pytest.mark.parametrize("served", ["clean"], indirect=True)
full = pytest.mark.parametrize("served", ["hostile"], indirect=True)


@pytest.fixture
def asked_on_purpose(served: Served) -> str:
    return str(("127.0.0.1", urlsplit(served.url).port))


@clean
@pytest.mark.usefixtures("nobody_is_asked")
@pytest.mark.parametrize("case", manifests(), ids=lambda case: case.name)
def test_a_hostile_manifest_is_answered_with_its_problems(
    case: Case, served: Served, api: httpx.Client, notes: Notes
) -> None:
    if case.verdict == "normalised" or case.pieces()[0] == "policy":
        answer = api.post("/v1/validate", content=case.data, headers=YAML)
        harmless(answer)
        assert answer.status_code == 200
        notes.add(case, "normalised" if case.verdict == "normalised" else "left to the gates")
        return
    answer = api.post("/v1/apply", content=case.data, headers=YAML)
    harmless(answer)
    assert answer.status_code == 422 and answer.headers["content-type"] == "application/problem+json"
    problems = [one for one in answer.json()["problems"] if not one["warning"]]
    assert problems and all(one["line"] > 0 and one["column"] > 0 for one in problems)
    for piece in case.pieces():
        assert any(piece in f"{one['path']}: {one['message']}" for one in problems), answer.text[:2000]
    notes.add(case, "refused")


@full
@pytest.mark.parametrize("path", LOOKS)
def test_whatever_stands_in_the_store_is_shown_without_harm(path: str, api: httpx.Client) -> None:
    for more in ("", "&limit=1" if "?" in path else "?limit=5"):
        harmless(
            api.get(path + more, headers={"accept": "text/html" if not path.startswith("/v1") else "application/json"})
        )


@full
def test_all_records_are_isolated_here_as_well(api: httpx.Client, notes: Notes) -> None:
    listed = api.get("/v1/services", params={"limit": 1})
    harmless(listed)
    assert listed.status_code == 200, listed.text
    assert len(listed.json()["items"]) == 1
    assert api.get("/v1/services/good").json()["items"][0]["desired"] == 1
    scaled = api.post("/v1/services/good/scale", json={"count": 3})
    assert scaled.status_code == 200, scaled.text
    for case in records():
        notes.add(case, "isolated")


REQUESTS: dict[str, tuple[str, str, dict[str, str], bytes, set[int]]] = {
    "J01-no-token": ("GET", "/v1/tasks", {"authorization": ""}, b"", {401}),
    "J01-wrong-token": ("GET", "/v1/tasks", {"authorization": "Bearer wrong-token-0123456789"}, b"", {401}),
    "J01-token-in-url": ("GET", "/v1/tasks?token=admin-token-0123456789", {"authorization": ""}, b"", {400, 401}),
    "J01-role": ("POST", "/v1/services/good/scale", {**JSON, "authorization": "Bearer read-token-0123456789"}, b'{"count":1}', {403}),
    "J02-host": ("GET", "/v1/tasks", {"host": "evil.example"}, b"", {421}),
    "J02-host-rebound": ("POST", "/v1/services/good/scale", {**JSON, "host": "evil.example:80"}, b'{"count":1}', {421}),
    "J03-origin": ("POST", "/v1/services/good/scale", {**JSON, "origin": "http://evil.example"}, b'{"count":1}', {403}),
    "J03-plain-form": ("POST", "/v1/services/good/scale", {"content-type": "text/plain"}, b'{"count":1}', {415}),
    "J03-form": ("POST", "/v1/services/good/scale", {"content-type": "application/x-www-form-urlencoded"}, b"count=1", {415}),
    "J03-get": ("GET", "/v1/services/good/scale?count=1", {}, b"", {404, 405}),
    "J04-large": ("POST", "/v1/apply", YAML, b"#" * 3_000_000, {413, 422}),
    "J04-deep": ("POST", "/v1/services/good/scale", JSON, b"[" * 100_000, {400, 413}),
    "J04-deep-mapping": ("POST", "/v1/services/good/scale", JSON, b'{"count":' * 50_000, {400, 413}),
    "J04-nan": ("POST", "/v1/services/good/scale", JSON, b'{"count": NaN}', {400}),
    "J04-huge": ("POST", "/v1/services/good/scale", JSON, b'{"count": ' + b"9" * 5000 + b"}", {400}),
    "J04-twice": ("POST", "/v1/services/good/scale", JSON, b'{"count": 1, "count": 900000000}', {400}),
    "J04-utf-16": ("POST", "/v1/services/good/scale", JSON, '{"count": 1}'.encode("utf-16"), {400}),
    "J04-empty": ("POST", "/v1/services/good/scale", JSON, b"", {400}),
    "J04-length": ("POST", "/v1/services/good/scale", {**JSON, "content-length": "-1"}, b"", {400}),
    "J05-up": ("GET", "/v1/../../etc/passwd", {}, b"", {400, 404}),
    "J05-encoded-up": ("GET", "/static/%2e%2e%2f%2e%2e%2fapp.py", {}, b"", {400, 404}),
    "J05-static": ("GET", "/static/..%2fapp.py", {}, b"", {400, 404}),
    "J05-nul": ("GET", "/v1/services/a%00b", {}, b"", {400, 404}),
    "J05-escape": ("GET", "/v1/services/%1b%5b2J", {}, b"", {400, 404}),
    "J05-bad-utf-8": ("GET", "/v1/services/%ff%fe", {}, b"", {400, 404}),
    "J05-name": ("POST", "/v1/services/..%2f..%2fx/scale", JSON, b'{"count":1}', {400, 404}),
    "J05-long": ("GET", "/v1/services/" + "a" * 20_000, {}, b"", {400, 404, 414, 431}),
    "J06-logs": ("GET", "/v1/tasks/..%2f..%2fetc%2fpasswd/logs", {}, b"", {400, 404}),
    "J06-state": ("GET", "/v1/state/value?key=../../etc/passwd", {}, b"", {400, 404}),
    "J06-state-nul": ("GET", "/v1/state/value?key=%00", {}, b"", {400, 404}),
    "J07-redirect": ("GET", "/login?next=//evil.example", {}, b"", {200}),
    "J11-smuggled": ("POST", "/v1/services/good/scale", {**JSON, "transfer-encoding": "chunked, identity"}, b"0\r\n\r\n", {400, 501}),
    "J11-method": ("TRACE", "/v1/tasks", {}, b"", {404, 405, 501}),
    "J11-query": ("GET", "/v1/tasks?limit=-1", {}, b"", {400}),
    "J11-query-text": ("GET", "/v1/tasks?limit=%1b", {}, b"", {400}),
    "J11-cursor": ("GET", "/v1/tasks?cursor=%2e%2e%2f&after=x", {}, b"", {400}),
}  # fmt: skip


@clean
@pytest.mark.usefixtures("nobody_is_asked")
@pytest.mark.parametrize("name", REQUESTS)
def test_a_hostile_request_is_refused_and_the_server_goes_on(
    name: str, served: Served, api: httpx.Client, notes: Notes
) -> None:
    method, path, headers, body, statuses = REQUESTS[name]
    before = served.contents()
    status, text = asked(served.url, method, path, {"authorization": "Bearer admin-token-0123456789", **headers}, body)
    assert status in statuses, text[:1000]
    assert SECRET not in text and "Traceback" not in text and "root:" not in text and "\x1b" not in text
    assert served.contents() == before
    assert api.get("/healthz").status_code == 200
    notes.add(Case(name, "reject", b""), "refused")


def asked(url: str, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
    """By hand: clients would put right what is wrong here."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        connection.putrequest(method, path, skip_host="host" in headers, skip_accept_encoding=True)
        for header, value in headers.items():
            if value:
                connection.putheader(header, value)
        if "content-length" not in headers and "transfer-encoding" not in headers and body:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders()
        try:
            connection.send(body)
        except (BrokenPipeError, ConnectionResetError):  # it has answered already
            return 413, ""
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    except (http.client.RemoteDisconnected, ConnectionResetError):
        return 400, ""  # hung up without an answer
    finally:
        connection.close()


def test_the_corpus_holds_the_requests_too() -> None:
    assert not (HERE / "J").exists() and Path(__file__).name == "test_api.py"
    assert all(name.startswith("J") for name in REQUESTS)
