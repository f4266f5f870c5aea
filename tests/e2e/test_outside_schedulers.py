"""The schedulers of examples/schedulers, which know Sked by its keys alone: with real agents, on real stores."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rigs.local import ask
from rigs.needs import program
from rigs.sked import Proc, Rig, service
from sked_core.client.looking.linting import lint
from sked_core.interfaces.store import Put, Store
from sked_core.model import keys
from sked_core.model.codec import decode, patch
from sked_core.model.types import Health, Task
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "schedulers"
LANGUAGES: dict[str, Callable[[], list[str]]] = {
    "python": lambda: [sys.executable, "-S", "-E", str(EXAMPLES / "python" / "scheduler.py")],  # with no package at all
    "shell": lambda: [str(EXAMPLES / "shell" / "scheduler.sh")] if program("curl") and program("jq") else [],
    "node": lambda: [program("node", "nodejs"), str(EXAMPLES / "node" / "scheduler.mjs")],
}
NAME, MAX = "outside", 7
NOT_ON_C = 'case "$SKED_HOST" in c-*) exit 1;; esac; exec sleep 1000'


class World:
    """Three agents, Sked's own scheduler with a service of its own, and what a language's example places."""

    def __init__(self, rig: Rig, command: list[str], engine: Any) -> None:
        self.rig, self.command, self.engine = rig, command, engine
        self.store: Store = open_store(engine.url, Plugins.load())
        self.agents = {host: rig.run("agent", host=host) for host in "abc"}
        rig.run("scheduler")
        rig.until("hosts", lambda: len(self.store.read(keys.LIVE).entries) == 3)

    def start(self) -> Proc:
        """One more process of the example."""
        log = self.rig.folder / f"outside-{len(self.rig.procs)}.log"
        more = {"LOST_AFTER": "2", "TMPDIR": str(self.rig.folder)}
        self.rig.procs.append(Proc([*self.command, NAME], log, self.rig.env | more))
        return self.rig.procs[-1]

    def tasks(self, name: str = "far") -> list[Task]:
        """Of the service, all that stand in the store."""
        found = [decode(entry.value, Task) for entry in self.store.read(keys.TASKS).entries.values()]
        return [one for one in found if one.service == name]

    def hosts(self) -> set[str]:
        return {one.host.rpartition("-")[0] for one in self.tasks()}

    def running(self) -> set[str]:
        """Ids of the service's tasks that run; empty while one runs twice."""
        found = {one: pids for one, pids in self.rig.processes().items() if "-far-" in one}
        return set(found) if all(len(pids) == 1 for pids in found.values()) else set()

    def pids(self) -> set[int]:
        return {pid for one, pids in self.rig.processes().items() if "-far-" in one for pid in pids}

    def healthy(self, name: str) -> Collection[str]:
        if self.engine.url.startswith("consul"):
            said = ask(f"{self.engine.http}/v1/health/service/default-{name}?passing")
            return {one["Service"]["ID"] for one in json.loads(said or b"[]")}
        found = self.store.read(keys.HEALTH).entries
        return {key.split("/")[2] for key, entry in found.items() if decode(entry.value, Health).healthy}

    def well(self, count: int, name: str = "far") -> Callable[[], bool]:
        """A condition: the service has exactly so many tasks, all are to run, and all are healthy."""

        def holds() -> bool:
            found = self.tasks(name)
            wanted = {one.id for one in found if one.scheduled and not one.rejected}
            return len(found) == len(wanted) == count and wanted <= self.healthy(name)

        return holds

    def kill_at_work(self, example: Proc, desired: int) -> None:
        """Give it something to do, and kill it as soon as it is seen to do it."""
        key, lock = keys.service("far"), keys.service_lock("far")
        before = {one.id for one in self.tasks()}
        self.store.commit([Put(key, patch(self.store.read(key).entries[key].value, desired=desired))])
        self.rig.until(
            "at work",
            lambda: lock in self.store.read(lock).entries or {one.id for one in self.tasks()} != before,
            pause=0.0,
        )
        example.kill()
        held = self.store.read(lock).entries.get(lock)
        if held is not None and self.engine.url.startswith("consul"):  # as it would by itself, after up to 30 s
            ask(f"{self.engine.http}/v1/session/destroy/{held.lease}", method="PUT")
        elif held is not None:
            ask(f"{self.engine.http}/v3/lease/revoke", body=json.dumps({"ID": held.lease}).encode())

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """While the body runs, nobody issues more than MAX tasks, or a port twice."""
        done, wrong = threading.Event(), list[str]()

        def run() -> None:
            watcher = open_store(self.engine.url, Plugins.load())
            while not done.is_set():
                shared = [decode(entry.value, Task) for entry in watcher.read(keys.TASKS).entries.values()]
                far = [one.id for one in shared if one.service == "far" and not one.rejected]
                ports = Counter((one.host, one.port) for one in shared if one.scheduled and not one.rejected)
                wrong.extend([f"{len(far)} tasks: {far}"] if len(far) > MAX else [])
                wrong.extend(f"port {port} twice" for port, count in ports.items() if count > 1)
                done.wait(0.02)
            watcher.close()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(20)
        assert not wrong, wrong[:3]


