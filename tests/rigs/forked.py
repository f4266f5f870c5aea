"""The ``sked`` command without its start: a process that has imported all of it forks one for each command line.

Starting Python and importing Sked takes a third of a second of a processor, and whoever waits for something looks ten
times a second. What runs is a process as any other, with its own environment, folder, streams and exit code.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

SKED = Path(sys.executable).parent / "sked"


def sked(
    arguments: Sequence[str], *, env: Mapping[str, str], stdin: str = "", timeout: float
) -> subprocess.CompletedProcess[str]:
    """What ``subprocess.run`` of that command line tells. Raises subprocess.TimeoutExpired. Any thread may call it."""
    command = [str(SKED), *arguments]
    if _of_python(env) != _of_python(os.environ):  # other modules may be meant, and these are imported
        return subprocess.run(command, input=stdin, capture_output=True, text=True, env=env, timeout=timeout)
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin.encode())
        given.seek(0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.connect(_server(os.getpid()))
            request = json.dumps({"arguments": list(arguments), "env": dict(env), "cwd": os.getcwd()}).encode()
            socket.send_fds(line, [b"%9d" % len(request)], [given.fileno(), out.fileno(), err.fileno()])
            line.sendall(request)
            answers = line.makefile()
            pid = int(answers.readline())
            if not select.select([line], [], [], timeout)[0]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(command, timeout)
            code = int(answers.readline())
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, code, out.read().decode(), err.read().decode())


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
    command = [
        sys.executable,
        "-P",
        __file__,
        address[1:],
    ]  # not of this folder: it has a consul.py
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    _SERVERS.append(server)
    return address


_SERVERS: list[subprocess.Popen[bytes]] = []
"""Kept, since a server ends when its standard input does."""


def _serve(address: str) -> list[str]:
    """Take command lines until standard input ends. Returns in a child: the arguments of a command to run."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as doors:
        doors.bind("\0" + address)
        doors.listen(64)
        print("ready", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
        while True:
            if sys.stdin in select.select([doors, sys.stdin], [], [])[0]:
                raise SystemExit(0)
            line = doors.accept()[0]
            if os.fork() == 0:
                break
            line.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, streams, _, _ = socket.recv_fds(line, 9, 3)
    read, wanted = line.makefile("rb"), int(length)
    request = json.loads(read.read(wanted))
    pid = os.fork()
    if pid:
        line.sendall(b"%d\n" % pid)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(OSError):
            line.sendall(b"%d\n" % code)
        os._exit(0)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    read.close()
    line.close()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    return request["arguments"]


if __name__ == "__main__":
    import gc
    import pkgutil

    import sked_core.surface.commands
    from sked_core.runtime.plugins.registry import Plugins
    from sked_core.surface import cli

    for module in pkgutil.iter_modules(sked_core.surface.commands.__path__, "sked_core.surface.commands."):
        __import__(module.name)
    Plugins.load()
    gc.freeze()
    assert threading.active_count() == 1, "a thread is not there any more after a fork"
    sys.argv = [str(SKED), *_serve(sys.argv[1])]
    cli.main()
