"""What the tests of agents and schedulers share: plugins out of fakes, records in a store, and patience."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from sked_core.interfaces.hookspecs import hookimpl
from sked_core.interfaces.store import Put, Store
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Cluster, Service, Task, TaskDefinition
from sked_core.runtime.plugins import Plugins


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

    def wait(what: str, holds: Callable[[], Any], seconds: float = 15.0) -> Any:
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
