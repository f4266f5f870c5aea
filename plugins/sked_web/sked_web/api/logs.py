"""Logs of tasks and services, handed through from the agents of their hosts, line by line."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from sked_core.client.afar.logs import Line, Wish, line_json, logs
from sked_core.client.notices import noticed
from sked_core.errors import SkedError
from sked_core.model import keys
from sked_core.serving.guard import caller
from sked_core.serving.problems import Refused, describe
from sked_core.serving.tokens import Role
from sked_web.api.table import Route
from sked_web.live_store import LiveStore
from sked_web.state import State

NDJSON = "application/x-ndjson"
MOST_READERS = 64
"""Each takes a thread here, one for each task, and a connection to each agent."""
HELD_LINES = 256
BEAT_SECONDS = 10.0


class LogsAsked(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The last ``lines`` of each container (-1: all), of one ``container``; ``follow``: and what comes; ``previous``:
    of the run before."""

    lines: Annotated[int, Meta(ge=-1, le=1_000_000)] = 100
    container: Annotated[str, Meta(max_length=63)] = ""
    follow: bool = False
    previous: bool = False


class LogLine(Struct, kw_only=True):
    """A line of the answer: what a container wrote; or, with ``notice``, what one should know besides; or, with
    ``problem``, why it ends here. Lines with nothing in them say that it goes on."""

    task: str = ""
    host: str = ""
    container: str = ""
    stream: str = ""
    at: str = ""
    text: str = ""
    notice: str = ""
    problem: Any = None


class Readers:
    """Those who read logs. Used in the loop of one server alone."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.open = 0

    async def read(self, name: str, asked: LogsAsked, who: str) -> AsyncIterator[bytes]:
        """Lines of NDJSON, with the first of them there already. Raises Refused where there are too many readers, and
        what is to be said instead of any line."""
        if self.open >= MOST_READERS:
            raise Refused(503, f"{MOST_READERS} logs are being read already", headers=[("retry-after", "5")])
        self.open += 1
        reader = _Reader(asyncio.get_running_loop())
        wish = Wish(asked.lines, asked.container, asked.follow, asked.previous)
        sked = self._state.session(who)
        sked = replace(sked, store=LiveStore(self._state.mirror, sked.store))
        threading.Thread(target=reader.run, args=(lambda: logs(sked, name, wish, reader.stop),), daemon=True).start()
        try:
            first = await reader.next(BEAT_SECONDS)
            if isinstance(first, SkedError):
                raise first
        except BaseException:
            reader.stop.set()
            self.open -= 1
            raise
        return self._lines(reader, first)

    async def _lines(self, reader: _Reader, what: bytes | SkedError | None) -> AsyncIterator[bytes]:
        try:
            while what is not None:
                if isinstance(what, SkedError):
                    yield msgspec.json.encode({"problem": describe(what)}) + b"\n"
                    return
                yield what
                what = await reader.next(BEAT_SECONDS)
        finally:
            reader.stop.set()
            self.open -= 1


class _Reader:
    """A thread that reads, and a loop that sends: no more than HELD_LINES are between them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._held: asyncio.Queue[bytes | SkedError | None] = asyncio.Queue(HELD_LINES)
        self.stop = threading.Event()

    async def next(self, seconds: float) -> bytes | SkedError | None:
        """The next line; an empty one after so long; an error or None at the end."""
        try:
            return await asyncio.wait_for(self._held.get(), seconds)
        except TimeoutError:
            return b"{}\n"

    def run(self, lines: Callable[[], Any]) -> None:
        """In the thread."""
        with noticed(self._notice):
            end: SkedError | None = None
            try:
                line: Line
                for line in lines():
                    if not self._put(msgspec.json.encode(line_json(line)) + b"\n"):
                        return
            except SkedError as error:
                end = error
            except Exception as error:  # noqa: BLE001  whoever waits for lines has to be told
                end = SkedError(f"{type(error).__name__}: {error}")
            self._put(end)

    def _notice(self, text: str) -> None:
        self._put(msgspec.json.encode({"notice": text}) + b"\n")

    def _put(self, what: bytes | SkedError | None) -> bool:
        """Whether somebody is still there to take it."""
        if self.stop.is_set():
            return False
        with suppress(RuntimeError):  # the loop has ended
            waiting = asyncio.run_coroutine_threadsafe(self._held.put(what), self._loop)
            while not self.stop.is_set():
                with suppress(TimeoutError, CancelledError):
                    waiting.result(0.5)
                    return True
            waiting.cancel()
        return False


def routes(state: State) -> list[Route]:
    readers = Readers(state)

    async def read(request: Request, name: str, asked: Any) -> Response:
        lines = await readers.read(name, asked, caller(request.scope).name)
        return StreamingResponse(lines, media_type=NDJSON, headers={"x-accel-buffering": "no"})

    async def of_task(_: State, request: Request, asked: Any) -> Response:
        return await read(request, keys.check_task_id(request.path_params["id"]), asked)

    async def of_service(_: State, request: Request, asked: Any) -> Response:
        return await read(request, keys.check_name(request.path_params["name"]), asked)

    def route(path: str, summary: str, serve: Any) -> Route:
        return Route("GET", path, Role.READ, "LogLine", LogLine, summary, query=LogsAsked, serve=serve, media=NDJSON)

    return [
        route("/v1/tasks/{id}/logs", "What a task writes, line by line, from its agent.", of_task),
        route("/v1/services/{name}/logs", "What all tasks of a service write, wherever they run.", of_service),
    ]
