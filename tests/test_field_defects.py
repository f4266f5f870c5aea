"""What users of the first Sked (0.2.1 of 2016) ran into, one test for each: none of it is repeated.

==  ====================================================================  =======================================
 #  what happened                                                         the test that shows it does not any more
==  ====================================================================  =======================================
 1  ``scheduler: default`` never scheduled                                test_01_the_default_scheduler_schedules
 2  the documented key ``task_definitions`` was ignored                   test_02_both_names_of_the_list_are_taken
 3  applying an unchanged file again failed                               test_03_applying_again_is_unchanged
 4  the exit code was always 0                                            test_04_exit_codes_tell
 5  ``scale`` and docker ports were read in base 8                        test_05_numbers_are_decimal
 6  drain was overwritten by the next publish, dead hosts stayed          test_06_a_drain_stands
 7  an unhealthy task's own port kept it from being restarted             test_07_restarts_keep_their_own_port
 8  all docker containers of a task shared one name                       test_08_containers_have_their_own_names
 9  docker's ``cmd`` was never passed                                     test_09_cmd_reaches_docker
10  memory and cpu were never enforced                                    test_10_limits_are_enforced
11  the teardown ran the setup commands                                   test_11_stopping_runs_no_setup
12  the old host's clean-up deleted the moved task                        test_12_cleaning_up_spares_what_moved
13  task ids were ambiguous                                               test_13_ids_that_collide_are_refused
14  a rejection waited up to a minute                                     test_14_rejections_are_placed_at_once
15  max was not kept, updates did not look at health                      test_15_updates_keep_max_and_wait_for_health
16  the sort was off by one and disk decided alone                        test_16_hosts_are_in_the_right_order
17  a deletion woke nobody                                                test_17_deletions_wake
18  the two keys of a task could differ                                   test_18_both_keys_or_none
19  ``--bind`` was ignored                                                test_19_options_are_heeded_or_refused
20  one bad JSON object ended the process                                 test_20_bad_objects_end_nothing
21  with ``env`` set, PATH was lost                                       test_21_env_is_added
22  memory and cpu of a task were documented, those of containers read    test_22_both_places_for_resources
==  ====================================================================  =======================================
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sked_core.errors import Conflict
from sked_core.interfaces.executor import ExecutorContext
from sked_core.interfaces.scheduler import Candidate, Demand
from sked_core.interfaces.store import Delete, Put, Store
from sked_core.logic.placement import spread
from sked_core.logic.plan import Change, Issued
from sked_core.model import keys
from sked_core.model.codec import decode, digest, encode
from sked_core.model.types import Task
from sked_core.runtime.agent import records as agent_records
from sked_core.runtime.agent.issued_feed import Record
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.state import change_ops
from sked_core.testing.builders import a_task

DEFECTS = range(1, 23)
_spec = importlib.util.spec_from_file_location("e2e_rig", Path(__file__).parent / "e2e" / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
e2e = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(e2e)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One running system for all tests here: an agent and a scheduler on an embedded store, host ``a``."""
    folder = tmp_path_factory.mktemp("defects")
    rig = e2e.Rig(f"sqlite://{folder / 'sked.db'}", folder)
    rig.run("combined", "--address", "10.1.2.3", "--tag", "zone=b", host="a")
    rig.hosts_ready(1)
    yield rig
    rig.clean_up()


@pytest.fixture
def own_rig(tmp_path: Path) -> Iterator[Any]:
    """A system of one test."""
    rig = e2e.Rig(f"sqlite://{tmp_path / 'sked.db'}", tmp_path)
    yield rig
    rig.clean_up()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An embedded store with nothing in it."""
    store = open_store(f"sqlite://{tmp_path / 'own.db'}", Plugins([]))
    yield store
    store.close()


def apply(rig: Any, name: str, **more: Any) -> None:
    """Declare one bash service in a cluster of its own, which has its name."""
    manifest = e2e.service(name, **more)
    manifest["clusters"][0]["name"] = name
    rig.apply(manifest)


def tasks(rig: Any, name: str) -> list[dict[str, Any]]:
    return [task for task in rig.items() if task["service"] == name]


def all_healthy(rig: Any, name: str, count: int) -> Callable[[], list[dict[str, Any]]]:
    def holds() -> list[dict[str, Any]]:
        found = tasks(rig, name)
        return found if len(found) == count and all(task["healthy"] for task in found) else []

    return holds


def healthy(rig: Any, name: str, count: int) -> list[dict[str, Any]]:
    """The service's tasks, once they are so many and all are healthy."""
    return list(rig.until(f"{count} of {name} healthy", all_healthy(rig, name, count)))


