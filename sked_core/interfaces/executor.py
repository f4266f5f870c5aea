"""The port to whatever runs containers: Docker's engine, plain processes, any plugin."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from sked_core.errors import Problem
from sked_core.model.policy import Denial, Policy
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
    policy: Policy = field(default_factory=Policy)


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


MAX_LINE_BYTES = 64 * 1024
"""A line that is longer comes as several ones."""


class Stop(threading.Event):
    """An event that also calls, for what waits in a way that no event can end."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[Callable[[], None]] = []
        self._adding = threading.Lock()

    def set(self) -> None:
        with self._adding:
            super().set()
            calls, self._calls = self._calls, []
        for call in calls:
            call()

    def call(self, function: Callable[[], None]) -> None:
        """Call ``function`` once this is set, from the thread that sets it; at once where it is set already."""
        with self._adding:
            if not self.is_set():
                self._calls.append(function)
                return
        function()


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that a container wrote, without its end. ``stream``: ``stdout``, ``stderr``, ``""`` where both are kept
    together, or ``note``: said by Sked, such as how much is missing here. ``at``: UTC, when it was written, or read
    where no time is kept; ``""``: not known. ``cursor``: where to go on behind it, for LogQuery.after."""

    text: str
    stream: str = ""
    at: str = ""
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which lines: the last ``lines`` at most (-1: all that are kept), or those behind the cursor ``after``.

    ``follow``: go on with those that are being written until the container has ended. ``previous``: those of the
    instance before this one, started from the same task on this host; nothing where none is kept.
    """

    lines: int = -1
    after: str = ""
    follow: bool = False
    previous: bool = False


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """A command to be run beside the container's own. ``tty``: with a terminal of ``rows`` and ``columns``, which calls
    itself ``term``; both streams come as ``stdout`` then."""

    command: tuple[str, ...]
    tty: bool = False
    rows: int = 24
    columns: int = 80
    term: str = ""


class ExecProcess(Protocol):
    """A command that runs in a container. One thread may read while another writes; ``close`` ends both."""

    def read(self) -> tuple[str, bytes] | None:
        """What it wrote next, at most 64 KiB, and whether to ``stdout`` or ``stderr``. Waits for it; None once it has
        ended and all was read, or after ``close``."""
        ...

    def write(self, data: bytes) -> None:
        """Give it ``data`` as input; returns once it was taken. Nothing happens where it reads no more."""
        ...

    def close_input(self) -> None:
        """No more input comes. Idempotent."""
        ...

    def resize(self, rows: int, columns: int) -> None:
        """Its terminal has another size now."""
        ...

    def wait(self) -> int:
        """The exit code, 128 and the signal's number for a killed one. To be called once ``read`` gave None."""
        ...

    def close(self) -> None:
        """Hang up: what still runs is ended as far as the engine can. From any thread; idempotent."""
        ...


class Executor(Protocol):
    """Starts, stops and inspects the containers of one type on one host.

    Every method but ``validate`` and ``ports`` may block, is called from several threads, and must end within a
    deadline of its own. An engine that fails, hangs or has just come up raises ExecutorError: unknown is never
    reported as ABSENT. Containers outlive the process that started them.

    One that takes its specs as a msgspec struct may name it as ``spec_type``: `sked schema` describes it then. One that
    knows what the host can and others can't has ``attributes() -> Mapping[str, str]``, which its agent tells of it.
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


@runtime_checkable
class Policed(Protocol):
    """What an executor is as well whose containers can ask for more than others may have.

    ``policy_type``: a frozen msgspec struct without unknown fields, its section of the policy file; ``policy_type()``
    denies all that can be denied, and its class method ``development()`` gives the one for one's own machine; a method
    ``doubts()``, if it has one, returns lines on what it says that can't be meant on this host. The executor's
    ``start`` has to raise Rejected with the denials, having judged what it then really starts: between a look and a
    start anything may change. One that is not Policed runs whatever it is given, once the file names it.
    """

    policy_type: type[Any]

    def denials(self, task: Task, container: Container) -> list[Denial]:
        """All that ExecutorContext.policy does not allow, as the container would be started now, its port filled in.
        Starts nothing; may look at files. ``[]`` for one that is not valid: that is said elsewhere."""
        ...


@runtime_checkable
class LogSource(Protocol):
    """What an executor is as well whose containers' output can be read from afar. May block, as above."""

    def logs(self, handle: Handle, query: LogQuery, stop: Stop) -> Iterator[LogLine]:
        """Lines of the container, stdout and stderr in the order in which they were written as far as that is known,
        also of one that has ended. Returns soon after ``stop`` is set.

        A reader that is slow makes neither the container wait nor this process grow: what is not kept for so long
        is left out, and a ``note`` says so. Raises ExecutorError.
        """
        ...

    def kept(self, task_id: TaskId) -> list[Handle]:
        """Containers of a task that is gone from this host, of which ``logs`` still has something to tell."""
        ...


@runtime_checkable
class CommandRunner(Protocol):
    """What an executor is as well in whose containers commands can be run. May block, as above."""

    def exec(self, handle: Handle, request: ExecRequest) -> ExecProcess:
        """Run a command in a container that runs: in its environment and working folder, apart from what decides
        whether it is alive, and ended with it. Raises ExecutorError where the container does not run or the command
        can't be run at all; one that is not found may also end with 127.
        """
        ...
