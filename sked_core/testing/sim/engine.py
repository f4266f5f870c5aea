"""Engines and health of simulated hosts: containers that outlive the agents, and behave as their spec says.

The ``executor`` object of a simulated container may hold: ``behaviour``, one of BEHAVIOURS; ``warm``: seconds until it
is healthy; ``lasts``: seconds until it turns (``spoils`` and ``dies``); ``ports``: host ports beside the task's own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from sked_core.clock import Clock
from sked_core.errors import ExecutorError, Problem, Rejected, Unavailable
from sked_core.interfaces.executor import ExecutorContext, Handle, Observation, State
from sked_core.model.codec import digest
from sked_core.model.types import Container, Health, Task, TaskId

BEHAVIOURS = {
    "good": "healthy once it is warm, for ever",
    "sick": "runs and is never healthy",
    "spoils": "healthy, and unhealthy after a while",
    "exits": "ends at once, whenever it is started",
    "dies": "healthy, and ends after a while, whenever it is started",
    "fails": "can't be started",
    "refused": "no host takes it",
}
NEVER = float("inf")
NOTICED = 0.8
"""The chance that whoever watches is told that a container has ended."""
STRANGER = "stranger"
"""Stands for the store id of containers that are not Sked's."""


class Caller(Protocol):
    """The process that makes a call. ``point`` is called around each: others may act meanwhile, and it may raise
    Killed, if the process has just been killed."""

    name: str

    alive: bool
    planned: tuple[float, str] | None

    def point(self, what: str) -> None: ...


@dataclass(slots=True, eq=False)
class SimContainer:
    """One container. Times are monotonic seconds. ``owner``: host and store id of the executor that started it."""

    owner: tuple[str, str]
    task: Task
    handle: Handle
    started: float
    ports: frozenset[int]
    behaviour: str
    healthy_from: float
    turns_at: float
    state: State = State.RUNNING
    detail: str = ""
    sick: bool = False
    """Unhealthy whatever its spec says: something that happened to it."""
    released: str = ""
    """Why it may be stopped, as far as a judge has seen; empty while nothing says so."""

    @property
    def running(self) -> bool:
        return self.state is State.RUNNING

    def healthy(self, now: float) -> bool:
        good = self.state is State.RUNNING and not self.sick and self.healthy_from <= now
        return good and not (self.behaviour == "spoils" and now >= self.turns_at)


@dataclass(slots=True)
class EngineFaults:
    """``down``: every call fails. Else the chance of a call: ``failing`` starts leave nothing, ``unknown`` starts and
    stops fail although they were carried out, ``blind`` looks fail, ``stuck`` stops fail and change nothing."""

    down: bool = False
    failing: float = 0.0
    unknown: float = 0.0
    blind: float = 0.0
    stuck: float = 0.0


@dataclass(slots=True)
class SimEngine:
    """The engine of one host. ``tell(what, container, by)`` is called once something has happened: ``start``, ``stop``
    of one that ran, ``end`` of itself, ``remove`` of a dead one."""

    host: str
    clock: Clock
    rng: Random
    tell: Callable[[str, SimContainer, str], None]
    faults: EngineFaults = field(default_factory=EngineFaults)
    containers: dict[str, SimContainer] = field(default_factory=dict)
    refuses: set[str] = field(default_factory=set)
    """Names of services that this host takes no task of."""
    watchers: list[tuple[Caller, Callable[[], None]]] = field(default_factory=list)
    made: int = 0
    failures: dict[TaskId, float] = field(default_factory=dict)
    """When a start of each task last failed."""

    def settle(self) -> None:
        """Let end what ends by now."""
        now = self.clock.monotonic()
        for one in list(self.containers.values()):
            if one.running and one.behaviour in ("dies", "exits") and now >= one.turns_at:
                self.end(one, "exit 1")

    def end(self, one: SimContainer, detail: str) -> None:
        one.state, one.detail = State.EXITED, detail
        self.tell("end", one, "")
        for caller, notify in self.watchers:
            if caller.alive and self.rng.random() < NOTICED:
                notify()
                caller.planned = None

    def of(self, task_id: str) -> list[SimContainer]:
        """The containers of a task, dead or alive; not those that only look so."""
        found = self.containers.values()
        return [one for one in found if one.handle.task_id == task_id and one.owner[1] != STRANGER]

    def failed(self, task_id: TaskId) -> None:
        """A start of one container of a task has failed."""
        self.failures[task_id] = self.clock.monotonic()

    def make(self, owner: tuple[str, str], task: Task, container: Container, ports: frozenset[int]) -> SimContainer:
        """A new running container."""
        now, spec = self.clock.monotonic(), container.executor
        self.made += 1
        behaviour = str(spec.get("behaviour", "good"))
        warm = NEVER if behaviour == "sick" else float(spec.get("warm", 1.0))
        lasts = self.rng.uniform(0.0, 2.0) if behaviour == "exits" else float(spec.get("lasts", NEVER))
        handle = Handle(task.id, container.name, f"{self.host}-{self.made}", digest(task))
        one = SimContainer(owner, task, handle, now, ports, behaviour, now + warm, now + lasts)
        self.containers[handle.ref] = one
        return one


