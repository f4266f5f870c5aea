"""A small application behind the guard, served for real on a port of this machine or on a Unix socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from rigs.tls import token_file
from sked_core.errors import NotFound
from sked_core.serving.app import application
from sked_core.serving.guard import Guard, caller, demand
from sked_core.serving.listening import Listen, Listener, open_tcp
from sked_core.serving.server import HttpServer
from sked_core.serving.tokens import Role

ADMIN = "admin-token-of-the-tests"
OPERATE = "operate-token-of-the-tests"
READ = "read-token-of-the-tests"


async def who(request):
    found = caller(request.scope)
    return JSONResponse({"name": found.name, "role": found.role.word})


async def change(request):
    demand(request.scope, Role.OPERATE)
    return JSONResponse({"bytes": len(await request.body())})


async def declare(request):
    demand(request.scope, Role.ADMIN)
    return JSONResponse({})


async def lacking(request):
    raise NotFound("no task a", hint="did you mean b?")


async def broken(request):
    raise RuntimeError("a secret of the inside")


async def stream(request):
    async def endless():
        while True:
            yield b"x" * 65536
            await asyncio.sleep(0)

    return StreamingResponse(endless(), media_type="text/plain")


async def still(request):
    async def endless():
        yield b"begun\n"
        await asyncio.Event().wait()

    return StreamingResponse(endless(), media_type="text/plain")


async def text(request):
    return PlainTextResponse("fine")


async def echo(websocket):
    demand(websocket.scope, Role.ADMIN)
    await websocket.accept()
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        await websocket.send_text(message["text"])


def routed():
    return application(
        [
            Route("/who", who),
            Route("/change", change, methods=["POST"]),
            Route("/declare", declare, methods=["POST"]),
            Route("/lacking", lacking),
            Route("/broken", broken),
            Route("/stream", stream),
            Route("/still", still),
            Route("/healthz", text),
            WebSocketRoute("/echo", echo),
        ]
    )


class Served:
    """A server that runs, with a plain client for it."""

    def __init__(self, server: HttpServer, listener: Listener) -> None:
        self.server, self.listener = server, listener
        self.url = listener.url
        self.port = int(self.url.rpartition(":")[2]) if "://" in self.url else 0

    def client(self, token: str = "", **options: object) -> httpx.Client:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, **options)

    def raw(self, *, seconds: float = 60) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=seconds)


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """``serve(listener=…)`` or ``serve(tokens=…, …)``: whatever ``Listen`` takes; options of Guard in ``guard``."""
    with ExitStack() as stack:

        def start(*, listener: Listener | None = None, guard: dict | None = None, **options: object) -> Served:
            listener = listener or open_tcp(Listen(**{"address": "127.0.0.1:0"} | options))
            server = HttpServer(Guard(routed(), open_paths=["/healthz"], **guard or {}), [listener])
            stack.callback(server.stop)
            server.start()
            return Served(server, listener)

        yield start


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return token_file(tmp_path / "tokens", f"root admin {ADMIN}", f"ops operate {OPERATE}", f"eyes read {READ}")
