"""Sked's processes and people, each with no more rights in the store than the files of packaging/ give them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sked_core.errors import Denied
from sked_core.interfaces.store import Put, Store
from sked_core.model import keys

HOST, OTHER = "web-1", "web-10"
DENIED = 7
ROLES = ("agent", "scheduler", "viewer", "people", "operator")


def manifest(start: str, name: str, cluster: str) -> str:
    container = {"name": name, "type": "bash", "executor": {"start": start}}
    return json.dumps(
        {
            "clusters": [{"name": cluster, "services": [name]}],
            "services": [{"name": name, "task_name": name, "task_version": 1, "desired": 2}],
            "task_definitions": [{"name": name, "version": 1, "containers": [container]}],
        }
    )


class Household:
    """``secrets``: variables that make a process one of ROLES, by role."""

    def __init__(self, url: str, folder: Path, secrets: Mapping[str, Mapping[str, str]]) -> None:
        self._url, self._folder, self._secrets = url, folder, secrets
        self._running: list[subprocess.Popen[bytes]] = []

    def sked(self, role: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(*arguments), input=stdin, env=self._env(role), capture_output=True, text=True, timeout=60
        )

    def start(self, role: str, *arguments: str) -> None:
        with (self._folder / f"{role}.log").open("wb") as log:
            command = self._command(*arguments)
            self._running.append(subprocess.Popen(command, env=self._env(role), stdout=log, stderr=log))

    def close(self) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            process.wait(20)

    def _command(self, *arguments: str) -> list[str]:
        program = "import sys; from sked_core.surface.cli import main; sys.argv[0] = 'sked'; main()"
        return [sys.executable, "-c", program, "--backend", self._url, *arguments]

    def _env(self, role: str) -> dict[str, str]:
        return {**os.environ, "SKED_POLICY": "development", **self._secrets[role]}

    def until(self, what: str, holds: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 60
        while not (found := holds()):
            logs = "".join(f"--- {log.name}\n{log.read_text()[-3000:]}" for log in self._folder.glob("*.log"))
            assert time.monotonic() < deadline, f"never: {what}\n{logs}"
            time.sleep(0.2)
        return found

    def tasks(self, service: str) -> list[dict[str, Any]]:
        listed = self.sked("viewer", "tasks", "--by-service", service, "-o", "json")
        return json.loads(listed.stdout)["items"] if listed.returncode == 0 else []


def everybody_does_what_they_may(home: Household, folder: Path, store: Store) -> None:
    """``store``: as somebody who may read everything."""
    home.start("agent", "run", "agent", "--host", HOST, "--state-dir", str(folder / "state"))
    home.start("scheduler", "run", "scheduler")

    for who in ("viewer", "scheduler"):
        refused = home.sked(who, "apply", "-f", "-", stdin=manifest("exec sleep 1000", "well", "default"))
        assert refused.returncode == DENIED, f"{who}: {refused.stderr}"
    for name, start, cluster in (("well", "exec sleep 1000", "default"), ("ill", "echo so; exit 3", "other")):
        applied = home.sked("people", "apply", "-f", "-", stdin=manifest(start, name, cluster))
        assert applied.returncode == 0, applied.stderr
    home.until("two that are well", lambda: [t["healthy"] for t in home.tasks("well")] == [True, True])
    home.until("a failure", lambda: store.read(keys.FAILURES).entries)
    home.until("the evidence of it", lambda: store.read(keys.endings(HOST)).entries)
    (_, unlucky) = home.until("which they are", lambda: home.tasks("well"))

    assert home.sked("people", "stop", unlucky["id"], "-y").returncode == DENIED, "it takes state/"
    stopped = home.sked("operator", "stop", unlucky["id"], "-y")
    assert stopped.returncode == 0, stopped.stderr
    home.until("it is gone", lambda: unlucky["id"] not in {t["id"] for t in home.tasks("well")})
    for command in (["cordon", HOST, "--why", "x"], ["uncordon", HOST], ["scale", "well", "0"], ["scale", "ill", "0"]):
        done = home.sked("people", *command)
        assert done.returncode == 0, done.stderr
    home.until("all is gone", lambda: not store.read(keys.STATE).entries)
    for command in (["status"], ["services"], ["events"], ["hosts"]):
        looked = home.sked("viewer", *command)
        assert looked.returncode == 0, looked.stderr
    assert home.sked("scheduler", "cordon", HOST).returncode == DENIED
    for role in ("agent", "scheduler"):
        log = (folder / f"{role}.log").read_text().lower()
        assert "denied" not in log and "permission" not in log, log


def an_agent_writes_nothing_of_another_host(store: Store) -> None:
    """``store``: as the agent of HOST, whose name OTHER begins with."""
    theirs = [
        keys.host(OTHER),
        keys.live(OTHER),
        keys.agent(OTHER),
        keys.host_task(OTHER, "default-web-1-0"),
        keys.ending(OTHER, 0),
        keys.service("web"),
        keys.mark(HOST),
        keys.service_lock("web"),
    ]
    for key in theirs:
        with pytest.raises(Denied):
            store.commit([Put(key, b"{}")])
