"""Stopping is total, polite first, and never hits a stranger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from sked_bash import record as records
from sked_bash.processes import Identity, identify, open_pidfd, send
from sked_core.plugin import ExecutorError, Handle, State, TaskId

Eventually = Callable[..., Any]
Alive = Callable[[int], bool]

DOUBLE_FORK = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        CLOSE
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(1000)
    os._exit(0)
os.wait()
"""


def python(code: str, *arguments: object) -> str:
    """A shell command that runs Python code."""
    escaped = code.replace("'", "'\\''")
    return f"{sys.executable} -c '{escaped}' {' '.join(map(str, arguments))}"


def test_stop_is_idempotent_and_removes_all_but_the_log(rig: Any, eventually: Eventually) -> None:
    handle = rig.start(start="echo hello; sleep 1000")
    eventually(lambda: rig.output(handle))
    rig.executor.stop(handle, 5)
    assert rig.marked() == []
    assert sorted(path.name for path in rig.home(handle).iterdir()) == ["output.json", "output.log"]
    rig.executor.stop(handle, 5)
    assert rig.executor.inspect([handle])[handle].state is State.ABSENT
    assert rig.agent().recover() == {}


@pytest.mark.parametrize("handle", [Handle(TaskId("k-s-1-0"), "c", "x"), Handle(TaskId("../../x"), "..", "")])
def test_an_unknown_handle_is_fine(rig: Any, handle: Handle) -> None:
    rig.executor.stop(handle, 5)


def test_a_stale_handle_does_not_stop_the_next_instance(rig: Any) -> None:
    old = rig.start(start="sleep 1000")
    rig.executor.stop(old, 5)
    new = rig.start(start="sleep 1000")
    rig.executor.stop(old, 0)
    assert rig.executor.inspect([new])[new].state is State.RUNNING


def test_term_comes_first_and_kill_after_the_grace(rig: Any, eventually: Eventually) -> None:
    polite = rig.start(0, start="trap 'echo goodbye; exit 0' TERM; echo up; while :; do sleep 0.05; done")
    stubborn = rig.start(1, start="trap '' TERM; echo up; while :; do sleep 0.05; done")
    for handle in (polite, stubborn):
        eventually(lambda handle=handle: "up" in rig.output(handle))
    begun = time.monotonic()
    rig.executor.stop(polite, 60)
    assert time.monotonic() - begun < 40
    assert "goodbye" in rig.output(polite)
    begun = time.monotonic()
    rig.executor.stop(stubborn, 1)
    assert 1 <= time.monotonic() - begun < 30
    assert rig.marked() == []


def test_a_stopped_process_is_ended_too(rig: Any) -> None:
    handle = rig.start(start="exec sleep 1000")
    os.kill(rig.marked()[0], 19)
    begun = time.monotonic()
    rig.executor.stop(handle, 60)
    assert time.monotonic() - begun < 40


@pytest.mark.parametrize(
    "start",
    [
        "setsid sleep 1000 & sleep 1000",
        "setsid sleep 1000 & exit 0",
        "nohup sleep 1000 & disown; sleep 1000",
        "(exec -a innocent sleep 1000 &); sleep 1000",
        "(setsid bash -c 'sleep 1000 & sleep 1000' &) ; sleep 1000",
        "env -i /bin/sleep 1000 & sleep 1000",
    ],
)
def test_escapees_are_ended(rig: Any, eventually: Eventually, alive: Alive, start: str) -> None:
    seconds = f"1000.{os.getpid()}"  # tells our sleeps from those of others on this machine
    handle = rig.start(start=start.replace("1000", seconds))

    def sleepers() -> set[int]:
        lines = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True).stdout.splitlines()
        return {int(line.split()[0]) for line in lines if line.endswith(f" {seconds}") and "bash" not in line}

    expected = 1 if "exit 0" in start else 2
    eventually(lambda: len(sleepers()) >= expected)
    found = sleepers()
    rig.executor.stop(handle, 5)
    assert not any(alive(pid) for pid in found)


@pytest.mark.parametrize(
    ("environment", "close"),
    [("", "os.closerange(0, 1024)"), ("env -i ", ""), ("", "")],
    ids=["closes every descriptor", "sheds the mark", "plain"],
)
def test_a_double_forked_daemon_runs_and_is_ended(
    rig: Any, eventually: Eventually, alive: Alive, tmp_path: Path, environment: str, close: str
) -> None:
    """Not even its parents live, it leads a session of its own; found by its mark, or else by the lock it holds."""
    note = tmp_path / "pid"
    handle = rig.start(start=environment + python(DOUBLE_FORK.replace("CLOSE", close or "0"), note))
    pid = int(eventually(lambda: note.exists() and note.read_text()))
    eventually(lambda: json.loads((rig.home(handle) / "record.json").read_text())["exit_code"] == 0)
    assert rig.executor.inspect([handle])[handle].state is State.RUNNING
    assert rig.start(start="sleep 1000") == handle
    rig.executor.stop(handle, 5)
    assert not alive(pid)


def test_a_tree_that_keeps_forking_is_ended(rig: Any, eventually: Eventually) -> None:
    handle = rig.start(start="trap '' TERM; for i in {1..10}; do (while :; do sleep 0.02 & wait; done) & done; wait")
    eventually(lambda: len(rig.marked()) >= 15)
    rig.executor.stop(handle, 0.5)
    assert rig.marked() == []


