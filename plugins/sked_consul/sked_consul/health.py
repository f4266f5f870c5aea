"""The HealthProvider port over Consul's agent: tasks are services, and Consul keeps their checks."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from sked_consul.address import parse_address
from sked_consul.client import Client, blocking
from sked_consul.registration import HOST, SECRETS, STORE, Registration, registration
from sked_consul.scripts import ScriptChecks, outcome
from sked_core.plugin import Health, HealthContext, Task, TaskId, Unavailable, check_key, told_by

CONNECTIONS = 2
FRESH_SECONDS = 1.0
SLICE_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 60.0
QUEUE_SECONDS = 3.0
"""How long a call waits for another one's end. Calls take milliseconds, unless Consul hangs."""
FAILED_SECONDS = 2.0
"""For so long after a failure nobody asks again: those who queue up behind a hanging Consul fail with the first."""


class _Check(
    msgspec.Struct,
    rename={"check_id": "CheckID", "service_id": "ServiceID", "status": "Status", "output": "Output"},
):
    check_id: str
    service_id: str
    status: str
    output: str = ""


class _Service(msgspec.Struct, rename={"id": "ID", "meta": "Meta"}):
    id: str
    meta: dict[str, str] | None = None


class _Instance(msgspec.Struct, rename={"service": "Service", "checks": "Checks"}):
    service: _Service
    checks: list[_Check]


class ConsulHealth:
    """See sked_core.interfaces.health.HealthProvider.

    Registers on the agent that the store's URL names, which should be the host's own. Several hosts and several
    stores may share that agent: a registration says in its metadata whose it is, and is touched by nobody else.
    """

    def __init__(self, context: HealthContext) -> None:
        self._client = Client(parse_address(context.url, os.environ), connections=CONNECTIONS)
        self._host, self._store_uid, self._clock = context.host, context.store_uid, context.clock
        self._scripts = ScriptChecks(self._report, context.policy, context.mask)
        self._lock = threading.Lock()
        self._listed: dict[str, Mapping[str, str]] = {}  # metadata of what is registered, by service id
        self._listed_at: float | None = None
        self._failure: tuple[float, str, str] | None = None  # when Consul last gave no answer, message and hint
        self._turn = threading.Condition()
        self._latest = 0
        self._asking = False
        self._closed = threading.Event()

    def __repr__(self) -> str:
        return f"ConsulHealth({self._client.http.address})"

    def register(self, task: Task) -> None:
        wanted = registration(task, self._host, self._store_uid)
        check_key(task.id)
        with self._asking_alone():
            if self._services().get(task.id) != wanted.meta:
                self._put(wanted)
                self._listed[task.id] = wanted.meta
        self._scripts.keep(task.id, wanted.scripts)

    def deregister(self, task_id: TaskId) -> None:
        check_key(task_id)
        self._scripts.drop(task_id)
        with self._asking_alone():
            self._listed_at = None  # what a moment ago was not there may be by now
            if self._ours(self._services().get(task_id)):
                if not self._client.agent.service.deregister(task_id):
                    raise Unavailable(f"Consul did not say whether it removed the service {task_id}")
                self._listed.pop(task_id, None)

    def registered(self) -> frozenset[TaskId]:
        with self._asking_alone():
            return frozenset(TaskId(name) for name, meta in self._services().items() if self._ours(meta))

    def health(self, services: Collection[tuple[str, str]], hosts: Collection[str] = ()) -> Mapping[TaskId, Health]:
        found: dict[TaskId, Health] = {}
        metas: dict[TaskId, Mapping[str, str]] = {}
        for cluster, service in services:
            path = f"/v1/health/service/{check_key(f'{cluster}-{service}')}"
            _, instances = self._client.fetch(path, list[_Instance])
            if instances is None:
                raise Unavailable(f"Consul at {self._client.http.address} knows no {path}")
            # A host that died leaves its services behind as they were last seen, and its tasks may run elsewhere
            # under the same id by now: what Consul still hears of wins, and for an agent what is on its own host. So
            # what a host could not deregister in time does not have the task restarted that took its place.
            for instance in sorted(instances, key=self._weight):
                host = (instance.service.meta or {}).get(HOST)
                if host is not None and told_by(hosts, host, TaskId(instance.service.id)):
                    found[TaskId(instance.service.id)] = _health(instance)
                    metas[TaskId(instance.service.id)] = instance.service.meta or {}
        return found if all(health.healthy for health in found.values()) else self._with_news(found, metas)

    def _weight(self, instance: _Instance) -> tuple[bool, bool]:
        return _is_heard_of(instance), (instance.service.meta or {}).get(HOST) == self._host

    def _with_news(
        self, found: Mapping[TaskId, Health], metas: Mapping[TaskId, Mapping[str, str]]
    ) -> Mapping[TaskId, Health]:
        """``found`` with what this agent knows of failing checks: an output that changes while the status stays is
        passed on by Consul's agents after minutes only (check_update_interval), and people wait for it."""
        news: dict[TaskId, Health] = {}
        for check in self._client.http.get(_checks, "/v1/agent/checks").values():
            task_id = TaskId(check.service_id)
            known = found.get(task_id)
            if known and not known.healthy and check.status != "passing" and check.output:
                news.setdefault(task_id, Health(False, _said(check, metas[task_id])))
        return {**found, **news}

    def wait(self, since: int, timeout: float, hosts: Collection[str] = ()) -> int:
        """Checks wake at once; tasks without any check, which only the list of services shows, within 2 s."""
        deadline = self._clock.monotonic() + min(timeout, LONGEST_WAIT_SECONDS)
        while not self._closed.is_set():
            with self._turn:
                if self._latest != since:
                    return self._latest
                left = deadline - self._clock.monotonic()
                if left <= 0:
                    break
                if self._asking:  # one blocking query serves all who wait in this process
                    self._turn.wait(left)
                    continue
                self._asking = True
            self._ask(min(left, SLICE_SECONDS))
        return since

    def _ask(self, seconds: float) -> None:
        """One blocking query for the latest index of services and checks."""
        latest = self._latest
        try:
            services, _ = self._client.fetch("/v1/catalog/services", dict[str, Any])
            # All checks have one index; a filter that nothing passes keeps the answer small.
            within = blocking(latest, seconds) if services <= latest else []
            checks, _ = self._client.fetch("/v1/health/state/any", list[Any], [("filter", 'CheckID == "-"'), *within])
            latest = max(services, checks)
        except Unavailable:
            if not self._closed.is_set():
                raise
        finally:
            with self._turn:
                self._latest, self._asking = latest, False
                self._turn.notify_all()

    def close(self) -> None:
        self._closed.set()
        self._scripts.close()
        self._client.http.close()

    @contextmanager
    def _asking_alone(self) -> Iterator[None]:
        """Holds the lock over registrations, also while Consul is asked: raises Unavailable rather than queue for
        long, and at once where Consul has just failed somebody else."""
        if not self._lock.acquire(timeout=QUEUE_SECONDS):
            raise Unavailable(
                f"Consul at {self._client.http.address} has not answered an earlier call for {QUEUE_SECONDS:g} s",
                hint="see the log of the Consul agent",
            )
        try:
            if self._failure is not None:
                failed_at, message, hint = self._failure
                if self._clock.monotonic() - failed_at < FAILED_SECONDS:
                    raise Unavailable(f"not asked again yet: {message}", hint=hint)
            try:
                yield
            except Unavailable as error:
                self._failure = self._clock.monotonic(), str(error), error.hint
                raise
            self._failure = None
        finally:
            self._lock.release()

    def _services(self) -> dict[str, Mapping[str, str]]:
        """Metadata of every service of the agent, asked for at most once a second. The caller holds the lock."""
        now = self._clock.monotonic()
        if self._listed_at is None or now - self._listed_at >= FRESH_SECONDS:
            listed = self._client.http.get(_services, "/v1/agent/services")
            self._listed = {name: service.meta or {} for name, service in listed.items()}
            self._listed_at = now
        return self._listed

    def _ours(self, meta: Mapping[str, str] | None) -> bool:
        return meta is not None and meta.get(HOST) == self._host and meta.get(STORE, "") == self._store_uid

    def _put(self, wanted: Registration) -> None:
        """Service and checks in one call: all of it or nothing."""
        self._client.send("/v1/agent/service/register", wanted.service, [("replace-existing-checks", "true")])

    def _report(self, check_id: str, health: Health) -> None:
        self._client.send(f"/v1/agent/check/update/{check_id}", outcome(health))


