"""Deliberate bugs in how processes are known and ended: the checks that hold the invariants notice each of them.

A7 and part of A8 (docs/guarantees.md) can't show in the simulator, which has no processes.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sked_bash import executor, groups, processes
from sked_bash import record as records
from sked_bash.processes import Identity, Snapshot, identify
from sked_core.plugin import Handle

Eventually = Callable[..., Any]


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def a7_is_violated(rig: Any, stranger: subprocess.Popen[bytes], *, started: int = 0, boot: str = "") -> bool:
    """Whether a stranger is signalled that has the pid of a record, which was made at another time or boot."""
    identity = identify(stranger.pid)
    assert identity is not None
    handle = rig.start(start="sleep 1000")
    rig.executor.stop(handle, 5)
    home = rig.home(handle)
    record = records.Record(
        scope=home.parts[-3],
        task_id="k-s-1-0",
        container="c",
        digest="d",
        nonce="n",
        boot_id=boot or processes.boot_id(),
        pid=stranger.pid,
        started=identity.started + started,
    )
    home.mkdir(parents=True, exist_ok=True)
    records.save(home, record)
    agent = rig.agent()
    agent.recover()
    agent.stop(record.handle, 0)
    return stranger.poll() is not None


def test_a_pid_alone_is_not_taken_for_the_process(rig: Any, stranger: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not a7_is_violated(rig, stranger, started=1)

    class ByPid(Identity):
        """The bug: the start time counts for nothing."""

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Identity) and self.pid == other.pid

        def __hash__(self) -> int:
            return hash(self.pid)

    monkeypatch.setattr(processes, "Identity", ByPid)
    assert a7_is_violated(rig, stranger, started=1)


def test_another_boot_is_not_taken_for_this_one(rig: Any, stranger: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not a7_is_violated(rig, stranger, boot="the one before")
    monkeypatch.setattr(executor, "boot_id", lambda: "the one before")  # the bug: boots are not told apart
    assert a7_is_violated(rig, stranger, boot="the one before")


def a8_is_violated(rig: Any, eventually: Eventually, tmp_path: Path) -> bool:
    """Whether something of a task outlives its stop that had left its session."""
    told = tmp_path / "child"
    told.unlink(missing_ok=True)
    handle: Handle = rig.start(start=f"setsid sh -c 'echo $$ > {told}; exec sleep 1000' & sleep 1000")
    child = identify(int(eventually(lambda: told.exists() and told.read_text().strip())))
    assert child is not None
    rig.executor.stop(handle, 5)
    try:
        return not processes.wait_ended([child], 0)
    finally:
        processes.send(child, 9)
        processes.wait_ended([child], 5)


def test_a_process_that_left_its_session_is_not_forgotten(
    rig: Any, eventually: Eventually, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not a8_is_violated(rig, eventually, tmp_path)

    def members(self: Snapshot, owner: str, roots: Any = (), user: int = -1) -> list[Any]:
        """The bug: only the session of the first process is ended, as `killpg` does it."""
        sessions = {root.pid for root in roots}
        return [one for one in self.processes.values() if one.alive and one.session in sessions]

    monkeypatch.setattr(Snapshot, "members", members)
    monkeypatch.setattr(records, "is_held", lambda folder: False)
    monkeypatch.setattr(groups, "pids", lambda folders, *parts: set())  # as on a host without control groups
    assert a8_is_violated(rig, eventually, tmp_path)
