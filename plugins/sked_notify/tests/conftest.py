"""A server that takes messages, or does not, and a file of hooks."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sked_notify import telling

PATIENCE = 60.0


class Taker:
    """An HTTP server that keeps what it is sent. ``answers``: how it answers the next ones, 200 once there is none
    left: a status, or a function that is given the request."""

    def __init__(self) -> None:
        self.answers: list[int | Callable[[BaseHTTPRequestHandler], None]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self._changed = threading.Condition()
        taker = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with taker._changed:
                    taker.bodies.append(body)
                    taker.headers.append(dict(self.headers))
                    answer = taker.answers.pop(0) if taker.answers else 200
                    taker._changed.notify_all()
                if callable(answer):
                    answer(self)
                    return
                self.send_response(answer)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.scheme = "http"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server.server_address[1]}/path/to-nobody-else"

    def speak_tls(self, cert: Path, key: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.scheme = "https"

    def wait(self, count: int) -> list[Any]:
        """The first ``count`` messages, once they are there."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.bodies) >= count, PATIENCE), self.bodies
            return [json.loads(body) for body in self.bodies]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def taker() -> Iterator[Taker]:
    taker = Taker()
    yield taker
    taker.close()


@pytest.fixture
def another() -> Iterator[Taker]:
    taker = Taker()
    yield taker
    taker.close()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that this process and its children read; empty yet."""
    path = tmp_path / "notify.toml"
    path.write_text("")
    monkeypatch.setenv("SKED_NOTIFY", str(path))
    return path


@pytest.fixture
def told(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., telling.Tellers]]:
    """``told(text)``: what tells the hooks of this file, quickly; closed at the end. With ``gather`` only what it is
    given before it is closed is told, and together."""
    monkeypatch.setattr(telling, "FIRST_PAUSE", 0.02)
    opened: list[telling.Tellers] = []

    def tellers(text: str, *, gather: bool = False) -> telling.Tellers:
        monkeypatch.setattr(telling, "GATHER_SECONDS", 10 * PATIENCE if gather else 0.02)
        file.write_text(text)
        opened.append(telling.Tellers(telling.load()))
        return opened[-1]

    yield tellers
    for one in opened:
        one.close(PATIENCE)


def until(holds: Callable[[], Any]) -> Any:
    """Look until it gives something true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found
