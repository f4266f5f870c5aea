"""What AWS refuses, and what answers that is no DynamoDB: each an error with a next step, never an empty store.

DynamoDB Local knows neither permissions nor failures, so a server of the test's own says here what AWS says then.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from rigs.clients import opening
from sked_core.plugin import Denied, InvalidValue, Lease, Put, Revision, SkedError, Store, Unavailable
from sked_dynamodb.leases import DynamoLease
from sked_dynamodb.store import DynamoStore

TYPE = "application/x-amz-json-1.0"
TABLE = {
    "Table": {
        "TableStatus": "ACTIVE",
        "KeySchema": [{"AttributeName": "kind", "KeyType": "HASH"}, {"AttributeName": "id", "KeyType": "RANGE"}],
        "LocalSecondaryIndexes": [
            {
                "IndexName": "by-lease",
                "KeySchema": [
                    {"AttributeName": "kind", "KeyType": "HASH"},
                    {"AttributeName": "lease", "KeyType": "RANGE"},
                ],
            }
        ],
    }
}
Answer = tuple[int, str, bytes]
Script = Mapping[str, Answer]
"""What is said to each operation; ``""`` is for all others."""


def fault(status: int, code: str, message: str) -> Answer:
    named = {"__type": f"com.amazon.coral.service#{code}", "message": message}
    return status, TYPE, json.dumps(named).encode()


def good(body: Mapping[str, Any]) -> Answer:
    return 200, TYPE, json.dumps(body).encode()


@pytest.fixture
def saying() -> Iterator[Callable[[Script], str]]:
    """Starts a server that follows a script; returns its endpoint."""
    servers: list[ThreadingHTTPServer] = []

    def start(script: Script) -> str:
        class Answers(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                operation = self.headers["X-Amz-Target"].partition(".")[2]
                status, kind, body = script.get(operation, script.get("", good({})))
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *ignored: object) -> None:
                return

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Answers))
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def open_at() -> Iterator[Callable[[str], DynamoStore]]:
    with opening(
        lambda endpoint: DynamoStore(f"dynamodb://eu-central-1/sked?endpoint={endpoint}&poll=50ms")
    ) as open_one:
        yield open_one


def calls_of(store: DynamoStore) -> dict[str, Callable[[], object]]:
    lease: Lease = DynamoLease("some", 60, store._leases)
    return {
        "read": lambda: store.read("a/"),
        "commit": lambda: store.commit([Put("a", b"x")]),
        "wait": lambda: store.wait("a/", Revision(0), 30),
        "grant": lambda: store.grant(60),
        "renew": lease.renew,
        "revoke": lease.revoke,
    }


NONSENSE: dict[str, Answer] = {
    "a page": (200, "text/html", b"<html>Please log in</html>"),
    "a page in place of JSON": (200, TYPE, b"<html>Please log in</html>"),
    "an empty answer": (200, TYPE, b""),
    "an empty object": good({}),
    "a list": (200, TYPE, b"[]"),
    "a number": (200, TYPE, b"7"),
    "no UTF-8": (200, TYPE, b"\xff\xfe"),
    "other people's JSON": good({"Item": {"kind": {"S": "head"}}, "Items": 7}),
    "a page that says no": (404, "text/html", b"<html>nothing here</html>"),
    "a redirect": (302, "text/html", b""),
    "a proxy without a server": (502, "text/html", b"<html>bad gateway</html>"),
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE)
@pytest.mark.parametrize("table", [True, False], ids=["after the table was found", "from the start"])
def test_nonsense_is_an_error_and_never_empty(
    saying: Callable[[Script], str],
    open_at: Callable[[str], DynamoStore],
    answer: Answer,
    table: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sked_dynamodb.client.TRY_SECONDS", 0.2)
    store = open_at(saying({"": answer, "DescribeTable": good(TABLE)} if table else {"": answer}))
    for name, call in calls_of(store).items():
        with pytest.raises(Unavailable) as raised:
            call()
        assert raised.value.hint, name
        assert "\n" not in str(raised.value), name


DENIED = (
    "User: arn:aws:sts::1:assumed-role/sked/i-1 is not authorized to perform: {} on resource: "
    "arn:aws:dynamodb:eu-central-1:1:table/sked because no identity-based policy allows it"
)


@pytest.mark.parametrize(
    ("call", "operation", "action"),
    [
        ("read", "DescribeTable", "dynamodb:DescribeTable"),
        ("read", "GetItem", "dynamodb:GetItem"),
        ("commit", "GetItem", "dynamodb:GetItem"),
        ("wait", "GetItem", "dynamodb:GetItem"),
        ("grant", "PutItem", "dynamodb:PutItem"),
        ("renew", "UpdateItem", "dynamodb:UpdateItem"),
        ("revoke", "UpdateItem", "dynamodb:UpdateItem"),
    ],
)
def test_a_missing_permission_is_named(
    saying: Callable[[Script], str], open_at: Callable[[str], DynamoStore], call: str, operation: str, action: str
) -> None:
    refusal = fault(400, "AccessDeniedException", DENIED.format(action))
    store = open_at(saying({"DescribeTable": good(TABLE), operation: refusal}))
    with pytest.raises(Denied, match=f"{action} on table sked") as raised:
        calls_of(store)[call]()
    assert action in raised.value.hint
    assert "README" in raised.value.hint


def test_a_missing_permission_to_make_the_table_is_named(
    saying: Callable[[Script], str], open_at: Callable[[str], DynamoStore]
) -> None:
    script = {
        "DescribeTable": fault(400, "ResourceNotFoundException", "Requested resource not found: Table: sked not found"),
        "CreateTable": fault(400, "AccessDeniedException", DENIED.format("dynamodb:CreateTable")),
    }
    store = open_at(saying(script))
    for call in (lambda: store.read(""), lambda: store.commit([Put("a", b"")])):
        with pytest.raises(Denied, match="dynamodb:CreateTable on table sked"):
            call()


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        ("UnrecognizedClientException", "The security token included in the request is invalid.", Denied),
        ("InvalidSignatureException", "Signature expired: 20260101T000000Z is now earlier than", Denied),
        ("ExpiredTokenException", "The security token included in the request is expired", Denied),
        ("ProvisionedThroughputExceededException", "The level of configured provisioned throughput", Unavailable),
        ("ThrottlingException", "Rate of requests exceeds the allowed throughput.", Unavailable),
        ("RequestLimitExceeded", "Throughput exceeds the current throughput limit for your account.", Unavailable),
        ("InternalServerError", "The request could not be completed", Unavailable),
        ("ResourceNotFoundException", "Requested resource not found", Unavailable),
        ("ValidationException", "One or more parameter values were invalid", InvalidValue),
        ("SomethingNew", "that nobody has heard of\nyet", Unavailable),
    ],
)
def test_each_refusal_has_its_meaning(
    saying: Callable[[Script], str],
    open_at: Callable[[str], DynamoStore],
    code: str,
    message: str,
    kind: type[SkedError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sked_dynamodb.client.TRY_SECONDS", 0.2)
    refusal = fault(500 if code == "InternalServerError" else 400, code, message)
    store = open_at(saying({"DescribeTable": good(TABLE), "GetItem": refusal}))
    with pytest.raises(kind) as raised:
        store.read("")
    assert code == "ResourceNotFoundException" or message.split("\n")[0] in str(raised.value)
    assert "\n" not in str(raised.value)


def test_somebody_else_s_table_is_refused(
    saying: Callable[[Script], str], open_at: Callable[[str], DynamoStore]
) -> None:
    other = {"Table": {**TABLE["Table"], "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}]}}
    store: Store = open_at(saying({"DescribeTable": good(other)}))
    with pytest.raises(InvalidValue, match="not one of Sked's"):
        store.read("")


def test_without_credentials_it_says_where_they_are_looked_for(
    open_at: Callable[[str], DynamoStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(Denied, match="credentials") as raised:
        open_at("http://127.0.0.1:9").read("")
    assert "AWS_PROFILE" in raised.value.hint


def test_nobody_there_is_said_at_once(open_at: Callable[[str], DynamoStore], free_port: Callable[[], int]) -> None:
    for name, call in calls_of(open_at(f"http://127.0.0.1:{free_port()}")).items():
        with pytest.raises(Unavailable, match="cannot reach DynamoDB"):
            call()
        assert name
