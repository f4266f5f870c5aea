"""Sked itself for whole-system tests: real agents and schedulers as processes, on any store.

Host names are unique to each test, and everything that runs for them is found by that name and ended afterwards,
so tests can share one machine, one engine and one store.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from rigs.forked import SKED, Process, sked, start

PATIENCE = 90.0
"""Seconds until a test gives up on something that normally takes moments: a bound for hangs, not a measure."""


class Proc:
    """One Sked process, with its log."""

    def __init__(self, command: list[str], log: Path, env: dict[str, str]) -> None:
        self.log = log
        with log.open("ab") as out:
            if command[0] == str(SKED):
                self._process: Process = start(command[1:], env=env, out=out)
            else:
                self._process = subprocess.Popen(command, stdout=out, stderr=out, env=env, start_new_session=True)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self._process.kill()
        self._process.wait(60)

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self._process.terminate()
        return self._process.wait(60)

    def wait(self) -> int:
        return self._process.wait(PATIENCE)

    def alive(self) -> bool:
        return self._process.poll() is None

    def text(self) -> str:
        return self.log.read_text()


class Rig:
    """Starts Sked processes against one store and looks at what came of it."""

    def __init__(self, backend: str, folder: Path, *, prefix: str = "") -> None:
        self.backend, self.folder = backend, folder
        self.mark = secrets.token_hex(3)
        self.procs: list[Proc] = []
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("SKED_", "CONSUL_"))}
        self.env = {**clean, "SKED_BACKEND": backend, "XDG_STATE_HOME": str(folder / "state"), "SKED_PREFIX": prefix}
        self.env["SKED_POLICY"] = "development"  # tests of what it forbids name their own

    def host(self, name: str) -> str:
        """The unique host name behind a test's short one."""
        return f"{name}-{self.mark}"

    def run(
        self,
        kind: str,
        *options: str,
        host: str = "",
        backend: str = "",
        within: Sequence[str] = (),
        more: Mapping[str, str] | None = None,
    ) -> Proc:
        """Start ``sked run KIND``; agents get their host name and a state folder that outlives them.

        ``backend``: another way to the same store. ``within``: what to put before the command, e.g. to run it in a
        namespace. ``more``: of its environment."""
        own = ["--host", self.host(host), "--state-dir", str(self.folder / f"agent-{host}")] if host else []
        log = self.folder / f"{kind}-{host}-{len(self.procs)}.log"
        env = self.env | ({"SKED_BACKEND": backend} if backend else {}) | dict(more or {})
        proc = Proc([*within, str(SKED), "run", kind, *own, *options], log, env)
        self.procs.append(proc)
        return proc

    def sked(self, *arguments: str, stdin: str = "", code: int = 0, errors: bool = False) -> str:
        """Run a command that must end with ``code``; returns its standard output, with ``errors`` the other as well."""
        done = sked(arguments, env=self.env, stdin=stdin, timeout=PATIENCE)
        assert done.returncode == code, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr if errors else done.stdout

    def apply(self, manifest: dict[str, Any]) -> None:
        self.sked("apply", "-f", "-", stdin=json.dumps(manifest))

    def items(self, kind: str = "tasks") -> list[dict[str, Any]]:
        return json.loads(self.sked(kind, "-o", "json"))["items"]

    def until(self, what: str, holds: Callable[[], Any], patience: float = PATIENCE, *, pause: float = 0.2) -> Any:
        """Look until ``holds`` gives something true, and return that; fail with the logs otherwise."""
        deadline = time.monotonic() + patience
        while True:
            found = holds()
            if found:
                return found
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {proc.log.name}\n{proc.text()[-3000:]}" for proc in self.procs)
                shown = []
                for listing in ("tasks", "services"):
                    with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                        shown.append(self.sked(listing))
                raise AssertionError("\n".join((f"never: {what}", *shown, logs)))
            time.sleep(pause)

    def healthy(self, count: int) -> Callable[[], list[dict[str, Any]]]:
        """A condition: exactly ``count`` tasks exist, and all of them are healthy."""

        def holds() -> list[dict[str, Any]]:
            tasks = self.items()
            return tasks if len(tasks) == count and all(task["healthy"] for task in tasks) else []

        return holds

    def all_of(self, version: int, count: int) -> Callable[[], bool]:
        """A condition: exactly ``count`` tasks exist, all healthy and of that version."""

        def holds() -> bool:
            tasks = self.healthy(count)()
            return bool(tasks) and {task["task_definition"]["version"] for task in tasks} == {version}

        return holds

    def hosts_ready(self, count: int, executor: str = "bash") -> None:
        """Wait until so many hosts are ready and offer an executor: they are known before theirs have answered."""

        def ready() -> int:
            return sum(host["state"] == "ready" and executor in host["executors"] for host in self.items("hosts"))

        self.until(f"{count} hosts with {executor}", lambda: ready() == count)

    def on(self, host: str) -> list[str]:
        """Ids of the tasks that should run on a host."""
        return [task["id"] for task in self.items() if task["host"] == self.host(host) and task["scheduled"]]

    def events(self, what: str = "") -> list[dict[str, Any]]:
        """All events that the store has, or those of one kind; the newest last."""
        found = json.loads(self.sked("events", "-o", "json"))["items"]
        return [one for one in found if what in ("", one["what"])]

    def processes(self) -> dict[str, list[int]]:
        """Pids of everything that runs for a task of this rig, by task id, the one that runs longest first (numbers
        begin anew now and then). Found by its environment."""
        found: dict[str, list[tuple[float, int]]] = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                env = process.environ()
                if env.get("SKED_HOST", "").endswith(f"-{self.mark}"):
                    found.setdefault(env["SKED_TASK_ID"], []).append((process.create_time(), process.pid))
        return {task: [pid for _, pid in sorted(pids)] for task, pids in sorted(found.items())}

    def containers(self, *options: str) -> dict[str, list[str]]:
        """Ids of this rig's Docker containers, by task id; with ``--all`` dead ones as well."""
        form = '{{.Label "sked.host"}} {{.Label "sked.task"}} {{.ID}}'
        listed = subprocess.run(
            ["docker", "ps", "--no-trunc", "--filter", "label=sked.task", "--format", form, *options],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        found: dict[str, list[str]] = {}
        for line in listed.stdout.splitlines():
            host, task, container = line.split()
            if host.endswith(f"-{self.mark}"):
                found.setdefault(task, []).append(container)
        return {task: sorted(ids) for task, ids in sorted(found.items())}

    def clean_up(self) -> None:
        """End every process and container that was started for this rig."""
        for proc in self.procs:
            if proc.alive():
                proc.signal(signal.SIGCONT)
                proc.kill()
        for pids in self.processes().values():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(FileNotFoundError, subprocess.CalledProcessError):
            ids = [one for some in self.containers("--all").values() for one in some]
            if ids:
                subprocess.run(["docker", "rm", "--force", "--volumes", *ids], capture_output=True, timeout=120)


def service(
    name: str = "web", *, desired: int = 3, version: int = 1, start: str = "exec sleep 1000", **more: Any
) -> dict[str, Any]:
    """A manifest with one bash service in cluster default. ``more`` goes into the task definition, except
    ``bounds`` (into the service), ``container`` (into the container) and ``cluster``."""
    bounds, container, cluster = more.pop("bounds", {}), more.pop("container", {}), more.pop("cluster", {})
    return {
        "clusters": [{"name": "default", "services": [name], **cluster}],
        "services": [{"name": name, "task_name": name, "task_version": version, "desired": desired, **bounds}],
        "task_definitions": [
            {
                "name": name,
                "version": version,
                **more,
                "containers": [{"name": name, "type": "bash", "executor": {"start": start}, **container}],
            }
        ],
    }