@pytest.fixture(params=["consul", "etcd"])
def engine(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"private_{request.param}")()


@pytest.fixture(params=LANGUAGES)
def world(request: pytest.FixtureRequest, engine: Any, make_rig: Callable[[str], Rig]) -> Iterator[World]:
    world = World(make_rig(engine.url), LANGUAGES[request.param](), engine)
    yield world
    world.store.close()


def far(version: int = 1, **more: Any) -> dict[str, Any]:
    bounds = {"scheduler": NAME, "min": 2, "max": MAX}
    return service("far", version=version, provide_port=True, bounds=bounds, **more)


def test_an_outside_scheduler_does_all_that_one_has_to(world: World) -> None:
    rig, until = world.rig, partial(world.rig.until, patience=300.0)
    both = far(desired=2)
    for kind, found in service("near", desired=2, provide_port=True).items():
        both[kind] += found
    both["clusters"] = [{"name": "default", "services": ["far", "near"]}]
    rig.apply(both)
    first = world.start()
    with world.watched():
        until("placed", lambda: world.well(2)() and world.well(2, "near")())

        world.kill_at_work(first, 6)
        world.start(), world.start()
        until("scaled up by others", world.well(6))
        assert world.hosts() == {"a", "b", "c"}, "spread"
        rig.sked("scale", "far", "3")
        until("scaled down", world.well(3))

        rig.sked("drain", rig.host("b"))
        until("drained", lambda: "b" not in world.hosts() and world.well(3)())
        rig.sked("uncordon", rig.host("b"))

        world.agents["c"].terminate()
        until("replaced", lambda: world.hosts() == {"a", "b"} and len(world.tasks()) == 3)
        world.agents["c"] = rig.run("agent", host="c")

        until("no copies run where they were", lambda: world.running() == {one.id for one in world.tasks()})
        before = world.pids()
        rig.sked("restart", "far")
        until("restarted", lambda: not world.store.read(keys.MOVES).entries and world.well(3)())
        assert not before & world.pids()

        rig.apply(far(2, desired=3, start=NOT_ON_C, max_attempts=1) | {"clusters": []})
        until("rolled out", lambda: {one.task_definition.version for one in world.tasks()} == {2})
        until("not where it is rejected", lambda: world.hosts() == {"a", "b"} and world.well(3)())
        until("and it is said", lambda: not world.store.read(keys.ROLLOUTS).entries)
    assert "succeeded" in rig.sked("rollout", "history", "far")
    assert rig.events("task.rejected"), "the way to c has been tried"
    until("Sked's own are there", world.well(2, "near"))
    assert len(world.pids()) == 3
    status = json.loads(rig.sked("status", "-o", "json"))["items"][0]
    assert {one["state"] for one in status["services"]} == {"ok"}
    until("nothing is wrong, as `sked state check` has it", lambda: not lint(world.store.read("").entries))

    rig.sked("delete", "service/far", "--cascade", "-y")
    until(
        "withdrawn and forgotten", lambda: not (world.tasks() or world.store.read(keys.service_status("far")).entries)
    )
    until("nothing is wrong", lambda: not lint(world.store.read("").entries))


def test_a_name_that_no_service_can_have_says_nothing_to_the_shell(
    private_consul: Callable[[], Any], make_rig: Callable[[str], Rig]
) -> None:
    """Whoever may write below config/ only is to get no further by it."""
    engine, hostile = private_consul(), 'a",0],["put","taken","1"],["delete","b'
    rig, store = make_rig(engine.url), open_store(engine.url, Plugins.load())
    record = json.dumps({"scheduler": NAME, "desired": 0, "min": 0, "max": 0}).encode()
    store.commit([Put(f"config/services/{one}", record) for one in (hostile, "plain")])
    rig.procs.append(Proc([*LANGUAGES["shell"](), NAME], rig.folder / "outside.log", rig.env))
    rig.until("the other one was looked at", lambda: store.read("status/services/plain").entries)
    assert not store.read("taken").entries
    store.close()
