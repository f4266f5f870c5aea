"""What answers at the address is no etcd, or a broken one: that is never an empty store."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest

from rigs.clients import unavailable_within
from sked_core.plugin import Put, Revision, SkedError, Unavailable
from sked_etcd import client, messages
from sked_etcd.store import EtcdStore
from sked_etcd.wire import field

HEADER = field(1, field(3, 7))
LEADER = HEADER + field(4, 1)
HTML = b"HTTP/1.1 500 Oops\r\nContent-Type: text/html\r\nContent-Length: 14\r\n\r\n<html>no</html>"


@pytest.fixture
def open_store(open_store: Callable[[str], EtcdStore]) -> Callable[[str], EtcdStore]:
    """Opens clients of what listens at an address."""
    return lambda address: open_store(f"etcd://{address}")


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], str]]:
    """A TCP server that says the same to whoever connects, and hangs up."""
    servers: list[socket.socket] = []

    def serve(said: bytes) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def run() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1024)
                    connection.sendall(said)

        threading.Thread(target=run, daemon=True).start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    yield serve
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


class Fake(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A gRPC server that answers each method with fixed bytes, or with an error if they are a code."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self._answers = answers
        self.asked: list[str] = []

    def service(self, details: Any) -> Any:
        self.asked.append(details.method)
        answer = self._answers.get(details.method)
        if answer is None:
            return None

        def respond(request: bytes, context: Any) -> bytes:
            if isinstance(answer, tuple):
                context.abort(*answer)
            return bytes(answer)

        def stream(request: bytes, context: Any) -> Iterator[bytes]:
            yield respond(request, context)

        if details.method == messages.WATCH:
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(respond)


@pytest.fixture
def fake() -> Iterator[Callable[[dict[str, Any]], tuple[str, Fake]]]:
    servers = []

    def serve(answers: dict[str, Any]) -> tuple[str, Fake]:
        handler = Fake(answers)
        server = grpc.server(futures.ThreadPoolExecutor(4))
        server.add_generic_rpc_handlers((handler,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}", handler

    yield serve
    for server in servers:
        server.stop(None)


def all_calls(store: EtcdStore) -> list[Callable[[], object]]:
    return [
        lambda: store.read("a/"),
        lambda: store.commit([Put("a/1", b"")]),
        lambda: store.wait("a/", Revision(3), 5),
        lambda: store.grant(10),
    ]


@pytest.mark.parametrize("said", [HTML, b"", b"\x00" * 40, b"\xff" * 100], ids=["html", "nothing", "zeros", "ones"])
def test_what_speaks_no_grpc_is_unavailable(
    answering: Callable[[bytes], str], open_store: Any, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PROBE_SECONDS", 1.0)
    store = open_store(answering(said))
    for call in all_calls(store):
        error = unavailable_within(30, call)
        assert "<html>" not in str(error)
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "answer",
    [b"", b"\xff" * 20, HTML, field(1, b""), HEADER[:-1], field(2, b"\xff\xff"), field(1, 5), b"{}", b"null"],
    ids=["empty", "ones", "html", "no revision", "truncated", "broken pair", "wrong kind", "json", "null"],
)
def test_bytes_that_are_no_answer_are_no_empty_store(fake: Any, open_store: Any, answer: bytes) -> None:
    address, _ = fake({messages.STATUS: LEADER, messages.RANGE: answer, messages.TXN: answer, messages.GRANT: answer})
    for call in all_calls(open_store(address)):
        with pytest.raises(Unavailable):
            call()


@pytest.mark.parametrize("status", [b"", b"\xff" * 9, HEADER, LEADER + field(10, 1)])
def test_a_member_without_a_good_status_is_not_used(fake: Any, open_store: Any, status: bytes) -> None:
    address, handler = fake({messages.STATUS: status, messages.RANGE: HEADER})
    with pytest.raises(Unavailable):
        open_store(address).read("a/")
    assert messages.RANGE not in handler.asked
    good, _ = fake({messages.STATUS: LEADER, messages.RANGE: HEADER})
    assert open_store(f"{address},{good}").read("a/").entries == {}


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_error_is_one_of_the_tree(fake: Any, open_store: Any, code: Any) -> None:
    refusal = (code, "<html>\nsaid\u202e by somebody " + "x" * 5000)
    answers = dict.fromkeys((messages.RANGE, messages.TXN, messages.GRANT), refusal)
    address, handler = fake({messages.STATUS: LEADER, **answers})
    store = open_store(address)
    for call in all_calls(store):
        with pytest.raises(SkedError) as failure:
            call()
        assert len(str(failure.value)) < 400
        assert str(failure.value).isprintable()
    assert handler.asked.count(messages.TXN) == 1, "a write is sent once"


def test_a_service_that_is_another_one(fake: Any, open_store: Any) -> None:
    address, _ = fake({})
    with pytest.raises(Unavailable, match="cannot reach etcd"):
        open_store(address).read("a/")


def test_a_watch_that_ends_at_once_makes_no_storm(fake: Any, open_store: Any) -> None:
    created = HEADER + field(3, 1)
    address, handler = fake({messages.STATUS: LEADER, messages.RANGE: HEADER, messages.WATCH: created})
    store = open_store(address)
    since = store.read("a/").revision
    with pytest.raises(Unavailable):
        store.wait("a/", since, 30)
    assert handler.asked.count(messages.WATCH) == 1


def test_a_member_whose_leader_is_gone_is_left_without_asking_twice(fake: Any, open_store: Any) -> None:
    refusal = (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")
    done = HEADER + field(2, 1)
    bad, _ = fake({messages.STATUS: LEADER, messages.TXN: refusal})
    store = open_store(bad)
    store._client.member()
    with pytest.raises(Unavailable, match="no leader"):
        store.commit([Put("a", b"")])
    good, _ = fake({messages.STATUS: LEADER, messages.TXN: done})
    assert open_store(good).commit([Put("a", b"")]) == 7