def _services(answer: Any) -> dict[str, _Service]:
    return msgspec.json.decode(_found(answer), type=dict[str, _Service])


def _checks(answer: Any) -> dict[str, _Check]:
    return msgspec.json.decode(_found(answer), type=dict[str, _Check])


def _found(answer: Any) -> bytes:
    if answer.code != 200:
        raise ValueError(answer.code)
    content: bytes = answer.content
    return content


def _is_heard_of(instance: _Instance) -> bool:
    return not any(check.check_id == "serfHealth" and check.status == "critical" for check in instance.checks)


def _health(instance: _Instance) -> Health:
    """Only checks of the service count: whoever can reach Consul can give a whole node a failing check."""
    own = [check for check in instance.checks if check.service_id == instance.service.id]
    failing = next((check for check in own if check.status != "passing"), None)
    meta = instance.service.meta or {}
    if failing is None:
        return Health(True, _said(own[-1], meta) if own else "")
    return Health(False, _said(failing, meta) or f"{failing.check_id} has not run yet")


def _said(check: _Check, meta: Mapping[str, str]) -> str:
    """What a check of the service with ``meta`` says. What a task answers to Consul's own agent may tell its secrets,
    and whoever reads that here does not know them: then the answer's first line has to do."""
    said = check.output.strip()
    return said.partition(" Output: ")[0] if SECRETS in meta and said.startswith("HTTP ") else said
