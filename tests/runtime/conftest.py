"""What the tests of agents and schedulers share: plugins out of fakes, records in a store, and patience."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runtime.issuing import HOST, Issuing
from runtime.solo import Solo
from runtime.stage import Stage
from sked_core.clock import SystemClock
from sked_core.interfaces.hookspecs import hookimpl
from sked_core.interfaces.store import Put, Store
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Cluster, Service, Task, TaskDefinition
from sked_core.runtime.agent import host_presence
from sked_core.runtime.agent import looks as agent_looks
from sked_core.runtime.agent.loop import AgentLoop
from sked_core.runtime.agent.settings import AgentSettings
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.stores.memory import MemoryStore
from sked_core.testing.builders import a_definition, a_task, an_open_policy
from sked_core.testing.fakes import FakeEngine, FakeHealth, RecordingStore


def _offering(**offers: dict[str, Any]) -> Plugins:
    def hook(name: str, answer: dict[str, Any]) -> Callable[[], dict[str, Any]]:
        def give() -> dict[str, Any]:
            return answer

        give.__name__ = name
        return hookimpl(give)

    module = SimpleNamespace(**{name: hook(name, answer) for name, answer in offers.items()})
    return Plugins([SimpleNamespace(name="fakes", value="fakes", load=lambda: module)])  # type: ignore[list-item]


@pytest.fixture
def offering() -> Callable[..., Plugins]:
    """``offering(sked_executors={"bash": factory})``: what is built in, and one plugin with these offers."""
    return _offering


@pytest.fixture
def until() -> Callable[..., Any]:
    """``until(what, holds)``: look until it gives something true, return that; fail after a bound for hangs."""

    def wait(what: str, holds: Callable[[], Any], seconds: float = 60.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := holds()):
            assert time.monotonic() < deadline, f"never: {what}"
            time.sleep(0.01)
        return found

    return wait


@pytest.fixture
def declare() -> Callable[..., None]:
    """``declare(store, *objects)``: write clusters, services and task definitions as users would, in one commit."""

    def write(store: Store, *objects: Cluster | Service | TaskDefinition) -> None:
        store.commit([Put(_key(one), encode(one)) for one in objects])

    return write


def _key(one: Cluster | Service | TaskDefinition) -> str:
    match one:
        case Cluster():
            return keys.cluster(one.name)
        case Service():
            return keys.service(one.name)
        case TaskDefinition():
            return keys.task_definition(one.name, one.version)


@pytest.fixture
def issue() -> Callable[..., None]:
    """``issue(store, *tasks)``: write both keys of each, in one commit, as a scheduler would."""

    def write(store: Store, *tasks: Task) -> None:
        both = [(task, key) for task in tasks for key in (keys.task(task.id), keys.host_task(task.host, task.id))]
        store.commit([Put(key, encode(task)) for task, key in both])

    return write


@pytest.fixture
def stage(until: Callable[..., Any]) -> Iterator[Stage]:
    """With three hosts that have room for whatever a test declares."""
    with contextlib.closing(Stage(until)) as stage:
        stage.hosts("h1", "h2", "h3", memory=10**6, cpu_units=10**6)
        yield stage


class Agent:
    """One agent process, in a thread."""

    def __init__(self, loop: AgentLoop) -> None:
        self.stop, self.error = threading.Event(), None
        self.thread = threading.Thread(target=self._run, args=(loop,), daemon=True)
        self.thread.start()

    def _run(self, loop: AgentLoop) -> None:
        try:
            loop.run(self.stop)
        except Exception as error:
            self.error = error

    def end(self) -> None:
        self.stop.set()
        self.thread.join(60)
        assert not self.thread.is_alive()


class World(Issuing):
    """A host with an engine, and the store that agents of it share."""

    def __init__(self, folder: Path, offering: Callable[..., Plugins], until: Callable[..., Any]) -> None:
        self.folder, self.offering, self.until = folder, offering, until
        self.memory = MemoryStore()
        self.store = RecordingStore(self.memory)
        self.engine, self.health = FakeEngine(), FakeHealth()
        self.agents: list[Agent] = []

    def agent(self, *, state: str = "state", **settings: Any) -> Agent:
        loop = AgentLoop(
            store=self.store,
            plugins=self.offering(sked_executors={"bash": self.engine.executor}),
            health=self.health,
            settings=AgentSettings(
                host=HOST,
                state_dir=self.folder / state,
                stop_grace=0.1,
                **{"policy": an_open_policy("bash", "other")} | settings,
            ),
            clock=SystemClock(),
        )
        self.agents.append(Agent(loop))
        return self.agents[-1]

    def close(self) -> None:
        for agent in self.agents:
            agent.end()
        self.memory.close()

    # --- what happens --------------------------------------------------------------------------------------------

    def until_running(self, *tasks: Task) -> None:
        ids = sorted(task.id for task in tasks)
        self.until(f"{ids} run, {self.engine.running()} do", lambda: self.engine.running() == ids)

    def reason(self, task: Task) -> str:
        """The reason for which the task is rejected, in both keys; waits until it is."""

        def rejected() -> bool:
            records = [self.mine(task), self.raw(keys.task(task.id))]
            return all(record and record["rejected"] for record in records)

        self.until(f"{task.id} rejected", rejected)
        mine, shared = self.mine(task), self.raw(keys.task(task.id))
        assert mine == shared
        return str((mine or {})["reject_reason"])

    def stays(self, what: str, holds: Callable[[], bool], seconds: float = 0.6) -> None:
        """It holds for as long as an agent that did wrong would need many times over."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert holds(), f"no longer: {what}"
            time.sleep(0.01)

    def has_read(self) -> None:
        """Returns once the agent has acted on all that stands in the store now: it starts a task that says so."""
        probe = a_task(HOST, 0, a_definition("probe"), service="probe")
        self.issue(probe)
        self.until("the probe runs", lambda: probe.id in self.engine.running())
        self.withdraw(probe)
        self.until("the probe is gone", lambda: self.mine(probe) is None)


@pytest.fixture
def world(tmp_path: Path, offering, until, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(agent_looks, "INSPECT_SECONDS", 0.1)
    monkeypatch.setattr(agent_looks, "RECOVER_SECONDS", 0.1)
    monkeypatch.setattr(agent_looks, "SWEEP_SECONDS", 0.3)
    monkeypatch.setattr(agent_looks, "TEND_SECONDS", 0.3)
    monkeypatch.setattr(host_presence, "PUBLISH_SECONDS", 0.1)
    world = World(tmp_path, offering, until)
    yield world
    world.close()


@pytest.fixture
def solo(tmp_path: Path, offering: Callable[..., Plugins]) -> Iterator[Solo]:
    """A host whose agent runs in the test's own thread."""
    solo = Solo(tmp_path, offering)
    yield solo
    solo.close()
