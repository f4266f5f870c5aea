"""Programs for the tests of the bridge: written down, judged and run as those of an operator are."""

from __future__ import annotations

import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sked_bridge.executor import BridgedExecutor
from sked_bridge.pool import Pool
from sked_bridge.programs import Program
from sked_core.model.types import Cluster
from sked_core.plugin import Container, ExecutorContext, Task, TaskDefinition
from sked_core.testing.clock import FakeClock

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PROCESS = Program("executor", "process", EXAMPLES / "executor-process")
EMPTIEST = Program("scheduler", "emptiest", EXAMPLES / "scheduler-emptiest")
FOLDER = Program("secrets", "folder", EXAMPLES / "secrets-folder")
QUIETEST = Program("scheduler", "quietest", EXAMPLES / "scheduler-quietest")
Write = Callable[[str, str], Program]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write(name, text)``: the program ``KIND-NAME`` in a folder of their own."""

    def write(name: str, text: str) -> Program:
        folder = tmp_path / "programs"
        folder.mkdir(exist_ok=True)
        path = folder / name
        path.write_text(text)
        path.chmod(stat.S_IRWXU)
        kind, _, short = name.partition("-")
        return Program(kind, short, path)

    return write


@pytest.fixture
def make_pool() -> Iterator[Callable[..., Pool]]:
    """Pools that are closed after the test."""
    pools: list[Pool] = []

    def make(program: Program, **more: Any) -> Pool:
        pools.append(Pool(program, {}, **more))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands until it is moved."""
    return FakeClock()


@pytest.fixture
def make_executor(tmp_path: Path) -> Iterator[Callable[[Program], BridgedExecutor]]:
    """Executors on one state folder, as those of one agent after another have it."""
    made: list[BridgedExecutor] = []
    context = ExecutorContext("host-1", "store-" + secrets.token_hex(4), tmp_path / "state")

    def make(program: Program) -> BridgedExecutor:
        made.append(BridgedExecutor(program, context))
        return made[-1]

    yield make
    for executor in made:
        executor.close()


def task(kind: str, spec: dict[str, Any], instance: int = 0) -> tuple[Task, Container]:
    """A task of one container."""
    container = Container(name="c", type=kind, executor=spec)
    definition = TaskDefinition(name="t", version=1, containers=[container])
    cluster = Cluster(name="k")
    return Task(cluster=cluster, task_definition=definition, service="s", instance=instance, host="host-1"), container
