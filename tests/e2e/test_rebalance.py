"""Rebalancing for real: hosts that have joined get their share, step by step, and no request fails on the way."""

from __future__ import annotations

import json

from rigs.monitor import Monitor
from rigs.traffic import Traffic, passing


def spread(rig, hosts: str) -> list[int]:
    return [len(rig.on(host)) for host in hosts]


def test_hosts_that_have_joined_get_their_share_under_load_and_no_request_fails(consul_rig, web):
    rig, consul = consul_rig
    for host in "ab":
        rig.run("agent", host=host)
    rig.run("scheduler")
    rig.hosts_ready(2)
    rig.apply(web(desired=10, bounds={"min": 9, "max": 12}))
    rig.until("10 healthy", rig.healthy(10))
    assert spread(rig, "ab") == [5, 5]
    for host in "cde":
        rig.run("agent", host=host)
    rig.hosts_ready(5)
    assert spread(rig, "abcde") == [5, 5, 0, 0, 0], "what runs is left where it is until somebody asks"
    (proposal,) = json.loads(rig.sked("rebalance", "-o", "json"))["items"]
    assert len(proposal["moves"]) == 6 and proposal["before"]["difference"] == 5
    with passing(consul.http, "default-web") as known:
        rig.until("known to clients", lambda: len(known.targets) == 10)
        with Monitor(rig.backend, consul.http) as monitor, Traffic(known) as load:
            rig.until("a steady load", lambda: load.seconds > 1)
            told = rig.sked(*proposal["apply"].split()[1:], "--wait", "--why", "c, d and e are new", errors=True)
            rig.until("10 healthy", rig.healthy(10))
    assert "6 of 6 moves made" in told
    assert spread(rig, "abcde") == [2, 2, 2, 2, 2]
    assert not load.failures, (str(load), [str(failure) for failure in load.failures[:5]])
    assert load.sent > 100
    assert monitor.least >= 9
    assert monitor.issued <= 12
    assert len(rig.events("move.done")) == 6 and not rig.events("move.cancelled")
    assert "nothing to gain" in rig.sked("rebalance")


def test_schedulers_are_killed_in_the_middle_and_the_moves_are_made_all_the_same(consul_rig, web):
    rig, consul = consul_rig
    for host in "ab":
        rig.run("agent", host=host)
    schedulers = [rig.run("scheduler"), rig.run("scheduler")]
    rig.hosts_ready(2)
    rig.apply(web(desired=6, bounds={"min": 6, "max": 7}))
    rig.until("6 healthy", rig.healthy(6))
    rig.run("agent", host="c")
    rig.hosts_ready(3)
    with Monitor(rig.backend, consul.http) as monitor:
        rig.sked("rebalance", "--apply")
        for number, scheduler in enumerate(schedulers):
            rig.until("a move begins", lambda number=number: len(rig.events("move.started")) > number)
            scheduler.kill()
            rig.run("scheduler")
        rig.sked("rebalance", "--wait", "--timeout", "120s")
        rig.until("6 healthy", rig.healthy(6))
    assert spread(rig, "abc") == [2, 2, 2]
    assert monitor.least >= 6
    assert monitor.issued <= 7
