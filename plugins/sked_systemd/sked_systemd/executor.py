"""The executor ``systemd``: a container is a transient unit, which systemd keeps whatever becomes of the agent."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from sked_core.plugin import (
    Container,
    Denial,
    ExecutorContext,
    ExecutorError,
    Handle,
    LogLine,
    LogQuery,
    Observation,
    Problem,
    Rejected,
    State,
    Stop,
    Task,
    TaskId,
    digest,
    refusal,
    with_port,
)
from sked_systemd import journal
from sked_systemd.spec import SystemdPolicy, SystemdSpec, denials, problems, properties_of
from sked_systemd.units import UNTOLD, Unit, Units

START_SECONDS = 15.0
"""How long another start of the same container may be under way."""
LOOK_SECONDS = 2.0
"""Between two looks whether something has ended: systemd's own signals would take a client of D-Bus."""
KILL_SECONDS = 15.0
"""How long processes may take to be gone once they were killed."""


class SystemdExecutor:
    """Starts units with `systemd-run`, and knows them again by name and description: it keeps nothing itself."""

    spec_type = SystemdSpec
    policy_type = SystemdPolicy

    def __init__(self, context: ExecutorContext) -> None:
        self._units = Units(context.host, context.store_uid)
        self._folder = context.state_dir
        self._closed = threading.Event()
        self._policy = context.policy
        self._section = context.policy.section("systemd", SystemdPolicy)

    def validate(self, spec: Mapping[str, Any]) -> list[Problem]:
        return problems(spec)

    def ports(self, spec: Mapping[str, Any], port: int) -> frozenset[int]:
        return frozenset({port} if port else ())

    def denials(self, task: Task, container: Container) -> list[Denial]:
        spec = self._spec(container)
        return denials(self._section, spec) if spec is not None else []

    def start(self, task: Task, container: Container, env: Mapping[str, str]) -> Handle:
        name = self._units.name(task.id, container.name)
        deadline = time.monotonic() + START_SECONDS
        while True:
            unit, failure = self._units.one(name), ""
            if unit is None or not unit.running:
                if unit is not None:
                    self._remove(unit, 0)
                failure = self._run(name, task, container, env)
                unit = self._units.one(name)
            if unit is not None and (unit.running or not failure):
                return unit.handle  # one that has ended already will be seen by whoever looks next
            if unit is not None:
                self._remove(unit, 0)
            crossed = failure in ("", UNTOLD) or "already" in failure
            if not crossed or time.monotonic() > deadline:
                raise ExecutorError(f"systemd did not start it: {failure or 'it was gone at once'}")
            time.sleep(0.05)  # another start of the same container is under way: its unit is about to be there

    def stop(self, handle: Handle, grace: float) -> None:
        unit = self._find(handle)
        if unit is not None:
            self._remove(unit, grace)

    def inspect(self, handles: Iterable[Handle]) -> Mapping[Handle, Observation]:
        wanted = list(handles)
        units = self._units.all() if wanted else {}
        found = {unit.handle.ref: unit.observation for unit in units.values()}
        return {handle: found.get(handle.ref, Observation(State.ABSENT)) for handle in wanted}

    def recover(self) -> Mapping[Handle, Observation]:
        return {unit.handle: unit.observation for unit in self._units.all().values()}

    def tail(self, handle: Handle, lines: int) -> list[str]:
        return self._units.last_lines(handle.ref, lines)

    def logs(self, handle: Handle, query: LogQuery, stop: Stop) -> Iterator[LogLine]:
        return journal.read(self._units, handle, query, stop, lambda: self._running(handle))

    def kept(self, task_id: TaskId) -> list[Handle]:
        return []

    def watch(self, notify: Callable[[], None]) -> None:
        threading.Thread(target=self._look_out, args=(notify,), name="systemd-watch", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _look_out(self, notify: Callable[[], None]) -> None:
        running: set[str] = set()
        ended: set[str] = set()
        while not self._closed.wait(LOOK_SECONDS):
            with contextlib.suppress(ExecutorError):  # nothing is known, and so nothing to be told
                units = self._units.all().values()
                run_now = {unit.handle.ref for unit in units if unit.running}
                ended_now = {unit.handle.ref for unit in units} - run_now
                if running - run_now or ended_now - ended:
                    notify()
                running, ended = run_now, ended_now

    def _spec(self, container: Container) -> SystemdSpec | None:
        return None if problems(container.executor) else msgspec.convert(container.executor, SystemdSpec)

    def _run(self, name: str, task: Task, container: Container, env: Mapping[str, str]) -> str:
        spec = self._spec(container)
        if spec is None:
            raise Rejected("; ".join(f"executor.{one.path}: {one.message}" for one in problems(container.executor)))
        if found := denials(self._section, spec):
            raise refusal(found)
        if os.geteuid() != 0:
            raise Rejected("only root may start units: run the agent as root, or its tasks with another executor")
        variables = {**{key: with_port(value, task.port) for key, value in spec.env.items()}, **env}
        file = self._folder / f"{name}.env"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w") as out:
                out.write("".join(f"{key}={_quoted(value)}\n" for key, value in variables.items()))
            properties = properties_of(self._policy, spec, task, container) | {"EnvironmentFile": str(file)}
            properties["SyslogIdentifier"] = task.id
            description = self._units.description(task.id, container.name, digest(task))
            return self._units.run(name, description, properties, ["/bin/sh", "-c", spec.start])
        except OSError as error:
            raise ExecutorError(f"{file} can't be written: {error.strerror}") from None
        finally:
            with contextlib.suppress(OSError):
                file.unlink()  # systemd has read it, and it may hold secrets

    def _remove(self, unit: Unit, grace: float) -> None:
        """End all of it and have systemd forget it. Raises ExecutorError unless it is gone."""
        if not self._units.stop(unit.name, wait=grace):
            self._units.kill(unit.name)
        deadline = time.monotonic() + KILL_SECONDS
        while (now := self._units.one(unit.name)) is not None and now.handle.ref == unit.handle.ref:
            if now.observation.state is State.EXITED:
                self._units.stop(unit.name, wait=1.0)
                self._units.forget(unit.name)
            elif time.monotonic() > deadline:
                raise ExecutorError(f"{unit.name} does not end: something of it can't be killed")
            else:
                self._units.kill(unit.name)
            time.sleep(0.02)

    def _find(self, handle: Handle) -> Unit | None:
        """The unit that ``handle`` stands for; not a later one of the same container."""
        unit = self._units.one(self._units.name(handle.task_id, handle.container))
        return unit if unit is not None and unit.handle.ref == handle.ref else None

    def _running(self, handle: Handle) -> bool:
        unit = self._find(handle)
        return unit is not None and unit.running


def _quoted(value: str) -> str:
    """As EnvironmentFile= reads it (systemd.exec(5)): in double quotes, where these four signs are escaped."""
    for sign in '\\"$`':
        value = value.replace(sign, "\\" + sign)
    return f'"{value}"'
