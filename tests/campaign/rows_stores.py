"""Rows about the store: killed, stopped, wiped, set back, exchanged, slow, lying; and about locks and schedulers."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import time
from pathlib import Path
from typing import Any

from campaign.front import Front, answers, slow
from campaign.rows import row
from campaign.stage import Stage, in_thread, quoted, serving, sessions
from rigs.etcd import call
from rigs.local import ask
from sked_core.model import keys

LEASES_END_SECONDS = 33.0
"""Twice a lease's 15 s, which is how long Consul may keep one, and some."""


def ready(stage: Stage, desired: int = 4, *hosts: str) -> dict[str, Any]:
    """Agents, a scheduler and a service that runs; returns what runs."""
    for host in hosts or ("a",):
        stage.agent(host)
    stage.scheduler()
    stage.hosts(*(hosts or ("a",)))
    stage.run_service(desired=desired)
    stage.settle()
    return stage.running()


def the_dead_come_back(stage: Stage, before: dict[str, Any]) -> dict[str, Any]:
    """Kill one process behind its agent's back and see another in its place; returns the others."""
    task, victim = next(iter(before.items()))
    stage.harm(victim)
    stage.until(
        "restarted without the store",
        lambda sample: any(one.task == task and one.mark != victim.mark for one in sample.instances),
    )
    return {other: one for other, one in before.items() if other != task}


@row("F6", "scheduler killed before and after a commit", store="etcd")
def scheduler_killed(stage: Stage) -> None:
    stage.agent("a")
    stage.hosts("a")
    for number, point in enumerate(("committing", "committed")):
        victim, other = f"scheduler-{2 * number}", f"scheduler-{2 * number + 1}"
        stage.scheduler(victim, more={"SKED_FAILPOINT": point})
        stage.run_service(f"web-{number}", desired=4)
        if stage.ended(victim) != 137:
            raise AssertionError(stage.procs[victim].text())
        stage.fault()
        stage.scheduler(other)  # not before: it might have done all there is to do
        stage.settle()
        stage.kill(other)
    assert stage.recovery < 60


@row("F6b", "scheduler killed while its commit is under way")
def scheduler_killed_within(stage: Stage) -> None:
    front = Front(stage.server.url.partition("://")[2])
    stage.clean(front.close)
    stage.agent("a")
    stage.scheduler("scheduler-1", backend=front.url)
    stage.hosts("a")
    stage.until("it is known", lambda sample: sample.store and any(k.startswith(keys.SCHEDULERS) for k in sample.store))
    front.wrong = lambda request: _kill_sender(stage, request)
    stage.run_service(desired=4)
    assert stage.ended("scheduler-1") != 0
    front.wrong = None
    stage.fault()
    stage.scheduler("scheduler-2")
    stage.settle()


def _kill_sender(stage: Stage, request: Any) -> bool:
    """Kill the scheduler as soon as it sends a commit under a lock, and carry that out all the same."""
    if request.command == "PUT" and request.path.startswith("/v1/txn"):
        stage.procs["scheduler-1"].signal(signal.SIGKILL)
    return False


@row("F7", "scheduler stopped with a commit prepared, until its lease is over, then let go on", store="etcd")
def scheduler_sleeps(stage: Stage) -> None:
    stage.agent("a")
    stage.hosts("a")
    sleeper = stage.scheduler("scheduler-1", more={"SKED_FAILPOINT": "committing:1:stop"})
    stage.run_service(desired=4)
    stage.until("it stands still", lambda _: _state(sleeper.pid) == "T")
    stage.scheduler("scheduler-2")
    stage.fault()
    stage.settle()
    with stage.store() as store:
        before = store.read(keys.STATE).entries
        stage.scale("web", 5)
        stage.settle()
        after = store.read(keys.STATE).entries
        stage.go_on("scheduler-1")
        stage.says("scheduler-1", "lease")
        time.sleep(3)
        assert store.read(keys.STATE).entries == after != before, "what was prepared is not written"
    stage.scale("web", 2)
    stage.settle()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@row("F8", "three schedulers work at the same services")
