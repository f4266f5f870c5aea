"""The rig that forks commands from a process that is warm: what comes of them is what comes of a real one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rigs.forked import SKED, Process, sked, start
from sked_core.interfaces import failpoints

MANIFEST = """\
clusters: [{name: default, services: [web]}]
services: [{name: web, task_name: web, task_version: 1, desired: 1}]
task_definitions:
  - {name: web, version: 1, containers: [{name: web, type: bash, executor: {start: sleep 1000}}]}
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A store of this test, and no setting of the machine that runs it."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SKED_")}
    return clean | {"SKED_BACKEND": f"sqlite://{tmp_path / 'sked.db'}"}


@pytest.mark.parametrize(
    "arguments",
    [["apply", "-f", "-", "--dry-run"], ["services", "-o", "json"], ["describe", "service/none"], ["nonsense"]],
)
def test_a_forked_command_says_what_a_real_one_says(env: dict[str, str], arguments: list[str]) -> None:
    real = subprocess.run([SKED, *arguments], input=MANIFEST, capture_output=True, text=True, env=env, timeout=120)
    forked = sked(arguments, env=env, stdin=MANIFEST, timeout=120)
    assert (forked.returncode, forked.stdout, forked.stderr) == (real.returncode, real.stdout, real.stderr)


def test_a_place_to_die_at_is_heeded(env: dict[str, str]) -> None:
    """It is read where Sked is imported: what has imported it already would pass by."""
    assert sked(["apply", "-f", "-"], env=env, stdin=MANIFEST, timeout=120).returncode == 0
    scheduler = sked(["run", "scheduler"], env=env | {"SKED_FAILPOINT": "committing"}, timeout=120)
    assert scheduler.returncode == failpoints.CODE, scheduler.stderr


def test_a_command_that_does_not_end_is_ended(
    env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)  # by which its process is found
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(sked, ["run", "scheduler"], env=env, timeout=10)
        until(lambda: processes_in(here))
        with pytest.raises(subprocess.TimeoutExpired):
            running.result()
    until(lambda: not processes_in(here))


def processes_in(folder: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if process.name != str(os.getpid()) and (process / "cwd").readlink() == folder:
                found.append(process.name)
    return found


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_whoever_asks_is_told_of_its_end(env: dict[str, str], tmp_path: Path) -> None:
    """A monitor looks whether it is alive while another thread waits for the end."""
    with (tmp_path / "log").open("wb") as out, ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            process = start(["run", "scheduler"], env=env, out=out)
            asked = [pool.submit(_polled_to_the_end, process) for _ in range(7)]
            process.kill()
            codes = {process.wait(60), *(one.result(60) for one in asked)}
            assert codes == {-signal.SIGKILL}


def _polled_to_the_end(process: Process) -> int:
    while (code := process.poll()) is None:
        """It runs."""
    return code
