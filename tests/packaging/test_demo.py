"""``scripts/demo`` shows what it promises and leaves nothing behind, however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NO_ENGINE = {"DOCKER_HOST": "unix:///nonexistent.sock"}


@pytest.fixture
def demo(tmp_path):
    """Starts the demo in a session of its own, with its temporary files in ``tmp_path``."""
    started: list[subprocess.Popen[str]] = []

    def start(**environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [ROOT / "scripts" / "demo"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"TMPDIR": str(tmp_path)} | environment,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.communicate(timeout=100)


def _remains(folder: Path) -> list[str]:
    """Files below ``folder``, and processes that were started with it in their environment."""
    remains = [path.name for path in folder.iterdir()]
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"XDG_STATE_HOME={folder}/".encode() in environ.read_bytes():
                remains.append(f"process {environ.parent.name}")
    return remains


def test_as_plain_processes_where_no_engine_answers(demo, tmp_path):
    process = demo(**NO_ENGINE)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "no Docker engine answers" in said
    assert [line for line in said.splitlines() if " on port " in line and "Hello from default-helloworld" in line]
    assert _remains(tmp_path) == []


def test_as_containers(demo, tmp_path, docker_engine):
    process = demo()
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert len([line for line in said.splitlines() if line.endswith(": Hello from Sked")]) == 7
    left = ["docker", "ps", "--all", "--quiet", "--filter", "label=sked.host=demo"]
    assert subprocess.run(left, capture_output=True, text=True, timeout=60).stdout == ""
    assert _remains(tmp_path) == []


def test_ctrl_c_cleans_up_as_well(demo, tmp_path):
    process = demo(**NO_ENGINE)
    for line in process.stdout:
        if "waiting for" in line:
            break
    time.sleep(0.5)  # any moment will do: some tasks run by now, others are about to
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode in (130, 0), said  # 0: it had shown everything and was cleaning up already
    assert _remains(tmp_path) == []
