"""What all tests of the Executor contract need: executors of one host and store, tasks, and looks past the executor."""

from __future__ import annotations

import itertools
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sked_core.errors import ExecutorError, Rejected
from sked_core.interfaces.executor import (
    CommandRunner,
    ExecutorContext,
    Handle,
    LogSource,
    Observation,
    Policed,
    State,
)
from sked_core.model.policy import Policy
from sked_core.model.types import Cluster, Container, Task, TaskDefinition
from sked_core.testing.executor_contract.afar import CommandContract, LogContract
from sked_core.testing.needed import SampleTests
from sked_core.testing.samples import ExecutorSample, Spec

MARK = "SKED_TEST"
"""The variable by which the processes of what a test starts are found: the rig's own word, and the call's number."""
CONTAINER = "main"


class Guarded:
    """An executor that may raise nothing but what the port allows."""

    def __init__(self, executor: Any) -> None:
        self.inner = executor

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not callable(found) or isinstance(found, type):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            try:
                return found(*arguments, **named)
            except (Rejected, ExecutorError) as error:
                assert name not in ("validate", "ports", "bindings"), f"{name} raised {error!r}; it may raise nothing"
                raise
            except Exception as error:
                told = f"{name} raised {type(error).__name__}: {str(error)[:300]}"
                raise AssertionError(f"{told}; only Rejected and ExecutorError may come of it") from error

        return call


class Rig:
    """Executors that share a folder, as those of one agent after another do, and the tasks that they run."""

    def __init__(self, sample: ExecutorSample, folder: Path, patience: float) -> None:
        self.sample, self.folder, self.patience = sample, folder, patience
        self.token = "kit" + secrets.token_hex(6)
        self.context = ExecutorContext("host-1", f"store-{self.token}", folder / "state")
        self._contexts = [self.context]
        self._numbers = itertools.count(1)
        self._made: list[Any] = []

    def executor(self, **context_fields: Any) -> Any:
        """One more executor, of the rig's host and store unless told otherwise. Its policy allows everything."""
        context = self.context_of(**context_fields)
        if context not in self._contexts:
            self._contexts.append(context)
        self._made.append(self.sample.make(context))
        return Guarded(self._made[-1])

    def context_of(
        self, *, host: str = "", store: str = "", policy: Policy | None = None, folder: Path | None = None
    ) -> ExecutorContext:
        return replace(
            self.context,
            host=host or self.context.host,
            store_uid=store or self.context.store_uid,
            policy=policy or open_policy(self.sample),
            state_dir=folder or self.context.state_dir,
        )

    def task(
        self, spec: Spec | None = None, instance: int = 0, tags: Sequence[str] = (), port: int = 0, **fields: Any
    ) -> Task:
        """One with a single container of ``spec``, else of the one that stays."""
        given = dict(self.sample.stays if spec is None else spec)
        container = Container(name=CONTAINER, type=self.sample.type, executor=given, **fields)
        definition = TaskDefinition(name="kit", version=1, containers=[container], tags=list(tags))
        names = {"cluster": Cluster(name=self.token), "service": "s", "host": self.context.host}
        return Task(task_definition=definition, instance=instance, port=port, **names)  # type: ignore[arg-type]

    def env(self) -> dict[str, str]:
        """What a start is given, another one with each call."""
        return {MARK: f"{self.token}.{os.getpid()}-{next(self._numbers)}"}

    def start(self, executor: Any, task: Task, env: Mapping[str, str] | None = None) -> Handle:
        given = {**self.env(), **(env or {})}
        handle = executor.start(task, task.task_definition.containers[0], given)
        assert isinstance(handle, Handle), f"start returned {handle!r:.200}"
        return handle

    def shell(self, executor: Any, script: str, instance: int = 0, **fields: Any) -> Handle:
        return self.start(executor, self.task(self.script(script), instance, **fields))

    def script(self, text: str) -> Spec:
        if self.sample.script is None:
            pytest.skip("the sample has no `script`: no container that does what a test tells it to")
        return self.sample.script(text)

    def seen(self, executor: Any, handle: Handle) -> Observation:
        found: Observation = executor.inspect([handle])[handle]
        return found

    def recovered(self, executor: Any, task: Task) -> dict[Handle, Observation]:
        """What an executor finds again of one task."""
        return {handle: seen for handle, seen in executor.recover().items() if handle.task_id == task.id}

    def until(self, look: Callable[[], Any], what: str) -> Any:
        """What ``look`` returns, once that is true."""
        deadline = time.monotonic() + self.patience
        while not (found := look()):
            assert time.monotonic() < deadline, f"not within {self.patience:g} s: {what}"
            time.sleep(0.02)
        return found

    def ended(self, executor: Any, handle: Handle) -> Observation:
        """What became of a container, once it has ended."""
        self.until(lambda: self.seen(executor, handle).state is not State.RUNNING, "a container that ends by itself")
        return self.seen(executor, handle)

    def processes(self, extra: bytes = b"") -> dict[int, str]:
        """The number of the start by pid, of all processes of this machine that have the mark of this rig."""
        found = {}
        mark = f"{MARK}={self.token}.".encode()
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                variables = path.read_bytes().split(b"\0")
            except OSError:
                continue  # it has ended, or is not ours to look at
            number = next((one.removeprefix(mark) for one in variables if one.startswith(mark)), None)
            if number is not None and (not extra or extra in variables):
                found[int(path.parts[2])] = number.decode()
        return found

    def visible(self, executor: Any, handle: Handle) -> bool:
        """Whether the processes of a container that runs can be seen by the mark in their environment."""
        end = time.monotonic() + 2
        while not self.processes():
            if time.monotonic() > end or self.seen(executor, handle).state is not State.RUNNING:
                return False
            time.sleep(0.02)
        return True

    def once(self, situation: str) -> None:
        """Nothing runs but what one start brought, as far as that can be looked up past the executor."""
        assert len(set(self.processes().values())) <= 1, f"{situation}: it runs twice: {self.processes()}"
        if self.sample.census is not None:
            there = self.sample.census(self.context)
            assert there == 1, f"{situation}: there are {there} containers, not one"

    def nothing_left(self, situation: str) -> None:
        """There is nothing of this rig any more, as far as that can be looked up past the executor."""
        assert not self.processes(), f"{situation}: processes are left: {self.processes()}"
        for context in self._contexts if self.sample.census is not None else ():
            there = self.sample.census(context)  # type: ignore[misc]
            assert there == 0, f"{situation}: {there} containers are left of host {context.host}"

    def close(self) -> None:
        """End all that is left, and say so if that can't be done. First those that may still take note of an end: no
        two agents of one host live at once."""
        for executor in self._made:
            executor.close()
        for context in list(self._contexts):
            last = self.sample.make(replace(context, policy=open_policy(self.sample)))
            for handle in last.recover():
                last.stop(handle, 0)
            last.close()
        self.nothing_left("all that recover found was stopped")


