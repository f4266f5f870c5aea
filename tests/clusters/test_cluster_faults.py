"""Faults of the cluster that keeps the state: members that die, hang or are cut off; a quorum lost; a host cut off.

Everywhere the same is asked: tasks that ran before run on in the same processes, and work goes on afterwards.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

LEASE_SECONDS = 20.0
"""Longer than Sked's own trust in its leases (15 s)."""


def test_a_leader_that_dies_hangs_or_is_cut_off_is_replaced_and_nothing_else(fleet: Any, cluster: Any) -> None:
    for host in "ab":
        fleet.agent(host)
    fleet.scheduler()
    count = 4
    before = fleet.works(count)
    faults: list[tuple[Callable[[Any], None], Callable[[Any], None]]] = [
        (lambda member: member.kill(), lambda member: member.start()),
        (lambda member: member.pause(), lambda member: member.resume()),
    ]
    if cluster.splits:
        faults.append((lambda one: cluster.cut(cluster.place(one)), lambda one: cluster.heal(cluster.place(one))))
    for harm, repair in faults:
        leader = cluster.leader()
        harm(leader)
        count += 1
        fleet.scale(count)
        fleet.untouched(before)
        assert cluster.leader() is not leader
        repair(leader)
    fleet.scale(count + 1)
    fleet.untouched(before)


def test_without_a_quorum_tasks_run_on_and_with_it_work_goes_on(fleet: Any, cluster: Any) -> None:
    leader, (follower, kept) = cluster.leader(), cluster.followers()
    fleet.agent("a")
    fleet.agent("c", direct=kept)
    fleet.scheduler()
    fleet.scheduler()
    before = fleet.works(4)
    leader.kill()
    follower.kill()
    began = time.monotonic()
    fleet.rig.sked("tasks", code=6)
    fleet.rig.sked("scale", "web", "9", code=6)
    victim = "default-web-1-0"
    (gone,) = before.pop(victim)
    os.kill(gone, signal.SIGKILL)
    fleet.until("restarted without the store", lambda: fleet.rig.processes().get(victim) not in (None, [gone]))
    fleet.untouched(before, began + LEASE_SECONDS - time.monotonic())
    during = fleet.rig.processes()
    leader.launch()
    follower.launch()
    fleet.until("it answers again", lambda: fleet.rig.healthy(4)())
    assert fleet.rig.processes() == during
    fleet.scale(5)
    fleet.untouched(during)


def test_a_host_that_is_cut_off_loses_its_tasks_to_others_and_stops_them_once_it_knows(
    fleet: Any, cluster: Any, splits: None
) -> None:
    fleet.agent("a")
    fleet.agent("c", direct=cluster.followers()[0])
    fleet.scheduler("--lost-after", "5s")
    fleet.scheduler("--lost-after", "5s")
    before = fleet.works(4)
    hosts = {task["id"]: task["host"] for task in fleet.rig.items()}
    cut, other = fleet.rig.host("a"), fleet.rig.host("c")
    moving = {task for task, host in hosts.items() if host == cut}
    assert 0 < len(moving) < 4
    cluster.cut(cluster.hosts[0].place)
    fleet.until("replaced", lambda: {task["host"] for task in fleet.rig.healthy(4)()} == {other})
    twice = fleet.rig.processes()
    fleet.untouched({task: pids for task, pids in before.items() if task not in moving})
    for task in moving:
        assert set(before[task]) < set(twice[task]), "who can't be told to stop a task runs it on"
    cluster.heal(cluster.hosts[0].place)
    fleet.until("each runs once", lambda: all(len(pids) == 1 for pids in fleet.rig.processes().values()))
    after = fleet.rig.processes()
    assert after.keys() == before.keys()
    assert not [task for task in moving if after[task] == before[task]], "the copies of the host that was lost went"
    fleet.until("it takes part again", lambda: [h["state"] for h in fleet.rig.items("hosts")] == ["ready"] * 2)
    fleet.scale(6)
    fleet.untouched(after)
