"""Commands in containers: the program says what to run on the host, and the bridge runs it and carries the bytes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from sked_core.plugin import ExecRequest, ExecutorError, clean_environment, own_account, plain, spawn

PIECE_BYTES = 64 * 1024
HANG_UP_SECONDS = 2.0
# The leader of a session that has no terminal gets the one that it opens (tty_ioctl(4)).
_ON_TERMINAL = 'exec <>"$0" >&0 2>&0 && exec "$@"'


class Told(Protocol):
    """What the program answered."""

    command: list[str]
    env: dict[str, str]
    cwd: str


class Command:
    """A command that runs, as the port has it."""

    def __init__(self, told: Told, request: ExecRequest) -> None:
        """Raises ExecutorError where it can't be run."""
        self._closing = threading.Event()
        self._reading, self._writing, self._ending = threading.Lock(), threading.Lock(), threading.Lock()
        self._tty = request.tty
        self._fds: dict[str, int] = {}
        self._pidfd, self._ended = -1, os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            self._begin(told, request)
        except (OSError, ValueError) as error:
            self._release()
            what = getattr(error, "strerror", None) or error
            raise ExecutorError(f"{plain(told.command[0][:200])} can't be run: {what}") from None

    def _begin(self, told: Told, request: ExecRequest) -> None:
        theirs: list[int] = []
        argv: Sequence[str] = told.command
        try:
            if request.tty:
                master, slave = pty.openpty()
                theirs, given = [slave], [slave] * 3
                self._fds = {"stdin": master, "stdout": os.dup(master)}
                self.resize(request.rows, request.columns)
                argv = ["/bin/sh", "-c", _ON_TERMINAL, os.ttyname(slave), *argv]
            else:
                pipes = [os.pipe() for _ in range(3)]
                theirs = given = [pipes[0][0], pipes[1][1], pipes[2][1]]
                self._fds = {"stdin": pipes[0][1], "stdout": pipes[1][0], "stderr": pipes[2][0]}
            for fd in self._fds.values():
                os.set_blocking(fd, False)
            who = own_account()
            env = clean_environment(who) | told.env | ({"TERM": request.term} if request.term else {})
            self._process = spawn(
                argv,
                who,
                env=env,
                cwd=Path(told.cwd),
                stdin=given[0],
                stdout=given[1],
                stderr=given[-1],
                new_privileges=True,
            )
            self._pidfd = os.pidfd_open(self._process.pid)
        finally:
            for fd in theirs:
                os.close(fd)

    def read(self) -> tuple[str, bytes] | None:
        with self._reading:
            while not self._closing.is_set():
                fds = {fd: name for name, fd in self._fds.items() if name != "stdin"}
                # What it left running may hold its output open for ever: its own end counts.
                ready = _ready([*fds, self._pidfd, self._ended])
                found = [fd for fd in fds if fd in ready]
                for fd in found:
                    if (data := _read(fd)) is not None:
                        if data:
                            return fds[fd], data
                        os.close(self._fds.pop(fds[fd]))
                if self._pidfd in ready and not found:
                    return None
            return None

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        with self._writing:
            while view and not self._closing.is_set() and (fd := self._fds.get("stdin")) is not None:
                if fd not in _ready([self._pidfd, self._ended], [fd]):
                    return  # it has ended
                try:
                    view = view[os.write(fd, view[:PIECE_BYTES]) :]
                except BlockingIOError:
                    continue
                except OSError:  # it reads no more
                    os.close(self._fds.pop("stdin"))

    def close_input(self) -> None:
        if self._tty:
            self.write(b"\x04")  # what a person would type
            return
        with self._writing:
            if (fd := self._fds.pop("stdin", None)) is not None:
                os.close(fd)

    def resize(self, rows: int, columns: int) -> None:
        with self._writing:
            if self._tty and (fd := self._fds.get("stdin")) is not None:
                fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0))

    def wait(self) -> int:
        code = self._process.wait()
        return 128 - code if code < 0 else code

    def close(self) -> None:
        with self._ending:
            if not self._closing.is_set():
                self._closing.set()
                os.eventfd_write(self._ended, 1)  # whoever reads or writes comes back
                with self._reading, self._writing:
                    self._release()
        if self._process.poll() is None:
            self._signal(signal.SIGHUP, signal.SIGCONT)  # a shell ends by that, where it would not by TERM
        try:
            self._process.wait(HANG_UP_SECONDS)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _signal(self, *numbers: signal.Signals) -> None:
        for number in numbers:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _release(self) -> None:
        fds = [*self._fds.values(), self._ended, self._pidfd]
        self._fds, self._ended, self._pidfd = {}, -1, -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)


def _ready(reading: list[int], writing: list[int] | None = None) -> set[int]:
    poll = select.poll()
    for fd in reading:
        poll.register(fd, select.POLLIN)
    for fd in writing or ():
        poll.register(fd, select.POLLOUT)
    return {fd for fd, _ in poll.poll()}


def _read(fd: int) -> bytes | None:
    """None where there is nothing yet; nothing at the end."""
    try:
        return os.read(fd, PIECE_BYTES)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno == errno.EIO:  # a terminal that nobody has open any more
            return b""
        raise
