"""Commands in running containers: the engine's exec, over a connection that both sides talk on at once."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from sked_core.plugin import ExecRequest, ExecutorError
from sked_docker.engine import CALL_SECONDS, Engine, output_of, socket_of, words_of
from sked_docker.output import HEADER
from sked_docker.reading import STREAMS

PIECE_BYTES = 64 * 1024
END_SECONDS = 5.0
"""How long the engine may take to learn of an end that its stream has told of already."""
GONE = 137
"""The code of a command whose container was removed under it: it was killed."""
NOT_FOUND = 127
"""What a shell ends with where there is no such command (POSIX, 2.8.2)."""
_FAILED = b"OCI runtime exec failed: "
_NO_SUCH_COMMAND = re.compile(
    rb'exec: ".*": stat .*: no such file or directory|executable file .*not found in \$PATH', re.DOTALL
)
"""What runc and crun say. Of a working folder that is missing they speak in other words."""


class Command:
    """A command that runs, as the port has it."""

    def __init__(self, engine: Engine, ref: str, request: ExecRequest) -> None:
        self._engine, self._ref, self._tty = engine, ref, request.tty
        self._stack = ExitStack()
        self._lock = threading.Lock()
        self._closed = False
        self._stream, self._size = "", 0
        self._name = request.command[0]
        self._begun, self._code = False, -1
        body: dict[str, Any] = {
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": request.tty,
            "Cmd": list(request.command),
        }
        if request.tty and request.term:
            body["Env"] = [f"TERM={request.term}"]
        answer = engine.call("POST", f"/containers/{ref}/exec", body=body, deadline=CALL_SECONDS)
        if answer.status != 201:
            raise ExecutorError(f"the Docker engine runs nothing in container {ref[:12]}: {answer.message}")
        self._id: str = answer.body["Id"]
        # Engines before 23 (API 1.42) don't know it: there the size comes a moment after the start.
        size = {"ConsoleSize": [request.rows, request.columns]} if request.tty else {}
        try:
            response = self._stack.enter_context(
                engine.stream(
                    "POST",
                    f"/exec/{self._id}/start",
                    body={"Detach": False, "Tty": request.tty} | size,
                    headers={"Connection": "Upgrade", "Upgrade": "tcp"},
                )
            )
            if response.status_code not in (101, 200):
                raise ExecutorError(f"{request.command[0]} can't be run: {words_of(response)}")
            self._socket: socket.socket = socket_of(response)
            self._output: Any = output_of(response)
        except BaseException:
            self._stack.close()
            raise
        if request.tty:
            self.resize(request.rows, request.columns)

    def read(self) -> tuple[str, bytes] | None:
        part = self._next()
        if not self._begun:
            self._begun = True
            if part is not None and part[1].startswith(_FAILED):
                return self._failed(part)
        return part

    def _failed(self, part: tuple[str, bytes]) -> tuple[str, bytes]:
        """What the engine says as if the command had: it never began, and ends with 126 also where it is not there (so
        20.10). A command that speaks like that by itself has, or had, a process."""
        found = self._inspect()
        if found is None or found["Running"] or found["Pid"]:
            return part
        stream, said = part
        while len(said) < PIECE_BYTES and (more := self._next()) is not None:
            said += more[1]
        if not _NO_SUCH_COMMAND.search(said):
            return stream, said
        self._code = NOT_FOUND
        end = "\r\n" if self._tty else "\n"
        return "stdout" if self._tty else "stderr", f"{self._name}: command not found{end}".encode()

    def _next(self) -> tuple[str, bytes] | None:
        try:
            if self._tty:
                data: bytes = self._output.read1(PIECE_BYTES)
                return ("stdout", data) if data else None
            while not self._size:
                head = self._exactly(HEADER)
                if not head:
                    return None
                self._stream, self._size = STREAMS.get(head[0], "stdout"), int.from_bytes(head[4:], "big")
            data = self._output.read1(min(PIECE_BYTES, self._size))
            self._size -= len(data)
            return (self._stream, data) if data else None
        except (OSError, ValueError):  # closed meanwhile, or the engine is gone: wait() tells
            return None

    def _exactly(self, size: int) -> bytes:
        """That many bytes; nothing at the end."""
        found = b""
        while len(found) < size:
            more = self._output.read1(size - len(found))
            if not more:
                return b""
            found += more
        return found

    def write(self, data: bytes) -> None:
        with suppress(OSError):  # it reads no more
            self._socket.sendall(data)

    def close_input(self) -> None:
        if self._tty:
            self.write(b"\x04")  # what a person would type
            return
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def resize(self, rows: int, columns: int) -> None:
        query = {"h": str(rows), "w": str(columns)}
        with suppress(ExecutorError):  # a terminal of the wrong size is one all the same
            self._engine.call("POST", f"/exec/{self._id}/resize", query=query, deadline=CALL_SECONDS)

    def wait(self) -> int:
        if self._code >= 0:
            return self._code
        pause = threading.Event()
        for _ in range(int(END_SECONDS / 0.05)):
            found = self._inspect()
            if found is None:
                return GONE
            if not found["Running"]:
                return int(found["ExitCode"] if found["ExitCode"] is not None else GONE)
            pause.wait(0.05)
        raise ExecutorError("the Docker engine lost the connection to a command that runs on")

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with suppress(ExecutorError):
            found = self._inspect()
            if found is not None and found["Running"]:
                self._hang_up(int(found["Pid"]))
        self._stack.close()

    def _inspect(self) -> dict[str, Any] | None:
        answer = self._engine.call("GET", f"/exec/{self._id}/json", deadline=CALL_SECONDS)
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise ExecutorError(f"the Docker engine can't tell of a command: {answer.message}")
        found: dict[str, Any] = answer.body
        return found

    def _hang_up(self, pid: int) -> None:
        """The engine leaves commands running whose caller is gone, and has no call to end one. Where its processes are
        those of this very machine, which their control group tells, the command is killed."""
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return
        try:
            with suppress(OSError):
                if self._ref in Path(f"/proc/{pid}/cgroup").read_text():
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
        finally:
            os.close(fd)