def written(rig: Any, path: Path) -> str:
    """What stands in a file that a task writes."""
    return str(rig.until(f"{path.name} written", lambda: path.exists() and path.read_text()))


@pytest.fixture(scope="module")
def docker_task(rig: Any, busybox_image: str) -> list[dict[str, Any]]:
    """What the engine says of the two containers of one task, as ``docker inspect`` shows it."""
    sleeper = {"type": "docker", "executor": {"image": busybox_image, "cmd": ["sleep", "1234"]}, "memory": 64}
    other = {"type": "docker", "executor": {"image": busybox_image, "cmd": "sleep 4321", "env": ["OWN=x"]}}
    manifest = e2e.service("docked", desired=1, cpu_units=0)
    containers = [{"name": "first", **sleeper, "cpu_units": 512}, {"name": "second", **other}]
    manifest["clusters"][0]["name"] = "docked"
    manifest["task_definitions"][0]["containers"] = containers
    rig.apply(manifest)
    healthy(rig, "docked", 1)
    (ids,) = rig.containers().values()
    shown = subprocess.run(["docker", "inspect", *ids], capture_output=True, text=True, check=True, timeout=60)
    return sorted(json.loads(shown.stdout), key=lambda one: one["Config"]["Labels"]["sked.container"])


def test_every_defect_has_its_test() -> None:
    found = sorted(int(match[1]) for name in globals() if (match := re.match(r"test_(\d\d)_", name)))
    assert found == list(DEFECTS)
    in_table = re.findall(r"^ ?(\d+)  .* (test_\d\d_\w+)$", __doc__ or "", re.MULTILINE)
    assert [int(number) for number, _ in in_table] == list(DEFECTS)
    for number, name in in_table:
        assert name in globals()
        assert name.startswith(f"test_{int(number):02}_")


def test_01_the_default_scheduler_schedules(rig: Any) -> None:
    apply(rig, "one", desired=2, bounds={"scheduler": "default"})
    healthy(rig, "one", 2)
    assert [item["scheduler"] for item in rig.items("services") if item["name"] == "one"] == ["default"]


def test_02_both_names_of_the_list_are_taken(rig: Any) -> None:
    for name, field in (("two-old", "tasks"), ("two-new", "task_definitions")):
        manifest = e2e.service(name, desired=1)
        manifest["clusters"][0]["name"] = name
        manifest[field] = manifest.pop("task_definitions")
        rig.apply(manifest)
        healthy(rig, name, 1)


def test_03_applying_again_is_unchanged(rig: Any) -> None:
    manifest = e2e.service("three", desired=1)
    manifest["clusters"][0]["name"] = "three"
    first = rig.sked("apply", "-f", "-", stdin=json.dumps(manifest))
    again = rig.sked("apply", "-f", "-", stdin=json.dumps(manifest))
    assert {line.split()[1] for line in first.splitlines()} == {"created"}
    assert {line.split()[1] for line in again.splitlines()} == {"unchanged"}
    manifest["task_definitions"][0]["containers"][0]["executor"]["start"] = "exec sleep 2000"
    rig.sked("apply", "-f", "-", stdin=json.dumps(manifest), code=3)
    (task,) = healthy(rig, "three", 1)
    assert task["task_definition"]["containers"][0]["executor"]["start"] == "exec sleep 1000"


def test_04_exit_codes_tell(rig: Any, tmp_path: Path) -> None:
    rig.sked("tasks", code=0)
    rig.sked("tasks", "--no-such-option", code=2)
    rig.sked("apply", "-f", "-", stdin="services: [{name: x}]", code=3)
    rig.sked("scale", "nobody", "3", code=4)
    rig.sked("--backend", "consul://127.0.0.1:1", "tasks", code=6)


def test_05_numbers_are_decimal(rig: Any, store: Store, tmp_path: Path) -> None:
    apply(rig, "five", desired=1)
    for text, count in (("9", 9), ("10", 10), ("08", 8), ("2", 2)):
        rig.sked("scale", "five", text)
        (service,) = (item for item in rig.items("services") if item["name"] == "five")
        assert service["desired"] == count
    healthy(rig, "five", 2)
    docker = Plugins.load().executor("docker")(ExecutorContext("h", "s", tmp_path))
    spec = {"image": "x", "ports": ["8080:80", "127.0.0.1:09090:0099"]}
    assert docker.ports(spec, 0) == {8080, 9090}


