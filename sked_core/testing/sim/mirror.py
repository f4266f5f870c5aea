"""The data of a simulated store as its commits made it, decoded as far as a judge asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sked_core.errors import InvalidValue
from sked_core.interfaces.store import Entry
from sked_core.model import codec, keys
from sked_core.model.types import Cluster, Mark, Rollout, Service, Task
from sked_core.testing.sim.store import Commit

T = TypeVar("T")
Pair = tuple[str, str]


@dataclass(slots=True)
class Touched:
    """What a commit changes, as it was before. ``tasks``: shared records by id; ``own``: those under hosts' keys."""

    ids: list[str] = field(default_factory=list)
    tasks: dict[str, tuple[Task | None, bytes]] = field(default_factory=dict)
    own: dict[tuple[str, str], bytes] = field(default_factory=dict)
    pairs: set[Pair] = field(default_factory=set)
    consistent: set[str] = field(default_factory=set)


class Mirror:
    """Values by key. ``written``: revision and process of the last write of each task, by id."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.shared: dict[str, bytes] = {}
        self.own: dict[str, dict[str, bytes]] = {}
        """Records under hosts' keys, by host and id."""
        self.locks: dict[str, str] = {}
        """Lease by service."""
        self.live: dict[str, str] = {}
        self.known_hosts: set[str] = set()
        self.written: dict[str, tuple[int, str]] = {}
        self._decoded: dict[tuple[type, bytes], Any] = {}

    # --- taking in -----------------------------------------------------------------------------------------------

    def reset(self, entries: Mapping[str, Entry]) -> None:
        self.values.clear()
        self.shared.clear()
        self.own.clear()
        self.locks.clear()
        self.live.clear()
        self.known_hosts.clear()
        for key, entry in entries.items():
            self._put(key, entry.value, entry.lease)

    def touched(self, commit: Commit) -> Touched:
        """What ``commit``, which was not taken in yet, is about to change."""
        touched = Touched()
        ids: dict[str, None] = {}
        for key in (*commit.puts, *commit.deletes):
            if key.startswith(keys.TASKS):
                ids[key[len(keys.TASKS) :]] = None
            elif key.startswith(keys.HOST_TASKS):
                host, _, task_id = key[len(keys.HOST_TASKS) :].partition("/")
                ids[task_id] = None
                touched.own[host, task_id] = self.own.get(host, {}).get(task_id, b"")
        for task_id in ids:
            raw = self.shared.get(task_id, b"")
            before = self.decoded(raw)
            touched.tasks[task_id] = (before, raw)
            put = commit.puts.get(keys.TASKS + task_id)
            for task in (before, self.decoded(put[0]) if put else None):
                if task is not None:
                    touched.pairs.add((task.cluster.name, task.service))
            if self.is_consistent(task_id):
                touched.consistent.add(task_id)
        touched.ids = list(ids)
        return touched

    def take(self, commit: Commit) -> None:
        for key in commit.deletes:
            self._delete(key)
        for key, (value, lease) in commit.puts.items():
            self._put(key, value, lease)
            if key.startswith(keys.TASKS):
                self.written[key[len(keys.TASKS) :]] = (commit.revision, commit.who)

    def _put(self, key: str, value: bytes, lease: str) -> None:
        if key.startswith(keys.TASKS):
            self.shared[key[len(keys.TASKS) :]] = value
        elif key.startswith(keys.HOST_TASKS):
            host, _, task_id = key[len(keys.HOST_TASKS) :].partition("/")
            self.own.setdefault(host, {})[task_id] = value
        elif key.startswith(keys.SERVICE_LOCKS):
            self.locks[keys.last_segment(key)] = lease
        elif key.startswith(keys.LIVE):
            self.live[keys.last_segment(key)] = lease
        elif not key.startswith((keys.EVENTS, keys.CHANGED)):
            self.values[key] = value
            if key.startswith(keys.HOSTS):
                self.known_hosts.add(keys.last_segment(key))

    def _delete(self, key: str) -> None:
        if key.startswith(keys.TASKS):
            self.shared.pop(key[len(keys.TASKS) :], None)
        elif key.startswith(keys.HOST_TASKS):
            host, _, task_id = key[len(keys.HOST_TASKS) :].partition("/")
            self.own.get(host, {}).pop(task_id, None)
        elif key.startswith(keys.SERVICE_LOCKS):
            self.locks.pop(keys.last_segment(key), None)
        elif key.startswith(keys.LIVE):
            self.live.pop(keys.last_segment(key), None)
        elif key.startswith(keys.HOSTS):
            self.values.pop(key, None)
            self.known_hosts.discard(keys.last_segment(key))
        else:
            self.values.pop(key, None)

    # --- asking --------------------------------------------------------------------------------------------------

    def decoded(self, raw: bytes, kind: type[T] = Task) -> T | None:  # type: ignore[assignment]
        """The object in ``raw``; None where it is none."""
        if not raw:
            return None
        key = (kind, raw)
        if key not in self._decoded:
            if len(self._decoded) > 20_000:
                self._decoded.clear()
            try:
                self._decoded[key] = codec.decode(raw, kind)
            except InvalidValue:
                self._decoded[key] = None
        return self._decoded[key]  # type: ignore[no-any-return]

    def task(self, task_id: str) -> Task | None:
        return self.decoded(self.shared.get(task_id, b""))

    def service(self, name: str) -> Service | None:
        return self.decoded(self.values.get(keys.service(name), b""), Service)

    def services(self) -> list[Service]:
        found = [
            self.decoded(value, Service) for key, value in sorted(self.values.items()) if key.startswith(keys.SERVICES)
        ]
        return [service for service in found if service is not None]

    def clusters(self) -> list[Cluster]:
        found = [
            self.decoded(value, Cluster) for key, value in sorted(self.values.items()) if key.startswith(keys.CLUSTERS)
        ]
        return [cluster for cluster in found if cluster is not None]

    def cluster(self, name: str) -> Cluster | None:
        return self.decoded(self.values.get(keys.cluster(name), b""), Cluster)

    def rollout(self, service: str) -> Rollout | None:
        return self.decoded(self.values.get(keys.rollout(service), b""), Rollout)

    def mark(self, host: str) -> Mark | None:
        return self.decoded(self.values.get(keys.mark(host), b""), Mark)

    def wanted(self, pair: Pair) -> bool:
        """Whether somebody declared the pair."""
        cluster = self.cluster(pair[0])
        return cluster is not None and pair[1] in cluster.services

    def tasks_of(self, pair: Pair) -> list[Task]:
        tasks = (self.task(task_id) for task_id in self.shared)
        return [task for task in tasks if task is not None and (task.cluster.name, task.service) == pair]

    def standing(self, pair: Pair) -> int:
        """The tasks that count against max: those that are to run, wherever that is."""
        return sum(task.scheduled and not task.rejected for task in self.tasks_of(pair))

    def on_host(self, host: str) -> Sequence[str]:
        return list(self.own.get(host, ()))

    def ports(self, task: Task) -> frozenset[int]:
        more = {port for one in task.task_definition.containers for port in one.executor.get("ports", ())}
        return frozenset(more | ({task.port} if task.port else set()))

    def is_consistent(self, task_id: str) -> bool:
        """Whether the two keys of the task say the same, and no further host has one."""
        raw = self.shared.get(task_id)
        holders = {host: records[task_id] for host, records in self.own.items() if task_id in records}
        if raw is None:
            return not holders
        task = self.decoded(raw)
        return task is not None and holders == {task.host: raw}
