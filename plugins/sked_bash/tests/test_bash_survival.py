"""Agents die at any moment; tasks don't, and none runs twice."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sked_bash import record as records
from sked_core.plugin import State

Eventually = Callable[..., Any]

AGENT = """
import sys, time
from pathlib import Path
from sked_bash.executor import BashExecutor
from sked_core.model.types import Cluster
from sked_bash.rights import BashPolicy
from sked_core.plugin import Container, ExecutorContext, Policy, Task, TaskDefinition

store, folder, count, start = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
executor = BashExecutor(
    ExecutorContext("host-1", store, folder, Policy(sections={"bash": BashPolicy.development()}))
)
executor.recover()
print("up", flush=True)
for instance in range(count):
    container = Container(name="c", type="bash", executor={"start": start})
    definition = TaskDefinition(name="t", version=1, containers=[container])
    task = Task(cluster=Cluster(name="k"), task_definition=definition, service="s", instance=instance, host="host-1")
    executor.start(task, container, {})
    print(instance, flush=True)
time.sleep(1000)
"""


def agent(rig: Any, count: int, start: str = "sleep 1000") -> subprocess.Popen[str]:
    """A process that starts ``count`` tasks as an agent does, and tells when it has."""
    arguments = [rig.context.store_uid, str(rig.folder), str(count), start]
    return subprocess.Popen([sys.executable, "-c", AGENT, *arguments], stdout=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_the_agents_death_is_invisible(rig: Any, eventually: Eventually) -> None:
    """Also to a task that writes output all the time: no broken pipe."""
    first = agent(rig, 3, "while :; do echo tick; sleep 0.02; done")
    assert first.stdout is not None
    assert [first.stdout.readline() for _ in range(4)] == ["up\n", "0\n", "1\n", "2\n"]

    def mains() -> dict[str, tuple[int, int]]:
        found = [json.loads(path.read_text()) for path in rig.folder.glob("*/*/*/record.json")]
        return {record["task_id"]: (record["pid"], record["started"]) for record in found}

    before = mains()
    kill(first)
    recovered = rig.executor.recover()
    assert {seen.state for seen in recovered.values()} == {State.RUNNING}
    assert {seen.detail for seen in recovered.values()} == {f"pid {pid}" for pid, _ in before.values()}
    again = [rig.start(number, start="while :; do echo tick; sleep 0.02; done") for number in range(3)]
    assert set(again) == set(recovered)
    assert mains() == before
    size = len(rig.output(again[0]))
    eventually(lambda: len(rig.output(again[0])) > size)


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_of_a_start_none_is_lost_and_none_is_doubled(
    rig: Any, eventually: Eventually, seed: int
) -> None:
    chance = random.Random(seed)
    count = 12
    for round_number in range(6):
        delay = chance.uniform(0, 0.05)
        process = agent(rig, count)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        time.sleep(delay)  # not for luck: the moment of the kill is what is drawn
        kill(process)
        successor = rig.agent()
        seen = successor.recover()
        pids = rig.marked()
        situation = f"seed {seed}, round {round_number}, killed after {delay:.4f} s"
        assert {observation.state for observation in seen.values()} <= {State.RUNNING}, situation
        assert len(pids) == len(seen) <= count, situation
        assert {f"pid {pid}" for pid in pids} == {observation.detail for observation in seen.values()}, situation
        for handle in chance.sample(sorted(seen, key=str), len(seen) // 2):
            successor.stop(handle, 0)
        successor.close()  # only one agent of a host lives at a time
    final = agent(rig, count)
    assert final.stdout is not None
    eventually(lambda: final.stdout.readline() == f"{count - 1}\n", 60)
    kill(final)
    assert len(rig.marked()) == count
    assert len(rig.agent().recover()) == count


def test_killed_between_the_record_and_the_process_nothing_is_left(rig: Any) -> None:
    handle = rig.start(start="sleep 1000")
    path = rig.home(handle) / "record.json"
    record = json.loads(path.read_text())
    os.kill(record["pid"], 9)
    rig.executor.close()
    path.write_text(json.dumps(record | {"pid": 0, "started": 0, "ended": False}))
    assert rig.agent().recover() == {}
    assert not path.exists()


def test_killed_between_the_process_and_its_record_it_is_found(rig: Any) -> None:
    handle = rig.start(start="sleep 1000 & sleep 1000; wait")
    path = rig.home(handle) / "record.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"pid": 0, "started": 0}))
    successor = rig.agent()
    assert successor.recover()[handle].detail == f"pid {record['pid']}"
    assert json.loads(path.read_text())["pid"] == record["pid"]
    successor.stop(handle, 0)
    assert rig.marked() == []


@pytest.mark.parametrize("damage", ["gone", "empty", "torn", "garbage", "another task's"])
def test_a_damaged_record_loses_no_process(rig: Any, damage: str) -> None:
    handle = rig.start(start="sleep 1000")
    path = rig.home(handle) / "record.json"
    text = path.read_text()
    path.unlink()
    if damage != "gone":
        bad = {
            "empty": "",
            "torn": text[:40],
            "garbage": '{"pid": "x"}',
            "another task's": text.replace("k-s-1-0", "x"),
        }
        path.write_text(bad[damage])
    successor = rig.agent()
    seen = successor.recover()
    assert list(seen) == [handle]
    assert seen[handle].state is State.RUNNING
    assert successor.start(*rig.task(start="sleep 1000"), {}) == handle
    successor.stop(handle, 0)
    assert rig.marked() == []


def test_the_restart_of_the_host_ends_everything(rig: Any) -> None:
    handle = rig.start(start="sleep 1000")
    path = rig.home(handle) / "record.json"
    record = json.loads(path.read_text())
    rig.executor.stop(handle, 0)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record | {"boot_id": "the one before"}))
    successor = rig.agent()
    seen = successor.recover()[handle]
    assert (seen.state, seen.exit_code, seen.detail) == (State.EXITED, None, "the host was restarted")
    successor.stop(handle, 0)
    assert rig.agent().recover() == {}


def test_an_exit_that_no_agent_saw_is_an_exit(rig: Any) -> None:
    process = agent(rig, 1)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["up\n", "0\n"]
    kill(process)
    os.kill(rig.marked()[0], 9)
    ((handle, seen),) = rig.executor.recover().items()
    assert (seen.state, seen.exit_code) == (State.EXITED, None)
    assert "no agent" in seen.detail
    assert rig.start(start="sleep 1000") != handle


def test_how_it_ended_is_on_disk_before_it_is_told(
    rig: Any, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = rig.start(start="exec sleep 1000")
    instance, save = rig.executor._known(handle), records.save
    told = []

    def watched(*given: Any, **named: Any) -> None:
        told.append(instance.observation().state)
        save(*given, **named)

    monkeypatch.setattr(records, "save", watched)
    os.kill(instance.record.pid, signal.SIGKILL)
    eventually(lambda: rig.executor.inspect([handle])[handle].state is State.EXITED)
    assert told == [State.RUNNING]
    assert rig.agent().recover()[handle].exit_code == 137


def test_an_agent_that_is_about_to_end_writes_over_nothing_of_the_next(rig: Any) -> None:
    old = rig.start(start="exec sleep 1000")
    known = rig.executor._known(old).record
    rig.executor.stop(old, 0)
    handle = rig.start(start="exec sleep 1000")
    records.save(rig.home(handle), msgspec.structs.replace(known, ended=True), again=True)
    assert list(rig.agent().recover()) == [handle]
    assert [path.name for path in rig.home(handle).glob("record.json*")] == ["record.json"]


def test_other_stores_and_hosts_are_strangers(rig: Any, tmp_path: Path) -> None:
    from sked_bash.executor import BashExecutor

    mine = rig.start(start="sleep 1000")
    others = [
        BashExecutor(dataclasses.replace(rig.context, host="host-2")),
        BashExecutor(dataclasses.replace(rig.context, store_uid="another")),
    ]
    for other in others:
        assert other.recover() == {}
        theirs = other.start(*rig.task(start="sleep 1000"), {})
        assert theirs != mine
        other.stop(theirs, 0)
        other.close()
    assert rig.executor.inspect([mine])[mine].state is State.RUNNING