class KitBase(SampleTests):
    """``patience``: seconds after which a container or call that does not end is a failure. ``kills``: how many
    moments of a start, and of a stop, a process is killed at."""

    sample: ClassVar[ExecutorSample]
    patience: ClassVar[float] = 120.0
    kills: ClassVar[int] = 40

    @pytest.fixture
    def rig(self, tmp_path: Path) -> Iterator[Rig]:
        rig = Rig(self.sample, tmp_path, self.patience)
        yield rig
        rig.close()

    @pytest.fixture
    def executor(self, rig: Rig) -> Any:
        return rig.executor()

    @pytest.fixture
    def run(self, request: pytest.FixtureRequest, rig: Rig, executor: Any) -> Callable[[str], Handle]:
        """For the contracts of logs and commands."""
        parts = {LogContract: "logs", CommandContract: "exec"}
        wanted = [name for part, name in parts.items() if hasattr(part, request.node.originalname)]
        need(self.sample, "script", *wanted)
        return lambda script: rig.shell(executor, script)


def open_policy(sample: ExecutorSample) -> Policy:
    """One that allows this executor everything."""
    kind = _policy_type(sample)
    sections = {} if kind is None else {sample.type: kind.development()}
    return Policy(executors=[sample.type], sections=sections)


def _policy_type(sample: ExecutorSample) -> Any:
    executor = sample.make(ExecutorContext("host-1", "", Path("/nonexistent/sked-kit")))
    executor.close()
    return executor.policy_type if isinstance(executor, Policed) else None


def capabilities(sample: ExecutorSample) -> Mapping[str, bool]:
    """What the executor offers, and what its sample lets a test try, by name. What is false is skipped."""
    executor: Any = sample.make(ExecutorContext("host-1", "", Path("/nonexistent/sked-kit")))
    try:
        return {
            "tail": hasattr(executor, "tail"),
            "logs": isinstance(executor, LogSource),
            "exec": isinstance(executor, CommandRunner),
            "policed": isinstance(executor, Policed),
            "bindings": hasattr(executor, "bindings"),
            "attributes": hasattr(executor, "attributes"),
            "spec_type": hasattr(executor, "spec_type"),
            **{
                name: bool(getattr(sample, name))
                for name in (
                    *("script", "unstartable", "denied", "listens", "limits"),
                    *("census", "hung_engine", "lost_answers", "outlives"),
                )
            },
        }
    finally:
        executor.close()


OFFERED = ("tail", "logs", "exec", "policed", "bindings", "attributes", "spec_type")
"""What of them is the executor's, and not the sample's."""


def need(sample: ExecutorSample, *names: str) -> None:
    """Skip the test that calls unless all of these ``capabilities`` are there."""
    offered = capabilities(sample)
    for name in names:
        if not offered[name]:
            whose = "the executor offers no" if name in OFFERED else "the sample has no"
            pytest.skip(f"{whose} `{name}`")


def together(*calls: Callable[[], object]) -> list[object]:
    """Run ``calls`` at once, each in a thread: what each returned, or the exception that it raised."""
    with ThreadPoolExecutor(len(calls)) as pool:
        running = [pool.submit(call) for call in calls]
    return [done.exception() or done.result() for done in running]
