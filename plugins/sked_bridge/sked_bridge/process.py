"""One process of a program: a line in, a line out, and whatever else it may come up with."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import threading
from collections import deque
from pathlib import Path

from sked_core.plugin import Clock, SystemClock, clean_environment, own_account, plain, spawn

MAX_ANSWER_BYTES = 4 * 1024 * 1024
MAX_SAID_CHARACTERS = 2000
"""Of one line that it writes to standard error; the rest of it is left out."""
SAID_LINES = 5
"""How many of them stand in the message when it fails."""
_LOGGED, _WINDOW_SECONDS = 100, 10.0
"""So many lines of it are logged in so much time."""
_PIECE = 64 * 1024
_DRAINED = 64
"""Pieces of standard error that are still read once it has ended: a child of it may go on writing for ever."""

_log = logging.getLogger(__name__)


class Broken(Exception):
    """It has ended, is too slow, or does not keep to the protocol: nothing can be asked of this process any more."""


class Process:
    """A running program, for one thread at a time; ``kill`` is for any."""

    def __init__(self, path: Path, *, executor: bool, secret: bool, clock: Clock | None = None) -> None:
        """``executor``: what it runs may gain rights, as by sudo. ``secret``: what it writes is never quoted. Raises
        OSError where it can't be started."""
        self.path, self._secret, self._clock = path, secret, clock or SystemClock()
        self.numbers = 0
        """How many requests it was sent."""
        who = own_account()
        pipe = subprocess.PIPE
        self._process = spawn(
            [str(path)],
            who,
            env=clean_environment(who),
            cwd=Path("/"),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            new_privileges=executor,
        )
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._in, self._out, self._err = self._process.stdin, self._process.stdout, self._process.stderr
        for stream in (self._in, self._out, self._err):
            os.set_blocking(stream.fileno(), False)
        self._pidfd = os.pidfd_open(self._process.pid)
        self._ended = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._ending = threading.Lock()
        self._over = False
        self._said: deque[str] = deque(maxlen=SAID_LINES)
        self._listener = threading.Thread(target=self._listen, name=f"stderr of {path.name}", daemon=True)
        self._listener.start()

    def said(self) -> str:
        """The last that it wrote to standard error, in one line."""
        return " | ".join(self._said)

    def quoted(self, data: bytes | bytearray) -> str:
        """The beginning of it, fit to be shown."""
        return "(not shown)" if self._secret else plain(bytes(data[:200]).decode(errors="replace"))

    def exchange(self, request: bytes, until: float) -> bytes:
        """Write ``request``, a line, and return the line that it answers with, without its end. ``until``: of the
        monotonic clock. Raises Broken."""
        self.quiet()
        left, answer = memoryview(request), bytearray()
        while True:
            ready = self._wait(until, writing=bool(left))
            if self._in.fileno() in ready:
                left = left[self._write(left) :]
            if self._out.fileno() in ready:
                piece = self._read()
                end = piece.find(b"\n")
                answer += piece if end < 0 else piece[:end]
                if len(answer) > MAX_ANSWER_BYTES:
                    raise Broken(f"wrote a line of more than {MAX_ANSWER_BYTES} bytes")
                if end >= 0:
                    if left:
                        raise Broken(f"answered before it had read the request: {self.quoted(answer)}")
                    if piece[end + 1 :]:
                        raise Broken(f"wrote more than one line: {self.quoted(answer + piece[end:])}")
                    return bytes(answer)
            elif self._pidfd in ready:
                # Looked at last: what it wrote before it ended counts, and a child may hold its output open for ever.
                raise Broken(self._how_it_ended())

    def quiet(self) -> None:
        """Nothing. Raises Broken if it has ended, or said what nobody asked for."""
        ready = _ready([self._out.fileno(), self._pidfd], [], 0)
        if self._pidfd in ready:
            raise Broken(self._how_it_ended())
        if ready and (piece := self._read()):
            raise Broken(f"wrote what nobody had asked for: {self.quoted(piece)}")

    def gone(self) -> bool:
        """Whether it has ended by itself, with nothing more said."""
        ready = _ready([self._out.fileno(), self._pidfd], [], 0)
        return self._pidfd in ready

    def kill(self) -> None:
        """End it at once with all that is left in its process group."""
        with self._ending:
            self._kill()

    def end(self, seconds: float = 0.0) -> None:
        """Close its input, give it ``seconds`` to end by itself, then end it with all that is left in its process
        group. Idempotent."""
        with self._ending:
            if self._over:
                return
            with contextlib.suppress(OSError):
                self._in.close()
            if seconds:
                _ready([self._pidfd], [], seconds)
            self._kill()
            self._over = True
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            _log.warning("program %s can't be ended: pid %d hangs in the kernel", self.path, self._process.pid)
        os.eventfd_write(self._ended, 1)
        self._listener.join(5)
        for stream in (self._out, self._err):
            stream.close()
        os.close(self._pidfd)
        os.close(self._ended)

    def _kill(self) -> None:
        # Not waited for yet, so that its number is still its own, and its group's.
        if not self._over:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _wait(self, until: float, *, writing: bool) -> set[int]:
        left = until - self._clock.monotonic()
        writers = [self._in.fileno()] if writing else []
        ready = _ready([self._out.fileno(), self._pidfd], writers, left) if left > 0 else set()
        if not ready:
            raise Broken("did not read the request in time" if writing else "did not answer in time")
        return ready

    def _write(self, data: memoryview) -> int:
        try:
            return os.write(self._in.fileno(), data[:_PIECE])
        except BlockingIOError:
            return 0
        except OSError:
            raise Broken(self._how_it_ended("closed its standard input")) from None

    def _read(self) -> bytes:
        try:
            piece = os.read(self._out.fileno(), _PIECE)
        except BlockingIOError:
            return b""
        if not piece:
            raise Broken(self._how_it_ended("closed its standard output"))
        return piece

    def _how_it_ended(self, otherwise: str = "") -> str:
        # One that ends closes its files first: a moment to be told which of the two it was.
        if not _ready([self._pidfd], [], 0.2 if otherwise else 0):
            return otherwise
        facts = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if facts is None:
            return "ended"
        by_signal = facts.si_code != os.CLD_EXITED
        return f"was killed by signal {facts.si_status}" if by_signal else f"ended with exit {facts.si_status}"

    def _listen(self) -> None:
        """Log what it writes to standard error, until it is ended: a child may hold that open for longer."""
        held, drained, window, count = b"", 0, 0.0, 0
        err = self._err.fileno()
        while drained < _DRAINED:
            ready = _ready([err, self._ended], [], None)
            drained += self._ended in ready
            if err not in ready:
                break
            try:
                piece = os.read(err, _PIECE)
            except BlockingIOError:
                continue
            if not piece:
                break
            *lines, held = (held + piece).split(b"\n")
            held = held[: 4 * MAX_SAID_CHARACTERS]
            for line in lines:
                if self._clock.monotonic() >= window + _WINDOW_SECONDS:
                    window, count = self._clock.monotonic(), 0
                count += 1
                self._hear(line, logged=count < _LOGGED, last=count == _LOGGED)
        if held:
            self._hear(held, logged=True)

    def _hear(self, line: bytes, *, logged: bool, last: bool = False) -> None:
        text = plain(line.decode(errors="replace")[:MAX_SAID_CHARACTERS])
        self._said.append(text[:300])
        if logged:
            _log.info("%s: %s", self.path.name, text)
        elif last:
            _log.warning("%s says too much to be logged: the rest of some seconds is left out", self.path.name)


def _ready(reading: list[int], writing: list[int], seconds: float | None) -> set[int]:
    poll = select.poll()
    for fd in reading:
        poll.register(fd, select.POLLIN)
    for fd in writing:
        poll.register(fd, select.POLLOUT)
    return {fd for fd, _ in poll.poll(None if seconds is None else max(0, int(seconds * 1000)))}
