"""What an agent offers to those who are not on its host: logs of its tasks, and commands in them.

- ``GET /v1/tasks/<id>/logs``: ``container``, ``lines`` (a number or ``all``), ``follow``, ``previous`` (1 or 0) and,
  for each container once, ``after=<container>=<cursor>``. Text, or JSON lines where ``Accept`` says
  ``application/x-ndjson``: ``{"container", "stream", "at", "text", "cursor"}``, ``{}`` where nothing is said for
  a while, and at last ``{"end": true}``, without which something is missing, or ``{"error", "hint"}``.
- ``/v1/tasks/<id>/exec``, a websocket: see command_socket.

A caller may say by ``Sked-Host`` whose agent it wants: another one refuses. Reading takes the role read, commands take
admin.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from sked_core.errors import SkedError
from sked_core.runtime.agent.task_access import TaskAccess
from sked_core.serving import command_socket, task_logs
from sked_core.serving.guard import demand
from sked_core.serving.problems import Refused
from sked_core.serving.tokens import Role
from sked_core.serving.watching import check_host

NDJSON = "application/x-ndjson"


def agent_routes(host: str, access: TaskAccess) -> list[BaseRoute]:
    """The routes of the agent of ``host``, to be put among those of an application."""

    async def logs(request: Request) -> Response:
        demand(request.scope, Role.READ)
        check_host(request, host)
        task_id = request.path_params["task"]
        wanted = _wanted(request)
        found = await asyncio.to_thread(task_logs.places, access, task_id, request.query_params.get("container", ""))
        lines = task_logs.read(access, task_id, found, wanted)
        as_json = NDJSON in request.headers.get("accept", "")
        # What can't be read at all is told by the status, unless that would have to wait for the first line.
        first = None if wanted.follow else await anext(lines, None)
        kind = NDJSON if as_json else "text/plain; charset=utf-8"
        return StreamingResponse(_encoded(first, lines, as_json=as_json), media_type=kind)

    async def run(websocket: WebSocket) -> None:
        who = demand(websocket.scope, Role.ADMIN)
        check_host(websocket, host)
        await command_socket.serve(
            websocket, access, websocket.path_params["task"], websocket.query_params.get("container", ""), who.name
        )

    return [Route("/v1/tasks/{task}/logs", logs), WebSocketRoute("/v1/tasks/{task}/exec", run)]


def _wanted(request: Request) -> task_logs.Wanted:
    asked = request.query_params
    lines = asked.get("lines", "all")
    if lines != "all" and not (lines.isascii() and lines.isdecimal() and len(lines) < 10):
        raise Refused(400, f'lines: expected a number or all, got "{lines[:20]}"')
    after = dict(pair.partition("=")[::2] for pair in asked.getlist("after"))
    return task_logs.Wanted(
        lines=-1 if lines == "all" else int(lines),
        follow=asked.get("follow") in ("1", "true"),
        previous=asked.get("previous") in ("1", "true"),
        after=after,
    )


async def _encoded(
    first: list[task_logs.Said] | None, lines: AsyncIterator[list[task_logs.Said]], *, as_json: bool
) -> AsyncIterator[bytes]:
    try:
        if first is not None:
            yield _bytes(first, as_json=as_json)
        async for some in lines:
            yield _bytes(some, as_json=as_json)
        if as_json:
            yield b'{"end":true}\n'
    except SkedError as error:
        if as_json:
            yield msgspec.json.encode({"error": str(error), "hint": error.hint}) + b"\n"
        else:
            yield f"sked: {error}\n".encode()
    finally:
        if hasattr(lines, "aclose"):
            await lines.aclose()


def _bytes(some: list[task_logs.Said], *, as_json: bool) -> bytes:
    """Lines; where there are none, something that says so, as far as there is such a thing."""
    if not as_json:
        return b"".join(said.line.text.encode(errors="replace") + b"\n" for said in some)
    return b"".join(map(_json, some)) or b"{}\n"


def _json(said: task_logs.Said) -> bytes:
    line = said.line
    shown = {"stream": line.stream, "at": line.at, "text": line.text, "cursor": line.cursor}
    return msgspec.json.encode({"container": said.container} | shown) + b"\n"
