"""What every rig needs of this machine: free ports, answers over HTTP, a server process with its log."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on, all different."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def ask(url: str, *, body: bytes | None = None, method: str = "", timeout: float = 5) -> bytes | None:
    """The body of the answer, past any proxy; None while there is no good answer. ``body`` makes it a POST."""
    request = urllib.request.Request(url, data=body, method=method or ("GET" if body is None else "POST"))
    with contextlib.suppress(OSError), _direct.open(request, timeout=timeout) as answer:
        found: bytes = answer.read()
        return found
    return None


class Server:
    """One server process with a folder of its own: data below ``data``, and ``log``.

    It keeps its command, so its ports too, and its data from one start to the next.
    """

    def __init__(self, what: str, command: Sequence[str], folder: Path, ready: Callable[[], bool]) -> None:
        self._what, self._command, self._ready = what, list(command), ready
        self.folder, self.data = folder, folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, timeout: float = 30) -> None:
        """Start it, and return once it takes writes. Nothing to do while it runs."""
        if self._process is not None and self._process.poll() is None:
            return
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + timeout
        while not self._ready():
            if time.monotonic() > deadline or self._process.poll() is not None:
                tail = (self.folder / "log").read_text()[-2000:]
                raise AssertionError(f"{self._what} did not come up:\n{tail}")
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL, data kept. Nothing to do while it is down."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def pause(self) -> None:
        """SIGSTOP, and return once it stands still: connections open, but nothing answers."""
        self._signal(signal.SIGSTOP)
        assert self._process is not None
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "it is not running"
        self._process.send_signal(number)
