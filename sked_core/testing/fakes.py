"""Stand-ins for engines, health and stores: what they did can be looked at, and what they do next can be arranged.

They keep to the ports of ``sked_core.interfaces``; every method may be called from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sked_core.errors import ExecutorError, NotFound, Problem, Rejected, Unavailable
from sked_core.interfaces.executor import ExecutorContext, Handle, Observation, State
from sked_core.interfaces.secrets import Secret
from sked_core.interfaces.store import Lease, Op, Revision, Snapshot, Store
from sked_core.model.codec import digest
from sked_core.model.spec import plain
from sked_core.model.types import Container, Health, Task, TaskId


class FakeHealth:
    """A HealthProvider whose results a test sets. A registered task is healthy unless something else was said of it.

    ``down``: every call but ``wait`` and ``close`` raises Unavailable with this text, unless it is empty.
    """

    def __init__(self) -> None:
        self.down = ""
        self.tasks: dict[TaskId, Task] = {}
        """What is registered."""
        self._said: dict[TaskId, Health] = {}
        self._changed = threading.Condition()
        self._version = 1
        self._closed = False

    def say(self, task_id: TaskId, *, healthy: bool, output: str = "") -> None:
        """From now on that is the task's health."""
        with self._changed:
            self._said[task_id] = Health(healthy, output)
            self._wake()

    def register(self, task: Task) -> None:
        with self._changed:
            self._check()
            self.tasks[task.id] = task
            self._wake()

    def deregister(self, task_id: TaskId) -> None:
        with self._changed:
            self._check()
            self.tasks.pop(task_id, None)
            self._wake()

    def registered(self) -> frozenset[TaskId]:
        with self._changed:
            self._check()
            return frozenset(self.tasks)

    def health(self, services: Collection[tuple[str, str]], hosts: Collection[str] = ()) -> Mapping[TaskId, Health]:
        with self._changed:
            self._check()
            wanted = [task for task in self.tasks.values() if (task.cluster.name, task.service) in services]
            return {task.id: self._said.get(task.id, Health(True)) for task in wanted}

    def wait(self, since: int, timeout: float, hosts: Collection[str] = ()) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self._version != since or self._closed, timeout)
            return self._version

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._wake()

    def _check(self) -> None:
        if self.down:
            raise Unavailable(self.down)

    def _wake(self) -> None:
        self._version += 1
        self._changed.notify_all()


@dataclass(slots=True)
class FakeContainer:
    """A container of a FakeEngine. ``owner``: host and store uid of the executor that started it; ``spec`` and ``env``:
    what that one was given."""

    owner: tuple[str, str]
    task: Task
    handle: Handle
    state: State = State.RUNNING
    detail: str = ""
    code: int | None = None
    output: list[str] = field(default_factory=list)
    spec: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


def _nothing(task: Task, container: Container) -> None:
    """What an engine does before and after a start unless a test arranges something."""


@dataclass(slots=True)
class FakeEngine:
    """An engine whose containers live on when the executor (and agent) that started them is gone.

    ``executor`` is a factory as plugins offer it. ``down``: every call raises ExecutorError with this text, unless
    it is empty. ``before_start`` is called before a container is made: it may wait, or raise what the start then
    raises. ``after_start`` is called after: what it raises makes the outcome unknown, since the container runs.
    """

    down: str = ""
    before_start: Callable[[Task, Container], None] = _nothing
    after_start: Callable[[Task, Container], None] = _nothing
    containers: dict[str, FakeContainer] = field(default_factory=dict)
    """All that exist, dead or alive, by the ref of their handle."""
    starts: list[TaskId] = field(default_factory=list)
    """The task of every container that was ever made, in order."""
    stops: list[TaskId] = field(default_factory=list)
    """The task of every container that ran until ``stop`` removed it, in order."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    watchers: list[Callable[[], None]] = field(default_factory=list)

    def executor(self, context: ExecutorContext) -> FakeExecutor:
        """A new executor on this engine."""
        return FakeExecutor(self, context)

    def running(self) -> list[TaskId]:
        """The task of every container that runs, sorted."""
        with self.lock:
            alive = (one for one in self.containers.values() if one.state is State.RUNNING)
            return sorted(one.task.id for one in alive)

    def say(self, task_id: TaskId, *lines: str) -> None:
        """Have the task's containers write ``lines``."""
        with self.lock:
            for one in self.containers.values():
                if one.task.id == task_id:
                    one.output += lines

    def kill(self, task_id: TaskId, detail: str = "killed by signal 9", code: int | None = None) -> None:
        """End the task's containers behind the executor's back, with an exit code if one is given; what watches is
        told."""
        with self.lock:
            for one in self.containers.values():
                if one.task.id == task_id:
                    one.state, one.detail, one.code = State.EXITED, detail, code
            watchers = list(self.watchers)
        for notify in watchers:
            notify()


