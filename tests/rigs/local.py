"""What every rig needs of this machine: free ports, answers over HTTP, a server process with its log."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

PORTS = range(10_000, 20_000)
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_ports(count: int) -> list[int]:
    """Ports of this host that nobody listens on, all different. They lie below those that the kernel gives to outgoing
    connections, one of which could take a port before it is used, and below those that agents give to tasks. All tests
    of a user have them in turn, by a file: two that drew the same one at once would both find it free."""
    found: list[int] = []
    with (Path(tempfile.gettempdir()) / f"sked-tests-next-port-{os.getuid()}").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        after = int(file.read() or random.SystemRandom().choice(PORTS))
        for port in (*range(after + 1, PORTS.stop), *PORTS):
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind(("", port))
                found.append(port)
            if len(found) == count:
                file.truncate(0)
                file.write(str(port))
                return found
    raise OSError(f"fewer than {count} ports of {PORTS} are free")


@contextlib.contextmanager
def descriptors_taken(below: int = 1024) -> Iterator[None]:
    """Whatever this process opens inside has a descriptor that is ``below`` at least: beyond what select(2) knows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as held:
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, below + 200), hard))
        while held.enter_context(Path(os.devnull).open()).fileno() < below:
            """All below are taken then."""
        yield


def ask(url: str, *, body: bytes | None = None, method: str = "", timeout: float = 5) -> bytes | None:
    """The body of the answer, past any proxy; None while there is no good answer. ``body`` makes it a POST."""
    request = urllib.request.Request(url, data=body, method=method or ("GET" if body is None else "POST"))
    with contextlib.suppress(OSError), _direct.open(request, timeout=timeout) as answer:
        found: bytes = answer.read()
        return found
    return None


def start_time(pid: int) -> str:
    """When this process started, in the kernel's ticks; empty if it has ended. With it a pid names one process."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    return ""


class Server:
    """One server process with a folder of its own: data below ``data``, ``log``, and ``pid`` while it runs.

    It keeps its command, so its ports too, and its data from one start to the next. ``ready``: whether it serves.
    """

    def __init__(self, what: str, command: Sequence[str], folder: Path, ready: Callable[[], bool]) -> None:
        self._what, self._command, self._ready = what, list(command), ready
        self.folder, self.data = folder, folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, timeout: float = 90) -> None:
        """Start it, and return once it serves. Nothing to do while it runs."""
        self.launch()
        self.await_ready(timeout)

    def launch(self) -> None:
        """Start it without waiting for it, as members of a cluster need it: they wait for one another."""
        if self.runs():
            return
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        (self.folder / "pid").write_text(f"{self._process.pid} {start_time(self._process.pid)}")

    def await_ready(self, timeout: float = 90) -> None:
        deadline = time.monotonic() + timeout
        while not self._ready():
            if time.monotonic() > deadline or not self.runs():
                tail = (self.folder / "log").read_text()[-2000:]
                raise AssertionError(f"{self._what} did not come up:\n{tail}")
            time.sleep(0.1)

    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL, data kept. Nothing to do while it is down."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(60)
            self._process = None

    def pause(self) -> None:
        """SIGSTOP, and return once all of it stands still: connections open, but nothing answers."""
        self._signal(signal.SIGSTOP)
        assert self._process is not None
        deadline = time.monotonic() + 60
        while os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT | os.WNOHANG) is None:
            assert time.monotonic() < deadline, f"{self._what} does not stop"
            time.sleep(0.005)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Kill it and remove its data; after the next ``start`` it is an empty store."""
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "it is not running"
        self._process.send_signal(number)


def end_noted(note: Path) -> None:
    """Kill the process that a ``pid`` file names, if it is still that one, and wait until it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        pid, started = note.read_text().split()
        deadline = time.monotonic() + 60
        while start_time(int(pid)) == started and time.monotonic() < deadline:
            os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.05)
