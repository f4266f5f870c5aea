"""Script checks, run by the agent: Consul refuses them over its API unless it is told to trust everybody."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sked_core.plugin import Health, Policy, SkedError, TaskId, chosen, clean_environment, spawn

log = logging.getLogger("sked.consul")
OUTPUT_BYTES = 4096
"""As much as Consul's agent keeps of a check's output."""
_STEP_MS = 250


@dataclass(frozen=True, slots=True)
class Script:
    """One script check. ``environment`` is that of the task; ``interval`` and ``timeout`` are seconds."""

    check_id: str
    command: str
    environment: tuple[tuple[str, str], ...]
    interval: float
    timeout: float


class ScriptChecks:
    """Runs the scripts of registered tasks, each in a thread of its own, and passes on what comes out.

    ``report`` may raise SkedError: the next run reports again. ``policy`` says as whom they run; ``mask`` as in
    HealthContext.
    """

    def __init__(self, report: Callable[[str, Health], None], policy: Policy, mask: Callable[[str, str], str]) -> None:
        self._report, self._policy, self._mask = report, policy, mask
        self._lock = threading.Lock()
        self._running: dict[TaskId, tuple[tuple[Script, ...], threading.Event, list[threading.Thread]]] = {}

    def keep(self, task_id: TaskId, scripts: Sequence[Script]) -> None:
        """Run exactly these for the task, the first time at once. Scripts that run already are left alone."""
        wanted = tuple(scripts)
        with self._lock:
            if task_id in self._running and self._running[task_id][0] == wanted:
                return
            self._stop(task_id)
            if not wanted:
                return
            stop = threading.Event()
            threads = [
                threading.Thread(target=self._loop, args=(task_id, script, stop), name=script.check_id, daemon=True)
                for script in wanted
            ]
            self._running[task_id] = (wanted, stop, threads)
        for thread in threads:
            thread.start()

    def drop(self, task_id: TaskId) -> None:
        """Run none for the task any more; one that runs is killed soon. Idempotent."""
        with self._lock:
            self._stop(task_id)

    def close(self) -> None:
        """End all of them, and return once they have ended. Idempotent."""
        with self._lock:
            threads = [thread for _, _, threads in self._running.values() for thread in threads]
            for task_id in list(self._running):
                self._stop(task_id)
        deadline = time.monotonic() + 2
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _stop(self, task_id: TaskId) -> None:
        if task_id in self._running:
            self._running.pop(task_id)[1].set()

    def _loop(self, task_id: TaskId, script: Script, stop: threading.Event) -> None:
        while not stop.is_set():
            begun = time.monotonic()
            health = run_script(script, stop, self._policy)
            if not stop.is_set():
                try:
                    self._report(script.check_id, Health(health.healthy, self._mask(task_id, health.output)))
                except SkedError as error:
                    log.debug("%s not reported: %s", script.check_id, error)
            stop.wait(max(0.0, begun + script.interval - time.monotonic()))


def run_script(script: Script, stop: threading.Event, policy: Policy) -> Health:
    """Its outcome within its timeout, sooner when ``stop`` is set, run as the user whom ``policy`` names for checks.
    Exit code 0 passes.

    It runs in a session of its own, and whatever is left of that afterwards is killed.
    """
    try:
        who = chosen(policy.checks.user, root=policy.checks.root)
        process = spawn(
            ["bash", "-c", script.command],
            who,
            env=clean_environment(who) | dict(script.environment),
            cwd=Path("/"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except (OSError, ValueError) as error:
        return Health(False, f"script: can't run it: {error}"[:OUTPUT_BYTES])
    try:
        ended, output = _output(process, time.monotonic() + script.timeout, stop)
    finally:
        # It was not waited for yet, so its id can't have passed to somebody else.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
    text = output.decode("utf-8", "replace").strip()
    if ended and code == 0:
        return Health(True, text)
    what = f"exit {code}" if ended else f"no end within {script.timeout:g} s"
    return Health(False, f"script: {what}" + (f": {text}" if text else ""))


def _output(process: subprocess.Popen[bytes], deadline: float, stop: threading.Event) -> tuple[bool, bytes]:
    """Whether it ended, and the beginning of what it printed. A child that it left behind may hold the pipe open:
    the end is seen by the process, not by the pipe."""
    if process.stdout is None:
        return False, b""
    with process.stdout as stdout:
        pipe, output = stdout.fileno(), b""
        pid = os.pidfd_open(process.pid)
        try:
            events = select.poll()
            events.register(pipe, select.POLLIN)
            events.register(pid, select.POLLIN)
            while not stop.is_set() and time.monotonic() < deadline:
                ready = {fd for fd, _ in events.poll(_STEP_MS)}
                if pipe in ready:
                    chunk = os.read(pipe, 65536)
                    output = (output + chunk)[:OUTPUT_BYTES]
                    if not chunk:
                        events.unregister(pipe)
                if pid in ready and (pipe not in ready or len(output) == OUTPUT_BYTES):
                    return True, output
            return False, output
        finally:
            os.close(pid)


def outcome(health: Health) -> Mapping[str, str]:
    """What Consul is told of a run."""
    return {"Status": "passing" if health.healthy else "critical", "Output": health.output[:OUTPUT_BYTES]}
