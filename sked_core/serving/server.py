"""A server that runs in a thread of its own, keeps to limits for every connection, and ends within seconds.

uvicorn does the work. Added to it: several listeners with rules of their own, a time within which a request's head has
to arrive and within which a reader has to take what was sent, and an end that does not wait for streams.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from sked_core.errors import SkedError
from sked_core.serving.guard import Guard
from sked_core.serving.listening import Listener

if TYPE_CHECKING:
    from asyncio.transports import BaseTransport


HEAD_SECONDS = 10.0
"""A request's head, and the TLS handshake before the first, have to arrive within it."""
STALL_SECONDS = 60.0
"""A reader that takes nothing of what waits for it for so long is cut off."""
PAUSE_SECONDS = 600.0
"""The same of a websocket: somebody may have stopped a terminal to read."""
KEEP_ALIVE_SECONDS = 15
END_SECONDS = 2
"""What requests under way get when the server ends."""
START_SECONDS = 10.0
MAX_CONNECTIONS = 1024
MAX_HEAD_BYTES = 32 * 1024
MAX_MESSAGE_BYTES = 1024 * 1024
RENEW_SECONDS = 60.0
"""How often the files of the certificate are looked at."""
_log = logging.getLogger("sked.serving")


class ServerDied(SkedError):
    """The server ended by itself."""


class HttpServer:
    """Serves ``guard`` on ``listeners``. Started once; the listeners are closed when it ends."""

    def __init__(self, guard: Guard, listeners: Sequence[Listener], *, max_connections: int = MAX_CONNECTIONS) -> None:
        self._server = _Server(guard, listeners, max_connections)
        self._listeners = listeners
        self._thread = threading.Thread(target=self._run, name="sked-http", daemon=True)
        self._failure: BaseException | None = None

    @property
    def urls(self) -> list[str]:
        """Where it is reached: ``unix:/path``, ``http://…``, ``https://…``."""
        return [listener.url for listener in self._listeners]

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        """Returns once callers are served. Raises ServerDied."""
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._server.running.wait(0.05):
            if not self.alive or time.monotonic() > deadline:
                self.stop()
                raise self._death()

    def stop(self) -> None:
        """End it: no further callers, streams are cut. Returns within END_SECONDS and a little. Idempotent."""
        self._server.ask_to_end()
        if self._thread.ident is not None:
            self._thread.join(END_SECONDS + 2.0)
        for listener in self._listeners:
            listener.close()

    def run(self, stop: threading.Event) -> None:
        """Start it, serve until ``stop`` is set, end it. Raises ServerDied if it ends before."""
        self.start()
        self.wait(stop)

    def wait(self, stop: threading.Event) -> None:
        """What follows the start: serve until ``stop`` is set, end it. Raises ServerDied if it ends before."""
        try:
            while not stop.wait(1.0):
                if not self.alive:
                    raise self._death()
        finally:
            self.stop()

    def run_until_signal(self) -> int:
        """The same until SIGTERM or SIGINT, in the main thread; returns the exit code, 0 or 130."""
        stop, told = threading.Event(), SimpleQueue[int]()
        received: list[int] = []

        def on_signal(number: int, _frame: object) -> None:
            received.append(number)
            told.put(number)  # no Event: the main thread, which this interrupts, may be where it has to end first

        def heed() -> None:
            if told.get():
                stop.set()

        threading.Thread(target=heed, daemon=True).start()
        before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self.run(stop)
        finally:
            for number, former in before.items():
                signal.signal(number, former)
            told.put(0)
        return 130 if signal.SIGINT in received else 0

    def _run(self) -> None:
        # Not asyncio.run(): that waits for threads that somebody's slow answer may hold for ever.
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(self._server.serve())
            loop.run_until_complete(_cancel_rest())
            loop.run_until_complete(loop.shutdown_asyncgens())
        except BaseException as error:  # noqa: BLE001  told by whoever waits for the thread
            self._failure = error
        finally:
            loop.close()

    def _death(self) -> ServerDied:
        died = ServerDied("the server for HTTP ended by itself" + (f": {self._failure}" if self._failure else ""))
        died.__cause__ = self._failure
        return died


class _Server(uvicorn.Server):
    def __init__(self, guard: Guard, listeners: Sequence[Listener], max_connections: int) -> None:
        super().__init__(
            uvicorn.Config(
                guard,
                http=_Http,
                ws=_WebSocket,
                loop="asyncio",
                log_config=None,
                log_level="critical",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=END_SECONDS,
                limit_concurrency=max_connections,
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                ws_max_size=MAX_MESSAGE_BYTES,
                ws_per_message_deflate=False,
                ws_ping_interval=None,  # TCP finds out who is gone; a pong would be late where a reader pauses
            )
        )
        self._guard, self._listeners = guard, listeners
        self.running = threading.Event()
        self._asked = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None

    def ask_to_end(self) -> None:
        """From any thread, at any time."""
        self._asked.set()
        loop, end = self._loop, self._end
        if loop is not None and end is not None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(end.set)

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise ServerDied("the application could not start")
        loop = self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self.servers = [
            await loop.create_server(
                self._protocol(listener),
                sock=listener.socket,
                ssl=listener.tls,
                ssl_handshake_timeout=HEAD_SECONDS if listener.tls else None,
            )
            for listener in self._listeners
        ]
        self.started = True
        self.running.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        assert self._end is not None
        while not self._asked.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._end.wait(), RENEW_SECONDS)
            for listener in self._listeners:
                try:
                    listener.renew()
                except OSError as error:
                    _log.warning("the certificate has changed and can't be read: %s", error)
        self._guard.end()

    def _protocol(self, listener: Listener) -> Callable[[], asyncio.Protocol]:
        def made() -> asyncio.Protocol:
            state = {**self.lifespan.state, "listener": listener}
            return _Http(config=self.config, server_state=self.server_state, app_state=state)

        return made


class _Stalls:
    """Cuts off a reader that does not take what waits for it."""

    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    _stall: asyncio.TimerHandle | None = None
    _patience = STALL_SECONDS

    def pause_writing(self) -> None:
        self._stall = self.loop.call_later(self._patience, self.transport.abort)
        super().pause_writing()  # type: ignore[misc]

    def resume_writing(self) -> None:
        self._at_ease()
        super().resume_writing()  # type: ignore[misc]

    def connection_lost(self, exc: Exception | None) -> None:
        self._at_ease()
        super().connection_lost(exc)  # type: ignore[misc]

    def _at_ease(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None


class _Http(_Stalls, H11Protocol):
    """Requests whose head takes too long are cut off, the first on a connection and every later one."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._expect()

    def data_received(self, data: bytes) -> None:
        if self._idle():
            self._expect()
        super().data_received(data)
        if not self._idle():
            self._arrived()

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._arrived()
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        super().connection_lost(exc)

    def _idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _expect(self) -> None:
        if self._head is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def _arrived(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _too_slow(self) -> None:
        self._head = None
        self.transport.abort()


class _WebSocket(_Stalls, WebSocketsSansIOProtocol):
    """The same for what is sent over a websocket, with more patience."""

    _patience = PAUSE_SECONDS


async def _cancel_rest() -> None:
    rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in rest:
        task.cancel()
    if rest:
        await asyncio.wait(rest, timeout=1.0)
