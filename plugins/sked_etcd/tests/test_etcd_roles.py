"""The roles of the README are enough for Sked's processes, each of which signs in as a user of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.clients import reads, within
from sked_etcd.store import EtcdStore
from sked_etcd.wire import field

README = Path(__file__).parents[1] / "README.md"
READ, READ_WRITE = 0, 2
MANIFEST = """
clusters:
  - {name: default, services: [sleep]}
services:
  - {name: sleep, task_name: sleep, task_version: 1, desired: 2}
task_definitions:
  - name: sleep
    version: 1
    containers:
      - {name: sleep, type: bash, executor: {start: sleep 1000}}
"""


def grants(row: str, host: str) -> list[tuple[int, str]]:
    """The kind and prefix of each grant that the README gives to the process whose row begins with ``row``."""
    line = next(line for line in README.read_text().splitlines() if line.startswith(f"| {row}"))
    _, _, reads, writes, _ = line.split("|")
    found = [(READ, "")] if "everything" in reads else []
    for kind, cell in ((READ, reads), (READ_WRITE, writes)):
        found += [(kind, prefix.replace("HOST", host)) for prefix in re.findall(r"`([^`]+)`", cell)]
    return found


def add_user(call: Callable[..., object], name: str, permissions: list[tuple[int, str]]) -> None:
    call("/etcdserverpb.Auth/RoleAdd", field(1, name), bytes)
    for kind, prefix in permissions:
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else "\0"
        permission = field(1, kind) + field(2, prefix or "\0") + field(3, end)
        call("/etcdserverpb.Auth/RoleGrantPermission", field(1, name) + field(2, permission), bytes)
    call("/etcdserverpb.Auth/UserAdd", field(1, name) + field(2, "secret"), bytes)
    call("/etcdserverpb.Auth/UserGrantRole", field(1, name) + field(2, name), bytes)


@pytest.fixture
def url(local_etcd: Callable[..., list[Any]], open_store: Callable[[str], EtcdStore]) -> str:
    (server,) = local_etcd()
    store = open_store(server.url)
    within(20, lambda: reads(store))
    for row, name in (("agent", "agent"), ("scheduler", "scheduler"), ("people", "people")):
        add_user(store._client.call, name, grants(row, "web-1"))
    add_user(store._client.call, "root", [])
    store._client.call("/etcdserverpb.Auth/AuthEnable", b"", bytes)
    return str(server.url)


@pytest.fixture
def sked(url: str, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Runs the command as a user: to its end, or in the background."""
    running: list[subprocess.Popen[bytes]] = []
    program = "import sys; from sked_core.surface.cli import main; sys.argv[0] = 'sked'; main()"

    def run(user: str, *arguments: str, background: bool = False) -> Any:
        command = [sys.executable, "-c", program, "--backend", url, *arguments]
        environ = dict(os.environ, ETCDCTL_USER=user, ETCDCTL_PASSWORD="secret")
        if not background:
            return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
        with (tmp_path / f"{user}.log").open("wb") as log:
            running.append(subprocess.Popen(command, env=environ, stdout=log, stderr=log))
        return None

    yield run
    for process in running:
        process.terminate()
        process.wait(20)


def test_an_agent_a_scheduler_and_people(sked: Callable[..., Any], tmp_path: Path) -> None:
    sked("agent", "run", "agent", "--host", "web-1", "--state-dir", str(tmp_path / "state"), background=True)
    sked("scheduler", "run", "scheduler", background=True)
    manifest = tmp_path / "sleep.yml"
    manifest.write_text(MANIFEST)

    def tasks(healthy: int) -> None:
        deadline = time.monotonic() + 60
        while True:
            listed = sked("people", "tasks", "-o", "json")
            if listed.returncode == 0:
                items = json.loads(listed.stdout)["items"]
                if len(items) == healthy and all(item["healthy"] for item in items):
                    return
            logs = "".join(log.read_text()[-2000:] for log in tmp_path.glob("*.log"))
            assert time.monotonic() < deadline, f"{listed.stdout} {listed.stderr}\n{logs}"
            time.sleep(0.3)

    applied = sked("people", "apply", "-f", str(manifest))
    assert applied.returncode == 0, applied.stderr
    tasks(2)
    assert sked("people", "scale", "sleep", "0").returncode == 0
    tasks(0)
    for user in ("agent", "scheduler"):
        log = (tmp_path / f"{user}.log").read_text()
        assert "denied" not in log, log
    refused = sked("scheduler", "cordon", "web-1")
    assert refused.returncode == 7, refused.stderr
    assert "secret" not in refused.stderr