def three_schedulers(stage: Stage) -> None:
    for host in "ab":
        stage.agent(host)
    for number in range(3):
        stage.scheduler(f"scheduler-{number}")
    stage.hosts("a", "b")
    for version in (1, 2, 3):
        stage.fault()
        stage.run_service("web", desired=6, version=version, bounds={"min": 4, "max": 7})
        stage.run_service("other", desired=3, version=version)
        stage.settle()


@row("F9", "the store is killed and comes back within 5 s", store="etcd")
def store_killed(stage: Stage) -> None:
    before = ready(stage)
    for _ in range(3):
        with stage.outage():
            stage.server.kill()
            time.sleep(2)
            stage.server.start()
        stage.fault()
        stage.same(before, 2.0)
        stage.scale("web", len(stage.running()) + 1)
        stage.settle()
    stage.same(before)


@row("F9b", "Consul is killed and comes back within 5 s")
def consul_killed(stage: Stage) -> None:
    store_killed(stage)


@row("F10", "the store is away for longer than any lease lasts")
def store_away(stage: Stage) -> None:
    before = ready(stage, 4, "a", "b")
    with stage.outage():
        stage.server.kill()
        time.sleep(6)
        others = the_dead_come_back(stage, before)
        told = stage.rig.sked("tasks", code=6, errors=True)
        assert "sked:" in told
        stage.same(others, LEASES_END_SECONDS)
        stage.server.start()
    stage.fault()
    stage.same(others)
    stage.scale("web", 5)
    stage.settle()
    stage.same(others)


@row("F11", "the store hangs for longer than any lease lasts")
def store_hangs(stage: Stage) -> None:
    before = ready(stage, 4, "a", "b")
    with stage.outage():
        stage.server.pause()
        time.sleep(6)
        others = the_dead_come_back(stage, before)
        stage.rig.sked("tasks", code=6)
        stage.same(others, LEASES_END_SECONDS)
        stage.server.resume()
    stage.fault()
    stage.same(others)
    stage.scale("web", 5)
    stage.settle()
    stage.same(others)


def take_it_as_it_is(stage: Stage, before: dict[str, Any]) -> None:
    """In the way of docs/operations.md; nothing that runs may be touched by that."""
    for name in ("scheduler", "a", "b"):
        stage.note("killed", name)
        if name != "scheduler":
            stage.note("down", stage.rig.host(name))
        stage.procs[name].terminate()
    stage.note("accept")
    for host in "ab":
        stage.agent(host, "--accept-store")
    stage.until(
        "all tasks are known again",
        lambda sample: sample.store and {keys.TASKS + task for task in before} <= sample.store.keys(),
    )
    stage.run_service(desired=len(before))
    stage.fault()
    stage.scheduler()
    stage.settle()
    stage.same(before)


@row("F13", "the store comes back without its data", store="etcd")
def store_wiped(stage: Stage) -> None:
    before = ready(stage, 6, "a", "b")
    stage.server.wipe()
    stage.server.start()
    for host in "ab":
        stage.says(host, "the store is empty: it came back without its data")
    stage.says("scheduler", "came back empty")
    stage.same(before, 12.0)
    take_it_as_it_is(stage, before)


@row("F13b", "Consul comes back without its data")
def consul_wiped(stage: Stage) -> None:
    store_wiped(stage)


@row("F14", "an older snapshot is restored")
def set_back(stage: Stage) -> None:
    ready(stage, 3, "a", "b")
    snapshot = ask(f"{stage.server.http}/v1/snapshot", timeout=30)
    assert snapshot
    stage.scale("web", 7)
    stage.settle()
    before = stage.running()
    assert ask(f"{stage.server.http}/v1/snapshot", body=snapshot, method="PUT", timeout=30) is not None
    for host in "ab":
        stage.says(host, "set back to an older state")
    stage.same(before, 12.0)
    take_it_as_it_is(stage, before)


