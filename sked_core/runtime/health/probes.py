"""The built-in health provider, for every store that has none of its own: probes by the agent, results in the store.

The agent of a host probes its tasks and writes ``health/<host>/<task id>`` when a result changes, and only then.
Everybody else reads those keys. While the store is away probing goes on, and the results follow when it is back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from msgspec import Struct

from sked_core.errors import InvalidValue, SkedError, Unavailable
from sked_core.interfaces.health import HealthContext, told_by
from sked_core.interfaces.store import Delete, Entry, Op, Put, Revision
from sked_core.model import keys
from sked_core.model.codec import decode, digest, encode
from sked_core.model.duration import to_seconds
from sked_core.model.types import (
    DEFAULT_CHECK_INTERVAL,
    DEFAULT_CHECK_TIMEOUT,
    Check,
    Health,
    Task,
    TaskId,
)
from sked_core.runtime.health.probe_pool import ProbePool
from sked_core.runtime.health.reports import Reports

log = logging.getLogger("sked.health")

QUICK_FIRST, QUICK_GROWTH, QUICK_LAST = 0.25, 1.5, 1.0
"""Seconds between the probes of a task that has not passed yet: a start is noticed at once, not an interval later."""
QUICK_PHASE = 60.0
SHORTEST_INTERVAL = 0.25
SLOW = 1.0
"""A probe that took longer than this goes to the slow threads the next time."""
REREAD_SECONDS = 60.0
"""How often the published keys are compared with what is really there (somebody may have restored the store)."""
OUTPUT_WRITES = 60.0
"""While a task stays unhealthy, its output is rewritten no more often than this."""
WORTH_ONE_READ = 30
"""How many tasks more one may as well read as ask once more."""
RETRY_FIRST, RETRY_LAST = 0.5, 10.0


class StoredHealth(Struct, frozen=True):
    """The value of ``health/<host>/<task id>``: Health, and whose it is (ids can't be taken apart)."""

    healthy: bool
    output: str = ""
    cluster: str = ""
    service: str = ""


@dataclass(slots=True, eq=False)
class _Probe:
    """One check of one task, and its last outcome."""

    check: Check
    interval: float
    timeout: float
    ttl: float
    pause: float = QUICK_FIRST
    passed: bool = False
    last: Health | None = None


@dataclass(slots=True, eq=False)
class _Kept:
    """A registered task. ``health`` is None while nothing is proven; what is published then stays."""

    task: Task
    digest: str
    since: float
    probes: list[_Probe]
    health: Health | None
    written: float = field(default=float("-inf"))


class ProbeHealth:
    """HealthProvider that probes the tasks of ``context.host`` (none when that is empty) and reads all others'."""

    def __init__(self, context: HealthContext) -> None:
        self._store = context.store
        self._host = context.host
        self._clock, self._mask = context.clock, context.mask
        self._gate = context.policy.checks
        self._lock = threading.Lock()
        self._kept: dict[TaskId, _Kept] = {}
        self._removed: set[TaskId] = set()
        self._pool = ProbePool(clock=context.clock)
        self._reports = Reports(store=context.store, host=context.host, clock=context.clock) if context.host else None
        self._flushing = threading.Lock()
        self._published: dict[TaskId, StoredHealth] | None = None
        self._read_at = 0.0
        self._most = 0
        """How many tasks had any health when it was read last."""
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._publisher: threading.Thread | None = None

    def register(self, task: Task) -> None:
        content = digest(task)
        with self._lock:
            before = self._kept.get(task.id)
            if before is not None and before.digest == content:
                return
            probes = [
                _probe(check) for container in task.task_definition.containers for check in container.checks or ()
            ]
            probes = [probe for probe in probes if _kind(probe.check)]
            health = None if probes else Health(True, "no checks")
            if probes and (before is not None or task.id in self._removed):
                health = Health(False, "not checked yet")
            self._removed.discard(task.id)
            kept = _Kept(task, content, self._clock.monotonic(), probes, health)
            self._kept[task.id] = kept
            self._start_publisher()
        for probe in probes:
            self._pool.schedule(0.0, partial(self._run, kept, probe))
        if health is not None:
            self._wake.set()

    def deregister(self, task_id: TaskId) -> None:
        """Also with the store away: the key then goes when it is back."""
        with self._lock:
            self._kept.pop(task_id, None)
            self._removed.add(task_id)
            self._start_publisher()
        try:
            self._flush()
        except Unavailable:
            self._wake.set()

    def registered(self) -> frozenset[TaskId]:
        prefix = keys.host_health(self._host)
        stored = {TaskId(key.removeprefix(prefix)) for key in self._store.read(prefix).entries}
        with self._lock:
            return frozenset((stored - self._removed) | self._kept.keys())

    def health(self, services: Collection[tuple[str, str]], hosts: Collection[str] = ()) -> Mapping[TaskId, Health]:
        wanted, result = frozenset(services), {}
        for key, entry in self._stored(hosts):
            stored = _decoded(key, entry.value)
            _, host, name = key.split("/", 2)
            mine = told_by(hosts, host, TaskId(name))
            if mine and stored is not None and (stored.cluster, stored.service) in wanted:
                result[TaskId(keys.last_segment(key))] = Health(stored.healthy, stored.output)
        return result

    def wait(self, since: int, timeout: float, hosts: Collection[str] = ()) -> int:
        prefix = keys.host_health(next(iter(hosts))) if len(hosts) == 1 else keys.HEALTH
        return self._store.wait(prefix, Revision(since), timeout)

    def close(self) -> None:
        self._closed.set()
        self._wake.set()
        self._pool.close()

    def _stored(self, hosts: Collection[str]) -> Iterable[tuple[str, Entry]]:
        """What the store says of tasks on ``hosts`` at least: host by host where that is less than all there is."""
        there = sum(map(len, hosts.values())) if isinstance(hosts, Mapping) else 0
        if hosts and (len(hosts) == 1 or len(hosts) * WORTH_ONE_READ + there < self._most):
            return [pair for host in sorted(hosts) for pair in self._store.read(keys.host_health(host)).entries.items()]
        entries = self._store.read(keys.HEALTH).entries
        self._most = len(entries)
        return entries.items()

    def _run(self, kept: _Kept, probe: _Probe) -> None:
        """Probe once, note what changed, and come back later; ends with the task's registration."""
        if self._kept.get(kept.task.id) is not kept or self._closed.is_set():
            return
        started = self._clock.monotonic()
        outcome = self._outcome(kept.task, probe)
        took = self._clock.monotonic() - started
        if outcome is not None:
            with self._lock:
                probe.last = outcome
                probe.passed = probe.passed or outcome.healthy
                before, kept.health = kept.health, _together(kept.probes) or kept.health
                changed = kept.health != before
            if changed:
                self._wake.set()
        self._pool.schedule(self._pause(kept, probe), partial(self._run, kept, probe), slow=took > SLOW)

    def _outcome(self, task: Task, probe: _Probe) -> Health | None:
        if _kind(probe.check) == "ttl":
            return self._reports.health(task.id, probe.ttl) if self._reports else None
        from sked_core.runtime.health.probe_checks import run_check  # sockets, TLS and processes: for agents only

        return run_check(probe.check, task, probe.timeout, self._gate)

    def _pause(self, kept: _Kept, probe: _Probe) -> float:
        if probe.ttl:
            return min(QUICK_LAST, max(SHORTEST_INTERVAL, probe.ttl / 4))
        if probe.passed or self._clock.monotonic() - kept.since > QUICK_PHASE:
            return probe.interval
        pause, probe.pause = probe.pause, min(probe.pause * QUICK_GROWTH, QUICK_LAST)
        return min(pause, probe.interval)

    def _start_publisher(self) -> None:
        if self._publisher is None:
            self._publisher = threading.Thread(target=self._publish, name="sked-health", daemon=True)
            self._publisher.start()

    def _publish(self) -> None:
        retry = RETRY_FIRST
        while not self._closed.is_set():
            self._clock.wait(self._wake, REREAD_SECONDS)
            self._wake.clear()
            try:
                self._flush()
                retry = RETRY_FIRST
            except SkedError as error:
                log.warning("health is not published for now, probing goes on: %s", error)
                self._published = None
                self._wake.set()
                self._clock.wait(self._closed, retry)
                retry = min(2 * retry, RETRY_LAST)

    def _flush(self) -> None:
        """Make the keys of this host say what is known here. Writes nothing where they do already."""
        with self._flushing:
            now = self._clock.monotonic()
            if self._published is None or now - self._read_at > REREAD_SECONDS:
                self._published, self._read_at = self._read_published(), now
            with self._lock:
                removed = set(self._removed)
                known = [(kept, kept.health) for kept in self._kept.values() if kept.health is not None]
            changes: list[tuple[TaskId, StoredHealth | None, list[Op]]] = [
                (task_id, None, [Delete(keys.health(self._host, task_id)), Delete(keys.report(self._host, task_id))])
                for task_id in sorted(removed)
            ]
            for kept, health in known:
                output = self._mask(kept.task.id, health.output)
                value = StoredHealth(health.healthy, output, kept.task.cluster.name, kept.task.service)
                if _worth_writing(value, self._published.get(kept.task.id), now - kept.written):
                    kept.written = now
                    put = Put(keys.health(self._host, kept.task.id), encode(value))
                    changes.append((kept.task.id, value, [put]))
            size = max(1, self._store.max_ops // 2)
            for start in range(0, len(changes), size):
                self._commit(changes[start : start + size], self._published)

    def _commit(
        self, changes: list[tuple[TaskId, StoredHealth | None, list[Op]]], published: dict[TaskId, StoredHealth]
    ) -> None:
        self._store.commit([op for _, _, ops in changes for op in ops])
        with self._lock:
            for task_id, value, _ in changes:
                if value is None:
                    published.pop(task_id, None)
                    self._removed.discard(task_id)
                else:
                    published[task_id] = value

    def _read_published(self) -> dict[TaskId, StoredHealth]:
        prefix = keys.host_health(self._host)
        decoded = {
            TaskId(key.removeprefix(prefix)): _decoded(key, entry.value)
            for key, entry in self._store.read(prefix).entries.items()
        }
        return {task_id: value for task_id, value in decoded.items() if value is not None}


def _probe(check: Check) -> _Probe:
    interval = _seconds(check.interval, DEFAULT_CHECK_INTERVAL)
    return _Probe(
        check=check,
        interval=max(interval, SHORTEST_INTERVAL),
        timeout=max(_seconds(check.timeout, DEFAULT_CHECK_TIMEOUT), 0.01),
        ttl=_seconds(check.ttl, "0s") if _kind(check) == "ttl" else 0.0,
    )


def _seconds(value: str | int, default: str) -> float:
    """A record written by hand may hold anything: what can't be read is the default, the rest of the task counts."""
    try:
        return to_seconds(value, default) or to_seconds(default)
    except InvalidValue:
        return to_seconds(default)


def _kind(check: Check) -> str:
    """Which of the four the check is; empty for one that says nothing (such a check is not kept)."""
    return next((name for name in ("http", "tcp", "script", "ttl") if getattr(check, name)), "")


def _together(probes: list[_Probe]) -> Health | None:
    """A task is healthy when every check passes; None while no check has failed and one has not run yet."""
    outcomes = [probe.last for probe in probes]
    failed = next((outcome for outcome in outcomes if outcome is not None and not outcome.healthy), None)
    if failed is not None:
        return failed
    return None if any(outcome is None for outcome in outcomes) else outcomes[0]


def _worth_writing(new: StoredHealth, old: StoredHealth | None, age: float) -> bool:
    if old is None or (new.healthy, new.cluster, new.service) != (old.healthy, old.cluster, old.service):
        return True
    return not new.healthy and new.output != old.output and age > OUTPUT_WRITES


def _decoded(key: str, value: bytes) -> StoredHealth | None:
    try:
        return decode(value, StoredHealth)
    except InvalidValue as error:
        log.warning("%s is ignored: %s", key, error)
        return None
