"""Moving house: from one kind of store to another and back, while the tasks run on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rigs.local import ask
from sked_core.interfaces.store import Delete
from sked_core.model import keys
from sked_core.runtime.stores.embedded import EmbeddedStore


class House:
    """One agent and one scheduler, moved from store to store."""

    def __init__(self, make_rig: Callable[[str], Any], backend: str) -> None:
        self.rig = make_rig(backend)
        self._start()

    def _start(self) -> None:
        self.agent = self.rig.run("agent", host="a")
        self.scheduler = self.rig.run("scheduler")

    def move(self, backend: str, *, agent_stays_up: bool = False) -> None:
        """As docs/operations.md says. ``agent_stays_up``: it works for the old store until the new one is ready."""
        file = self.rig.folder / "state.json"
        assert self.scheduler.terminate() == 0
        if not agent_stays_up:
            assert self.agent.terminate() == 0
        self.rig.sked("state", "dump", "--output", str(file))
        self.rig.backend = self.rig.env["SKED_BACKEND"] = backend
        self.rig.sked("state", "restore", str(file))
        if agent_stays_up:
            assert self.agent.terminate() == 0
        self._start()

    def settle(self, count: int) -> dict[str, list[int]]:
        """Wait until so many tasks are healthy; returns their processes."""
        self.rig.until(f"{count} healthy", self.rig.healthy(count))
        return self.rig.until("one process each", lambda: len(self.rig.processes()) == count and self.rig.processes())


@pytest.mark.parametrize("route", [["consul"], ["etcd", "consul"]], ids="-".join)
def test_processes_outlive_moves_between_stores_of_different_kinds(
    make_rig: Callable[[str], Any], request: Any, manifest: Callable[..., Any], tmp_path: Path, route: list[str]
) -> None:
    house = House(make_rig, f"sqlite://{tmp_path / 'first.db'}")
    rig = house.rig
    rig.apply(manifest(desired=3, container={"checks": [{"script": "true", "interval": "1s"}]}))
    before = house.settle(3)
    for engine in route:
        house.move(request.getfixturevalue(f"private_{engine}")().url)
        assert house.settle(3) == before
    rig.sked("scale", "web", "5")
    after = house.settle(5)
    assert before.items() <= after.items()
    rig.sked("cordon", rig.host("a"))

    house.move(f"sqlite://{tmp_path / 'second.db'}", agent_stays_up=True)
    assert house.settle(5) == after
    (host,) = rig.items("hosts")
    assert host["state"] == "cordoned"
    rig.sked("uncordon", rig.host("a"))
    rig.sked("scale", "web", "2")
    assert house.settle(2).items() <= after.items()
    log = "".join(proc.text() for proc in rig.procs)
    assert (log.count("accept-store"), log.count("stopping"), log.count("started default-web")) == (0, 3, 5), log


def test_containers_outlive_a_move(
    make_rig: Callable[[str], Any], private_etcd: Any, docker_manifest: Callable[..., Any], tmp_path: Path
) -> None:
    house = House(make_rig, f"sqlite://{tmp_path / 'first.db'}")
    rig = house.rig
    rig.apply(docker_manifest(desired=2))
    rig.until("2 healthy", rig.healthy(2))
    before = rig.containers("--all")
    house.move(private_etcd().url)
    rig.until("2 healthy again", rig.healthy(2))
    rig.sked("scale", "web", "3")
    rig.until("3 healthy", rig.healthy(3))
    assert before.items() <= rig.containers("--all").items()


def test_an_agent_that_looks_at_half_a_store_stops_nothing(
    make_rig: Callable[[str], Any], manifest: Callable[..., Any], tmp_path: Path
) -> None:
    house = House(make_rig, f"sqlite://{tmp_path / 'first.db'}")
    rig = house.rig
    rig.apply(manifest(desired=2))
    before = house.settle(2)
    assert house.scheduler.terminate() == house.agent.terminate() == 0
    file = tmp_path / "state.json"
    rig.sked("state", "dump", "--output", str(file))
    rig.env["SKED_BACKEND"] = f"sqlite://{tmp_path / 'second.db'}"
    rig.sked("state", "restore", str(file))
    # As it stands after an interrupted restore: without its name, and without some of its tasks.
    store = EmbeddedStore(tmp_path / "second.db")
    lacking = [keys.STORE_UID, keys.task("default-web-1-1"), keys.host_task(rig.host("a"), "default-web-1-1")]
    store.commit([Delete(key) for key in lacking])
    agent = rig.run("agent", host="a")
    rig.until("frozen", lambda: "nothing is started or stopped on this host" in agent.text())
    rig.sked("state", "restore", str(file))
    rig.run("scheduler")
    assert house.settle(2) == before
    assert "stopping" not in agent.text()
    store.close()


@pytest.mark.parametrize("engine", ["consul", "etcd"])
def test_an_older_snapshot_freezes_the_host_until_the_right_one_or_a_person(
    make_rig: Callable[[str], Any], request: Any, manifest: Callable[..., Any], tmp_path: Path, engine: str
) -> None:
    server = request.getfixturevalue(f"private_{engine}")()
    rig, old, right = make_rig(server.url), tmp_path / "old", tmp_path / "right"
    agent, scheduler = rig.run("agent", host="a"), rig.run("scheduler")
    rig.apply(manifest(desired=2))
    rig.until("2 healthy", rig.healthy(2))
    _save(server, old)
    rig.sked("scale", "web", "4")
    rig.until("4 healthy", rig.healthy(4))
    rig.sked("scale", "web", "3")
    rig.until("3 healthy", rig.healthy(3))
    before = rig.processes()
    _save(server, right)

    _restore(server, old)
    rig.until("frozen", lambda: "set back to an older state" in agent.text())
    # The scheduler goes by what the old snapshot says, and nobody dies of it.
    rig.until("host not lost", lambda: [host["state"] for host in rig.items("hosts")] == ["ready"])
    assert rig.processes() == before
    _restore(server, right)
    rig.until("thawed", lambda: "the store is the right one again" in agent.text())
    rig.until("3 healthy", rig.healthy(3))
    assert rig.processes() == before

    _restore(server, old)
    rig.until("frozen again", lambda: agent.text().count("set back to an older state") == 2)
    assert scheduler.terminate() == agent.terminate() == 0
    rig.run("agent", "--accept-store", host="a")
    rig.until("all written back", lambda: len(rig.items()) == 3)
    assert rig.processes() == before
    rig.run("scheduler")
    rig.until("what the old snapshot declares", rig.healthy(2))
    assert rig.processes().items() <= before.items()


def _save(server: Any, file: Path) -> None:
    if server.url.startswith("etcd"):
        server.save(file)
    else:
        file.write_bytes(ask(f"{server.http}/v1/snapshot", timeout=30) or b"")


def _restore(server: Any, file: Path) -> None:
    if server.url.startswith("etcd"):
        server.restore(file)
        server.start()
    else:
        assert ask(f"{server.http}/v1/snapshot", body=file.read_bytes(), method="PUT", timeout=30) is not None
