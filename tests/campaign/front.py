"""A server in front of a Consul that hands everything on, and does wrong what it is told to."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Wrong = Callable[["_Request"], bool]
"""Does something wrong with a request; whether that was all that becomes of it."""


class Front:
    """``url`` is for Sked. ``wrong``: what is done with each request before it is handed on; ``drop_answers``: how many
    answers to writes are to be lost after they were carried out; ``requests``: how many there were so far."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.wrong: Wrong | None = None
        self.drop_answers = 0
        self.requests = 0
        self.mutex = threading.Lock()
        front = self

        class Bound(_Request):
            owner = front

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:
                """Broken connections are what this is for."""

        self._server = Server(("127.0.0.1", 0), Bound)
        self.url = f"consul://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Request(BaseHTTPRequestHandler):
    owner: Front
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.owner.mutex:
            self.owner.requests += 1
        if self.owner.wrong is not None and self.owner.wrong(self):
            return
        try:
            connection = http.client.HTTPConnection(self.owner.target, timeout=700)
            connection.request(self.command, self.path, body or None, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            self.reset()
            return
        with self.owner.mutex:
            lost = self.command == "PUT" and self.path.startswith("/v1/txn") and self.owner.drop_answers > 0
            self.owner.drop_answers -= lost
        if lost:
            self.reset()
            return
        self.answer(
            answer.status, content, [(k, v) for k, v in answer.getheaders() if k.startswith(("X-", "Content-T"))]
        )

    def answer(self, status: int, content: bytes, headers: list[tuple[str, str]] | None = None) -> None:
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, value in headers or ():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def reset(self) -> None:
        """Break the connection, as a peer that crashed does."""
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.close()

    do_GET = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815 - the names that http.server asks for


def slow(seconds: float, resets: float, seed: int) -> Wrong:
    """Every call takes so long and half as long again at most; of 1 a share of ``resets`` is broken off."""
    dice = random.Random(seed)

    def wrong(request: _Request) -> bool:
        time.sleep(dice.uniform(1.0, 1.5) * seconds)
        if dice.random() < resets:
            request.reset()
            return True
        return False

    return wrong


def answers(status: int, content: bytes, kind: str = "text/plain") -> Wrong:
    """The same answer to everything. What looks like one of Consul's has an index as well."""

    def wrong(request: _Request) -> bool:
        request.answer(
            status, content, [("Content-Type", kind), ("X-Consul-Index", "7"), ("X-Consul-KnownLeader", "true")]
        )
        return True

    return wrong
