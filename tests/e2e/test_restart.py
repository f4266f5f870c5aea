"""Restarting and stopping for real: nothing is lost on the way, whoever dies."""

from __future__ import annotations

import json

from rigs.monitor import Monitor
from rigs.traffic import Traffic, passing


def by_id(rig) -> dict[str, tuple[str, int]]:
    """Host and port of each task."""
    return {task["id"]: (task["host"], task["port"]) for task in rig.items()}


def test_one_task_is_restarted_where_it_is_with_its_port_and_the_others_are_left_alone(rig, manifest) -> None:
    for host in "ab":
        rig.run("agent", host=host)
    rig.run("scheduler")
    rig.hosts_ready(2)
    rig.apply(manifest(desired=4, provide_port=True))
    rig.until("4 healthy", rig.healthy(4))
    rig.until("4 run", lambda: len(rig.processes()) == 4)
    before, places = rig.processes(), by_id(rig)
    (chosen, *others) = sorted(before)
    told = rig.sked("restart", chosen, "--wait", "--why", "new certificates", errors=True)
    assert f"{chosen} is healthy again" in told
    after = rig.processes()
    assert not set(after[chosen]) & set(before[chosen])
    assert {task: after[task] for task in others} == {task: before[task] for task in others}
    assert by_id(rig) == places
    (asked,) = rig.events("task.restarted")
    assert asked["subject"] == f"task/{chosen}" and asked["why"] == "new certificates"


def test_a_restart_asked_for_while_the_agent_is_away_is_made_once_and_when_it_is_back(rig, manifest) -> None:
    agent = rig.run("agent", host="a")
    rig.run("scheduler", "--lost-after", "10m")
    rig.hosts_ready(1)
    rig.apply(manifest(desired=1))
    (task,) = rig.until("healthy", rig.healthy(1))
    before = rig.until("it runs", rig.processes)
    agent.kill()
    rig.sked("restart", task["id"])
    assert rig.processes() == before
    agent = rig.run("agent", host="a")
    gone = set(before[task["id"]])
    now = rig.until(
        "another process runs", lambda: not gone & set(rig.processes().get(task["id"], gone)) and rig.processes()
    )
    agent.kill()
    rig.run("agent", host="a")
    rig.until("it was adopted", lambda: any(one["what"] == "agent.adopted" for one in rig.events()))
    rig.until("healthy", rig.healthy(1))
    assert rig.processes() == now, "a restart that was made is not made again"


def test_a_service_is_restarted_under_load_while_its_scheduler_is_killed_and_no_request_fails(consul_rig, web) -> None:
    rig, consul = consul_rig
    for host in "ab":
        rig.run("agent", host=host)
    schedulers = [rig.run("scheduler"), rig.run("scheduler")]
    rig.hosts_ready(2)
    rig.apply(web(desired=4, bounds={"min": 4, "max": 5}))
    rig.until("4 healthy", rig.healthy(4))
    before = rig.processes()
    with passing(consul.http, "default-web") as known:
        rig.until("known to clients", lambda: len(known.targets) == 4)
        with Monitor(rig.backend, consul.http) as monitor, Traffic(known) as load:
            rig.until("a steady load", lambda: load.seconds > 1)
            rig.sked("restart", "web")
            rig.until("it has begun", lambda: rig.events("move.started"))
            for scheduler in schedulers:
                scheduler.kill()
            rig.run("scheduler")
            rig.sked("rebalance", "web", "--wait", "--timeout", "120s")
            rig.until("4 healthy", rig.healthy(4))
    assert not load.failures, (str(load), [str(failure) for failure in load.failures[:5]])
    assert monitor.least >= 4 and monitor.issued <= 5
    pids = {pid for task in before.values() for pid in task}
    rig.until("all are new", lambda: not pids & {pid for task in rig.processes().values() for pid in task})
    assert len(rig.events("move.done")) == 4 and not rig.events("move.cancelled")
    assert sorted(json.loads(rig.sked("services", "-o", "json"))["items"][0]["clusters"][0].items())


def test_a_stopped_task_ends_and_another_one_takes_its_place(rig, manifest) -> None:
    rig.run("agent", host="a")
    rig.run("scheduler")
    rig.hosts_ready(1)
    rig.apply(manifest(desired=2))
    rig.until("2 healthy", rig.healthy(2))
    before = rig.until("2 run", lambda: rig.processes() if len(rig.processes()) == 2 else {})
    chosen = sorted(before)[0]
    told = rig.sked("stop", chosen, "-y", errors=True)
    assert "scheduler default places another one" in told
    gone = set(before[chosen])
    rig.until("it has ended", lambda: not gone & {pid for pids in rig.processes().values() for pid in pids})
    rig.until("2 healthy", rig.healthy(2))
    rig.until("2 run", lambda: len(rig.processes()) == 2)
    others = set(before) - {chosen}
    assert all(rig.processes()[task] == before[task] for task in others)
