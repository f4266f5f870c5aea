"""What dies comes back, and what is lost comes up elsewhere, once: with real processes, containers and networks."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from typing import Any

import pytest

from rigs.monitor import Monitor
from rigs.relay import Relay
from rigs.traffic import passing
from sked_core.model import codec, keys
from sked_core.model.types import Failure, Task
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins

TASK = "default-web-1-0"


def failure(store: Any, task: str) -> Failure | None:
    key = keys.failure(task)
    entry = store.read(key).entries.get(key)
    return codec.decode(entry.value, Failure) if entry else None


@pytest.fixture
def store(consul_rig):
    rig, _consul = consul_rig
    store = open_store(rig.backend, Plugins.load())
    yield store
    store.close()


def test_a_crash_loop_is_bounded_and_everybody_can_see_when_it_is_tried_next(consul_rig, store, manifest):
    rig, _consul = consul_rig
    rig.run("combined", host="a")
    starts, seen = rig.folder / "starts", {}
    crash = f'echo $EPOCHREALTIME >>{starts}; echo "no such table: users" >&2; exit 7'
    rig.apply(manifest(desired=1, start=crash, max_attempts=5))

    def rejected() -> str:
        """Why the task was rejected, if it was. On the way, whatever the store says of its failures is kept."""
        if (found := failure(store, TASK)) and found.next_try:
            seen.setdefault(found.attempts, found)
        entry = store.read(keys.task(TASK)).entries.get(keys.task(TASK))
        return codec.decode(entry.value, Task).reject_reason if entry else ""

    rig.until("a third start", lambda: rejected() or 3 in seen)
    told = rig.sked("tasks", "--why")
    assert "exit 7" in told
    assert "no such table: users" in told
    assert "next try" in told
    assert rig.until("given up", rejected).startswith("gave up after 5 starts: ")
    # Who looks now and then may miss the first, which is tried again after a second.
    assert sorted(seen)[-2:] == [3, 4], "after each failed start but the last it says when it will be tried again"
    for attempts, found in seen.items():
        assert found.attempts == attempts
        assert found.log[-1] == "no such table: users"
        assert "exit 7" in found.reason
    times = [float(line) for line in starts.read_text().split()]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times[:5])]
    # 1, 2, 4 and 8 s between five starts, each shortened by a quarter at most, and delayed by whatever else goes on.
    assert all(pause >= 0.75 * 2**number for number, pause in enumerate(pauses)), pauses
    assert len(times) <= 5 * len(rig.events("task.issued"))
    failed = rig.events("task.failed")
    assert len(failed) >= 4
    assert all("exit 7" in event["why"] for event in failed)


def test_a_killed_process_is_replaced_at_once_and_its_failure_is_forgotten_when_it_is_well(consul_rig, store, web):
    rig, consul = consul_rig
    rig.run("combined", host="a")
    rig.apply(web(desired=3))
    rig.until("3 healthy", rig.healthy(3))
    before = rig.processes()
    (victim,) = before[TASK]
    time.sleep(5.5)  # what ran for more than five seconds is restarted without a pause
    os.kill(victim, signal.SIGKILL)
    rig.until("another process", lambda: rig.processes().get(TASK) not in (None, [], [victim]))
    rig.until("3 healthy", rig.healthy(3))
    with passing(consul.http, "default-web") as known:
        rig.until("clients know it", lambda: len(known.targets) == 3)
    after = rig.processes()
    others = {task: pids for task, pids in before.items() if task != TASK}
    assert others.items() <= after.items()
    rig.until("forgotten", lambda: failure(store, TASK) is None)
    rig.until("told", lambda: [one["subject"] for one in rig.events("task.failed")] == [f"task/{TASK}"])


def test_a_task_that_turns_unhealthy_is_restarted_once_and_then_replaced_elsewhere(consul_rig, store, manifest):
    rig, _consul = consul_rig
    rig.run("agent", host="a")
    rig.run("agent", host="b")
    rig.run("scheduler")
    rig.hosts_ready(2)
    ill = rig.folder / "ill"
    ill.mkdir()
    check = {"script": f"test ! -e {ill}/$SKED_HOST || {{ echo stuck; false; }}", "interval": "1s"}
    rig.apply(manifest(desired=1, container={"checks": [check]}, grace_period="3s"))
    (task,) = rig.until("healthy", rig.healthy(1))
    first = task["host"]
    (ill / first).touch()
    (moved,) = rig.until(
        "healthy elsewhere", lambda: [one for one in rig.healthy(1)() if one["host"] != first], patience=60
    )
    assert moved["id"] == TASK

    def told() -> list[tuple[str, str]]:
        return [(event["what"], event["host"]) for event in rig.events() if event["subject"] == f"task/{TASK}"]

    rig.until("told", lambda: ("task.rejected", first) in told())
    assert told().count(("task.started", first)) == 2
    rig.until("nothing fails any more", lambda: failure(store, TASK) is None)
    rig.until("one process", lambda: [len(pids) for pids in rig.processes().values()] == [1])


def test_a_lost_hosts_containers_come_up_elsewhere_and_not_twice_when_it_is_back(consul_rig, web_in_docker):
    rig, consul = consul_rig
    agent = rig.run("agent", host="a")
    rig.run("agent", host="b")
    rig.run("scheduler", "--lost-after", "3s")
    rig.hosts_ready(2)
    rig.apply(web_in_docker(desired=4, bounds={"min": 2, "max": 5}))
    rig.until("4 healthy", rig.healthy(4))
    lost, kept = rig.on("a"), {task: ids for task, ids in rig.containers().items() if task in rig.on("b")}
    agent.kill()
    subprocess.run(
        ["docker", "kill", *(one for task in lost for one in rig.containers()[task])], check=True, capture_output=True
    )
    rig.until("all elsewhere", lambda: rig.on("a") == [] and rig.healthy(4)())
    with passing(consul.http, "default-web") as known:
        rig.until("clients know them", lambda: len(known.targets) == 4)
    assert rig.containers().items() >= kept.items(), "what ran on runs on"
    before = rig.containers()
    rig.run("agent", host="a")
    rig.hosts_ready(2)
    rig.until("what it left there is gone", lambda: [len(ids) for ids in rig.containers("--all").values()] == [1] * 4)
    assert rig.containers() == before
    for what in ("host.lost", "host.returned"):
        rig.until(what, lambda what=what: [one["host"] for one in rig.events(what)] == [rig.host("a")])


def test_an_agent_that_is_cut_off_in_the_midst_of_a_roll_out_leaves_no_doubles(consul_rig, web):
    rig, consul = consul_rig
    bounds = {"min": 2, "max": 5, "update": {"healthy_for": "2s"}}
    with Relay(consul.http.removeprefix("http://")) as relay:
        rig.run("agent", host="a", backend=f"consul://127.0.0.1:{relay.port}")
        rig.run("agent", host="b")
        rig.run("scheduler", "--lost-after", "3s")
        rig.hosts_ready(2)
        rig.apply(web(desired=4, bounds=bounds))
        rig.apply(web(name="other", desired=2, cluster={"services": ["web", "other"]}))
        rig.until("6 healthy", rig.healthy(6))
        other = {task: pids for task, pids in rig.processes().items() if task in rig.on("b") and "other" in task}
        with Monitor(rig.backend, consul.http) as monitor:
            rig.apply(web(desired=4, version=2, bounds=bounds, cluster={"services": ["web", "other"]}))
            rig.until("a task of version 2", lambda: any(task.startswith("default-web-2-") for task in rig.processes()))
            relay.cut()
            rig.until("down", lambda: "down" in {host["state"] for host in rig.items("hosts")})
            rig.until("all on the other host", lambda: len(rig.on("b")) == 6 and rig.healthy(6)())
            relay.heal()
            rig.hosts_ready(2)
            issued = {task["id"] for task in rig.items()}
            rig.until(
                "one process each",
                lambda: {task: len(pids) for task, pids in rig.processes().items()} == dict.fromkeys(issued, 1),
            )
        assert not monitor.double
        assert monitor.issued <= 5
        assert rig.processes().items() >= other.items()
        assert {task["task_definition"]["version"] for task in rig.items() if task["service"] == "web"} == {2}
