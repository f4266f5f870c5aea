"""A server keeps its word to everybody while some are slow, and ends within seconds whatever is under way."""

import threading
import time

import httpx
import pytest

from serving.conftest import routed
from sked_core.serving import server as module
from sked_core.serving.guard import Guard
from sked_core.serving.listening import Listen, open_tcp
from sked_core.serving.server import HttpServer, ServerDied


def ends(connection) -> bool:
    """Whether the other side ends the connection (the socket's own deadline says when to give up)."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(module, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(module._Stalls, "_patience", 0.5)


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /who HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
def test_a_head_that_does_not_come_is_given_up(serve, hasty, sent):
    served = serve()
    with served.raw() as connection:
        connection.sendall(sent)
        assert ends(connection)


def test_the_second_head_on_a_connection_is_given_no_more_time(serve, hasty):
    served = serve()
    with served.raw() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b"fine"):
            answer += connection.recv(65536)
        connection.sendall(b"GET /who HTTP/1.1\r\n")
        assert ends(connection)


def test_a_head_that_drips_is_given_up(serve, hasty):
    served = serve()
    with served.raw() as connection:
        connection.sendall(b"GET /who HTTP/1.1\r\n")
        deadline = time.monotonic() + 60
        with pytest.raises(OSError):
            while time.monotonic() < deadline:
                connection.sendall(b"x: y\r\n")
                connection.settimeout(0.05)
                try:
                    if connection.recv(1) == b"":
                        raise ConnectionResetError
                except TimeoutError:
                    continue
            pytest.fail("it was never cut off")


def test_headers_without_end_are_refused(serve):
    served = serve()
    with served.raw() as connection:
        connection.sendall(b"GET /who HTTP/1.1\r\nHost: localhost\r\n")
        with pytest.raises(OSError):
            for _ in range(1000):
                connection.sendall(b"x: " + b"y" * 1000 + b"\r\n")
            raise ConnectionError(connection.recv(100))


def test_a_reader_that_takes_nothing_is_cut_off_and_others_are_served(serve, hasty):
    served = serve()
    with served.raw() as connection:
        connection.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        deadline = time.monotonic() + 60
        while served.server._server.server_state.connections and time.monotonic() < deadline:
            with served.client() as client:
                assert client.get("/who").status_code == 200
            time.sleep(0.05)
        assert not [
            c for c in served.server._server.server_state.connections if c.cycle and not c.cycle.response_complete
        ]


def test_it_ends_within_seconds_with_streams_under_way(serve):
    served = serve()
    ended = []

    def read(path: str) -> None:
        try:
            with served.client() as client, client.stream("GET", path) as answer:
                for _ in answer.iter_bytes():
                    started.release()
        except httpx.HTTPError as error:
            ended.append(error)

    started = threading.Semaphore(0)
    threads = [threading.Thread(target=read, args=(path,), daemon=True) for path in ("/stream", "/still", "/still")]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert started.acquire(timeout=60)
    begun = time.monotonic()
    served.server.stop()
    assert time.monotonic() - begun < 30
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    served.server.stop()  # which waits once more where the machine is slow
    assert not served.server.alive
    assert ended, "a cut stream is told from a whole one"


def test_run_ends_when_asked_and_frees_the_address():
    listener = open_tcp(Listen("127.0.0.1:0"))
    server, stop = HttpServer(Guard(routed()), [listener]), threading.Event()
    thread = threading.Thread(target=server.run, args=(stop,), daemon=True)
    thread.start()
    port = int(listener.url.rpartition(":")[2])
    with httpx.Client(transport=httpx.HTTPTransport(retries=20), timeout=60) as client:
        assert client.get(f"{listener.url}/healthz").status_code == 200
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
    open_tcp(Listen(f"127.0.0.1:{port}")).close()


def test_a_server_that_dies_says_so():
    listener = open_tcp(Listen("127.0.0.1:0"))
    listener.socket.close()
    with pytest.raises(ServerDied):
        HttpServer(Guard(routed()), [listener]).start()