@row("F14b", "an older snapshot of etcd is restored", store="etcd")
def etcd_set_back(stage: Stage) -> None:
    ready(stage, 3, "a", "b")
    stage.server.save(stage.folder / "snapshot")
    stage.scale("web", 7)
    stage.settle()
    before = stage.running()
    stage.server.restore(stage.folder / "snapshot")
    stage.server.start()
    for host in "ab":
        stage.says(host, "set back to an older state")
    stage.same(before, 12.0)
    take_it_as_it_is(stage, before)


@row("F15", "an agent is led to another store, which is a good one")
def another_store(stage: Stage) -> None:
    before = ready(stage, 3)
    stage.kill("a")
    with serving("consul", stage.folder / "other") as other:
        stage.rig.env["SKED_BACKEND"] = other.url
        with contextlib.suppress(AssertionError):
            stage.run_service(desired=1)
        stage.rig.env["SKED_BACKEND"] = stage.server.url
        stage.agent("a", backend=other.url)
        stage.says("a", "nothing is started or stopped on this host")
        stage.same(before, 8.0)
        stage.kill("a")
    stage.fault()
    stage.agent("a", backend=stage.server.url)
    stage.settle()
    stage.same(before)


@row("F16", "every call takes two seconds or three, and one in twenty is broken off")
def slow_store(stage: Stage) -> None:
    front = Front(stage.server.url.partition("://")[2])
    stage.clean(front.close)
    stage.agent("a", backend=front.url)
    stage.scheduler("scheduler", backend=front.url)
    stage.hosts("a")
    stage.run_service(desired=3)
    stage.settle()
    before = stage.running()
    usual = _requests(front, 12.0)
    front.wrong = slow(2.0, 0.05, seed=16)
    slowly = _requests(front, 15.0)
    assert slowly <= 2 * usual + 2, f"{slowly:.1f} requests a second, {usual:.1f} before: a storm"
    stage.scale("web", 5)
    stage.settle(240)
    stage.same(before)
    front.wrong = None
    stage.fault()
    stage.scale("web", 4)
    stage.settle()


def _requests(front: Front, seconds: float) -> float:
    """How many came in each second."""
    before = front.requests
    time.sleep(seconds)
    return (front.requests - before) / seconds


LIES: list[tuple[int, bytes, str]] = [
    (500, b"No cluster leader", "text/plain"),
    (500, b"rpc error making call: EOF", "text/plain"),
    (429, b"Your IP is issuing too many concurrent connections", "text/plain"),
    (503, b"<html><body>503 Service Unavailable</body></html>", "text/html"),
    (200, b"<html><body>Welcome</body></html>", "text/html"),
    (200, b'[{"LockIndex":0,"Key":"state/', "application/json"),
    (200, b"null", "application/json"),
    (200, b"[]", "application/json"),
    (404, b"", "application/json"),
    (200, b"", "application/json"),
]


@row("F17", "the store answers with errors, other people's pages, halves of answers, or nothing")
def lying_store(stage: Stage) -> None:
    front = Front(stage.server.url.partition("://")[2])
    stage.clean(front.close)
    stage.agent("a", backend=front.url)
    stage.scheduler("scheduler", backend=front.url)
    stage.hosts("a")
    stage.run_service(desired=5)
    stage.settle()
    before = stage.running()
    for lie in LIES:
        front.wrong = answers(*lie)
        stage.same(before, 2.5)
        front.wrong = None
        time.sleep(0.5)
    stage.same(before, 12.0)
    stage.fault()
    stage.scale("web", 6)
    stage.settle()
    stage.same(before)