def test_06_a_drain_stands(own_rig: Any) -> None:
    rig = own_rig
    drained, _ = rig.run("agent", host="a"), rig.run("agent", host="b")
    rig.run("scheduler")
    rig.hosts_ready(2)
    apply(rig, "six", desired=2)
    assert len({task["host"] for task in healthy(rig, "six", 2)}) == 2
    rig.sked("drain", rig.host("a"))
    rig.until("moved", lambda: {task["host"] for task in healthy(rig, "six", 2)} == {rig.host("b")})
    # The agent says anew what its host has: when it starts, and when that changes.
    drained.kill()
    drained = rig.run("agent", "--address", "10.9.9.9", host="a")
    host = rig.until("published", lambda: [host for host in rig.items("hosts") if host["address"] == "10.9.9.9"])[0]
    assert host["mark"] == "draining"
    rig.sked("scale", "six", "4")
    assert {task["host"] for task in healthy(rig, "six", 4)} == {rig.host("b")}
    # A host whose agent has just died gets nothing either, although its record stands.
    rig.sked("uncordon", rig.host("a"))
    drained.terminate()
    rig.until("down", lambda: {host["state"] for host in rig.items("hosts")} == {"ready", "down"})
    rig.sked("scale", "six", "6")
    assert {task["host"] for task in healthy(rig, "six", 6)} == {rig.host("b")}


def test_07_restarts_keep_their_own_port(rig: Any, tmp_path: Path) -> None:
    flag, starts = tmp_path / "well", tmp_path / "starts"
    serve = f"echo $PROVIDED_PORT >> {starts}; exec {sys.executable} -m http.server $PROVIDED_PORT"
    check = {"script": f"test -e {flag}", "interval": "1s"}
    apply(
        rig,
        "seven",
        desired=1,
        provide_port=True,
        grace_period="1s",
        start=serve,
        container={"checks": [check, {"tcp": "127.0.0.1:$PROVIDED_PORT", "interval": "1s"}]},
    )
    rig.until("restarted", lambda: starts.exists() and len(starts.read_text().split()) >= 2)
    assert not any(task["rejected"] for task in tasks(rig, "seven"))
    flag.touch()
    (task,) = healthy(rig, "seven", 1)
    assert set(starts.read_text().split()) == {str(task["port"])}


def test_08_containers_have_their_own_names(docker_task: list[dict[str, Any]]) -> None:
    assert [one["State"]["Running"] for one in docker_task] == [True, True]
    assert len({one["Name"] for one in docker_task}) == 2
    assert len({one["Config"]["Labels"]["sked.task"] for one in docker_task}) == 1


def test_09_cmd_reaches_docker(docker_task: list[dict[str, Any]]) -> None:
    assert [one["Config"]["Cmd"] for one in docker_task] == [["sleep", "1234"], ["sleep", "4321"]]


def test_10_limits_are_enforced(docker_task: list[dict[str, Any]]) -> None:
    first = docker_task[0]
    assert first["HostConfig"]["Memory"] == 64 * 1024 * 1024
    assert first["HostConfig"]["NanoCpus"] == 500_000_000
    # The kernel's own word, as far as this machine has one of the two layouts.
    pid = first["State"]["Pid"]
    places = dict(line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().split())
    limits = [
        Path(f"/sys/fs/cgroup/memory{places.get('memory', '')}/memory.limit_in_bytes"),
        Path(f"/sys/fs/cgroup{places.get('', '')}/memory.max"),
    ]
    read = [path.read_text().strip() for path in limits if path.exists()]
    assert set(read) <= {str(64 * 1024 * 1024)}