class FakeExecutor:
    """An Executor on a FakeEngine. A spec may hold ``problem`` (text that validation reports) and ``ports``."""

    def __init__(self, engine: FakeEngine, context: ExecutorContext) -> None:
        self._engine, self._context = engine, context
        self._owner = (context.host, context.store_uid)

    def validate(self, spec: Mapping[str, Any]) -> list[Problem]:
        found = [Problem("problem", plain(str(spec["problem"])))] if spec.get("problem") else []
        ports = spec.get("ports", ())
        if not isinstance(ports, Collection) or not all(type(one) is int and 1 <= one <= 65535 for one in ports):
            found.append(Problem("ports", "expected a list of ports"))
        return found

    def ports(self, spec: Mapping[str, Any], port: int) -> frozenset[int]:
        return frozenset(spec.get("ports", ())) | ({port} if port else frozenset())

    def start(self, task: Task, container: Container, env: Mapping[str, str]) -> Handle:
        engine = self._engine
        self._check()
        if wrong := self.validate(container.executor):
            raise Rejected("; ".join(map(str, wrong)))
        engine.before_start(task, container)
        with engine.lock:
            found = self._find(task.id, container.name)
            if found is not None and found.state is State.RUNNING:
                return found.handle
            if found is not None:
                del engine.containers[found.handle.ref]
            engine.starts.append(task.id)
            handle = Handle(task.id, container.name, f"fake-{len(engine.starts)}", digest(task))
            made = FakeContainer(self._owner, task, handle, spec=container.executor, env=dict(env))
            engine.containers[handle.ref] = made
        engine.after_start(task, container)
        return handle

    def stop(self, handle: Handle, grace: float) -> None:
        self._check()
        with self._engine.lock:
            found = self._engine.containers.pop(handle.ref, None)
            if found is not None and found.state is State.RUNNING:
                self._engine.stops.append(handle.task_id)

    def inspect(self, handles: Iterable[Handle]) -> Mapping[Handle, Observation]:
        self._check()
        with self._engine.lock:
            return {handle: self._observation(self._engine.containers.get(handle.ref)) for handle in handles}

    def recover(self) -> Mapping[Handle, Observation]:
        self._check()
        with self._engine.lock:
            mine = [one for one in self._engine.containers.values() if one.owner == self._owner]
            return {one.handle: self._observation(one) for one in mine}

    def tail(self, handle: Handle, lines: int) -> list[str]:
        self._check()
        with self._engine.lock:
            found = self._engine.containers.get(handle.ref)
            return found.output[-lines:] if found is not None else []

    def watch(self, notify: Callable[[], None]) -> None:
        with self._engine.lock:
            self._engine.watchers.append(notify)

    def close(self) -> None:
        """Nothing to free: the containers belong to the engine."""

    def _check(self) -> None:
        if self._engine.down:
            raise ExecutorError(self._engine.down)

    def _find(self, task_id: TaskId, container: str) -> FakeContainer | None:
        for one in self._engine.containers.values():
            if (one.owner, one.task.id, one.handle.container) == (self._owner, task_id, container):
                return one
        return None

    def _observation(self, container: FakeContainer | None) -> Observation:
        if container is None:
            return Observation(State.ABSENT)
        return Observation(container.state, exit_code=container.code, detail=container.detail)


class FakeSecrets:
    """A SecretProvider of what a test keeps: values by name, or by name and key as ``NAME#KEY``. ``versions``: of those
    that have another one than ``1``. ``down``: every read raises it, unless it is None."""

    def __init__(self, **values: str) -> None:
        self.values, self.versions = dict(values), dict[str, str]()
        self.down: Exception | None = None
        self.reads: list[str] = []
        self.closed = False

    def read(self, name: str, key: str) -> Secret:
        found = f"{name}#{key}" if key else name
        self.reads.append(found)
        if self.down is not None:
            raise self.down
        if found not in self.values:
            raise NotFound(f"there is no {found}")
        return Secret(self.values[found], self.versions.get(found, "1"))

    def problems(self) -> list[str]:
        return []

    def close(self) -> None:
        self.closed = True


class RecordingStore:
    """``store``, with every commit that it took in ``commits``, and every prefix that was read in ``reads``. ``down``:
    every call raises Unavailable with this text, unless it is empty. ``max_ops`` may be lowered."""

    def __init__(self, store: Store, *, max_ops: int = 0) -> None:
        self._store = store
        self.max_ops = max_ops or store.max_ops
        self.commits: list[tuple[Op, ...]] = []
        self.reads: list[str] = []
        self.down = ""

    def read(self, prefix: str) -> Snapshot:
        self._check()
        self.reads.append(prefix)
        return self._store.read(prefix)

    def commit(self, ops: Sequence[Op]) -> Revision:
        self._check()
        revision = self._store.commit(ops)
        self.commits.append(tuple(ops))
        return revision

    def wait(self, prefix: str, since: Revision, timeout: float) -> Revision:
        self._check()
        return self._store.wait(prefix, since, timeout)

    def grant(self, ttl: float) -> Lease:
        self._check()
        return self._store.grant(ttl)

    def close(self) -> None:
        self._store.close()

    def _check(self) -> None:
        if self.down:
            raise Unavailable(self.down)
