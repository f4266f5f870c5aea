"""What the tests of the bash executor share: executors on a folder of their own, tasks, and looks at real processes."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sked_bash.executor import BashExecutor
from sked_bash.processes import ProcessTable
from sked_bash.rights import BashPolicy
from sked_core.model.types import Cluster
from sked_core.plugin import Artifacts, Container, ExecutorContext, Handle, Policy, Task, TaskDefinition

DEVELOPMENT = Policy(
    executors=["bash"],
    artifacts=Artifacts(plain_http=True, without_checksum=True, private_addresses=True),
    sections={"bash": BashPolicy.development()},
)


class Rig:
    """Executors that share one state folder, as those of one agent after another do."""

    def __init__(self, folder: Path, policy: Policy = DEVELOPMENT, store: str = "") -> None:
        self.folder = folder
        # A store of its own: other tests run at the same time, and marks are looked for on the whole machine.
        self.context = ExecutorContext("host-1", store or "store-" + secrets.token_hex(4), folder, policy)
        self.executors: list[BashExecutor] = []
        self.executor = self.agent()

    def agent(self) -> BashExecutor:
        """One more executor on the same state: what an agent that was started anew has."""
        executor = BashExecutor(self.context)
        self.executors.append(executor)
        return executor

    def task(self, instance: int = 0, **spec: Any) -> tuple[Task, Container]:
        container = Container(name="c", type="bash", executor=spec)
        definition = TaskDefinition(name="t", version=1, containers=[container])
        cluster = Cluster(name="k")
        return Task(
            cluster=cluster, task_definition=definition, service="s", instance=instance, host="host-1"
        ), container

    def start(self, instance: int = 0, env: dict[str, str] | None = None, **spec: Any) -> Handle:
        return self.executor.start(*self.task(instance, **spec), env or {})

    def home(self, handle: Handle) -> Path:
        """The folder of a container."""
        (scope,) = (path for path in self.folder.iterdir() if path.name != "artifacts")
        return scope / handle.task_id / handle.container

    def output(self, handle: Handle) -> str:
        return (self.home(handle) / "output.log").read_text()

    def marked(self) -> list[int]:
        """The pids of all live processes that bear a mark of this rig."""
        scopes = {path.name for path in self.folder.iterdir()} if self.folder.exists() else set()
        found = ProcessTable().snapshot().processes.values()
        return [p.identity.pid for p in found if p.alive and p.mark.split("/")[0] in scopes]

    def clean(self) -> None:
        last = self.agent()
        for handle in last.recover():
            last.stop(handle, 0)
        for executor in self.executors:
            executor.close()
        assert self.marked() == []


@pytest.fixture
def make_rig() -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(*arguments: Any) -> Rig:
        rigs.append(Rig(*arguments))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.clean()


@pytest.fixture
def rig(make_rig: Callable[..., Rig], tmp_path: Path) -> Rig:
    return make_rig(tmp_path / "state")


@pytest.fixture
def strict(make_rig: Callable[..., Rig], tmp_path: Path) -> Callable[[], Rig]:
    """Call it for a rig whose policy says nothing of artifacts."""
    policy = Policy(executors=["bash"], sections={"bash": BashPolicy.development()})
    return lambda: make_rig(tmp_path / "strict", policy)


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Wait until a function returns something true, and return that; fails after a deadline."""

    def wait(look: Callable[[], Any], seconds: float = 60) -> Any:
        deadline = time.monotonic() + seconds
        while not (result := look()):
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.01)
        return result

    return wait


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Whether a pid runs (a zombie does not)."""

    def look(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    assert look(os.getpid())
    return look


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that every user can pass through, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="sked-users-"))
    folder.chmod(0o711)
    yield folder / "state"
    shutil.rmtree(folder)
