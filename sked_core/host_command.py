"""A command that runs on this host for somebody who is elsewhere: with pipes, or on a terminal of its own.

What an executor gives as an ExecProcess whose commands are processes of the host. One thread may read while another
writes, and closing ends both.
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
from collections.abc import Callable, Sequence
from contextlib import suppress

PIECE_BYTES = 64 * 1024
HANG_UP_SECONDS = 2.0
"""What a command gets to end by itself once its caller is gone."""
# The leader of a session that has no terminal gets the one that it opens (tty_ioctl(4)).
_ON_TERMINAL = 'exec <>"$0" >&0 2>&0 && exec "$@"'
Begin = Callable[[Sequence[str], int, int, int], "subprocess.Popen[bytes]"]
"""Starts an argv with these three descriptors, as the leader of a session of its own."""


class HostCommand:
    """A command that runs: an ExecProcess."""

    def __init__(
        self,
        command: Sequence[str],
        begin: Begin,
        *,
        tty: bool = False,
        rows: int = 24,
        columns: int = 80,
        sh: str = "/bin/sh",
        terminal_uid: int = -1,
    ) -> None:
        """Have ``begin`` start ``command``. On a terminal it is started by ``sh``, which takes the terminal first;
        ``terminal_uid``: whose it is to be, where the command runs as somebody else (-1: as whoever calls).

        Raises what ``begin`` raises; nothing is left then.
        """
        self._ended, self._pidfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK), -1
        self._closing = threading.Event()
        self._reading, self._writing, self._ending = threading.Lock(), threading.Lock(), threading.Lock()
        self._tty = tty
        self._fds: dict[str, int] = {}
        theirs: list[int] = []
        try:
            if tty:
                master, slave = pty.openpty()
                os.fchown(slave, terminal_uid, -1)  # it opens the terminal by its name
                self._fds, theirs, given = {"stdin": master, "stdout": os.dup(master)}, [slave], [slave] * 3
                self.resize(rows, columns)
                command = [sh, "-c", _ON_TERMINAL, os.ttyname(slave), *command]
            else:
                pipes = [os.pipe() for _ in range(3)]
                theirs = given = [pipes[0][0], pipes[1][1], pipes[2][1]]
                self._fds = {"stdin": pipes[0][1], "stdout": pipes[1][0], "stderr": pipes[2][0]}
            for fd in self._fds.values():
                os.set_blocking(fd, False)
            self._process = begin(command, *given)
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
