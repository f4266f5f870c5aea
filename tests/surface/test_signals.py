"""A signal may come at any moment: between any two steps of the main thread, which may hold a lock of what it sets."""

from __future__ import annotations

import subprocess
import sys

import pytest

SWEEP = """
import os, signal, sys
from sked_core.runtime.plugins.known_types import know_types
{setup}
know_types()
for moment in range(1, 10_000):
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # ends it where it hangs
        left = moment
        def traced(frame, event, argument):
            global left
            left -= signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
            if left:
                return traced
            sys.settrace(None)
            signal.raise_signal(signal.SIGTERM)
        sys.settrace(traced)
        code = {run}
        sys.settrace(None)
        os._exit(100 if left > 0 else code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        sys.exit(f"{{moment}} moments, the last one: {{code}}")
"""
PROCESSES = "from sked_core.surface.processes import run_until_signal"
SERVER = """
from sked_core.serving.server import HttpServer
class Serves:
    def run(self, stop):
        stop.wait(0.01)
"""


@pytest.mark.parametrize(
    ("setup", "run"),
    [(PROCESSES, "run_until_signal({'agent': lambda stop: None})"), (SERVER, "HttpServer.run_until_signal(Serves())")],
    ids=["run", "web"],
)
def test_whenever_it_comes_the_process_ends(setup: str, run: str) -> None:
    program = SWEEP.format(setup=setup, run=run)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=400)
    moments, _, code = done.stderr.strip().partition(" moments, the last one: ")
    assert code == "100", f"{done.stderr}: it does not end where the signal comes then"
    assert int(moments) > 20, "next to nothing was tried"
