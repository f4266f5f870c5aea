"""Setup commands that run for long: the task can be withdrawn, removed or changed all the same."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from runtime.conftest import HOST, World
from sked_core.errors import ExecutorError
from sked_core.model import keys
from sked_core.model.policy import SetupGate
from sked_core.model.types import Task
from sked_core.runtime.agent import task_runner
from sked_core.testing.builders import a_container, a_definition, a_task


@pytest.fixture
def hanging(tmp_path: Path) -> str:
    """A setup command that says who it is, begins a process of its own, says who that is, and hangs."""
    return f"echo $$ >> {tmp_path}/pids; sleep 300 & echo $! >> {tmp_path}/pids; wait"


def gone(pid: str) -> bool:
    """Whether the process has ended (one that nobody has waited for has ended as well)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def until_it_hangs(world: World, folder: Path) -> list[str]:
    pids = folder / "pids"
    return world.until(
        "the setup hangs", lambda: pids.exists() and len(found := pids.read_text().split()) == 2 and found
    )


def a_slow_task(*setup: str, first: tuple[Any, ...] = (), **fields: Any) -> Task:
    containers = [*first, a_container("slow", setup=list(setup))]
    return a_task(HOST, 0, a_definition(containers=containers, max_attempts=1, **fields))


@pytest.mark.parametrize("how", ["withdrawn", "removed", "changed"])
def test_it_is_ended_with_all_that_it_began_and_the_start_is_not_counted(
    world: World, tmp_path: Path, hanging: str, how: str
) -> None:
    task, changed = a_slow_task(hanging, f"touch {tmp_path}/second"), a_slow_task("true")
    world.agent()
    world.issue(task)
    pids = until_it_hangs(world, tmp_path)
    match how:
        case "withdrawn":
            world.withdraw(task)
        case "removed":
            world.forget(task)
        case "changed":
            world.issue(changed)
    world.until("the setup is ended", lambda: all(map(gone, pids)))
    if how == "changed":
        world.until_running(changed)  # its only attempt is still its own
        assert not (world.mine(task) or {})["rejected"]
    else:
        world.until("the task is gone", lambda: world.mine(task) is None)
        world.has_read()
        assert task.id not in world.engine.starts
    assert world.raw(keys.failure(task.id)) is None
    assert not (tmp_path / "second").exists()


def test_containers_that_were_started_before_it_are_stopped(world: World, tmp_path: Path, hanging: str) -> None:
    task = a_slow_task(hanging, first=(a_container("early"),))
    world.agent()
    world.issue(task)
    until_it_hangs(world, tmp_path)
    world.until_running(task)
    world.withdraw(task)
    world.until("the task is gone", lambda: world.mine(task) is None)
    assert (world.engine.containers, world.engine.stops) == ({}, [task.id])


def test_one_that_is_still_wanted_is_left_to_finish(world: World, tmp_path: Path) -> None:
    task = a_slow_task(
        f"echo $$ >> {tmp_path}/pids; echo >> {tmp_path}/pids; until [ -e {tmp_path}/go ]; do sleep 0.05; done"
    )
    world.agent()
    world.issue(task)
    world.until("the setup runs", (tmp_path / "pids").exists)
    world.issue(task)  # written anew, the same
    world.has_read()
    assert world.engine.starts[:-1] == []
    (tmp_path / "go").touch()
    world.until_running(task)


def test_one_that_takes_too_long_fails_the_start(
    world: World, tmp_path: Path, hanging: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_runner, "SETUP_SECONDS", 1.0)
    task = a_slow_task(hanging)
    world.agent()
    world.issue(task)
    assert "setup of slow took longer than 1 s" in world.reason(task)
    pids = until_it_hangs(world, tmp_path)
    world.until("the setup is ended", lambda: all(map(gone, pids)))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run commands as somebody else")
def test_a_command_leads_the_next_one_nowhere_that_its_user_can_t_reach() -> None:
    """Its folder was its own in /tmp: it put a link there, and the next command began where the link led."""
    with tempfile.TemporaryDirectory() as closed:  # to all but root
        (Path(closed) / "in").mkdir()
        (Path(closed) / "in").chmod(0o755)
        (Path(closed) / "in" / "file").write_text("what nobody can reach")
        swap = f'd=$PWD; cd /; mv "$d" "$d.x" && ln -s {closed}/in "$d"; true'
        container = a_container("c", setup=[swap, "cat file; false"])
        with pytest.raises(ExecutorError) as failed:
            task_runner.run_setup(
                container, {}, threading.Event(), SetupGate(allow=True, user="nobody"), lambda text: text
            )
    assert "cat: file: No such file" in str(failed.value)
    assert "what nobody can reach" not in str(failed.value)
