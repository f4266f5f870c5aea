"""The process behind ``rigs.forked``: imports all of Sked, then forks a command for each request."""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import sys
import threading

_codes: list[int] = []


@atexit.register  # before all others, so called after them
def _end() -> None:
    """Without taking Python apart, which copies most of the memory that is shared so far."""
    if _codes:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(_codes[0])


def import_all() -> None:
    """What commands, agents and schedulers import when they need it as well: else each of them would do it anew."""
    from sked_core.runtime.plugins.registry import Plugins

    plugins = {row.module.partition(".")[0] for row in Plugins.load().rows()} - {"sked_core"}
    core = (f"sked_core.{part}" for part in ("client", "logic", "model", "runtime", "serving", "surface"))
    for name in (*core, *sorted(plugins)):
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(getattr(package, "__path__", ()), f"{name}."):
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)


def serve(address: str) -> list[str]:
    """Take command lines until standard input ends. Returns in a child: the arguments of a command to run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it tells what has become of those that Ctrl-C does not reach
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
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if request["session"]:
        os.setsid()
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
    import_all()
    from sked_core.runtime.plugins.known_types import know_types
    from sked_core.surface import cli

    know_types()
    gc.collect()
    gc.freeze()
    assert threading.active_count() == 1, "a thread is not there any more after a fork"
    sys.argv = [sys.argv[2], *serve(sys.argv[1])]
    try:
        cli.main()
    except SystemExit as end:
        if isinstance(end.code, int):
            _codes.append(end.code)
        raise
