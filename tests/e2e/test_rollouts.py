"""Roll-outs for real: Consul, Docker, several hosts and a steady load of requests, each of which is counted."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from rigs.monitor import Monitor
from rigs.sked import PATIENCE
from rigs.traffic import Traffic, passing
from sked_core.interfaces.store import Delete, Put
from sked_core.model import codec, keys
from sked_core.model.types import Rollout, Task
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins

DATABASE_AWAY = 'echo "cannot reach the database" >&2; exit 3'


def versions(rig: Any) -> list[int]:
    """The version of each task that is to run."""
    return sorted(task["task_definition"]["version"] for task in rig.items() if task["scheduled"])


def history(rig: Any) -> list[dict[str, Any]]:
    """All roll-outs of service web, the newest last."""
    found: list[dict[str, Any]] = json.loads(rig.sked("rollout", "history", "web", "-o", "json"))["items"]
    return found


def said_of(rig: Any) -> str:
    """Why service web is not done, as ``sked services`` says it."""
    return " ".join(place["why"] for item in rig.items("services") for place in item["clusters"])


def forget(rig: Any, task: str) -> None:
    """Remove both keys of a task, as if it had never been issued."""
    (host,) = (one["host"] for one in rig.items() if one["id"] == task)
    store = open_store(rig.backend, Plugins.load())
    store.commit([Delete(keys.task(task)), Delete(keys.host_task(host, task)), Put(keys.changed("web"), b"a test")])
    store.close()


def declared_version(rig: Any) -> int:
    (item,) = (item for item in rig.items("services") if item["name"] == "web")
    version: int = item["task_version"]
    return version


@pytest.fixture
def fleet(consul_rig):
    """Two hosts and a scheduler."""
    rig, consul = consul_rig
    for host in "ab":
        rig.run("agent", host=host)
    rig.run("scheduler")
    rig.hosts_ready(2)
    return rig, consul


@pytest.mark.parametrize("kind", ["web", "web_in_docker"])
def test_a_good_version_costs_no_request(fleet, request, kind):
    rig, consul = fleet
    make = request.getfixturevalue(kind)
    bounds = {"min": 4, "max": 6}
    rig.apply(make(desired=4, bounds=bounds))
    rig.until("4 healthy", rig.healthy(4))
    with passing(consul.http, "default-web") as known:
        rig.until("known to clients", lambda: len(known.targets) == 4)
        with Monitor(rig.backend, consul.http) as monitor, Traffic(known) as load:
            rig.until("a steady load", lambda: load.seconds > 2)
            new = json.dumps(make(desired=4, version=2, bounds=bounds))
            told = rig.sked("apply", "-f", "-", "--wait", stdin=new, errors=True)
            assert rig.all_of(2, 4)(), "all that was to be is when the command returns"
            before = load.sent
            rig.until("answers of version 2 alone", lambda: load.sent > before + 100)
    assert not load.failures, (str(load), [str(failure) for failure in load.failures[:5]])
    assert load.sent > 400
    assert load.late < 3, "no steady load: a gap in it hides what fails meanwhile"
    assert set(load.answers) == {"version 1", "version 2"}
    assert monitor.least >= 4
    assert monitor.issued <= 6
    assert not monitor.double
    for line in ("began roll-out 1: version 1 -> 2", "2 of 4 tasks of version 2 healthy", "all tasks are healthy"):
        assert line in told
    (rollout,) = history(rig)
    assert (rollout["result"], rollout["from_version"], rollout["task_version"]) == ("succeeded", 1, 2)


def test_the_load_counts_what_fails(fleet, web):
    """Or the zeros above would say nothing."""
    rig, consul = fleet
    rig.apply(web(desired=2))
    rig.until("2 healthy", rig.healthy(2))
    with passing(consul.http, "default-web") as known:
        rig.until("known to clients", lambda: len(known.targets) == 2)
        with Traffic(known) as load:
            rig.until("a steady load", lambda: load.seconds > 0.5)
            assert load.failures == []
            consul_says = known.targets[0]
            with Traffic(lambda: [consul_says, ("127.0.0.1", 1)], rate=50) as half:
                rig.until("requests", lambda: half.sent >= 20)
    assert abs(len(half.failures) - half.sent / 2) <= 1
    assert {failure.why for failure in half.failures} == {"[Errno 111] Connection refused"}


def test_a_bad_version_is_rolled_back_by_itself_and_clients_notice_nothing(fleet, web):
    rig, consul = fleet
    policy = {"min": 3, "max": 4, "update": {"on_failure": "rollback"}}
    rig.apply(web(desired=3, bounds=policy))
    rig.until("3 healthy", rig.healthy(3))
    before = rig.processes()
    bad = web(desired=3, version=2, bounds=policy, start=DATABASE_AWAY)
    with passing(consul.http, "default-web") as known:
        rig.until("known to clients", lambda: len(known.targets) == 3)
        with Monitor(rig.backend, consul.http) as monitor, Traffic(known) as load:
            told = rig.sked("apply", "-f", "-", "--wait", stdin=json.dumps(bad), code=1, errors=True)
            rig.until("rolled back", lambda: rig.all_of(1, 3)() and len(history(rig)) == 2)
            rig.until("ended", lambda: history(rig)[-1]["result"] == "succeeded")
    assert not load.failures, str(load)
    assert monitor.least >= 3
    assert monitor.issued <= 4
    assert rig.processes() == before, "not one of the old tasks was touched"
    failed, back = history(rig)
    assert (failed["kind"], failed["task_version"], failed["result"]) == ("update", 2, "rolled_back")
    assert (back["kind"], back["from_version"], back["task_version"]) == ("rollback", 2, 1)
    assert declared_version(rig) == 1
    for words in (told, failed["reason"]):
        assert "exit 3" in words
        assert "| cannot reach the database" in words
    # Later, for whoever comes back from lunch.
    status = rig.sked("rollout", "status", "web", errors=True)
    assert "(rollback), version 2 -> 1, succeeded" in status
    listed = rig.sked("rollout", "history", "web")
    assert "rolled_back" in listed
    assert "exit 3" in listed


def test_a_version_that_stays_unhealthy_stops_with_its_checks_words_until_it_is_undone(fleet, web):
    rig, consul = fleet
    bounds = {"min": 2, "max": 3}
    rig.apply(web(desired=2, bounds=bounds))
    rig.until("2 healthy", rig.healthy(2))
    before = rig.processes()
    checks = {"checks": [{"script": "echo the disk is full; false", "interval": "1s"}]}
    with Monitor(rig.backend, consul.http) as monitor:
        rig.apply(web(desired=2, version=2, bounds=bounds, container=checks, grace_period="3s"))
        rig.until("failed", lambda: [one for one in history(rig) if one["state"] == "failed"])
        told = rig.sked("rollout", "status", "web", code=1, errors=True)
        assert "unhealthy for longer than its grace period" in told
        assert "the disk is full" in told
        assert "sked rollout undo web" in told
        assert "failed" in said_of(rig)
        assert declared_version(rig) == 2, "pause: a person decides"
        rig.sked("rollout", "undo", "web", "--wait", "--why", "it was the disk")
        rig.until("back", rig.all_of(1, 2))
    assert monitor.least >= 2
    assert monitor.issued <= 3
    assert rig.processes() == before
    assert declared_version(rig) == 1
    failed, undo = history(rig)
    assert (failed["result"], undo["kind"], undo["result"], undo["why"]) == (
        *("superseded", "undo", "succeeded"),
        "it was the disk",
    )


def test_canaries_come_first_and_the_rest_follows_when_somebody_promotes_them(fleet, web):
    rig, consul = fleet
    policy = {"min": 3, "max": 4, "update": {"canaries": 1}}
    rig.apply(web(desired=4, bounds=policy))
    rig.until("4 healthy", rig.healthy(4))
    with Monitor(rig.backend, consul.http) as monitor:
        rig.apply(web(desired=4, version=2, bounds=policy))
        rig.until("it waits", lambda: "the rest waits: sked rollout promote web" in said_of(rig))
        assert versions(rig) == [1, 1, 1, 2]
        assert "the rest waits" in rig.sked("rollout", "status", "web")
        forget(rig, "default-web-1-1")
        rig.until("it is as it was", lambda: versions(rig) == [1, 1, 1, 2] and rig.healthy(4)())
        rig.sked("rollout", "promote", "web", "--why", "no errors in an hour")
        rig.until("all of version 2", rig.all_of(2, 4))
        rig.until("ended", lambda: history(rig)[-1]["result"] == "succeeded")
    assert monitor.least >= 3
    assert monitor.issued <= 4
    promoted = [
        one for one in json.loads(rig.sked("events", "-o", "json"))["items"] if one["what"] == "rollout.promoted"
    ]
    assert [one["why"] for one in promoted] == ["no errors in an hour"]


def test_a_paused_roll_out_stands_still_and_goes_on_where_it_was(fleet, web):
    rig, consul = fleet
    bounds = {"min": 3, "max": 4, "update": {"healthy_for": "2s"}}
    rig.apply(web(desired=4, bounds=bounds))
    rig.until("4 healthy", rig.healthy(4))
    with Monitor(rig.backend, consul.http) as monitor:
        rig.apply(web(desired=4, version=2, bounds=bounds))
        rig.until("on its way", lambda: versions(rig).count(2) == 1)
        rig.sked("rollout", "pause", "web", "--why", "lunch")
        rig.until("it says so", lambda: "is paused: sked rollout resume web" in said_of(rig))
        rig.until("4 healthy", rig.healthy(4))
        new = {task for task in rig.processes() if task.startswith("default-web-2-")}
        forget(rig, next(task for task in rig.processes() if task not in new))
        rig.until("what is missing comes back as it was", rig.healthy(4))
        assert {task for task in rig.processes() if task.startswith("default-web-2-")} == new
        assert "paused by" in rig.sked("rollout", "status", "web")
        rig.sked("rollout", "resume", "web")
        rig.until("all of version 2", rig.all_of(2, 4))
    assert monitor.least >= 3
    assert monitor.issued <= 4


def test_a_roll_out_without_room_says_so_and_how_to_make_some(fleet, web):
    rig, _consul = fleet
    rig.apply(web(desired=2, bounds={"min": 2, "max": 2}))
    rig.until("2 healthy", rig.healthy(2))
    before = rig.processes()
    rig.apply(web(desired=2, version=2, bounds={"min": 2, "max": 2}))
    remedy = "raise max to 3 or lower min"
    rig.until("services say so", lambda: remedy in said_of(rig))
    assert remedy in rig.sked("rollout", "status", "web")
    assert remedy in rig.sked("services")
    assert rig.processes() == before
    rig.apply(web(desired=2, version=2, bounds={"min": 2, "max": 3}))
    rig.until("all of version 2", rig.all_of(2, 2))


class Deadly:
    """Kills the scheduler after every step of a roll-out that the store shows, and starts another one.

    There is none while a version is applied: its first steps might be over before the first look."""

    def __init__(self, rig: Any) -> None:
        self._rig, self._scheduler = rig, rig.run("scheduler")
        self._store = open_store(rig.backend, Plugins.load())

    def _stands(self) -> tuple[int, int, int, tuple[str, ...]]:
        """Tasks of version 1 that are to run, those that are being stopped, tasks of version 2; how roll-outs ended."""
        tasks = [codec.decode(entry.value, Task) for entry in self._store.read(keys.TASKS).entries.values()]
        old = [task.scheduled for task in tasks if task.task_definition.version == 1]
        ended = self._store.read(keys.rollout_history("web")).entries.values()
        results = tuple(codec.decode(entry.value, Rollout).result for entry in ended)
        return sum(old), len(old) - sum(old), len(tasks) - len(old), results

    def apply(self, manifest: dict[str, Any]) -> None:
        """Have it begin."""
        self._scheduler.terminate()
        self._rig.apply(manifest)

    def until(self, *results: str) -> set[tuple[int, int, int]]:
        """Kill until roll-outs of the two tasks have ended in these ways; returns how things stood each time."""
        seen, now, deadline = set(), (2, 0, 0, ()), time.monotonic() + PATIENCE
        self._scheduler = self._rig.run("scheduler")
        while now[-1] != results:
            before = now
            while (now := self._stands()) == before:
                assert time.monotonic() < deadline, f"it stands still at {before}"
                time.sleep(0.005)
            self._scheduler.kill()
            self._scheduler = self._rig.run("scheduler")
            seen.add(now[:3])
        self._store.close()
        return seen


def test_the_scheduler_may_be_killed_after_every_single_step(consul_rig, web):
    rig, consul = consul_rig
    rig.run("agent", host="a")
    bounds = {"min": 2, "max": 3}
    rig.apply(web(desired=2, bounds=bounds))
    killing = Deadly(rig)
    rig.until("2 healthy", rig.healthy(2))
    with Monitor(rig.backend, consul.http) as monitor:
        killing.apply(web(desired=2, version=2, bounds=bounds))
        seen = killing.until("succeeded")
        rig.until("all of version 2", rig.all_of(2, 2))
    assert {(2, 0, 1), (1, 1, 1), (1, 0, 2), (0, 1, 2)} <= seen, "issued, withdrawn, issued, withdrawn"
    assert monitor.least >= 2
    assert monitor.issued <= 3
    assert not monitor.double
    assert [len(pids) for pids in rig.processes().values()] == [1, 1]


def test_the_scheduler_may_be_killed_after_every_step_of_a_rollback_as_well(consul_rig, web):
    rig, consul = consul_rig
    rig.run("agent", host="a")
    policy = {"min": 2, "max": 3, "update": {"on_failure": "rollback"}}
    rig.apply(web(desired=2, bounds=policy))
    killing = Deadly(rig)
    rig.until("2 healthy", rig.healthy(2))
    before = rig.processes()
    with Monitor(rig.backend, consul.http) as monitor:
        killing.apply(web(desired=2, version=2, bounds=policy, start=DATABASE_AWAY))
        seen = killing.until("rolled_back", "succeeded")
        rig.until("all of version 1", rig.all_of(1, 2))
    assert (2, 0, 1) in seen
    assert monitor.least >= 2
    assert monitor.issued <= 3
    assert rig.processes() == before
    assert [(one["kind"], one["task_version"]) for one in history(rig)] == [("update", 2), ("rollback", 1)]
    assert "| cannot reach the database" in history(rig)[0]["reason"]
    assert declared_version(rig) == 1
