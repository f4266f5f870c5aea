"""Running a command in a task, wherever that runs. The protocol is that of serving.command_socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from sked_core.client.afar import logs
from sked_core.client.afar.agents import Agent, AgentAway, agent_of, commanded
from sked_core.client.outcomes import FAILED, Ended
from sked_core.client.session import Session
from sked_core.errors import Conflict, InvalidValue

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

WINDOW_BYTES = 256 * 1024
PIECE_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class Terminal:
    """The terminal that a command is to have."""

    rows: int = 24
    columns: int = 80
    term: str = ""


class Running:
    """A command that runs. One thread reads ``output``, others may write."""

    def __init__(self, agent: Agent, websocket: ClientConnection) -> None:
        self._agent, self._websocket = agent, websocket
        self._window = threading.Condition()
        self._under_way = 0
        self._over = False
        self.code: int | None = None
        """The exit code, once ``output`` has ended."""

    def output(self) -> Iterator[tuple[str, bytes]]:
        """What it writes, each with ``stdout`` or ``stderr``; ends with it. Raises Ended where the agent can't run it,
        AgentAway where the agent was lost: whether it runs on is not known then."""
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                message = self._websocket.recv()
                if isinstance(message, bytes):
                    yield ("stderr" if message[:1] == b"\x02" else "stdout"), message[1:]
                    continue
                said: dict[str, Any] = json.loads(message)
                if "took" in said:
                    with self._window:
                        self._under_way -= int(said["took"])
                        self._window.notify_all()
                elif "exit" in said:
                    self.code = int(said["exit"])
                    return
                else:
                    text = f"{self._agent.host}: {said.get('error', 'no reason was given')}"
                    raise Ended(text, code=FAILED, hint=str(said.get("hint", "")))
        except ConnectionClosed as error:
            raise AgentAway(
                f"the agent of {self._agent.host} was lost ({error}); it ends the command if it can"
            ) from error
        finally:
            with self._window:
                self._over = True
                self._window.notify_all()

    def write(self, data: bytes) -> None:
        """Give it input; waits while too much of it was not taken. Nothing happens once it has ended."""
        for at in range(0, len(data), PIECE_BYTES):
            piece = data[at : at + PIECE_BYTES]
            with self._window:
                self._window.wait_for(lambda: self._over or self._under_way < WINDOW_BYTES)
                self._under_way += len(piece)
            self._send(piece)

    def close_input(self) -> None:
        """No more input comes."""
        self._send(json.dumps({"eof": True}))

    def resize(self, rows: int, columns: int) -> None:
        """Its terminal has another size now."""
        self._send(json.dumps({"resize": [rows, columns]}))

    def _send(self, what: str | bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        if not self._over:
            try:
                self._websocket.send(what)
            except ConnectionClosed:
                self._over = True  # whoever reads is told why


@contextmanager
def running(
    sked: Session, name: str, command: Sequence[str], *, container: str = "", terminal: Terminal | None = None
) -> Iterator[Running]:
    """Run ``command`` in the task ``name``, in its first container unless one is named; it is ended with the block.

    Raises NotFound, Conflict where the task does not run, Denied, AgentAway, InvalidValue.
    """
    if not command or not command[0]:
        raise InvalidValue("there is no command to run", hint=f"sked exec {name} -- COMMAND")
    aim = logs.target(sked.store, name)
    if aim.service:
        ids = [task.id for task in aim.tasks[:10]]
        raise InvalidValue(f"{name} is a service: a command runs in one task", hint="its tasks: " + ", ".join(ids))
    if not aim.tasks:
        raise Conflict(f"{name} is gone", hint=f"sked why {name} tells its story")
    task = aim.tasks[0]
    agent = agent_of(sked.store, task.host)
    query = "?" + urlencode({"container": container}) if container else ""
    with commanded(agent, f"/v1/tasks/{task.id}/exec{query}") as websocket:
        first: dict[str, Any] = {"command": list(command)}
        if terminal is not None:
            size = {"rows": terminal.rows, "columns": terminal.columns, "term": terminal.term}
            first |= {"tty": True} | size
        websocket.send(json.dumps(first))
        yield Running(agent, websocket)