def test_the_stop_command_has_its_environment_and_comes_first(rig: Any, eventually: Eventually) -> None:
    task, container = rig.task(
        start="echo up; while [ ! -e gone ]; do sleep 0.02; done; echo gracefully",
        stop="echo stopping $A $PORT; touch gone; sleep 0.3",
        env={"A": "b"},
    )
    handle = rig.executor.start(task, container, {"PORT": "20000"})
    eventually(lambda: "up" in rig.output(handle))
    rig.agent().stop(handle, 10)
    assert rig.output(handle) == "up\nstopping b 20000\ngracefully\n"


@pytest.mark.parametrize("stop", ["sleep 1000", "exit 1", "no-such-command", "trap '' TERM; sleep 1000 & wait"])
def test_a_stop_command_that_hangs_or_fails_does_not_save_the_task(rig: Any, stop: str) -> None:
    handle = rig.start(start="sleep 1000", stop=stop)
    begun = time.monotonic()
    rig.executor.stop(handle, 1)
    assert time.monotonic() - begun < 30
    assert rig.marked() == []


def test_a_stop_command_runs_also_for_what_went_on_elsewhere(rig: Any, eventually: Eventually, tmp_path: Path) -> None:
    handle = rig.start(start="exit 0", stop=f"touch {tmp_path}/told")
    eventually(lambda: rig.executor.inspect([handle])[handle].state is State.EXITED)
    rig.executor.stop(handle, 5)
    assert (tmp_path / "told").exists()


def test_a_reused_pid_is_never_signalled(rig: Any, eventually: Eventually) -> None:
    """The record names the pid of a stranger, with another start time: as if the pid had been used again."""
    stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        handle = rig.start(start="sleep 1000")
        rig.executor.stop(handle, 5)
        home = rig.home(handle)
        true_identity = identify(stranger.pid)
        assert true_identity is not None
        scope, boot = home.parts[-3], Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        for started, boot_id in ((true_identity.started + 1, boot), (true_identity.started, "another-boot")):
            record = records.Record(
                scope=scope,
                task_id="k-s-1-0",
                container="c",
                digest="d",
                nonce=f"n{started}",
                boot_id=boot_id,
                pid=stranger.pid,
                started=started,
                followers=[(stranger.pid, started)],
            )
            home.mkdir(parents=True, exist_ok=True)
            records.save(home, record)
            agent = rig.agent()
            (seen,) = agent.recover().items()
            assert seen[0] == record.handle
            assert seen[1].state is State.EXITED
            agent.stop(record.handle, 0)
            assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_signals_compare_the_start_time() -> None:
    process = subprocess.Popen(["sleep", "1000"])
    try:
        identity = identify(process.pid)
        assert identity is not None
        wrong = Identity(identity.pid, identity.started + 1)
        assert open_pidfd(wrong) is None
        send(wrong, 9)
        assert process.poll() is None
        send(identity, 9)
        assert process.wait(60) == -9
        send(identity, 9)
    finally:
        process.kill()
        process.wait()


def unreaped() -> set[int]:
    """Children of this process that have ended and that nobody has waited for."""
    return {child.pid for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE}


def test_two_hundred_at_once_are_started_and_stopped(rig: Any) -> None:
    before = unreaped()  # of other tests in the same process
    with ThreadPoolExecutor(8) as pool:
        handles = list(pool.map(lambda number: rig.start(number, start="sleep 1000"), range(200)))
        assert len(rig.marked()) == 200
        assert {seen.state for seen in rig.executor.inspect(handles).values()} == {State.RUNNING}
        descriptors = len(os.listdir("/proc/self/fd"))
        list(pool.map(lambda handle: rig.executor.stop(handle, 10), handles))
    assert rig.marked() == []
    assert {seen.state for seen in rig.executor.inspect(handles).values()} == {State.ABSENT}
    # One at least of each is closed; those of other tests in this process come and go.
    assert len(os.listdir("/proc/self/fd")) < descriptors - 190
    assert len(list(rig.folder.glob("*/*"))) <= 20
    assert unreaped() <= before


def test_a_hundred_that_die_together_are_noticed_together(rig: Any, eventually: Eventually) -> None:
    noticed = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        handles = list(pool.map(lambda number: rig.start(number, start="sleep 1000"), range(100)))
    rig.executor.watch(noticed.set)
    begun = time.monotonic()
    for pid in rig.marked():
        os.kill(pid, 9)
    eventually(lambda: {seen.exit_code for seen in rig.executor.inspect(handles).values()} == {137})
    assert time.monotonic() - begun < 30
    assert noticed.wait(60)


def test_a_start_that_finds_it_running_elsewhere_leaves_that_alone(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another agent of the host holds the lock, and its record can't be read at this moment."""
    handle = rig.start(start="sleep 1000")
    home = rig.home(handle)
    before = {path.name for path in home.iterdir()}
    successor = rig.agent()
    successor.recover()
    monkeypatch.setattr(successor, "_find", lambda key: None)
    with pytest.raises(ExecutorError, match="something of an earlier start of this container still runs"):
        successor.start(*rig.task(start="sleep 1000"), {})
    assert {path.name for path in home.iterdir()} == before
    assert rig.executor.inspect([handle])[handle].state is State.RUNNING
    assert len(rig.marked()) == 1
