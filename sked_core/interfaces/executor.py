"""The port to whatever runs containers: Docker's engine, plain processes, any plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from sked_core.errors import Problem
from sked_core.model.types import Container, Task, TaskId


@dataclass(frozen=True, slots=True)
class ExecutorContext:
    """What an executor's factory is given. A factory does no I/O: it is also called just to validate specs.

    ``host`` and ``store_uid`` belong into whatever marks a container as Sked's own, so that several agents and
    several stores can share one engine; ``state_dir`` is a folder of this executor alone (create it when needed).
    """

    host: str
    store_uid: str
    state_dir: Path


@dataclass(frozen=True, slots=True)
class Handle:
    """A started container. ``ref`` is the executor's own name for this very instance (container id, pid and start
    time); ``digest`` is the digest (model.codec) of the task it was started from."""

    task_id: TaskId
    container: str
    ref: str
    digest: str = ""


class State(Enum):
    RUNNING = "running"
    EXITED = "exited"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Observation:
    """What became of a handle. ``detail`` is for people (``exit 1``, ``killed by signal 9``, ``out of memory``).

    ``task`` is the task record that it was started from, where the executor kept it.
    """

    state: State
    exit_code: int | None = None
    detail: str = ""


class Executor(Protocol):
    """Starts, stops and inspects the containers of one type on one host.

    Every method but ``validate`` and ``ports`` may block, is called from several threads, and must end within a
    deadline of its own. An engine that fails, hangs or has just come up raises ExecutorError: unknown is never
    reported as ABSENT. Containers outlive the process that started them.
    """

    def validate(self, spec: Mapping[str, Any]) -> list[Problem]:
        """All that is wrong with a container's ``executor`` object; paths are relative to it. Pure, no I/O."""
        ...

    def ports(self, spec: Mapping[str, Any], port: int) -> frozenset[int]:
        """Host TCP ports that the container takes, ``port`` being the task's own (0: none). Pure, no I/O.

        They are taken for bound on every address. An executor that knows better, or binds ports of other protocols,
        also has ``bindings(spec, port) -> frozenset[Binding]`` (model.ports), which is then asked instead.
        """
        ...

    def start(self, task: Task, container: Container, env: Mapping[str, str]) -> Handle:
        """Start the container with ``env`` added to its environment. Returns once it runs.

        Idempotent by task id and container name: if it runs already, that one's handle is returned; a dead one
        is replaced. Raises Rejected if this host can't run it, ExecutorError otherwise; then nothing is left.
        """
        ...

    def stop(self, handle: Handle, grace: float) -> None:
        """Stop it with everything it left running: politely, after ``grace`` seconds by force; then remove it.

        Idempotent; a handle that is unknown or already stopped is fine. Nothing of it runs when this returns.
        """
        ...

    def inspect(self, handles: Iterable[Handle]) -> Mapping[Handle, Observation]:
        """The state of each handle, in one engine call where possible."""
        ...

    def recover(self) -> Mapping[Handle, Observation]:
        """Everything that an earlier agent of this host and store started and that still exists, dead or alive."""
        ...

    def tail(self, handle: Handle, lines: int) -> list[str]:
        """The last ``lines`` lines at most that the container wrote, stdout and stderr together, oldest first, without
        their ends; ``[]`` if nothing is kept. What is no UTF-8 is replaced. Also of one that has ended, until it is
        stopped. Raises ExecutorError. Core gets along with an executor that lacks this method.
        """
        ...

    def watch(self, notify: Callable[[], None]) -> None:
        """Call ``notify`` from a thread of its own soon after any container may have ended. May miss some (the
        agent also looks now and then). Returns at once; called once."""
        ...

    def close(self) -> None:
        """End threads and connections, leave the containers running. Idempotent."""
        ...