class SimExecutor:
    """An Executor on a SimEngine, for one process."""

    def __init__(self, engine: SimEngine, caller: Caller, context: ExecutorContext) -> None:
        self._engine, self._caller = engine, caller
        self._owner = (context.host, context.store_uid)

    def validate(self, spec: Mapping[str, Any]) -> list[Problem]:
        known = spec.get("behaviour", "good") in BEHAVIOURS
        return [] if known else [Problem("behaviour", f"expected one of {', '.join(BEHAVIOURS)}")]

    def ports(self, spec: Mapping[str, Any], port: int) -> frozenset[int]:
        return frozenset(spec.get("ports", ())) | ({port} if port else frozenset())

    def start(self, task: Task, container: Container, env: Mapping[str, str]) -> Handle:
        engine = self._engine
        self._call("start")
        behaviour = container.executor.get("behaviour", "good")
        if task.service in engine.refuses or behaviour == "refused":
            engine.failed(task.id)
            raise Rejected(f"engine of {engine.host} takes no task of {task.service}")
        if behaviour == "fails" or self._happens(engine.faults.failing):
            engine.failed(task.id)
            raise ExecutorError("no such image")
        found = self._find(task.id, container.name)
        self._caller.point("start")  # between a look and an act there is always a moment
        if found is not None and found.running:
            return found.handle
        if found is not None and found.handle.ref in engine.containers:
            del engine.containers[found.handle.ref]
            engine.tell("remove", found, self._caller.name)
        one = engine.make(self._owner, task, container, self.ports(container.executor, task.port))
        engine.tell("start", one, self._caller.name)
        self._caller.point("started")
        if self._happens(engine.faults.unknown):
            engine.failed(task.id)
            raise ExecutorError("no answer came in time")
        return one.handle

    def stop(self, handle: Handle, grace: float) -> None:
        engine = self._engine
        self._call("stop")
        if self._happens(engine.faults.stuck):
            raise ExecutorError("the engine could not stop it")
        one = engine.containers.pop(handle.ref, None)
        if one is not None:
            was_running, one.state = one.running, State.ABSENT
            engine.tell("stop" if was_running else "remove", one, self._caller.name)
        self._caller.point("stopped")
        if self._happens(engine.faults.unknown):
            raise ExecutorError("no answer came in time")

    def inspect(self, handles: Iterable[Handle]) -> Mapping[Handle, Observation]:
        self._call("inspect")
        if self._happens(self._engine.faults.blind):
            raise ExecutorError("the engine could not say")
        return {handle: _observation(self._engine.containers.get(handle.ref)) for handle in handles}

    def recover(self) -> Mapping[Handle, Observation]:
        self._call("recover")
        if self._happens(self._engine.faults.blind):
            raise ExecutorError("the engine could not say")
        return {one.handle: _observation(one) for one in self._engine.containers.values() if one.owner == self._owner}

    def tail(self, handle: Handle, lines: int) -> list[str]:
        """The last lines that a container wrote."""
        self._call("tail")
        one = self._engine.containers.get(handle.ref)
        return [f"{handle.container} says {one.behaviour}"][:lines] if one else []

    def watch(self, notify: Callable[[], None]) -> None:
        self._engine.watchers = [one for one in self._engine.watchers if one[0].alive]
        self._engine.watchers.append((self._caller, notify))

    def close(self) -> None:
        """Nothing to free: the containers belong to the engine."""

    def _call(self, what: str) -> None:
        self._caller.point(what)
        if self._engine.faults.down:
            raise ExecutorError("the engine does not answer")

    def _happens(self, chance: float) -> bool:
        return chance > 0 and self._engine.rng.random() < chance

    def _find(self, task_id: TaskId, container: str) -> SimContainer | None:
        for one in self._engine.containers.values():
            if (one.owner, one.handle.task_id, one.handle.container) == (self._owner, task_id, container):
                return one
        return None


