"""The same on a real Consul: keys as documented, outages, wiped data, several schedulers and agents."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import time
import urllib.request
from typing import Any

KV = "/v1/kv/"


def http(consul: Any, path: str, method: str = "GET", body: bytes | None = None) -> bytes:
    """What curl would say."""
    request = urllib.request.Request(consul.http + path, data=body, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def passing(consul: Any, service: str) -> list[str]:
    found = json.loads(http(consul, f"/v1/health/service/{service}?passing"))
    return sorted(one["Service"]["ID"] for one in found)


def test_seven_docker_tasks_are_healthy_by_consuls_own_word(consul_rig, docker_manifest):
    rig, consul = consul_rig
    combined = rig.run("combined", host="a")
    rig.apply(docker_manifest("helloworld", desired=7))
    rig.until("7 healthy", rig.healthy(7))
    ids = [f"default-helloworld-1-{number}" for number in range(7)]
    assert passing(consul, "default-helloworld") == ids
    keys = set(json.loads(http(consul, KV + "?keys")))
    host = rig.host("a")
    assert {key for key in keys if key.startswith(("config/", "state/"))} == {
        "config/clusters/default",
        "config/services/helloworld",
        "config/task_definitions/helloworld/1",
        f"config/hosts/{host}",
        *(f"state/tasks/{task}" for task in ids),
        *(f"state/hosts/{host}/{task}" for task in ids),
    }
    record = json.loads(http(consul, f"{KV}state/tasks/{ids[0]}?raw"))
    assert list(record) == [
        *("cluster", "task_definition", "service", "instance", "port", "host"),
        *("scheduled", "rejected", "reject_reason"),
    ]
    assert record == json.loads(http(consul, f"{KV}state/hosts/{host}/{ids[0]}?raw"))
    lines = rig.sked("tasks").splitlines()
    wide = len(host) + 5
    assert lines[0] == (
        f"{'id':27}{'host':{wide}}rejected     cluster     service        task def       version     healthy     "
    )
    assert lines[1] == "-" * len(lines[0])
    assert lines[2] == (
        f"{ids[0]:27}{host:{wide}}false        default     helloworld     helloworld     1           true        "
    )
    before = rig.containers()
    assert [len(one) for one in before.values()] == [1] * 7
    combined.kill()
    rig.run("combined", host="a")
    rig.until("7 healthy again", rig.healthy(7))
    rig.sked("scale", "helloworld", "0")
    rig.until("none left", lambda: rig.items() == [])
    assert rig.containers("--all") == {}
    assert passing(consul, "default-helloworld") == []


def test_without_a_scheduler_a_key_starts_a_task_and_its_removal_stops_it(consul_rig, busybox_image):
    rig, consul = consul_rig
    rig.run("agent", host="a")
    host = rig.host("a")
    rig.until("host known", lambda: rig.items("hosts"))
    example = {
        "cluster": {"name": "default", "datacenter": "", "services": ["helloworld"], "hosts": None},
        "task_definition": {
            "name": "helloworld", "version": 2, "provide_port": True, "port": 0,
            "tags": ["urlprefix-/helloworld"], "memory": 0, "cpu_units": 0,
            "containers": [{
                "name": "helloworld", "type": "docker",
                "executor": {"container_port": 80, "image": busybox_image, "name": "helloworld",
                             "cmd": "httpd -f -p 80 -h /bin"},
                "setup": None,
                "checks": [{"id": "", "name": "", "http": "", "tcp": "127.0.0.1:$PROVIDED_PORT", "script": "",
                            "interval": "1s", "timeout": "", "ttl": ""}],
                "memory": 0, "cpu_units": 0, "disk_use": 0}],
            "grace_period": 60000000000, "max_attempts": 10},
        "service": "helloworld", "instance": 0, "port": 20000, "host": host,
        "scheduled": True, "rejected": False, "reject_reason": "",
    }  # fmt: skip
    key = f"{KV}state/hosts/{host}/default-helloworld-2-0"
    http(consul, key, "PUT", json.dumps(example).encode())
    rig.until("passing", lambda: passing(consul, "default-helloworld") == ["default-helloworld-2-0"])
    assert list(rig.containers()) == ["default-helloworld-2-0"]
    assert [task["healthy"] for task in rig.items()] == [True]
    http(consul, key, "DELETE")
    rig.until("stopped", lambda: rig.containers("--all") == {})
    assert passing(consul, "default-helloworld") == []
    # Fewer fields do as well.
    short = {
        "cluster": {"name": "default"},
        "task_definition": {
            "name": "t", "version": 0,
            "containers": [{"name": "t", "type": "bash", "executor": {"start": "exec sleep 1000"},
                            "checks": [{"script": "true", "http": "", "interval": "1s"}]}],
        },
        "service": "t", "instance": 0, "scheduled": True,
    }  # fmt: skip
    key = f"{KV}state/hosts/{host}/default-t-0-0"
    http(consul, key, "PUT", json.dumps(short).encode())
    rig.until("passing", lambda: passing(consul, "default-t") == ["default-t-0-0"])
    http(consul, key, "DELETE")
    rig.until("stopped", lambda: rig.processes() == {})


def test_an_outage_changes_nothing_that_runs(consul_rig, manifest):
    rig, consul = consul_rig
    combined = rig.run("combined", host="a")
    rig.apply(manifest(desired=4))
    rig.until("4 healthy", rig.healthy(4))
    before = rig.processes()
    consul.kill()
    rig.sked("tasks", code=6)
    time.sleep(40)  # longer than every lease can last
    assert rig.processes() == before
    assert combined.alive()
    consul.start()
    rig.until("4 healthy again", rig.healthy(4))
    rig.sked("scale", "web", "5")
    rig.until("5 healthy", rig.healthy(5))
    after = rig.processes()
    assert {task: pids for task, pids in after.items() if task in before} == before


def test_a_hung_store_changes_nothing_either_and_the_dead_are_restarted_meanwhile(consul_rig, manifest):
    rig, consul = consul_rig
    rig.run("combined", host="a")
    rig.apply(manifest(desired=2))
    rig.until("2 healthy", rig.healthy(2))
    before = rig.processes()
    consul.pause()
    time.sleep(5)
    victim = before["default-web-1-0"][0]
    os.kill(victim, signal.SIGKILL)
    others = {"default-web-1-1": before["default-web-1-1"]}
    rig.until(
        "restarted while the store hangs",
        lambda: rig.processes().get("default-web-1-0") not in (None, [victim]) and rig.processes(),
    )
    consul.resume()
    rig.until("2 healthy again", rig.healthy(2))
    assert rig.processes().items() >= others.items()


def test_a_wiped_store_stops_nothing_says_so_and_can_be_accepted(consul_rig, manifest):
    rig, consul = consul_rig
    agent = rig.run("agent", host="a")
    scheduler = rig.run("scheduler")
    rig.apply(manifest(desired=3))
    rig.until("3 healthy", rig.healthy(3))
    before = rig.processes()
    consul.wipe()
    consul.start()
    rig.until("a clear message", lambda: "the store is empty: it came back without its data" in agent.text())
    rig.until("from the scheduler too", lambda: "came back empty" in scheduler.text())
    # Applying again names the store anew: that is not the agent's store either.
    rig.apply(manifest(desired=3))
    rig.until("still frozen", lambda: rig.items("services") and rig.items("services")[0])
    time.sleep(3)
    assert rig.processes() == before
    assert rig.items() == []
    agent.kill()
    accepting = rig.run("agent", "--accept-store", host="a")
    rig.until("3 healthy again", rig.healthy(3))
    assert rig.processes() == before
    assert "wrote default-web-1-0 back into the store" in accepting.text()


def test_two_schedulers_and_three_agents_place_every_task_once(consul_rig, manifest):
    rig, _consul = consul_rig
    for name in "abc":
        rig.run("agent", host=name)
    schedulers = [rig.run("scheduler"), rig.run("scheduler")]
    rig.hosts_ready(3)
    names = [f"s{number}" for number in range(6)]
    whole: dict[str, list[Any]] = {
        "clusters": [{"name": "default", "services": names}],
        "services": [],
        "task_definitions": [],
    }
    for name in names:
        one = manifest(name, desired=5, provide_port=True)
        whole["services"] += one["services"]
        whole["task_definitions"] += one["task_definitions"]
    rig.apply(whole)
    time.sleep(random.Random(3).uniform(0.05, 0.3))
    schedulers[0].kill()  # in the midst of it; its locks end with its lease
    rig.until("30 healthy", rig.healthy(30))
    running = rig.processes()
    assert [len(pids) for pids in running.values()] == [1] * 30
    tasks = rig.items()
    for name in names:
        hosts = [task["host"] for task in tasks if task["service"] == name]
        assert sorted(hosts.count(host) for host in set(hosts)) == [1, 2, 2]
    places = [(task["host"], task["port"]) for task in tasks]
    assert len(set(places)) == 30


def test_a_paused_scheduler_can_not_write_when_it_comes_back(consul_rig, manifest):
    rig, _consul = consul_rig
    rig.run("agent", host="a")
    paused = rig.run("scheduler")
    rig.apply(manifest(desired=2))
    rig.until("2 healthy", rig.healthy(2))
    # It holds a lock of an evaluation that never ends: stopped with a lease that runs out.
    paused.signal(signal.SIGSTOP)
    other = rig.run("scheduler")
    rig.sked("scale", "web", "4")
    rig.until("4 healthy", rig.healthy(4))
    before = rig.processes()
    time.sleep(35)  # its lease of 15 s is gone by now, Consul keeps it for up to twice as long
    paused.signal(signal.SIGCONT)
    rig.sked("scale", "web", "5")
    rig.until("5 healthy", rig.healthy(5))
    assert rig.processes().items() >= before.items()
    assert paused.alive()
    assert other.alive()


def test_a_port_that_a_stranger_holds_is_rejected_with_its_holder_and_the_task_lands_elsewhere(consul_rig, manifest):
    rig, _consul = consul_rig
    agent = rig.run("agent", host="a")
    scheduler = rig.run("scheduler")
    rig.apply(manifest(desired=1, provide_port=True))
    (task,) = rig.until("healthy", rig.healthy(1))
    port = task["port"]
    rig.sked("scale", "web", "0")
    rig.until("gone", lambda: rig.items() == [])
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("", port))
        stranger.listen()
        rig.sked("scale", "web", "1")
        (moved,) = rig.until("healthy on another port", rig.healthy(1))
        assert moved["port"] != port
        issues = scheduler.text().count("issue default-web-1-0")
        assert issues <= 3, "a tight loop"
    assert agent.alive()


def test_a_fixed_port_that_a_stranger_holds_waits_with_the_reason(consul_rig, manifest, free_port):
    rig, _consul = consul_rig
    rig.run("combined", host="a")
    with socket.socket() as stranger:
        stranger.bind(("", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        rig.apply(manifest(desired=1, port=port))
        (task,) = rig.until("rejected", lambda: [one for one in rig.items() if one["rejected"]])
        assert f"port {port} is taken on this host (" in task["reject_reason"]
        waiting = rig.until("reported", lambda: [s for s in rig.items("services") if "is taken" in json.dumps(s)])
        assert f"rejected this service: port {port} is taken" in json.dumps(waiting)
    rig.until("placed once it is free", rig.healthy(1))
