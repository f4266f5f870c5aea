"""Replacing tasks for real: versions, drains, lost hosts and crash loops, watched while they go on."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

from sked_core.clock import SystemClock
from sked_core.interfaces.health import HealthContext
from sked_core.model import keys
from sked_core.runtime.health.probes import ProbeHealth
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins

PASSES = {"checks": [{"script": "true", "interval": "1s"}]}
FAILS = {"checks": [{"script": "echo the database is away; false", "interval": "1s"}]}


def services(rig: Any) -> dict[str, Any]:
    """What ``sked services`` says of service web in cluster default."""
    (item,) = (one for one in rig.items("services") if one["name"] == "web")
    (place,) = item["clusters"]
    return place


class Watch:
    """What ``sked tasks`` would say, looked at every few milliseconds while something goes on."""

    def __init__(self, rig: Any) -> None:
        self.healthy: list[int] = []
        self.issued: list[int] = []
        self._store, self._stop = open_store(rig.backend, Plugins([])), threading.Event()
        self._health = ProbeHealth(HealthContext(store=self._store, url=rig.backend, host="", clock=SystemClock()))
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        self._health.close()
        self._store.close()
        assert len(self.healthy) > 3, "hardly anything was seen"

    def _sample(self) -> None:
        while not self._stop.wait(0.02):
            # Health first: a task that is withdrawn between the two looks then counts as healthy at the first.
            health = self._health.health([("default", "web")])
            self.healthy.append(sum(one.healthy for one in health.values()))
            self.issued.append(len(self._store.read(keys.TASKS).entries))


def ready_after(rig: Any, seconds: float) -> dict[str, Any]:
    """The start and the container of a task that becomes healthy so long after it was started."""
    flag = f"{rig.folder}/ready-$SKED_TASK_ID"
    checks = [{"script": f"test -e {flag}", "interval": "1s"}]
    return {"start": f"sleep {seconds}; touch {flag}; exec sleep 1000", "container": {"checks": checks}}


def test_a_new_version_replaces_the_old_one_within_min_and_max(rig, manifest):
    rig.run("combined", host="a")
    bounds = {"min": 3, "max": 5}
    slow = ready_after(rig, 0.5)
    rig.apply(manifest(desired=4, bounds=bounds, **slow))
    rig.until("4 healthy", rig.healthy(4))
    with Watch(rig) as watch:
        rig.apply(manifest(desired=4, version=2, bounds=bounds, **slow))
        rig.until("all of version 2", rig.all_of(2, 4))
    assert min(watch.healthy) >= 3
    assert max(watch.issued) == 5, "the room above desired was used, and no more"
    assert all(len(pids) == 1 for pids in rig.processes().values())
    rig.until("nothing more to say", lambda: services(rig)["why"] == "")


def test_without_room_above_desired_one_old_task_makes_way_at_a_time(rig, manifest):
    rig.run("combined", host="a")
    bounds = {"min": 2, "max": 3}
    slow = ready_after(rig, 0.3)
    rig.apply(manifest(desired=3, bounds=bounds, **slow))
    rig.until("3 healthy", rig.healthy(3))
    with Watch(rig) as watch:
        rig.apply(manifest(desired=3, version=2, bounds=bounds, **slow))
        rig.until("all of version 2", rig.all_of(2, 3))
    assert min(watch.healthy) == 2
    assert max(watch.issued) == 3


def test_a_version_that_never_becomes_healthy_leaves_every_old_task_running_and_says_why(rig, manifest):
    rig.run("combined", host="a")
    rig.apply(manifest(desired=3, container=PASSES))
    rig.until("3 healthy", rig.healthy(3))
    before = rig.processes()
    with Watch(rig) as watch:
        rig.apply(manifest(desired=3, version=2, container=FAILS, grace_period="1s", max_attempts=2))
        (broken,) = rig.until("given up", lambda: [task for task in rig.items() if task["rejected"]])
    assert broken["reject_reason"].startswith("unhealthy again after a restart: script: exit 1")
    assert "the database is away" in broken["reject_reason"]
    assert min(watch.healthy) == 3
    assert max(watch.issued) <= 4
    after = rig.processes()
    assert {task: pids for task, pids in after.items() if task in before} == before
    rig.until("said", lambda: "roll-out 1 failed: default-web-2-0" in services(rig)["why"])
    # The way back is as open as the way forward.
    rig.apply(manifest(desired=3, container=PASSES))
    rig.until("3 healthy, nothing else", rig.healthy(3))
    assert rig.processes() == before


def test_no_room_between_min_and_max_is_reported_as_blocked(rig, manifest):
    rig.run("combined", host="a")
    bounds = {"min": 2, "max": 2}
    rig.apply(manifest(desired=2, bounds=bounds))
    rig.until("2 healthy", rig.healthy(2))
    before = rig.processes()
    rig.apply(manifest(desired=2, version=2, bounds=bounds))
    why = rig.until("said", lambda: services(rig)["why"])
    assert why == (
        "min 2 and max 2 leave no room to replace a task: raise max to 3 or lower min below the 2 healthy tasks"
    )
    assert rig.processes() == before
    rig.apply(manifest(desired=2, version=2, bounds={"min": 2, "max": 3}))
    rig.until("replaced", rig.all_of(2, 2))


def test_a_drained_host_is_emptied_within_the_bounds_and_used_again_after_uncordon(rig, manifest):
    rig.run("agent", host="a")
    rig.run("agent", host="b")
    rig.run("scheduler")
    rig.hosts_ready(2)
    rig.apply(manifest(desired=4, bounds={"min": 3, "max": 5}, container=PASSES))
    rig.until("4 healthy", rig.healthy(4))
    assert [len(rig.on(host)) for host in "ab"] == [2, 2]
    with Watch(rig) as watch:
        rig.sked("drain", rig.host("a"))
        rig.until("moved", lambda: rig.on("a") == [] and rig.healthy(4)())
    assert min(watch.healthy) >= 3
    assert max(watch.issued) <= 5
    rig.sked("drain", rig.host("a"), "--wait", "--timeout", "20s")
    rig.sked("scale", "web", "5")
    assert {task["host"] for task in rig.until("5 healthy", rig.healthy(5))} == {rig.host("b")}
    rig.sked("uncordon", rig.host("a"))
    rig.apply(manifest(desired=7, bounds={"min": 3, "max": 8}, container=PASSES))
    rig.until("7 healthy", rig.healthy(7))
    assert len(rig.on("a")) == 2


def test_a_lost_host_is_replaced_and_stops_its_copies_when_it_returns(rig, manifest):
    agent = rig.run("agent", host="a")
    rig.run("agent", host="b")
    rig.run("scheduler", "--lost-after", "3s")
    rig.hosts_ready(2)
    rig.apply(manifest(desired=4, bounds={"min": 2, "max": 5}))
    rig.until("4 healthy", rig.healthy(4))
    old, kept = rig.on("a"), rig.on("b")
    agent.kill()
    rig.until("down", lambda: {host["state"] for host in rig.items("hosts")} == {"ready", "down"})
    rig.until("replaced", lambda: rig.on("a") == [] and len(rig.on("b")) == 4 and rig.healthy(4)())
    assert set(kept) <= set(rig.on("b"))
    # Nobody could stop what ran there: until its agent is back, two copies may run.
    assert sum(len(pids) for pids in rig.processes().values()) == 4 + len(old)
    rig.run("agent", host="a")
    rig.until("one copy each", lambda: [len(pids) for pids in rig.processes().values()] == [1] * 4)
    assert set(rig.processes()) == {task["id"] for task in rig.until("4 healthy", rig.healthy(4))}


def test_what_a_paused_host_ran_is_stopped_there_when_it_wakes_up(rig, manifest):
    agent = rig.run("agent", host="a")
    rig.run("agent", host="b")
    rig.run("scheduler", "--lost-after", "3s")
    rig.hosts_ready(2)
    rig.apply(manifest(desired=2, bounds={"min": 1, "max": 3}))
    rig.until("2 healthy", rig.healthy(2))
    agent.signal(signal.SIGSTOP)
    rig.until("replaced", lambda: len(rig.on("b")) == 2)
    agent.signal(signal.SIGCONT)
    rig.until("one copy each", lambda: [len(pids) for pids in rig.processes().values()] == [1, 1])
    rig.until("healthy", rig.healthy(2))


def test_services_that_leave_a_cluster_are_stopped_and_the_others_go_on(rig, manifest):
    rig.run("combined", host="a")
    rig.apply(manifest("web", desired=2))
    rig.apply(manifest("db", desired=1, cluster={"services": ["web", "db"]}))
    rig.until("3 healthy", rig.healthy(3))
    web = {task: pids for task, pids in rig.processes().items() if "web" in task}
    rig.apply({"clusters": [{"name": "default", "services": ["web"]}]})
    rig.until("db is gone", rig.healthy(2))
    assert rig.processes() == web
    rig.sked("delete", "service/web", "--cascade", "-y")
    rig.until("nothing is left", lambda: rig.items() == [])
    assert rig.processes() == {}


def test_a_crash_loop_backs_off_and_ends_rejected_with_the_reason(rig, manifest):
    rig.run("agent", host="a")
    scheduler = rig.run("scheduler")
    starts = rig.folder / "starts"
    crash = f"echo started >> {starts}; exit 7"
    began = time.monotonic()
    rig.apply(manifest(desired=1, start=crash, max_attempts=4))
    (task,) = rig.until("given up", lambda: [one for one in rig.items() if one["rejected"]])
    took = time.monotonic() - began
    assert task["reject_reason"].startswith("gave up after 4 starts: ")
    assert "exit 7" in task["reject_reason"]
    first = starts.read_text().count("started")
    assert first <= 4 * scheduler.text().count("issue default-web-1-0")
    # 1 s, 2 s and 4 s between four starts, each shortened by a quarter at most.
    assert took >= 0.75 * (1 + 2 + 4)
    assert rig.processes() == {}
