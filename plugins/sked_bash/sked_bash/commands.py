"""Commands that people run beside a task: in its environment and folder, but apart from what keeps it alive.

Their mark is the task's behind a prefix: whoever asks whether the task still runs does not find them, and whoever ends
it does (see ``Instance.left``).
"""

from __future__ import annotations

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
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from sked_bash.spec import COMMAND_MARK, MARK
from sked_bash.starting import Spawn
from sked_core.plugin import ExecRequest, ExecutorError

PIECE_BYTES = 64 * 1024
HANG_UP_SECONDS = 2.0
"""What a command gets to end by itself once its caller is gone."""
_PLAIN = 'exec "$@"'
# The leader of a session that has no terminal gets the one that it opens (tty_ioctl(4)).
_ON_TERMINAL = 'exec <>"$0" >&0 2>&0 && exec "$@"'


def run(folder: Path, mark: str, env: Mapping[str, str], request: ExecRequest, bash: str, spawn: Spawn) -> Command:
    """Begin ``request`` by ``spawn`` in ``folder``, beside the task that bears ``mark`` and has ``env``. Raises
    ExecutorError."""
    env = {**env, MARK: COMMAND_MARK + mark} | ({"TERM": request.term} if request.term else {})
    try:
        return Command(folder, env, request, bash, spawn)
    except OSError as error:
        raise ExecutorError(f"{request.command[0]} can't be run: {error.strerror or error}") from error
    except ValueError as error:  # a NUL within
        raise ExecutorError(f"{request.command[0]!r} can't be run: {error}") from error


class Command:
    """A command that runs, as the port has it."""

    def __init__(self, folder: Path, env: dict[str, str], request: ExecRequest, bash: str, spawn: Spawn) -> None:
        self._ended, self._pidfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK), -1
        self._closing = threading.Event()
        self._reading, self._writing, self._ending = threading.Lock(), threading.Lock(), threading.Lock()
        self._tty = request.tty
        self._fds: dict[str, int] = {}
        theirs: list[int] = []
        try:
            if request.tty:
                master, slave = pty.openpty()
                os.fchown(slave, spawn.who.uid, -1)  # it opens the terminal by its name
                self._fds, theirs = {"stdin": master, "stdout": os.dup(master)}, [slave]
                self.resize(request.rows, request.columns)
                argv = [bash, "-c", _ON_TERMINAL, os.ttyname(slave), *request.command]
                given = [slave] * 3
            else:
                pipes = [os.pipe() for _ in range(3)]
                given = [pipes[0][0], pipes[1][1], pipes[2][1]]
                self._fds = {"stdin": pipes[0][1], "stdout": pipes[1][0], "stderr": pipes[2][0]}
                theirs = given
                argv = [bash, "-c", _PLAIN, "sked exec", *request.command]
            for fd in self._fds.values():
                os.set_blocking(fd, False)
            self._process = spawn(argv, cwd=folder, env=env, stdin=given[0], stdout=given[1], stderr=given[2])
            self._pidfd = os.pidfd_open(self._process.pid)
        except BaseException:
            self._release()
            raise
        finally:
            for fd in theirs:
                os.close(fd)

    def read(self) -> tuple[str, bytes] | None:
        with self._reading:
            while not self._closing.is_set():
                fds = {fd: name for name, fd in self._fds.items() if name != "stdin"}
                # What it left running in the background may hold its output open for ever: its own end counts.
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

    def hang_up(self) -> None:
        """Tell it that its caller is gone; a shell ends by that, where it would not by TERM."""
        if self._process.poll() is None:
            _signal(self._process.pid, signal.SIGHUP, signal.SIGCONT)

    def close(self) -> None:
        with self._ending:
            if not self._closing.is_set():
                self._closing.set()
                os.eventfd_write(self._ended, 1)  # whoever reads or writes comes back
                with self._reading, self._writing:
                    self._release()
        self.hang_up()
        try:
            self._process.wait(HANG_UP_SECONDS)
        except subprocess.TimeoutExpired:
            _signal(self._process.pid, signal.SIGKILL)
            self._process.wait()

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


def _signal(group: int, *numbers: signal.Signals) -> None:
    for number in numbers:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
