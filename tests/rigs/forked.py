"""The ``sked`` command without its start: a process that has imported all of it forks one for each command line.

Starting Python and importing Sked takes a third of a second of a processor, and whoever waits for something looks
several times a second. What runs is a process as any other, with its own environment, folder, streams and exit code.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TypeAlias

SKED = Path(sys.executable).parent / "sked"


class Forked:
    """A ``sked`` command that runs, with as much of ``subprocess.Popen`` as tests use."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], streams: Sequence[int], session: bool) -> None:
        self.args = [str(SKED), *arguments]
        self.returncode: int | None = None
        self._over = threading.Event()
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._line.connect(_server(os.getpid()))
        request = {"arguments": list(arguments), "env": dict(env), "cwd": os.getcwd(), "session": session}
        sent = json.dumps(request).encode()
        socket.send_fds(self._line, [b"%9d" % len(sent)], streams)
        self._line.sendall(sent)
        answers = self._line.makefile()
        self.pid = int(answers.readline())
        threading.Thread(target=self._await_end, args=(answers,), daemon=True).start()

    def _await_end(self, answers: IO[str]) -> None:
        with self._line, answers:
            self.returncode = int(answers.readline() or -signal.SIGKILL)  # who waited for it may be killed, too
        self._over.set()

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; that of a signal is negative. Raises subprocess.TimeoutExpired. Any thread may call it."""
        if not self._over.wait(timeout) or self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


Process: TypeAlias = "Forked | subprocess.Popen[bytes]"


def start(arguments: Sequence[str], *, env: Mapping[str, str], out: IO[bytes]) -> Process:
    """Run that command line in a session of its own; all that it says goes into ``out``."""
    if _needs_its_own_python(env):
        return subprocess.Popen([str(SKED), *arguments], stdout=out, stderr=out, env=env, start_new_session=True)
    with Path(os.devnull).open() as nothing:
        return Forked(arguments, env, [nothing.fileno(), out.fileno(), out.fileno()], session=True)


def sked(
    arguments: Sequence[str], *, env: Mapping[str, str], stdin: str = "", timeout: float
) -> subprocess.CompletedProcess[str]:
    """What ``subprocess.run`` of that command line tells. Raises subprocess.TimeoutExpired. Any thread may call it."""
    if _needs_its_own_python(env):
        command = [str(SKED), *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, env=env, timeout=timeout)
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin.encode())
        given.seek(0)
        process = Forked(arguments, env, [given.fileno(), out.fileno(), err.fileno()], session=False)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(process.args, code, out.read().decode(), err.read().decode())


def _needs_its_own_python(env: Mapping[str, str]) -> bool:
    """Whether other modules may be meant than those that are imported."""
    return _of_python(env) != _of_python(os.environ)


def _of_python(env: Mapping[str, str]) -> dict[str, str]:
    """What decides when Python starts, or modules are imported, and not later."""
    return {key: value for key, value in env.items() if key.startswith(("PYTHON", "LC_", "LANG", "SKED_FAILPOINT"))}


_LOCK = threading.Lock()


def _server(pid: int) -> str:
    """The address of this process's own server, which ends with it."""
    with _LOCK:
        return _started(pid)


@functools.cache
def _started(pid: int) -> str:
    address = f"\0sked-tests-{pid}-{os.urandom(6).hex()}"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SKED_")}
    program = Path(__file__).with_name("fork_server.py")
    command = [sys.executable, "-P", str(program), address[1:], str(SKED)]  # not of this folder: it has a consul.py
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    _SERVERS.append(server)
    return address


_SERVERS: list[subprocess.Popen[bytes]] = []
"""Kept, since a server ends when its standard input does."""
