"""Roll-outs for real: Consul, Docker, several hosts and a steady load of requests, each of which is counted."""

from __future__ import annotations

from typing import Any

from rigs.monitor import Monitor
from rigs.traffic import Passing, Traffic


def versions(rig: Any) -> set[int]:
    """Versions of all tasks that exist."""
    return {task["task_definition"]["version"] for task in rig.items()}


def all_of(rig: Any, version: int, count: int) -> bool:
    """Whether exactly ``count`` tasks exist, all healthy and of that version."""
    tasks = rig.healthy(count)()
    return bool(tasks) and {task["task_definition"]["version"] for task in tasks} == {version}


def hosts_ready(rig: Any, count: int) -> None:
    rig.until(f"{count} hosts", lambda: sum(host["state"] == "ready" for host in rig.items("hosts")) == count)


def test_a_good_version_in_docker_costs_no_request(consul_rig, web_in_docker):
    rig, consul = consul_rig
    for host in "ab":
        rig.run("agent", host=host)
    rig.run("scheduler")
    hosts_ready(rig, 2)
    bounds = {"min": 4, "max": 6}
    rig.apply(web_in_docker(desired=4, bounds=bounds))
    rig.until("4 healthy", rig.healthy(4))
    passing = Passing(consul.http, "default-web")
    rig.until("seen by clients", lambda: len(passing.targets) == 4)
    with Monitor(rig.backend, consul.http) as monitor, Traffic(passing) as load:
        rig.until("a steady load", lambda: load.seconds > 2)
        rig.apply(web_in_docker(desired=4, version=2, bounds=bounds))
        rig.until("all of version 2", lambda: all_of(rig, 2, 4))
        after = load.sent
        rig.until("answers of version 2 alone", lambda: load.sent > after + 100)
    passing.close()
    print(load)
    assert load.failures == []
    assert load.sent > 400
    assert load.late < 1
    assert set(load.answers) == {"version 1", "version 2"}
    assert monitor.least >= 4
    assert monitor.issued <= 6
    assert monitor.double == set()
