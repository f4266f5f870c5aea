"""What must hold of the whole whatever happens, each on a real Consul and a real etcd (docs/guarantees.md)."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from sked_core.interfaces.store import Delete, Entry, Put, Store
from sked_core.model import keys
from sked_core.model.codec import decode
from sked_core.model.types import Service, Task
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins

QUIET_SECONDS = 65.0
"""Longer than the longest time between two full reads of anybody."""
LEASES_END_WITHIN = 40.0
"""Twice a lease's 15 s, which is how long Consul may keep one, and time to notice."""


@pytest.fixture(params=["consul", "etcd"])
def engine(request: pytest.FixtureRequest) -> Any:
    """A store of this test alone, which can be killed, paused and wiped."""
    return request.getfixturevalue(f"private_{request.param}")()


@pytest.fixture
def on(engine: Any, make_rig: Callable[[str], Any]) -> Any:
    """A rig on that store."""
    return make_rig(engine.url)


@pytest.fixture
def store(engine: Any) -> Iterator[Store]:
    store = open_store(engine.url, Plugins.load())
    yield store
    store.close()


def leases(engine: Any) -> int:
    """How many sessions or leases the engine holds, in its own words."""
    if engine.url.startswith("consul"):
        request = urllib.request.Request(f"{engine.http}/v1/session/list")
    else:
        address = engine.url.replace("etcd://", "http://")
        request = urllib.request.Request(f"{address}/v3/lease/leases", data=b"{}", method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        found = json.loads(answer.read())
    return len(found) if isinstance(found, list) else len(found.get("leases", []))


@contextlib.contextmanager
def sampling(engine: Any, prefix: str, look: Callable[[Mapping[str, Entry]], None]) -> Iterator[list[int]]:
    """Call ``look`` with consistent snapshots, as fast as they come, while the body runs; yields how many so far."""
    done, looks = threading.Event(), [0]

    def run() -> None:
        watcher = open_store(engine.url, Plugins.load())
        while not done.is_set():
            look(watcher.read(prefix).entries)
            looks[0] += 1
        watcher.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield looks
    finally:
        done.set()
        thread.join(60)


def versions(tasks: list[dict[str, Any]]) -> set[int]:
    return {task["task_definition"]["version"] for task in tasks}


def test_a1_nothing_is_stopped_without_proof(engine: Any, on: Any, store: Store, manifest: Any) -> None:
    on.run("agent", host="a")
    scheduler = on.run("scheduler")
    on.apply(manifest(desired=3))
    on.until("3 healthy", on.healthy(3))
    before = on.processes()
    record = keys.host_task(on.host("a"), "default-web-1-1")
    kept = store.read(record).entries[record].value
    for nonsense in (b"", b"null", b"[]", b'{"cluster": ', b"\xff\xfe", b"[" * 50_000):
        store.commit([Put(record, nonsense)])
        time.sleep(0.3)
    assert on.processes() == before, "a record that can't be read stops nothing"
    store.commit([Put(record, kept)])
    engine.kill()
    on.sked("tasks", code=6)
    engine.start()
    on.until("3 healthy after a restart", on.healthy(3))
    engine.pause()
    on.sked("tasks", code=6)
    engine.resume()
    on.until("3 healthy after a hang", on.healthy(3))
    engine.wipe()
    engine.start()
    agent = on.procs[0]
    on.until("the agent says so", lambda: "the store is empty: it came back without its data" in agent.text())
    on.until("the scheduler says so", lambda: "came back empty" in scheduler.text())
    assert on.processes() == before


def test_a2_an_outage_starts_and_stops_nothing_and_the_dead_are_restarted(
    engine: Any, on: Any, store: Store, manifest: Any
) -> None:
    on.run("combined", host="a")
    on.apply(manifest(desired=4))
    on.until("4 healthy", on.healthy(4))
    before = on.processes()
    engine.kill()
    (victim,) = before["default-web-1-3"]
    os.kill(victim, signal.SIGKILL)
    on.until("restarted without the store", lambda: on.processes().get("default-web-1-3") not in (None, [victim], []))
    began = time.monotonic()
    others = {task: pids for task, pids in before.items() if task != "default-web-1-3"}
    while time.monotonic() - began < LEASES_END_WITHIN:  # every lease is over by then
        assert on.processes().items() >= others.items()
        time.sleep(1.0)
    during = on.processes()
    engine.start()
    on.until("4 healthy again", on.healthy(4))
    assert on.processes() == during
    on.sked("scale", "web", "5")
    on.until("work goes on", on.healthy(5))
    assert on.processes().items() >= during.items()


def test_b5_both_keys_of_a_task_come_and_go_together(engine: Any, on: Any, store: Store, manifest: Any) -> None:
    for host in "ab":
        on.run("agent", host=host)
    for _ in range(2):
        on.run("scheduler")
    on.hosts_ready(2)
    torn: list[str] = []

    def look(entries: Mapping[str, Entry]) -> None:
        by_id = {keys.last_segment(k): e for k, e in entries.items() if k.startswith(keys.TASKS)}
        by_host = {keys.last_segment(k): e for k, e in entries.items() if k.startswith(keys.HOST_TASKS)}
        torn.extend(by_id.keys() ^ by_host.keys())
        # Value and revision: one commit wrote both.
        torn.extend(task for task, entry in by_id.items() if task in by_host and by_host[task] != entry)

    with sampling(engine, keys.STATE, look) as looks:
        on.apply(manifest(desired=12))
        on.until("12 healthy", on.healthy(12))
        on.apply(manifest(desired=12, version=2))
        on.until("version 2", lambda: versions(on.healthy(12)()) == {2})
        on.sked("drain", on.host("a"))
        on.until("drained", lambda: {task["host"] for task in on.healthy(12)()} == {on.host("b")})
        on.sked("scale", "web", "0")
        on.until("none left", lambda: on.items() == [])
    assert torn == []
    assert looks[0] > 50


def test_b3_max_holds_at_every_moment_with_three_schedulers(engine: Any, on: Any, store: Store, manifest: Any) -> None:
    on.run("agent", host="a")
    schedulers = [on.run("scheduler") for _ in range(3)]
    on.apply(manifest(desired=6, bounds={"min": 4, "max": 7}))
    on.until("6 healthy", on.healthy(6))
    most, dice = [0], random.Random(11)

    def look(entries: Mapping[str, Entry]) -> None:
        most[0] = max(most[0], len(entries))

    with sampling(engine, keys.TASKS, look):
        for version in (2, 3):
            on.apply(manifest(desired=6, version=version, bounds={"min": 4, "max": 7}))
            time.sleep(dice.uniform(0.0, 0.5))
            schedulers.pop(0).kill()
            schedulers.append(on.run("scheduler"))
            on.until(f"version {version}", lambda wanted=version: versions(on.healthy(6)()) == {wanted})
    assert most[0] == 7, "one at a time beyond the six: all that max allows"


def test_b11_and_b12_with_nothing_to_do_nothing_is_written_and_leases_are_as_many_as_processes(
    private_consul: Any, private_etcd: Any, make_rig: Callable[[str], Any], manifest: Any
) -> None:
    engines = [private_consul(), private_etcd()]
    with contextlib.ExitStack() as opened:
        stores, rigs = [], []
        for engine in engines:
            rig = make_rig(engine.url)
            store = open_store(engine.url, Plugins.load())
            opened.callback(store.close)
            before = leases(engine)
            for host in "ab":
                rig.run("agent", host=host)
            rig.run("scheduler")
            rig.run("combined", host="c")
            rig.hosts_ready(3)
            rig.apply(manifest(desired=5))
            rig.until("5 healthy", rig.healthy(5))
            assert leases(engine) - before == 4, "one for each process, whatever roles it plays"
            markers = list(store.read(keys.CHANGED).entries)
            store.commit([Delete(key) for key in markers])  # they would go by themselves, in two minutes
            stores.append(store)
            rigs.append(rig)
        time.sleep(10)  # host records settle: ports that came and went
        earlier = [store.read("") for store in stores]
        time.sleep(QUIET_SECONDS)
        later = [store.read("") for store in stores]
        for one, other in zip(earlier, later, strict=True):
            changed = {key for key in {*one.entries, *other.entries} if one.entries.get(key) != other.entries.get(key)}
            # What else opens and closes ports on this machine meanwhile is news of a host.
            assert {key for key in changed if not key.startswith(keys.HOSTS)} == set()
            if not changed:  # etcd's revision counts every write there ever was, Consul's every change
                assert one.revision == other.revision
        for rig in rigs:
            for proc in rig.procs:
                proc.kill()
        gone = time.monotonic() + LEASES_END_WITHIN
        for engine in engines:
            while leases(engine):
                assert time.monotonic() < gone, "leases of the dead stay"
                time.sleep(0.5)
        for rig, engine in zip(rigs, engines, strict=True):
            fresh = rig.run("scheduler")
            rig.until("it holds a lease", lambda engine=engine: leases(engine) == 1)
            assert fresh.terminate() == 0
            assert leases(engine) == 0, "who ends in order gives its lease back"


def test_b13_it_converges_after_a_storm(engine: Any, on: Any, store: Store, manifest: Any) -> None:
    """Kills, pauses and restarts of everything for a while; then desired is issued, and issued is what runs."""
    dice = random.Random(5)
    agents = {host: on.run("agent", host=host) for host in "ab"}
    schedulers = [on.run("scheduler"), on.run("scheduler")]
    on.hosts_ready(2)
    on.apply(manifest(desired=4))
    for _ in range(6):
        what = dice.choice(["agent", "scheduler", "store", "pause"])
        if what == "agent":
            host = dice.choice("ab")
            agents[host].kill()
            agents[host] = on.run("agent", host=host)
        elif what == "scheduler":
            schedulers.pop(0).kill()
            schedulers.append(on.run("scheduler"))
        elif what == "store":
            engine.kill()
            engine.start()
        else:
            engine.pause()
            time.sleep(dice.uniform(0.5, 3.0))
            engine.resume()
        with contextlib.suppress(AssertionError):
            on.sked("scale", "web", str(dice.randint(2, 8)))
        time.sleep(dice.uniform(0.0, 1.0))
    on.sked("scale", "web", "5")
    on.until("5 healthy", on.healthy(5))
    on.until("nothing else runs", lambda: len(on.processes()) == 5)
    running = on.processes()
    assert all(len(pids) == 1 for pids in running.values())
    (declared,) = (decode(entry.value, Service) for entry in store.read(keys.SERVICES).entries.values())
    issued = {keys.last_segment(k): decode(e.value, Task) for k, e in store.read(keys.TASKS).entries.items()}
    assert declared.desired == 5
    assert issued.keys() == running.keys()
    on.until("no lock is held", lambda: store.read(keys.SERVICE_LOCKS).entries == {})