@row("F18", "answers to commits are lost after they were carried out")
def answers_lost(stage: Stage) -> None:
    front = Front(stage.server.url.partition("://")[2])
    stage.clean(front.close)
    stage.agent("a", backend=front.url)
    stage.scheduler("scheduler", backend=front.url)
    stage.hosts("a")
    for version in range(1, 5):
        front.drop_answers = 2
        stage.fault()
        stage.run_service(desired=3 + version, version=version)
        stage.settle()
    assert front.drop_answers < 2


@row("F19", "etcd is compacted under every watch", store="etcd")
def compacted(stage: Stage) -> None:
    ready(stage)
    for count in (5, 6, 4, 7):
        stage.fault()
        stage.scale("web", count)
        stage.server.compact()
        stage.settle()
    with stage.outage():
        stage.server.pause()
        time.sleep(1)
        stage.server.resume()
    stage.server.compact()
    stage.scale("web", 8)
    stage.settle()


@row("F20", "etcd has no space left", store="etcd", settings={"quota_backend_bytes": 20_000_000})
def no_space(stage: Stage) -> None:
    before = ready(stage)
    filler, number = "x" * 1_000_000, 0
    while number < 60:
        number += 1
        key = base64.b64encode(f"filler/{number}".encode()).decode()
        if not call(stage.server.http, "kv/put", key=key, value=base64.b64encode(filler.encode()).decode()):
            break
    said = stage.rig.sked("scale", "web", "6", code=6, errors=True)
    assert "space" in said.lower(), said
    stage.same(before, 8.0)
    others = the_dead_come_back(stage, before)
    start, end = (base64.b64encode(one).decode() for one in (b"filler/", b"filler0"))
    call(stage.server.http, "kv/deleterange", key=start, range_end=end)
    stage.server.compact()
    call(stage.server.http, "maintenance/defragment", 60)
    for alarm in call(stage.server.http, "maintenance/alarm", action="GET").get("alarms", []):
        call(stage.server.http, "maintenance/alarm", action="DEACTIVATE", alarm="NOSPACE", memberID=alarm["memberID"])
    stage.fault()
    stage.until("it takes writes again", lambda _: _scales(stage, 6))
    stage.settle()
    stage.same(others)


def _scales(stage: Stage, count: int) -> bool:
    with contextlib.suppress(AssertionError):
        stage.scale("web", count)
        return True
    return False


@row("F24", "an operator destroys the sessions of agents and schedulers")
def sessions_destroyed(stage: Stage) -> None:
    before = ready(stage, 3, "a", "b")
    count = 3
    for one in sessions(stage.server.http):
        ask(f"{stage.server.http}/v1/session/destroy/{one['ID']}", method="PUT")
        count += 1
        stage.fault()
        stage.scale("web", count)
        stage.settle()
        stage.same(before)
    stage.hosts("a", "b")


@row("F25", "an operator deletes and overwrites locks while schedulers work")
def locks_meddled_with(stage: Stage) -> None:
    before = ready(stage, 2)
    stage.scheduler("scheduler-2")
    done, meddled = [False], [0]

    def meddle() -> None:
        while not done[0]:
            held = json.loads(ask(f"{stage.server.http}/v1/kv/{keys.SERVICE_LOCKS}?keys") or b"[]")
            for key in held:
                meddled[0] += 1
                if meddled[0] % 2:
                    ask(f"{stage.server.http}/v1/kv/{quoted(key)}", method="DELETE")
                else:
                    ask(f"{stage.server.http}/v1/kv/{quoted(key)}", body=b"mine", method="PUT")
                    # One that nobody holds is nobody's to take over: its owner removes it.
                    ask(f"{stage.server.http}/v1/kv/{quoted(key)}", method="DELETE")

    thread = in_thread(meddle)
    try:
        for version in range(1, 12):
            stage.fault()
            stage.run_service("rolled", desired=5, version=version)
            stage.settle()
            if meddled[0] > 1:
                break
    finally:
        done[0] = True
        thread.join(20)
    assert meddled[0] > 1, "no lock was ever seen"
    stage.same(before)
