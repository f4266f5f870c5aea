"""A fleet: agents and schedulers on a real cluster of Consul servers or etcd members."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.clusters import Cluster, Member
from rigs.sked import Proc, Rig, service
from sked_core.interfaces.store import Store
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins


class Fleet:
    """Hosts ``a`` and ``b``, each beside the cluster; any number of schedulers. All keys are below ``prefix``."""

    def __init__(self, cluster: Cluster, rig: Rig, prefix: str) -> None:
        self.cluster, self.rig, self.prefix = cluster, rig, prefix
        self.agents: dict[str, Proc] = {}
        self.schedulers: list[Proc] = []

    def agent(self, name: str, *options: str, direct: Member | None = None) -> Proc:
        """The agent of ``a`` or ``b`` in its place; of another host that talks to one member, ``direct``."""
        if direct is None:
            host = self.cluster.hosts["ab".index(name)]
            way, within = host.url, host.place.within
        else:
            way, within = direct.url, ()
        self.agents[name] = self.rig.run("agent", *options, host=name, backend=way, within=within)
        return self.agents[name]

    def scheduler(self, *options: str) -> Proc:
        self.schedulers.append(self.rig.run("scheduler", *options))
        return self.schedulers[-1]

    def works(self, desired: int, *, hosts: int = 2) -> dict[str, list[int]]:
        """Once the hosts are ready, run a service of so many tasks; returns the processes of each."""
        self.until("hosts ready", lambda: self.rig.hosts_ready(hosts) or True)
        self.rig.apply(service(desired=desired))
        self.healthy(desired)
        return self.rig.processes()

    def healthy(self, count: int) -> None:
        self.until(f"{count} healthy", self.rig.healthy(count))
        self.until(f"{count} running", lambda: len(self.rig.processes()) == count)

    def scale(self, count: int) -> None:
        """Scale the service, as soon as the store takes it, and see it done."""
        self.until(f"scaled to {count}", lambda: self.rig.sked("scale", "web", str(count)) or True)
        self.healthy(count)

    def until(self, what: str, holds: Callable[[], Any]) -> Any:
        """As ``Rig.until``, also while commands fail since the store is away."""

        def calmly() -> Any:
            with contextlib.suppress(AssertionError):
                return holds()
            return None

        return self.rig.until(what, calmly)

    def untouched(self, before: dict[str, list[int]], seconds: float = 0.0) -> None:
        """What ran before still runs in the very same processes, and does so for a while."""
        deadline = time.monotonic() + seconds
        while True:
            now = self.rig.processes()
            assert {task: now.get(task) for task in before} == before
            if time.monotonic() >= deadline:
                return
            time.sleep(0.5)


@pytest.fixture(params=["consul", "etcd"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    found: Cluster = request.getfixturevalue(f"{request.param}_cluster")
    return found


@pytest.fixture
def fleet(cluster: Cluster, tmp_path: Path) -> Iterator[Fleet]:
    """On a whole cluster, with keys and hosts of this test's own."""
    prefix = f"t{secrets.token_hex(3)}"
    rig = Rig(cluster.url, tmp_path, prefix=prefix)
    yield Fleet(cluster, rig, prefix)
    rig.clean_up()


@pytest.fixture
def store(fleet: Fleet) -> Iterator[Store]:
    """The store as an operator uses it: all keys of Sked, below the fleet's prefix."""
    store = open_store(fleet.cluster.url, Plugins.load(), prefix=fleet.prefix)
    yield store
    store.close()
