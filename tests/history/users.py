"""People who never leave a system alone: they scale, deploy, drain, move and delete, by a seeded dice."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from sked_core.errors import SkedError
from sked_core.interfaces.store import Check, Delete, Op, Put, Revision, Store
from sked_core.model import codec, keys
from sked_core.model.types import Cluster, Container, Mark, Service, TaskDefinition

CLUSTERS = {
    "north": ["api", "cache", "front", "mail"],
    "south": ["batch", "front", "queue", "search"],
    "west": ["graph", "logs", "queue", "users"],
}
SERVICES = sorted({name for names in CLUSTERS.values() for name in names})
MOST = 7
PAUSE_SECONDS = (0.05, 0.6)


class Users:
    """Changes what is declared in ``store``; ``leave(host, seconds)`` makes a host vanish for a while."""

    def __init__(self, store: Store, hosts: Sequence[str], leave: Callable[[str, float], None], seed: int) -> None:
        self._store, self._hosts, self._leave = store, hosts, leave
        self._dice = random.Random(seed)
        self.changes: Counter[str] = Counter()

    def declare(self) -> None:
        """The first state of everything. Raises SkedError."""
        for name, services in CLUSTERS.items():
            self._store.commit([Put(keys.cluster(name), codec.encode(Cluster(name=name, services=services)))])
        for name in SERVICES:
            self._store.commit(_definition(name, 1))
            self._store.commit([Put(keys.service(name), codec.encode(self._service(name, 1, 3)))])

    def run(self, stop: threading.Event) -> None:
        """Change something every now and then until ``stop`` is set."""
        while not stop.wait(self._dice.uniform(*PAUSE_SECONDS)):
            what = self._dice.choices(
                [self.scale, self.deploy, self.drain, self.restrict, self.delete, self.lose], [10, 6, 2, 2, 1, 1]
            )[0]
            with contextlib.suppress(SkedError):  # somebody was faster, or the store is away: so it goes
                what()
                self.changes[what.__name__] += 1

    def settle(self) -> None:
        """Ask for what can be had: every service exists, every host may be used. Raises SkedError."""
        for name in self._hosts:
            self._store.commit([Delete(keys.mark(name))])
        for name, services in CLUSTERS.items():
            self._store.commit([Put(keys.cluster(name), codec.encode(Cluster(name=name, services=services)))])
        for name in SERVICES:
            service, revision = self._read(name)
            version = service.task_version if service else self._latest(name)
            wanted = self._service(name, version, self._dice.randint(1, 5))
            self._store.commit([Check(keys.service(name), revision), Put(keys.service(name), codec.encode(wanted))])

    def scale(self) -> None:
        name = self._dice.choice(SERVICES)
        service, revision = self._read(name)
        if service is not None:
            changed = self._service(name, service.task_version, self._dice.randint(0, MOST))
            self._store.commit([Check(keys.service(name), revision), Put(keys.service(name), codec.encode(changed))])

    def deploy(self) -> None:
        """A new version of a service, or its return after it was deleted."""
        name = self._dice.choice(SERVICES)
        service, revision = self._read(name)
        version = self._latest(name) + 1
        changed = (
            msgspec.structs.replace(service, task_version=version)
            if service
            else self._service(name, version, self._dice.randint(1, MOST))
        )
        self._store.commit(
            [
                *_definition(name, version),
                Check(keys.service(name), revision),
                Put(keys.service(name), codec.encode(changed)),
            ]
        )

    def drain(self) -> None:
        """Drain a host, or end that; never more than two at once."""
        marked = [keys.last_segment(key) for key in self._store.read(keys.MARKS).entries]
        if marked and (len(marked) > 1 or self._dice.random() < 0.5):
            self._store.commit([Delete(keys.mark(marked[0]))])
        else:
            mark = self._dice.choice([Mark("draining"), Mark("draining"), Mark("cordoned")])
            self._store.commit([Put(keys.mark(self._dice.choice(self._hosts)), codec.encode(mark))])

    def restrict(self) -> None:
        """Limit a cluster to some hosts, or lift that."""
        name = self._dice.choice(sorted(CLUSTERS))
        some = sorted(self._dice.sample(self._hosts, max(2, len(self._hosts) // 2)))
        hosts = self._dice.choice([None, some])
        cluster = Cluster(name=name, services=CLUSTERS[name], hosts=hosts)
        self._store.commit([Put(keys.cluster(name), codec.encode(cluster))])

    def delete(self) -> None:
        self._store.commit([Delete(keys.service(self._dice.choice(SERVICES)))])

    def lose(self) -> None:
        """A host vanishes: for a moment, or for long enough to be called lost."""
        self._leave(self._dice.choice(self._hosts), self._dice.choice([1.0, 20.0]))

    def _read(self, name: str) -> tuple[Service | None, Revision]:
        entry = self._store.read(keys.service(name)).entries.get(keys.service(name))
        return (codec.decode(entry.value, Service), entry.revision) if entry else (None, Revision(0))

    def _latest(self, name: str) -> int:
        found = self._store.read(keys.task_definition_versions(name)).entries
        return max(int(keys.last_segment(key)) for key in found)

    def _service(self, name: str, version: int, desired: int) -> Service:
        low, high = self._dice.randint(0, 2), self._dice.randint(1, 3)
        return Service(
            name=name,
            task_name=name,
            task_version=version,
            desired=desired,
            min=max(0, desired - low),
            max=desired + high,
        )


def _definition(name: str, version: int) -> list[Op]:
    containers = [Container(name="main", type="bash", executor={"start": "exec sleep 1000"})]
    definition = TaskDefinition(name=name, version=version, memory=16, cpu_units=16, containers=containers)
    key = keys.task_definition(name, version)
    return [Check(key, Revision(0)), Put(key, codec.encode(definition))]