def test_11_stopping_runs_no_setup(rig: Any, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    manifest = {
        "executor": {"start": f"echo start >> {ran}; exec sleep 1000", "stop": f"echo stop >> {ran}"},
        "setup": [f"echo first >> {ran}", f"echo second >> {ran}"],
    }
    apply(rig, "eleven", desired=1, container=manifest)
    healthy(rig, "eleven", 1)
    rig.sked("scale", "eleven", "0")
    rig.until("gone", lambda: not tasks(rig, "eleven"))
    assert ran.read_text().split() == ["first", "second", "start", "stop"]


def test_12_cleaning_up_spares_what_moved(store: Store) -> None:
    old, moved = a_task("old", 0, scheduled=False), a_task("new", 0)
    mine = keys.host_task("old", old.id)
    store.commit([Put(mine, encode(old))])
    entry = store.read(mine).entries[mine]
    record = Record(task=old, raw=entry.value, revision=entry.revision, digest=digest(old), grace=1.0)
    both = {keys.task(moved.id), keys.host_task("new", moved.id)}
    store.commit([Put(key, encode(moved)) for key in both])
    agent_records.retire(store, "old", record)
    left = store.read(keys.STATE).entries
    assert set(left) == both
    assert [decode(entry.value, Task) for entry in left.values()] == [moved, moved]


def test_13_ids_that_collide_are_refused(rig: Any) -> None:
    def manifest(cluster: str, name: str) -> str:
        one = e2e.service(name, desired=1)
        one["clusters"][0]["name"] = cluster
        return json.dumps(one)

    rig.sked("apply", "-f", "-", stdin=manifest("id-a", "b-c"))
    before = rig.sked("clusters", "-o", "json")
    rig.sked("apply", "-f", "-", stdin=manifest("id-a-b", "c"), code=3)
    names = [item["name"] for item in json.loads(rig.sked("clusters", "-o", "json"))["items"]]
    assert names == [item["name"] for item in json.loads(before)["items"]]
    healthy(rig, "b-c", 1)


def test_14_rejections_are_placed_at_once(own_rig: Any) -> None:
    rig = own_rig
    rig.run("agent", "--max-tasks", "1", host="a")
    rig.run("agent", host="b")
    rig.hosts_ready(2)
    scheduler = rig.run("scheduler")
    began = time.monotonic()
    apply(rig, "fourteen", desired=4)
    found = healthy(rig, "fourteen", 4)
    assert time.monotonic() - began < 20
    assert sorted(task["host"] for task in found) == [rig.host("a"), *[rig.host("b")] * 3]
    # Four issues and one more for the task that host a refused: not one for each moment that passed.
    assert scheduler.text().count(" issue default-fourteen") + scheduler.text().count("issue fourteen-") <= 6


def test_15_updates_keep_max_and_wait_for_health(rig: Any) -> None:
    fails = {"checks": [{"script": "false", "interval": "1s"}]}
    bounds = {"min": 2, "max": 4}
    apply(rig, "fifteen", desired=3, bounds=bounds)
    old = {task["id"] for task in healthy(rig, "fifteen", 3)}
    apply(rig, "fifteen", desired=3, version=2, bounds=bounds, container=fails, grace_period="60s")
    most: list[int] = []

    def said() -> bool:
        found = tasks(rig, "fifteen")
        most.append(len(found))
        assert {task["id"] for task in found if task["healthy"]} == old
        (service,) = (item for item in rig.items("services") if item["name"] == "fifteen")
        return "to become healthy before the next old task is touched" in service["clusters"][0]["why"]

    rig.until("the roll-out waits", said)
    for _ in range(5):
        assert said()
    assert max(most) == 4
    rig.sked("delete", "service/fifteen", "--cascade", "-y")


def test_16_hosts_are_in_the_right_order() -> None:
    def candidate(name: str, free: int, disk: int) -> Candidate:
        return Candidate(name, 1000, 1000, disk, free, free, disk, 100, 0, 0)

    demand = Demand("default", "web", memory=1, cpu_units=1)
    free = {"h1": 900, "h2": 500, "h3": 700, "h4": 100, "h5": 300}
    # The less else a host has free, the larger its disk: it must not count.
    hosts = [candidate(name, amount, 10_000_000 // amount) for name, amount in free.items()]
    for order in itertools.permutations(hosts):
        chosen = list(spread().place(demand, 5, order))
        assert chosen == ["h1", "h3", "h2", "h5", "h4"]


@pytest.mark.parametrize("where", ["below a prefix", "of a single key"])
def test_17_deletions_wake(store: Store, where: str) -> None:
    key = "state/hosts/h1/default-web-1-0"
    store.commit([Put(key, b"{}")])
    watched = keys.host_tasks("h1") if where == "below a prefix" else key
    since = store.read(watched).revision
    woken = threading.Event()

    def wait() -> None:
        store.wait(watched, since, 600.0)
        woken.set()

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    store.commit([Delete(key)])
    assert woken.wait(60)


def test_18_both_keys_or_none(store: Store) -> None:
    task = a_task("h1", 0)
    both = (keys.task(task.id), keys.host_task("h1", task.id))
    store.commit(change_ops(Change(None, task), None))
    entries = store.read(keys.STATE).entries
    assert {entries[key].value for key in both} == {encode(task)}
    # Somebody was faster with one of the two: nothing of the next step is written.
    stale = Issued(task, entries[both[0]].revision)
    store.commit([Put(both[0], encode(a_task("h1", 0, rejected=True)))])
    before = store.read(keys.STATE).entries
    for after in (None, a_task("h2", 0), a_task("h1", 0, scheduled=False)):
        with pytest.raises(Conflict):
            store.commit(change_ops(Change(stale, after), encode(task)))
        assert store.read(keys.STATE).entries == before


def test_19_options_are_heeded_or_refused(rig: Any) -> None:
    rig.sked("run", "agent", "--bind", "127.0.0.1:1", code=2)
    (host,) = rig.items("hosts")
    assert (host["name"], host["address"], host["tags"]) == (rig.host("a"), "10.1.2.3", {"zone": "b"})


def test_20_bad_objects_end_nothing(rig: Any) -> None:
    apply(rig, "twenty", desired=1)
    healthy(rig, "twenty", 1)
    before = rig.processes()
    garbage = [b"", b"null", b"[]", b'{"name": ', b"\xff\xfe", b"[" * 50_000, b'{"desired": 1e999}']
    own = open_store(rig.backend, Plugins([]))
    for number, value in enumerate(garbage):
        places = [
            keys.cluster(f"bad-{number}"),
            keys.service(f"bad-{number}"),
            keys.task_definition(f"bad-{number}", 1),
            keys.host(f"bad-{number}"),
            keys.task(f"bad-bad-1-{number}"),
            keys.host_task(rig.host("a"), f"bad-bad-1-{number}"),
            keys.mark(f"bad-{number}"),
            keys.service_status(f"bad-{number}"),
        ]
        own.commit([Put(place, value) for place in places])
    rig.sked("scale", "twenty", "3")
    healthy(rig, "twenty", 3)
    assert all(proc.alive() for proc in rig.procs)
    assert rig.processes().items() >= before.items()
    for kind in ("tasks", "hosts", "services", "clusters"):
        rig.sked(kind)
    prefixes = (keys.CONFIG, keys.STATE, keys.HOST_STATES, keys.SERVICE_STATUS)
    bad = [key for prefix in prefixes for key in own.read(prefix).entries if "/bad-" in key]
    own.commit([Delete(key) for key in bad])
    own.close()


def test_21_env_is_added(rig: Any, tmp_path: Path, docker_task: list[dict[str, Any]]) -> None:
    said = tmp_path / "said"
    start = f'echo "$OWN $PATH" > {said}; exec sleep 1000'
    container = {"executor": {"start": start, "env": ["OWN=x"]}, "setup": [f'test -n "$PATH" && ls > {tmp_path}/setup']}
    apply(rig, "twenty-one", desired=1, container=container)
    own, path = written(rig, said).split()
    assert own == "x"
    assert "/bin" in path.split(":")
    assert path == os.environ["PATH"]
    in_docker = dict(entry.split("=", 1) for entry in docker_task[1]["Config"]["Env"])
    assert in_docker["OWN"] == "x"
    assert "/bin" in in_docker["PATH"].split(":")


def test_22_both_places_for_resources(rig: Any) -> None:
    def reserved() -> tuple[int, int]:
        (host,) = (host for host in rig.items("hosts") if host["name"] == rig.host("a"))
        return host["reserved_memory"], host["reserved_cpu_units"]

    memory, cpu = reserved()
    apply(rig, "of-task", desired=1, memory=30, cpu_units=20)
    healthy(rig, "of-task", 1)
    assert reserved() == (memory + 30, cpu + 20)
    apply(rig, "of-container", desired=1, container={"memory": 5, "cpu_units": 3})
    healthy(rig, "of-container", 1)
    assert reserved() == (memory + 35, cpu + 23)


def test_a_port_of_somebody_else_is_still_refused(rig: Any) -> None:
    """The other side of defect 7: only the task's own port is forgiven."""
    with socket.socket() as stranger:
        stranger.bind(("", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        apply(rig, "seven-b", desired=1, port=port)
        (task,) = rig.until("rejected", lambda: [one for one in tasks(rig, "seven-b") if one["rejected"]])
        assert f"port {port} is taken on this host" in task["reject_reason"]
    rig.sked("delete", "service/seven-b", "--cascade", "-y")
