"""Rows about agents and what they run: killed at every step, paused, upgraded, rebooted, started twice."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from campaign.judge import Terms
from campaign.looking import alive, identity
from campaign.rows import row
from campaign.samples import task_of
from campaign.stage import SHORT_LOST_AFTER, Stage, docker_service, sessions

START_POINTS = ("noted", "recorded", "spawned", "started", "registering", "registered")
STOP_POINTS = ("deregistered", "stopped", "gone", "retired")
ADOPTS_SECONDS = 10.0


@row("F1", "agent killed while nothing goes on, ten times", needs=("docker",))
def idle_agent_killed(stage: Stage) -> None:
    stage.agent("a")
    stage.scheduler()
    stage.hosts("a")
    stage.run_service(desired=4)
    stage.run_service("box", **docker_service(2))
    stage.settle()
    before = stage.running()
    for _ in range(10):
        stage.fault()
        stage.kill("a")
        time.sleep(0.3)
        stage.agent("a")
        stage.says("a", "took over")
        stage.same(before)
        stage.settle()


@row("F2", "agent killed at every step of a start", store="etcd", needs=("docker",))
def killed_at_each_step_of_a_start(stage: Stage) -> None:
    stage.scheduler()
    stage.agent("a")
    stage.hosts("a")
    stage.run_service(desired=1)
    stage.settle()
    for number, point in enumerate((*START_POINTS, "created", "started")):
        in_docker = number >= len(START_POINTS)
        stage.kill("a")
        stage.agent("a", more={"SKED_FAILPOINT": point})
        stage.run_service(f"try-{number}", **(docker_service(1) if in_docker else {"desired": 1}))
        assert stage.ended("a") == 137
        stage.fault()
        stage.agent("a", more={})
        stage.settle()
    folders = {path.name for path in (stage.folder / "agent-a" / "executors" / "bash").glob("*/*")}
    issued = {one.task for one in stage.running().values() if "/" in one.mark}
    assert folders == issued, "no folder is left of a start that was cut short"


@row("F3", "agent killed at every step of a stop", needs=("docker",))
def killed_at_each_step_of_a_stop(stage: Stage) -> None:
    stage.scheduler()
    stage.agent("a")
    stage.hosts("a")
    stage.run_service(desired=5)
    stage.run_service("box", **docker_service(2))
    stage.settle()
    for name, point, count in (
        ("web", "deregistered", 4), ("web", "stopped", 3), ("web", "gone", 2), ("web", "retired", 1),
        ("box", "deregistered", 1), ("box", "stopped", 0),
    ):  # fmt: skip
        stage.kill("a")
        stage.agent("a", more={"SKED_FAILPOINT": point})
        stage.scale(name, count)
        assert stage.ended("a") == 137
        stage.fault()
        stage.agent("a", more={})
        stage.settle()


@row("F4", "agent stopped by a signal until its host is lost, then let go on", terms=Terms(lost_after=6, most_lost=2))
def agent_sleeps(stage: Stage) -> None:
    stage.agent("a")
    stage.agent("b")
    stage.scheduler("scheduler", "--lost-after", SHORT_LOST_AFTER)
    stage.hosts("a", "b")
    stage.run_service(desired=6)
    stage.settle()
    mine = stage.running("a")
    assert mine
    stage.pause("a")
    there = stage.rig.host("b")
    stage.until(
        "its tasks are issued elsewhere",
        lambda sample: (
            sample.store
            and {
                task.host
                for key, one in sample.store.items()
                if key.startswith("state/tasks/") and (task := task_of(one.value))
            }
            == {there}
        ),
    )
    stage.same(mine)  # who sleeps stops nothing
    stage.fault()
    stage.go_on("a")
    stage.settle()
    assert not stage.running("a").keys() & mine.keys() or stage.running("a") != mine


@row(
    "F5", "agent started on what another version of it left", instead="files are edited: there is no older version yet"
)
def upgraded(stage: Stage) -> None:
    stage.agent("a")
    stage.scheduler()
    stage.hosts("a")
    stage.run_service(desired=4)
    stage.settle()
    before = stage.running()
    folder = stage.folder / "agent-a"
    stage.kill("a")
    notes = sorted(folder.glob("notes/*.json"))
    for path in (*notes, *folder.glob("executors/bash/*/*/*/record.json"), folder / "seen.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"field_of_another_version": [1]}))
    lacking = json.loads(notes[0].read_text())
    notes[0].write_text(json.dumps({"task": lacking["task"]}))
    notes[1].write_text(notes[1].read_text()[:40])
    stage.fault()
    stage.agent("a")
    stage.hosts("a")
    stage.same(before, 3.0)
    stage.settle()


@row("F34", "tasks that ignore TERM, fork, leave their session and fork twice", needs=("docker",))
def hard_to_stop(stage: Stage) -> None:
    stage.agent("a")
    stage.scheduler()
    stage.hosts("a")
    ways = {
        "deaf": "trap '' TERM; while :; do sleep 1; done",
        "leaver": "setsid sleep 1000 & exec sleep 1000",
        "twice": "(setsid bash -c 'sleep 1000 & disown; sleep 1000' &) ; exec sleep 1000",
        "forker": "while :; do sleep 1000 & sleep 0.3; done",
    }
    wanted: dict[str, dict[str, Any]] = {name: {"desired": 1, "start": start} for name, start in ways.items()}
    wanted["box"] = docker_service(1, executor={"cmd": ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]})
    stage.run_services(wanted)
    stage.settle()
    time.sleep(2)  # let them fork
    stage.fault()
    stage.run_services({name: {**fields, "desired": 0} for name, fields in wanted.items()})
    stage.settle()

    def left() -> list[str]:
        found = [(task, pid) for task, pids in stage.rig.processes().items() for pid in pids if alive([identity(pid)])]
        return [f"{task}: {pid}" for task, pid in found]

    # The engine tells of an end as soon as it knows, which may be a moment before the process table does.
    deadline = time.monotonic() + 10
    while (told := left()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not told, f"{told} are left; of containers: {stage.rig.containers('--all')}\n{stage.logs()}"


@row("F35", "a process of somebody else has the pid of a task that ended")
def pid_reused(stage: Stage) -> None:
    holder = subprocess.Popen(["unshare", "--pid", "--fork", "--mount-proc", "sleep", "1000"], start_new_session=True)
    stage.clean(lambda: (os.killpg(holder.pid, signal.SIGKILL), holder.wait()))
    stage.until("a namespace", lambda _: _children(holder.pid))
    within = ("nsenter", "--target", str(_children(holder.pid)[0]), "--pid", "--mount")
    stage.agent("a", within=within)
    stage.scheduler()
    stage.hosts("a")
    stage.run_service(desired=1)
    stage.settle()
    (one,) = stage.running().values()
    record = next((stage.folder / "agent-a" / "executors").rglob("record.json"))
    pid = json.loads(record.read_text())["pid"]
    stage.kill("a")
    for child in _children_named(holder.pid, "sked"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    stage.harm(one)
    stage.until("it is gone", lambda sample: one not in sample.instances)
    reuse = f"echo {pid - 1} >/proc/sys/kernel/ns_last_pid; sleep 1000 & echo $!; wait"
    innocent = subprocess.Popen([*within, "sh", "-c", reuse], stdout=subprocess.PIPE, text=True, start_new_session=True)
    stage.clean(lambda: (os.killpg(innocent.pid, signal.SIGKILL), innocent.wait()))
    assert innocent.stdout is not None
    assert int(innocent.stdout.readline()) == pid, "the pid was not given again"
    stage.until("it sleeps", lambda _: _children_named(innocent.pid, "sleep\0"))  # until then it is a shell as well
    (sleeper,) = _children_named(innocent.pid, "sleep\0")
    stage.note("innocent", " ".join(map(str, identity(sleeper))))
    stage.fault()
    stage.agent("a")
    stage.settle()
    stage.scale("web", 0)
    stage.settle()
    assert alive([identity(sleeper)])


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _descendants(pid: int) -> list[int]:
    return [each for child in _children(pid) for each in (child, *_descendants(child))]


def _children_named(pid: int, words: str) -> list[int]:
    found = []
    for child in _descendants(pid):
        with contextlib.suppress(OSError):
            if words in Path(f"/proc/{child}/cmdline").read_text() and "SKED_MARK" not in (
                Path(f"/proc/{child}/environ").read_text(errors="replace")
            ):
                found.append(child)
    return found


@row("F36", "the host starts anew: nothing runs, and pids of the last boot belong to others", store="etcd")
def rebooted(stage: Stage) -> None:
    stage.agent("a")
    stage.scheduler()
    stage.hosts("a")
    stage.run_service(desired=3)
    stage.settle()
    stage.kill("a")
    for one in stage.running().values():
        stage.harm(one)
    stage.until("nothing runs", lambda sample: not sample.instances)
    innocents = [stage.innocent() for _ in range(3)]
    records = sorted((stage.folder / "agent-a" / "executors").rglob("record.json"))
    for path, process in zip(records, innocents, strict=True):
        pid, started = identity(process.pid)
        left = json.loads(path.read_text()) | {"boot_id": "another", "pid": pid, "started": started}
        path.write_text(json.dumps(left))
    stage.fault()
    stage.agent("a")
    stage.settle()
    stage.scale("web", 0)
    stage.settle()
    assert all(process.poll() is None for process in innocents)


@row("F48", "an agent is started twice for one host, in the same folder and in another one")
def twice(stage: Stage) -> None:
    stage.agent("a")
    stage.scheduler()
    stage.hosts("a")
    stage.run_service(desired=2)
    stage.settle()
    before = stage.running()
    second = stage.rig.run("agent", host="a")
    assert second.wait() != 0
    assert "another agent of this host is running" in second.text()
    elsewhere = stage.rig.run("agent", "--state-dir", str(stage.folder / "elsewhere"), host="a")
    stage.procs["second agent"] = elsewhere
    stage.says("second agent", "another agent calls itself")
    stage.same(before, 3.0)
    stage.fault()
    stage.scale("web", 3)
    stage.settle()
    elsewhere.kill()
    stage.note("killed", "second agent")
    stage.settle()


@row("F49", "processes asked to end, by each signal and twice, while work goes on")
def ended_in_order(stage: Stage) -> None:
    stage.agent("a")
    stage.scheduler()
    stage.hosts("a")
    stage.run_service(desired=3)
    stage.settle()
    for each in stage.procs.values():
        each.signal(signal.SIGHUP)
    stage.scale("web", 4)
    stage.settle()
    assert all(each.alive() for each in stage.procs.values()), "who hangs up ends nothing"
    for number, (signals, codes) in enumerate(
        (([signal.SIGTERM], {0}), ([signal.SIGINT], {130}), ([signal.SIGTERM, signal.SIGTERM], {0, 1, 130, 143, -15}))
    ):
        before = stage.running()
        stage.scale("web", 5 + number)
        stage.fault()
        for name in ("a", "scheduler"):
            if name == "a":
                stage.note("down", stage.rig.host("a"))
            if len(signals) > 1:  # there may be no time for it to give its lease back
                stage.note("killed", f"{name} by two signals")
            proc = stage.procs[name]
            for each in signals:
                with contextlib.suppress(ProcessLookupError):
                    proc.signal(each)
            code = proc.wait()
            assert code in codes, f"{code}: {proc.text()[-2000:]}"
        if len(signals) == 1:
            stage.until("no session is left", lambda _: not sessions(stage.server.http), 8)
        stage.same(before)
        stage.agent("a")
        stage.scheduler()
        stage.settle()