def _observation(container: SimContainer | None) -> Observation:
    return Observation(container.state, detail=container.detail) if container else Observation(State.ABSENT)


@dataclass(slots=True)
class Registry:
    """What keeps health on all hosts, as Consul's agents do: registrations outlive the agents that made them."""

    clock: Clock
    rng: Random
    engines: Mapping[str, SimEngine]
    failing: float = 0.0
    """The chance of a call to fail."""
    gone: set[str] = field(default_factory=set)
    """Hosts that are not there: nothing is known of their tasks."""
    tasks: dict[str, dict[TaskId, Task]] = field(default_factory=dict)
    """By host."""
    told: dict[tuple[str, TaskId], tuple[float, bool]] = field(default_factory=dict)
    """What agents were told last of their own tasks, and when, by host and id."""
    told_well: dict[tuple[str, TaskId], float] = field(default_factory=dict)
    """When they were last told that a task is well."""

    def is_healthy(self, host: str, task_id: TaskId) -> bool:
        """Whether all containers of the task, of whomever, are well."""
        now = self.clock.monotonic()
        found = False
        for one in self.engines[host].containers.values():
            if one.handle.task_id == task_id and one.owner[1] != STRANGER:
                if not one.healthy(now):
                    return False
                found = True
        return found


class SimHealth:
    """The HealthProvider of one process; ``host`` is empty for those who only read."""

    def __init__(self, registry: Registry, caller: Caller, host: str = "") -> None:
        self._registry, self._caller, self._host = registry, caller, host
        self.told: dict[tuple[str, str], Mapping[TaskId, Health]] = {}
        """The last answer, by pair."""

    def register(self, task: Task) -> None:
        self._call("register")
        self._registry.tasks.setdefault(self._host, {})[task.id] = task

    def deregister(self, task_id: TaskId) -> None:
        self._call("deregister")
        self._registry.tasks.get(self._host, {}).pop(task_id, None)

    def registered(self) -> frozenset[TaskId]:
        self._call("registered")
        return frozenset(self._registry.tasks.get(self._host, {}))

    def health(self, services: Collection[tuple[str, str]], hosts: Collection[str] = ()) -> Mapping[TaskId, Health]:
        self._call("health")
        registry = self._registry
        found: dict[TaskId, Health] = {}
        told: dict[tuple[str, str], dict[TaskId, Health]] = {pair: {} for pair in services}
        self.told.update(told)
        # What its own host has registered counts for an agent, and what a host that is gone has left for nobody.
        hosts = sorted(registry.tasks, key=lambda host: (host == self._host, host))
        for host in hosts:
            tasks = {} if host in registry.gone else registry.tasks[host]
            for task_id, task in tasks.items():
                pair = (task.cluster.name, task.service)
                if pair in told:
                    healthy = registry.is_healthy(host, task_id)
                    found[task_id] = Health(healthy, "" if healthy else "connection refused")
                    told[pair][task_id] = found[task_id]
                    if host == self._host:
                        now = registry.clock.monotonic()
                        registry.told[host, task_id] = (now, healthy)
                        if healthy:
                            registry.told_well[host, task_id] = now
        return found

    def wait(self, since: int, timeout: float, hosts: Collection[str] = ()) -> int:
        """Nobody is woken: whoever wants to know asks."""
        return since

    def close(self) -> None:
        """Nothing to free."""

    def _call(self, what: str) -> None:
        self._caller.point(what)
        if self._registry.failing > 0 and self._registry.rng.random() < self._registry.failing:
            raise Unavailable("health could not be asked")
