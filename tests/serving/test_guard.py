"""What no request gets past: no token, another role, another page, another name, too much, too slowly."""

import base64
import json

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from serving.conftest import ADMIN, OPERATE, READ
from sked_core.serving.guard import MAX_STRANGERS_BODY
from sked_core.serving.tokens import Caller, Role


def problem(answer: httpx.Response) -> dict:
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert found["status"] == answer.status_code
    assert {"type", "title", "detail", "hint"} <= set(found)
    assert found["title"]
    assert found["detail"]
    return found


def test_without_a_file_of_tokens_whoever_is_on_this_machine_is_let_in(serve):
    with serve().client() as client:
        assert client.get("/who").json() == {"name": "", "role": "admin"}


def test_where_there_are_tokens_one_is_needed_on_this_machine_too(serve, tokens):
    served = serve(tokens=tokens)
    with served.client() as client:
        answer = client.get("/who")
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="sked"'
        assert "SKED_API_TOKEN" in problem(answer)["hint"]
        wrong = client.get("/who", headers={"authorization": "Bearer nobodys-token-at-all"})
        assert wrong.status_code == 401
        assert client.get("/healthz").status_code == 200, "whether it lives may be asked without one"
        assert client.post("/healthz").status_code == 401
    with served.client(READ) as client:
        assert client.get("/who").json() == {"name": "eyes", "role": "read"}


def test_a_browser_is_asked_for_the_token_as_a_password(serve, tokens):
    with serve(tokens=tokens).client() as client:
        answer = client.get("/who", headers={"accept": "text/html,*/*"})
        assert answer.headers["www-authenticate"] == 'Basic realm="sked"'
        basic = base64.b64encode(f"anybody:{OPERATE}".encode()).decode()
        assert client.get("/who", headers={"authorization": f"Basic {basic}"}).json()["name"] == "ops"
        for broken in ("Basic", "Basic =", "Basic " + base64.b64encode(b"\xff:\xff").decode(), "Digest x", "Bearer"):
            assert client.get("/who", headers={"authorization": broken}).status_code == 401


@pytest.mark.parametrize(
    ("token", "path", "status"),
    [
        (READ, "/change", 403),
        (READ, "/declare", 403),
        (OPERATE, "/change", 200),
        (OPERATE, "/declare", 403),
        (ADMIN, "/change", 200),
        (ADMIN, "/declare", 200),
    ],
)
def test_a_role_may_do_what_is_its_and_what_is_below_it(serve, tokens, token, path, status):
    with serve(tokens=tokens).client(token) as client:
        answer = client.post(path, content=b"abc")
    assert answer.status_code == status
    if status == 403:
        assert "takes" in problem(answer)["detail"]
        assert token not in answer.text


@pytest.mark.parametrize(
    "name", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.1.2.3", "a@b"]
)
def test_a_name_of_somebody_else_that_leads_here_is_refused(serve, name):
    served = serve()
    with served.client() as client:
        answer = client.get("/who", headers={"host": f"{name}:{served.port}"})
        assert answer.status_code == 421
        assert "--allow-host" in problem(answer)["hint"]


def test_the_names_of_this_machine_and_those_that_were_allowed_are_taken(serve):
    served = serve(hosts=("sked.example",))
    with served.client() as client:
        for name in ("localhost", "127.0.0.1", "LOCALHOST", f"localhost:{served.port}", "[::1]", "Sked.Example:443"):
            assert client.get("/who", headers={"host": name}).status_code == 200, name


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://localhost", "x", ""])
def test_a_page_of_another_server_can_do_nothing(serve, origin):
    served = serve()
    with served.client() as client:
        if origin:
            for method in ("GET", "POST", "OPTIONS"):
                answer = client.request(method, "/change", headers={"origin": origin})
                assert answer.status_code == 403, method
                assert "access-control-allow-origin" not in answer.headers
        for site in ("cross-site", "same-site"):
            assert client.post("/change", headers={"sec-fetch-site": site}).status_code == 403
        assert client.post("/change", headers={"sec-fetch-site": "same-origin"}).status_code == 200
        assert client.post("/change", headers={"origin": served.url}).status_code == 200
        assert client.get("/who", headers={"sec-fetch-site": "cross-site"}).status_code == 200, "a link to the page"


