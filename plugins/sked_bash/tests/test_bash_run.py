"""Starting, looking at and replacing real processes."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sked_bash import executor as executor_module
from sked_core.plugin import ExecRequest, ExecutorError, Handle, Rejected, State
from sked_core.testing.executors import talk

Eventually = Callable[..., Any]


def test_a_foreground_process_is_one_process_and_runs(rig: Any, alive: Callable[[int], bool]) -> None:
    handle = rig.start(start="sleep 1000")
    seen = rig.executor.inspect([handle])[handle]
    assert seen.state is State.RUNNING
    (pid,) = rig.marked()
    assert seen.detail == f"pid {pid}"
    assert os.getsid(pid) == pid != os.getsid(0)
    assert handle.task_id == "k-s-1-0"
    assert len(handle.digest) == 16


def test_starting_twice_gives_the_one_that_runs(rig: Any) -> None:
    first = rig.start(start="sleep 1000")
    assert rig.start(start="sleep 1000") == first
    assert rig.agent().start(*rig.task(start="sleep 1000"), {}) == first
    assert len(rig.marked()) == 1


def test_many_threads_that_start_one_task_start_it_once(rig: Any) -> None:
    executors = [rig.executor, rig.agent()]

    def start(number: int) -> Handle:
        return executors[number % 2].start(*rig.task(start="sleep 1000"), {})

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(start, range(8)))) == 1
    assert len(rig.marked()) == 1


def test_what_another_agent_started_meanwhile_is_what_a_start_gives(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = rig.start(start="sleep 1000"), rig.agent()
    find, looks = other._find, []

    def too_early(key: tuple[str, str]) -> Any:
        looks.append(key)
        return find(key) if len(looks) > 1 else None

    monkeypatch.setattr(other, "_find", too_early)
    assert other.start(*rig.task(start="sleep 1000"), {}) == first
    assert len(looks) == 2
    assert len(rig.marked()) == 1


@pytest.mark.parametrize(
    ("command", "code", "detail"),
    [
        ("exit 0", 0, "exit 0"),
        ("exit 1", 1, "exit 1"),
        ("exit 255", 255, "exit 255"),
        ("no-such-command-here", 127, "exit 127 (command not found)"),
        ("/etc/passwd", 126, "exit 126 (not executable)"),
        ("kill -KILL $$", 137, "killed by signal 9 (SIGKILL)"),
        ("kill -TERM $$", 143, "killed by signal 15 (SIGTERM)"),
    ],
)
def test_how_it_ended_is_known_also_to_the_next_agent(
    rig: Any, eventually: Eventually, command: str, code: int, detail: str
) -> None:
    handle = rig.start(start=command)
    eventually(lambda: rig.executor.inspect([handle])[handle].state is State.EXITED)
    seen = rig.executor.inspect([handle])[handle]
    assert (seen.exit_code, seen.detail) == (code, detail)
    assert rig.agent().recover() == {handle: seen}


def test_a_start_that_launches_something_runs_as_long_as_that(rig: Any, eventually: Eventually) -> None:
    go = rig.folder.parent / "go"
    handle = rig.start(start=f"(while [ ! -e {go} ]; do sleep 0.02; done) & exit 0")
    home = rig.home(handle)
    eventually(lambda: json.loads((home / "record.json").read_text())["exit_code"] == 0)
    assert rig.executor.inspect([handle])[handle].state is State.RUNNING
    assert rig.agent().recover()[handle].state is State.RUNNING
    go.touch()
    eventually(lambda: rig.executor.inspect([handle])[handle].state is State.EXITED)
    assert rig.executor.inspect([handle])[handle].exit_code == 0


def test_a_failed_start_has_ended_whatever_it_left_and_leftovers_go_before_the_next(
    rig: Any, eventually: Eventually, alive: Callable[[int], bool]
) -> None:
    handle = rig.start(start="sleep 1000 & echo $!; exit 3")
    eventually(lambda: rig.executor.inspect([handle])[handle].exit_code == 3)
    left = int(rig.output(handle))
    assert alive(left)
    again = rig.start(start="sleep 1000")
    assert again != handle
    assert not alive(left)
    assert rig.executor.inspect([handle, again])[handle].state is State.ABSENT
    assert len(rig.marked()) == 1


def test_a_dead_one_is_replaced_and_its_output_is_kept(rig: Any, eventually: Eventually) -> None:
    handle = rig.start(start="echo first; touch made-by-first; exit 1")
    eventually(lambda: rig.executor.inspect([handle])[handle].state is State.EXITED)
    again = rig.start(start="echo second; ls; sleep 1000")
    eventually(lambda: rig.output(again) == "second\n")
    assert (rig.home(again) / "output.log.1").read_text() == "first\n"


def test_watch_tells_of_an_end_by_itself(rig: Any, eventually: Eventually) -> None:
    ended = threading.Event()
    rig.executor.watch(ended.set)
    handle = rig.start(start="sleep 1000")
    assert not ended.wait(0.3)
    os.kill(rig.marked()[0], 9)
    assert ended.wait(60)  # nobody looks meanwhile
    assert rig.executor.inspect([handle])[handle].state is State.EXITED


def test_watch_tells_of_adopted_ones_and_of_daemons(rig: Any) -> None:
    rig.start(0, start="sleep 1000")
    rig.start(1, start="setsid sleep 1000 & exit 0")
    successor = rig.agent()
    successor.recover()
    told = threading.Semaphore(0)
    successor.watch(told.release)
    for pid in rig.marked():
        os.kill(pid, 9)
        assert told.acquire(timeout=60)


def test_the_environment_leaks_nothing_and_keeps_the_path(
    rig: Any, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "top-secret")
    task, container = rig.task(start="env; echo done; sleep 1000", env=["A=b c"])
    handle = rig.executor.start(task, container, {"PORT": "20000"})
    eventually(lambda: "done" in rig.output(handle))
    lines = rig.output(handle).splitlines()
    assert "A=b c" in lines
    assert "PORT=20000" in lines
    assert any(line.startswith("PATH=") and "/bin" in line for line in lines)
    assert "top-secret" not in rig.output(handle)
    assert "top-secret" not in (rig.home(handle) / "record.json").read_text()


def test_it_reads_nothing_and_stands_in_a_folder_of_its_own(rig: Any, eventually: Eventually) -> None:
    handle = rig.start(start="cat; pwd; echo $PORT '$(touch canary)'; sleep 1000", env={"PORT": "1; touch canary"})
    eventually(lambda: rig.output(handle).count("\n") == 2)
    work = rig.home(handle) / "work"
    assert rig.output(handle).splitlines()[0] == str(work)
    assert list(work.iterdir()) == []
    assert work.stat().st_mode & 0o777 == 0o700
    assert (rig.home(handle) / "record.json").stat().st_mode & 0o777 == 0o600


def test_a_bad_spec_is_rejected_and_leaves_nothing(rig: Any) -> None:
    with pytest.raises(Rejected, match="start: required"):
        rig.start(stop="true")
    assert not rig.folder.exists()


def test_no_bash_is_a_rejection(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Rejected, match="bash is not installed"):
        rig.start(start="sleep 1000")


def test_a_start_that_can_not_be_spawned_leaves_nothing(
    rig: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_module.shutil, "which", lambda name: str(tmp_path / "gone"))
    with pytest.raises(ExecutorError, match="cannot start k-s-1-0/c"):
        rig.start(start="sleep 1000")
    assert rig.agent().recover() == {}
    assert not list(rig.folder.glob("*/*/*"))


def test_validation_does_no_io(rig: Any) -> None:
    assert rig.executor.validate({"start": "x"}) == []
    assert rig.executor.ports({"start": "x"}, 20000) == {20000}
    assert rig.executor.ports({"start": "x"}, 0) == frozenset()
    assert not rig.folder.exists()


def test_a_secret_is_in_the_environment_and_in_no_file_also_for_the_next_agent(
    rig: Any, eventually: Eventually
) -> None:
    """The stop command gets it from the agent that started the task, or from what the main process was given."""
    for number, instances in enumerate((0, 1)):
        task, container = rig.task(
            number, start="echo up; exec sleep 1000", stop='echo "${#PASSWORD} $PLAIN"', env={"PLAIN": "seen"}
        )
        with_reference = msgspec.structs.replace(
            container, executor={**container.executor, "env": {"PASSWORD": {"secret": "x"}, "PLAIN": "seen"}}
        )
        definition = msgspec.structs.replace(task.task_definition, containers=[with_reference])
        task = msgspec.structs.replace(task, task_definition=definition)
        handle = rig.executor.start(task, container, {"PASSWORD": "hunter2-canary"})
        eventually(lambda handle=handle: "up" in rig.output(handle))
        for path in rig.folder.rglob("*"):
            assert not path.is_file() or b"hunter2-canary" not in path.read_bytes(), path
        for pid in rig.marked():
            assert b"hunter2-canary" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        stopping = rig.agent() if instances else rig.executor
        stopping.recover()
        code, said, _ = talk(stopping.exec(handle, ExecRequest(("bash", "-c", "echo $PASSWORD"))))
        assert (code, said) == (0, b"hunter2-canary\n")
        stopping.stop(handle, 5)
        assert rig.output(handle).splitlines()[:2] == ["up", "14 seen"]
