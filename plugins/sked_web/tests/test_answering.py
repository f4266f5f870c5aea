"""An agent that dies is shown as one that gives no answer, though the store knows nothing of it yet."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from rigs.tls import make_certificate
from sked_core.interfaces.store import Delete, Put
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Host, Liveness
from sked_core.serving.app import application
from sked_core.serving.guard import Guard
from sked_core.serving.listening import Listen, Listener, open_tcp, open_unix
from sked_core.serving.server import HttpServer
from sked_core.serving.watching import OPEN_PATHS, watching
from sked_web import answering

from .conftest import Web, until
from .test_stream import changed, opened


@dataclass
class Agent:
    """What an agent serves, which can be ended and begun again. The store is told nothing of either."""

    host: str
    listen: Callable[[], Listener]
    server: HttpServer | None = None
    url: str = ""

    def start(self) -> None:
        listener = self.listen()
        self.url = listener.url
        guard = Guard(application(watching(None, host=self.host)), open_paths=OPEN_PATHS)
        self.server = HttpServer(guard, [listener])
        self.server.start()

    def end(self) -> None:
        if self.server is not None:
            self.server.stop()


@pytest.fixture
def agent() -> Iterator[Callable[[str, Callable[[], Listener]], Agent]]:
    made: list[Agent] = []

    def start(host: str, listen: Callable[[], Listener]) -> Agent:
        made.append(Agent(host, listen))
        made[-1].start()
        return made[-1]

    yield start
    for one in made:
        one.end()


def publish(web: Web, name: str, url: str) -> None:
    """As the agent does; its record that it lives stays whatever becomes of it."""
    web.store.commit(
        [Put(keys.host(name), encode(Host(name=name, serves=[url]))), Put(keys.live(name), encode(Liveness("a")))]
    )
    web.settled()


def silent(web: Web) -> set[str]:
    return set(web.state.look().silent)


def answered(caplog: pytest.LogCaptureFixture) -> Callable[[str], bool]:
    caplog.set_level("DEBUG", "sked.web")
    return lambda host: any(one.message == f"the agent of {host} answers" for one in caplog.records)


def test_end_of_an_agent_is_told_at_once_until_it_answers_again(
    web: Web, api: httpx.Client, agent, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    heard = answered(caplog)
    one = agent("h1", lambda: open_unix(tmp_path / "agent.sock"))
    publish(web, "h1", one.url)
    until(lambda: heard("h1"))
    before = api.get("/v1/hosts")
    assert "answers" not in before.json()["items"][0]
    with opened(api) as messages:
        next(messages)
        one.end()
        assert changed(messages, 1)[0]["name"] == "h1"
        item = api.get("/v1/hosts/h1").json()["items"][0]
        assert item["answers"] is False and item["silent_since"] and item["state"] == "ready"
        assert api.get("/v1/hosts").headers["etag"] != before.headers["etag"]
        wrong = api.get("/v1/status").json()["items"][0]["attention"]
        assert [(one["severity"], one["command"]) for one in wrong if one["subject"] == "host/h1"] == [
            ("warning", "sked describe host/h1")
        ]
        for path in ("/hosts", "/hosts/h1", "/topology"):
            assert "does not answer" in api.get(path).text, path
        assert "1 not answering" in api.get("/").text
        one.start()
        assert changed(messages, 1)[0]["name"] == "h1"
    assert "answers" not in api.get("/v1/hosts/h1").json()["items"][0]
    assert "does not answer" not in api.get("/hosts").text
    said = [one.message for one in caplog.records if one.levelname in ("WARNING", "INFO") and "h1" in one.message]
    assert len(said) == 2, said


def test_what_the_store_says_of_its_end_takes_the_place_of_that(
    web: Web, api: httpx.Client, agent, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    heard = answered(caplog)
    one = agent("h1", lambda: open_unix(tmp_path / "agent.sock"))
    publish(web, "h1", one.url)
    until(lambda: heard("h1"))
    one.end()
    until(lambda: silent(web))
    web.store.commit([Delete(keys.live("h1"))])
    web.settled()
    item = api.get("/v1/hosts/h1").json()["items"][0]
    assert item["state"] == "down" and "answers" not in item


def test_socket_of_the_same_name_on_another_machine_is_not_taken_for_this_one(
    web: Web, agent, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    heard = answered(caplog)
    one = agent("h1", lambda: open_unix(tmp_path / "agent.sock"))
    publish(web, "h2", one.url)
    until(lambda: any("somebody else than the agent of h2" in record.message for record in caplog.records))
    publish(web, "h1", one.url)
    until(lambda: heard("h1"))
    one.end()
    until(lambda: silent(web))
    assert silent(web) == {"h1"}


def test_agent_over_tls_is_watched_where_its_certificate_is_trusted(
    web: Web, agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    certificate = make_certificate(tmp_path / "tls")
    monkeypatch.setenv("SKED_API_CACERT", str(certificate.cert))
    heard = answered(caplog)
    one = agent("h1", lambda: open_tcp(Listen("127.0.0.1:0", tls_cert=certificate.cert, tls_key=certificate.key)))
    publish(web, "h1", one.url)
    until(lambda: heard("h1"))
    one.end()
    until(lambda: silent(web) == {"h1"})


@contextlib.contextmanager
def raw(answer: bytes) -> Iterator[tuple[str, list[float]]]:
    """A server that says ``answer`` to everybody and hangs up; when each came."""
    came: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    came.append(time.monotonic())
                    with connection:
                        connection.recv(4096)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", came
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(60)


def test_nothing_is_said_of_an_address_that_never_answered(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "LATER_SECONDS", 0.05)
    with raw(b"") as (url, came):
        publish(web, "h1", url)
        until(lambda: len(came) > 3)
        web.settled()
        assert silent(web) == set()


def test_server_that_ends_each_connection_is_asked_at_a_measured_pace(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    went: list[float] = []
    connect = answering.Answering._connected

    async def noting(self: answering.Answering, url: str) -> object:
        went.append(time.monotonic())
        return await connect(self, url)

    monkeypatch.setattr(answering.Answering, "_connected", noting)
    with raw(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n") as (url, came):
        publish(web, "h1", url)
        until(lambda: len(came) > 2)
        web.settled()
        assert silent(web) == set()
        assert went[2] - went[0] >= 1.5 * answering.AGAIN_SECONDS, "no connection follows at once on one that ended"
    until(lambda: silent(web) == {"h1"})


def test_agent_that_is_asked_time_and_again_is_asked_by_one_connection(
    web: Web, agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(answering, "ASK_SECONDS", 0.01)
    asked: list[object] = []
    ask, connect = answering._asked, answering.Answering._connected
    connected: list[str] = []

    async def counted(*args: object) -> None:
        await ask(*args)  # type: ignore[arg-type]
        asked.append(args[0])

    async def counting(self: answering.Answering, url: str) -> object:
        connected.append(url)
        return await connect(self, url)

    monkeypatch.setattr(answering, "_asked", counted)
    monkeypatch.setattr(answering.Answering, "_connected", counting)
    one = agent("h1", lambda: open_unix(tmp_path / "agent.sock"))
    publish(web, "h1", one.url)
    until(lambda: len(asked) > 20)
    assert len(connected) == 1 and len(set(map(id, asked))) == 1
