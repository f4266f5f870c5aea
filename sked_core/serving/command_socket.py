"""A command in a task over a websocket.

The first message of the caller is JSON: ``{"command": [...], "tty", "rows", "columns", "term"}``. Then bytes are its
input, and JSON says ``{"resize": [rows, columns]}`` or ``{"eof": true}``. Bytes that come back begin with 1 (stdout) or
2 (stderr); JSON is ``{"took": bytes}`` of the input, at the end ``{"exit": code}`` or ``{"error": text, "hint"}``.

A caller sends at most WINDOW_BYTES of input more than were taken, so that neither side holds more than that.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Coroutine
from typing import Any

import msgspec
from starlette.websockets import WebSocket

from sked_core.errors import SkedError
from sked_core.interfaces.executor import CommandRunner, ExecProcess, ExecRequest
from sked_core.model.spec import plain
from sked_core.runtime.agent.task_access import Place, TaskAccess
from sked_core.serving.problems import Refused

WINDOW_BYTES = 256 * 1024
FIRST_SECONDS = 10.0
MAX_COMMANDS = 64
STREAMS = {"stdout": b"\x01", "stderr": b"\x02"}
_commands = threading.BoundedSemaphore(MAX_COMMANDS)
_log = logging.getLogger("sked.agent")


class Begin(msgspec.Struct, frozen=True):
    """The caller's first message."""

    command: list[str]
    tty: bool = False
    rows: int = 24
    columns: int = 80
    term: str = ""


class Later(msgspec.Struct, frozen=True):
    """One of its later messages."""

    resize: tuple[int, int] | None = None
    eof: bool = False


async def serve(websocket: WebSocket, access: TaskAccess, task_id: str, container: str, who: str) -> None:
    """Run what the caller asks for until it or the command ends. Raises Refused before the websocket is accepted."""
    place = find(access, task_id, container)
    if not _commands.acquire(blocking=False):
        raise Refused(429, f"{MAX_COMMANDS} commands run here already", hint="end one of them, or try again later")
    try:
        await websocket.accept()
        process = await _begin(websocket, place, who)
        if process is not None:
            await _talk(websocket, process)
    finally:
        _commands.release()


def find(access: TaskAccess, task_id: str, container: str) -> Place:
    """The container to run something in: the named one, or the first that runs. Raises Refused."""
    found = access.find(task_id)
    if not found:
        raise Refused(404, f"no task {task_id} here", hint=f"what is kept of it: sked why {task_id}")
    named = [place for place in found if place.container == container] if container else found
    if not named:
        known = ", ".join(place.container for place in found)
        raise Refused(404, f"{task_id} has no container {container}", hint=f"it has: {known}")
    place = next((place for place in named if place.handle is not None), None)
    if place is None:
        raise Refused(409, f"{task_id} does not run now", hint=f"sked why {task_id} says more")
    if not isinstance(place.executor, CommandRunner):
        raise Refused(501, f"the executor {place.type} of container {place.container} can't run commands")
    return place


async def _begin(websocket: WebSocket, place: Place, who: str) -> ExecProcess | None:
    """The command, begun; None where that failed, which the caller was told."""
    try:
        async with asyncio.timeout(FIRST_SECONDS):
            message = await websocket.receive()
        begin = msgspec.json.decode(message.get("text") or b"", type=Begin)
        if not begin.command or not begin.command[0]:
            raise msgspec.ValidationError("there is no command")
        assert place.handle is not None
        assert isinstance(place.executor, CommandRunner)
        request = ExecRequest(tuple(begin.command), begin.tty, begin.rows, begin.columns, begin.term[:64])
        _log.info(
            "%s runs in %s/%s: %s",
            plain(who) or "somebody on this machine",
            place.handle.task_id,
            place.container,
            plain(" ".join(begin.command)[:300]),
            extra={"task": place.handle.task_id},
        )
        return await asyncio.to_thread(place.executor.exec, place.handle, request)
    except TimeoutError:
        error, hint = "nothing was asked for", ""
    except msgspec.MsgspecError as wrong:
        error, hint = f"the first message is no command: {wrong}", ""
    except SkedError as failed:
        error, hint = str(failed), failed.hint
    await websocket.send_text(msgspec.json.encode({"error": error, "hint": hint}).decode())
    await websocket.close()
    return None


async def _talk(websocket: WebSocket, process: ExecProcess) -> None:
    loop = asyncio.get_running_loop()
    given: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    pending = 0

    def wait_for(what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, loop).result()

    def tell(what: dict[str, Any]) -> None:
        wait_for(websocket.send_text(msgspec.json.encode(what).decode()))

    def pass_on() -> None:
        try:
            while (part := process.read()) is not None:
                wait_for(websocket.send_bytes(STREAMS.get(part[0], b"\x01") + part[1]))
            try:
                tell({"exit": process.wait()})
            except SkedError as error:
                tell({"error": str(error), "hint": error.hint})
            wait_for(websocket.close())
        except Exception as error:  # noqa: BLE001  the caller, or the loop, is gone
            _log.debug("a command's output is not wanted any more: %s", error)
        finally:
            given.put(None)

    def take_in() -> None:
        nonlocal pending
        try:
            while (data := given.get()) is not None:
                if data:
                    process.write(data)
                    pending -= len(data)
                    tell({"took": len(data)})
                else:
                    process.close_input()
        except Exception as error:  # noqa: BLE001  the caller, or the loop, is gone
            _log.debug("a command's input comes no more: %s", error)

    threads = [threading.Thread(target=work, name="exec", daemon=True) for work in (pass_on, take_in)]
    try:
        for thread in threads:
            thread.start()
        while (message := await websocket.receive())["type"] != "websocket.disconnect":
            if (data := message.get("bytes")) is not None:
                pending += len(data)
                if pending > 2 * WINDOW_BYTES:
                    return  # it does not keep to the window
                if data:
                    given.put(data)
            else:
                later = msgspec.json.decode(message.get("text") or b"", type=Later)
                if later.resize:
                    await asyncio.to_thread(process.resize, *later.resize)
                if later.eof:
                    given.put(b"")
    except msgspec.MsgspecError:
        await websocket.close(1007)
    finally:
        given.put(None)
        threading.Thread(target=process.close, name="exec", daemon=True).start()  # it may wait for the command
