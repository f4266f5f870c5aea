"""Emptying hosts for real: no request fails, tasks don't hop, and a person can see why it takes long, or end it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from rigs.monitor import Monitor
from rigs.traffic import Traffic, passing


def start(rig: Any, hosts: str, executor: str = "bash") -> None:
    for host in hosts:
        rig.run("agent", host=host)
    rig.run("scheduler")
    rig.hosts_ready(len(hosts), executor)


def test_a_host_is_drained_under_load_and_no_request_fails(consul_rig, web_in_docker):
    rig, consul = consul_rig
    start(rig, "ab", "docker")
    rig.apply(web_in_docker(desired=4, bounds={"min": 4, "max": 5}))
    rig.until("4 healthy", rig.healthy(4))
    assert len(rig.on("a")) == 2
    kept = {task: ids for task, ids in rig.containers().items() if task in rig.on("b")}
    with passing(consul.http, "default-web") as known:
        rig.until("known to clients", lambda: len(known.targets) == 4)
        with Monitor(rig.backend, consul.http) as monitor, Traffic(known) as load:
            rig.until("a steady load", lambda: load.seconds > 1)
            told = rig.sked("drain", rig.host("a"), "--wait", "--why", "new kernel", errors=True)
            rig.until("4 healthy", rig.healthy(4))
    assert not load.failures, (str(load), [str(failure) for failure in load.failures[:5]])
    assert load.sent > 200
    assert monitor.least >= 4
    assert monitor.issued <= 5
    assert rig.on("a") == []
    assert rig.containers().items() >= kept.items(), "tasks of other hosts stay as they are"
    assert "2 of 2 tasks left" in told
    assert f"empty: {rig.host('a')}" in told
    (event,) = rig.events("host.draining")
    assert (event["host"], event["why"]) == (rig.host("a"), "new kernel")


def test_two_hosts_are_drained_at_once_and_no_task_hops_from_one_to_the_other(consul_rig, web):
    rig, consul = consul_rig
    start(rig, "abc")
    rig.apply(web(desired=6, bounds={"min": 5, "max": 8}))
    rig.until("6 healthy", rig.healthy(6))
    assert [len(rig.on(host)) for host in "abc"] == [2, 2, 2]
    with Monitor(rig.backend, consul.http) as monitor:
        rig.sked("drain", rig.host("a"), rig.host("b"), "--wait")
        rig.until("6 healthy", rig.healthy(6))
    assert monitor.least >= 5
    assert monitor.issued <= 8
    assert len(rig.on("c")) == 6
    issued = Counter(event["host"] for event in rig.events("task.issued"))
    assert issued == {rig.host("a"): 2, rig.host("b"): 2, rig.host("c"): 6}


def test_a_drain_that_min_holds_up_says_why_and_can_be_ended_or_forced(consul_rig, web):
    rig, consul = consul_rig
    start(rig, "ab")
    rig.apply(web(desired=2, bounds={"min": 2, "max": 2}))
    rig.until("2 healthy", rig.healthy(2))
    before = rig.processes()
    (left,) = rig.on("a")
    with Monitor(rig.backend, consul.http) as monitor:
        told = rig.sked("drain", rig.host("a"), "--wait", "--timeout", "3s", code=9, errors=True)
        assert "min 2 and max 2 leave no room" in told
        assert "1 of 1 task left" in told
        rig.sked("uncordon", rig.host("a"))
        rig.until("no more to say", lambda: "leave no room" not in json.dumps(rig.items("services")))
    assert monitor.least == 2
    assert rig.processes() == before, "a drain that was ended leaves everything as it was"
    rig.sked("drain", rig.host("a"), "--deadline", "2s", "--wait", "--timeout", "30s")
    assert rig.on("a") == []
    rig.until("2 healthy", rig.healthy(2))
    after = rig.processes()
    assert {task: pids for task, pids in before.items() if task != left}.items() <= after.items()
