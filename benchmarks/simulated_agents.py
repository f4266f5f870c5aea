"""Thousands of agents in one process, as far as a store can tell: what they announce, take in, report and give back.

python benchmarks/simulated_agents.py STORE_URL HOSTS

An agent watches the keys below its own host. Thousands of such watches belong to thousands of processes; here one
follows the markers that every commit leaves for schedulers, and reads the tasks of the services that they name. What
agents write is joined into as few transactions as the store takes: it is there, but not in so many commits. Every task
runs and is well as soon as it is seen. All hosts share one lease but the last few, which can be lost.

Lines read: ``lose HOST``. Lines written: ``ready``, and ``<tasks that run> <monotonic time of the last one>``.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable

from population import a_host, write

from sked_core.clock import SystemClock
from sked_core.errors import Conflict
from sked_core.interfaces.store import Check, Delete, Op, Put, Revision, Store
from sked_core.model import codec, keys
from sked_core.model.types import Host, Liveness, Task, TaskId
from sked_core.runtime.health.probes import StoredHealth
from sked_core.runtime.lock import LeaseKeeper
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.state import decode_task, marker

LOSABLE = 4
"""So many hosts, the last ones, have leases of their own."""
LOOK_SECONDS = 0.05
"""Between two looks for what changed: a bare read of markers that nobody's cpu is meant to pay for."""


def simulated_host(number: int) -> Host:
    """With room for some 60 tasks of the population's size."""
    host = a_host(number)
    return Host(
        name=host.name,
        address=host.address,
        memory=4096,
        cpu_units=4096,
        disk=100_000,
        executors=["bash", "docker"],
        tags={"zone": f"zone-{number % 3}", "rack": f"rack-{number % 100}"},
    )


class Agents:
    """All of them."""

    def __init__(self, url: str, count: int) -> None:
        self.store: Store = open_store(url, Plugins.load())
        self._catalog = None
        if url.startswith("consul://"):
            from catalog import Catalog

            self._catalog = Catalog(url.partition("://")[2])
        self.hosts = [simulated_host(number) for number in range(count)]
        self._stops: dict[str, threading.Event] = {}
        self._lost: set[str] = set()
        self._seen: dict[str, Revision] = {}
        self._running: dict[str, dict[TaskId, Revision]] = {}
        """Revisions of what runs, by service."""
        self._taken_in: dict[str, int] = {}
        self.count = 0

    def announce(self) -> None:
        """Put the records of all hosts, and the keys that say that they live."""
        write(self.store, [Put(keys.host(host.name), codec.encode(host)) for host in self.hosts])
        names = [host.name for host in self.hosts]
        groups = {"": names[:-LOSABLE]} | {name: [name] for name in names[-LOSABLE:]}
        for group, members in groups.items():
            keeper, stop = LeaseKeeper(self.store, SystemClock()), threading.Event()
            self._stops[group] = stop
            keeper.serve(stop)
            lease = keeper.lease()
            write(
                self.store, [Put(keys.live(name), codec.encode(Liveness(f"agent-{name}")), lease) for name in members]
            )
        if self._catalog is not None:
            self._catalog.nodes(self.hosts)

    def lose(self, host: str) -> None:
        """Its agent and its tasks are gone at once; its lease is revoked, so that nobody waits for it to end."""
        self._lost.add(host)
        self._stops[host].set()

    def follow(self) -> None:
        """Take in what is issued, for ever; says after each look how many tasks run."""
        since = Revision(0)
        while True:
            since = self.store.wait(keys.CHANGED, since, 5.0)
            entries = self.store.read(keys.CHANGED).entries
            changed = [key for key, entry in entries.items() if self._seen.get(key) != entry.revision]
            self._seen = {key: entry.revision for key, entry in entries.items()}
            self._take_in(keys.last_segment(key) for key in changed)
            time.sleep(LOOK_SECONDS)

    def _take_in(self, services: Iterable[str]) -> None:
        for service in services:
            started: list[Task] = []
            before = self._running.get(service, {})
            running = self._running[service] = {}
            for key, entry in self._tasks_of(service):
                issued = decode_task(key, entry)
                task = issued.task
                if task.host in self._lost or task.rejected or task.service != service:
                    continue
                if not task.scheduled:
                    self._retire(task)
                    continue
                running[task.id] = issued.revision
                if before.get(task.id) != issued.revision:
                    started.append(task)
            if started:
                self._report(started)
            self.count += len(running) - len(before)
            if len(running) != len(before) or started:
                print(self.count, time.monotonic(), flush=True)

    def _tasks_of(self, service: str) -> list[tuple[str, object]]:
        from population import cluster_name

        cluster = cluster_name(int(service.rpartition("-")[2]))
        return list(self.store.read(keys.service_tasks(cluster, service)).entries.items())

    def _report(self, tasks: list[Task]) -> None:
        """What agents write of tasks that they took in, and that are well: how often they took in any, and health."""
        ops: list[Op] = []
        for host in sorted({task.host for task in tasks}):
            self._taken_in[host] = self._taken_in.get(host, 0) + 1
            ops.append(Put(keys.agent(host), b"%d" % self._taken_in[host]))
        if self._catalog is not None:
            self._catalog.passing(tasks)
        else:
            ops += [
                Put(
                    keys.health(task.host, task.id),
                    codec.encode(StoredHealth(True, "", task.cluster.name, task.service)),
                )
                for task in tasks
            ]
        write(self.store, ops)

    def _retire(self, task: Task) -> None:
        mine, shared = keys.host_task(task.host, task.id), keys.task(task.id)
        guards = [Check(key, entry.revision) for key, entry in self.store.read(shared).entries.items() if key == shared]
        ops = [Delete(mine), Delete(shared), Delete(keys.health(task.host, task.id)), marker(task.service, task.host)]
        try:
            self.store.commit([*guards, *ops])
        except Conflict:
            return  # looked at again with the marker of whoever changed it


def main() -> None:
    agents = Agents(sys.argv[1], int(sys.argv[2]))
    agents.announce()
    print("ready", flush=True)
    threading.Thread(target=agents.follow, daemon=True).start()
    for line in sys.stdin:
        word, _, name = line.strip().partition(" ")
        if word == "lose":
            agents.lose(name)
    os._exit(0)


if __name__ == "__main__":
    main()