def test_two_origins_or_two_tokens_are_none(serve, tokens):
    with serve(tokens=tokens).client() as client:
        twice = [("authorization", f"Bearer {READ}"), ("authorization", f"Bearer {ADMIN}")]
        assert client.get("/who", headers=twice).status_code == 400
        twice = [("origin", client.base_url.join("/").__str__().rstrip("/")), ("origin", "http://evil.example")]
        assert client.get("/who", headers=twice).status_code == 400


@pytest.mark.parametrize(
    "target",
    [
        "/../who",
        "/a/%2e%2e/who",
        "/a/..%2fwho",
        "//who",
        "/who%00",
        "/who%0d%0aSet-Cookie:a",
        "/a%5c..%5cwho",
        "http://evil.example/who",
        "*",
    ],
)
def test_path_tricks_are_refused(serve, target):
    served = serve()
    with served.raw() as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400 "), answer[:200]
    assert b"problem+json" in answer


def test_a_body_above_the_limit_is_refused_said_or_not(serve):
    served = serve(guard={"max_body": 1000})
    with served.client() as client:
        assert client.post("/change", content=b"x" * 1000).json() == {"bytes": 1000}
        assert problem(client.post("/change", content=b"x" * 1001))["status"] == 413
        chunks = client.post("/change", content=iter([b"x" * 600, b"x" * 600]))
        assert problem(chunks)["status"] == 413


def test_whoever_has_shown_no_token_can_send_little(serve, tokens):
    """A server that keeps megabytes for each of a thousand strangers has no memory left for those it knows."""
    served = serve(tokens=tokens, guard={"identify": lambda scope: Caller("", Role.READ)})
    with served.client() as client:
        assert client.post("/who", content=b"x" * MAX_STRANGERS_BODY).status_code == 405
        assert problem(client.post("/who", content=b"x" * (MAX_STRANGERS_BODY + 1)))["status"] == 413
        chunks = client.request("GET", "/healthz", content=iter([b"x" * MAX_STRANGERS_BODY, b"x"]))
        assert problem(chunks)["status"] == 413
    with served.client(OPERATE) as client:
        assert client.post("/change", content=b"x" * 1_000_000).json() == {"bytes": 1_000_000}


def test_a_body_that_comes_too_slowly_is_given_up(serve):
    served = serve(guard={"body_seconds": 0.3})
    with served.raw() as connection:
        connection.sendall(b"POST /change HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"Too Slow" not in answer
    assert b"connection: close" in answer.lower()


def test_every_answer_bears_what_keeps_browsers_from_harm(serve):
    with serve().client() as client:
        for path in ("/who", "/lacking", "/nowhere", "/broken"):
            headers = client.get(path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert "default-src 'none'" in headers["content-security-policy"]
            assert headers["cache-control"] == "no-store"
            assert "server" not in headers


def test_errors_are_problem_documents_and_tell_nothing_of_the_inside(serve, caplog):
    with serve().client() as client:
        found = problem(client.get("/lacking"))
        assert (found["status"], found["type"]) == (404, "urn:sked:not-found")
        assert (found["detail"], found["hint"]) == ("no task a", "did you mean b?")
        hidden = problem(client.get("/broken"))
        assert hidden["status"] == 500
        assert "secret" not in json.dumps(hidden)
    number = hidden["hint"].rpartition(" ")[2]
    assert number in caplog.text
    assert "a secret of the inside" in caplog.text


def test_a_websocket_needs_what_any_request_needs(serve, tokens):
    served = serve(tokens=tokens)
    url = f"ws://127.0.0.1:{served.port}/echo"

    def refused(status: int, **options: object) -> None:
        with pytest.raises(InvalidStatus) as raised, connect(url, **options):
            pass
        assert raised.value.response.status_code == status
        assert json.loads(raised.value.response.body)["status"] == status

    admin = {"Authorization": f"Bearer {ADMIN}"}
    refused(401)
    refused(403, additional_headers={"Authorization": f"Bearer {OPERATE}"})
    refused(403, additional_headers=admin, origin="http://evil.example")
    refused(403, additional_headers=admin, origin=f"https://127.0.0.1:{served.port + 1}")
    with connect(url, additional_headers=admin, origin=f"http://127.0.0.1:{served.port}") as websocket:
        websocket.send("hello")
        assert websocket.recv(timeout=60) == "hello"
    with connect(url, additional_headers=admin) as websocket:
        websocket.send("a program sends no origin")
        assert websocket.recv(timeout=60)
