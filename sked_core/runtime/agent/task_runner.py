"""Starting and stopping the containers of one task. Blocking: called from the agent's threads, one step at a time."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

from sked_core.as_user import Account, chosen, clean_environment, spawn
from sked_core.clock import Clock
from sked_core.errors import ExecutorError, Rejected, SkedError, Unavailable
from sked_core.interfaces.executor import Executor, Handle, State
from sked_core.interfaces.failpoints import failpoint
from sked_core.interfaces.health import HealthProvider
from sked_core.interfaces.secrets import MAX_SECRET_BYTES
from sked_core.model.environment import task_environment
from sked_core.model.policy import SetupGate, refusal
from sked_core.model.ports import Binding, port_name
from sked_core.model.secret_refs import without
from sked_core.model.spec import plain
from sked_core.model.types import Container, Task, TaskId
from sked_core.runtime.agent.host_facts import Machine
from sked_core.runtime.agent.policing import Policing
from sked_core.runtime.agent.task_secrets import TaskSecrets
from sked_core.runtime.plugins.answers import handle_of, observations_of

log = logging.getLogger("sked.agent")
SETUP_SECONDS = 600.0
"""Longest time that one setup command may take."""
SETUP_CHARACTERS = 300
"""How much of what a setup command wrote last is told when it fails."""
SLICE_SECONDS = 0.2
"""Between two looks whether a setup command that runs is still wanted."""
MOST_LINES, TAIL_LINES, TAIL_CHARACTERS = 40, 20, 500
"""How much of what a task wrote last is read, how many lines of that are kept with a failure, and how long each is."""
SLOW_SECONDS, SPARED_SECONDS = 2.0, 60.0
"""An executor that takes so long to tell what was written is not asked again for so long: stops wait for it."""

Said = Sequence[Sequence[str]]
"""The last lines of each container of a task."""


@dataclass(frozen=True, slots=True)
class Held:
    """A handle and the executor type that it belongs to."""

    type: str
    handle: Handle


class TaskRunner:
    """Runs tasks by ``executors`` (by type) and keeps their registration with ``health`` in step.

    Both as far as ``policing`` allows it then. ``unchecked`` is called, from any thread, with a task that runs, and
    why some of its checks don't.
    """

    def __init__(
        self,
        executors: Mapping[str, Executor],
        health: HealthProvider,
        machine: Machine,
        *,
        stop_grace: float,
        clock: Clock,
        secrets: TaskSecrets,
        policing: Policing,
        unchecked: Callable[[TaskId, str], None] = lambda *_: None,
    ) -> None:
        self._executors, self._health, self._machine, self._grace = executors, health, machine, stop_grace
        self._clock, self._secrets, self._policing, self._unchecked = clock, secrets, policing, unchecked
        self.masks = secrets.masks
        """Which take the secrets of a task out of what tells of it."""
        self._spared: dict[str, float] = {}

    def start(self, task: Task, bindings: frozenset[Binding], leftovers: Sequence[Held], call_off: Event) -> list[Held]:
        """Start every container in order; returns what runs. Its health is registered afterwards (``register``).

        Removes ``leftovers`` first, and reads its secrets. Raises Rejected if the policy denies it, it may not have
        those, a stranger is in the way of one of ``bindings``, or an executor refuses, ExecutorError if a start or a
        setup command fails or ``call_off`` is set; nothing of the task is left then. What an executor does in its
        ``start`` goes on to its end all the same.
        """
        try:
            return self._start(task, bindings, leftovers, call_off)
        except (Exception, SystemExit) as error:
            # Whatever it is, and whatever it was raised from, may tell of what the executor was given.
            text = "".join(traceback.format_exception(error))
            if self.masks.mask(task.id, text) == text:
                raise
            told = self.masks.mask(task.id, str(error))
            if isinstance(error, Rejected):
                raise Rejected(told) from None
            raise ExecutorError(told, permanent=isinstance(error, ExecutorError) and error.permanent) from None

    def _start(
        self, task: Task, bindings: frozenset[Binding], leftovers: Sequence[Held], call_off: Event
    ) -> list[Held]:
        denied = self._policing.denials(task)
        secrets = {} if denied else self._secrets.give(task)
        self.stop(task.id, leftovers)
        if denied:
            raise refusal(denied)
        taken = self._machine.taken_ports(bindings)
        if taken:
            held = (f"port {port_name(one.number)} is taken on this host ({who})" for one, who in taken.items())
            raise Rejected("; ".join(held))
        env = task_environment(task)
        started: list[Held] = []
        try:
            for container in task.task_definition.containers:
                given = env | secrets.get(container.name, {})
                run_setup(container, given, call_off, self._policing.policy.setup, partial(self.masks.mask, task.id))
                if call_off.is_set():
                    raise ExecutorError("it is not wanted any more")
                executor = self._executors[container.type]
                handle = handle_of(executor.start(task, without(container), given), container.type, task.id)
                started.append(Held(container.type, handle))
                failpoint("started")
        except BaseException:
            self._stop_containers(started)
            raise
        return started

    def register(self, task: Task) -> bool:
        """Register the health of a running task; False where that could not be done now (it is tried again). Checks
        that the policy denies by now are left out."""
        allowed, denied = self._policing.checks(task)
        if denied:
            self._unchecked(task.id, str(refusal(denied)))
        try:
            self._health.register(allowed)
        except Unavailable as error:
            log.warning("%s runs, but its health is not registered yet: %s", task.id, error)
            return False
        return True

    def tail(self, held: Sequence[Held], task: Task | None = None) -> Said:
        """The last lines that each container of ``task`` wrote, fit to be shown; what can't be had now is left out."""
        found = []
        for one in held:
            read = getattr(self._executors.get(one.type), "tail", None)
            began = self._clock.monotonic()
            if read is None or began < self._spared.get(one.type, 0.0):
                continue
            try:
                lines = read(one.handle, max(1, MOST_LINES // len(held)))
                fit = self._secrets.fit(task, one.handle.task_id, [str(line) for line in lines])
                found.append([plain(line[:TAIL_CHARACTERS]) for line in fit])
            except Exception as error:  # noqa: BLE001 - that it failed is worse than that nobody knows what it said
                log.debug("what %s of %s wrote is not known: %s", one.handle.container, one.handle.task_id, error)
            if self._clock.monotonic() - began > SLOW_SECONDS:
                self._spared[one.type] = self._clock.monotonic() + SPARED_SECONDS
        return found

    def leftovers(self, task: Task) -> dict[Held, bool] | None:
        """What exists of a task whose start failed, and whether it runs; None if that can't be told now."""
        found: dict[Held, bool] = {}
        rank = {(one.type, one.name): number for number, one in enumerate(task.task_definition.containers)}
        for kind in sorted({kind for kind, _ in rank} & self._executors.keys()):
            try:
                for handle, seen in observations_of(self._executors[kind].recover(), kind).items():
                    if handle.task_id == task.id:
                        found[Held(kind, handle)] = seen.state is State.RUNNING
            except ExecutorError as error:
                log.warning("what is left of a start of %s is not known: %s", task.id, error)
                return None
        return dict(sorted(found.items(), key=lambda item: rank.get((item[0].type, item[0].handle.container), -1)))

    def stop(self, task_id: TaskId, held: Sequence[Held]) -> None:
        """Deregister the task, then stop its containers, last started first. Raises ExecutorError."""
        if held:
            self.deregister(task_id)
            failpoint("deregistered")
            self._stop_containers(held)
            failpoint("stopped")

    def deregister(self, task_id: TaskId) -> None:
        """Take the task out of service discovery, as far as that can be done now."""
        try:
            self._health.deregister(task_id)
        except SkedError as error:
            log.warning("%s is still registered: %s", task_id, error)

    def _stop_containers(self, held: Sequence[Held]) -> None:
        failure: SkedError | None = None
        for one in reversed(held):
            try:
                self._executors[one.type].stop(one.handle, self._grace)
            except SkedError as error:  # the others are stopped all the same
                failure = error
        if failure is not None:
            raise failure


def shortened(said: Said, lines: int) -> list[str]:
    """The last ``lines`` at most of what containers said, as many of each."""
    each = max(1, lines // max(1, len(said)))
    return [line for one in said for line in one[-each:]][-lines:]


def run_setup(
    container: Container, env: Mapping[str, str], call_off: Event, gate: SetupGate, mask: Callable[[str], str]
) -> None:
    """Run the setup commands of ``container`` on this host as the user whom ``gate`` names, in order, in an empty
    folder that is gone afterwards: what is to last is written to an absolute path. ``mask``: for what they wrote.

    Raises ExecutorError with the end of the output at the first one that fails or takes longer than SETUP_SECONDS,
    or as soon as ``call_off`` is set; Rejected where there is no such user any more.
    """
    if not container.setup:
        return
    try:
        who = chosen(gate.user, root=gate.root)
    except PermissionError as error:
        raise Rejected(f"setup of {container.name}: {error}") from None
    with tempfile.TemporaryDirectory(prefix="sked-setup-", ignore_cleanup_errors=True) as outer:
        folder = Path(outer) / "work"
        folder.mkdir(mode=0o700)
        if who.uid != os.geteuid():
            # In one of the agent's: a user may replace its own folder in /tmp, also by a link to a folder that it can't
            # reach, and the next command begins there before it is that user's.
            Path(outer).chmod(0o711)
            os.chown(folder, who.uid, who.gid)
        for command in container.setup:
            code, said = _run_command(command, who, clean_environment(who) | dict(env), folder, call_off)
            if call_off.is_set():
                raise ExecutorError(f"setup of {container.name} was ended: it is not wanted any more")
            if code is None:
                raise ExecutorError(f"setup of {container.name} took longer than {SETUP_SECONDS:g} s: {command}")
            if code != 0:
                told = mask(said)[-SETUP_CHARACTERS:].strip()
                raise ExecutorError(f"setup of {container.name} failed (exit {code}): {command}: {told}")


def _run_command(
    command: str, who: Account, env: Mapping[str, str], folder: Path, call_off: Event
) -> tuple[int | None, str]:
    """The exit code, None if it had to be killed, and the end of what it said."""
    with tempfile.TemporaryFile() as output:  # not a pipe: whatever it leaves in the background may keep that open
        process = spawn(
            ["bash", "-c", command],
            who,
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        slices = int(SETUP_SECONDS / SLICE_SECONDS)
        while process.returncode is None and slices and not call_off.is_set():
            slices -= 1
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SLICE_SECONDS)
        if (code := process.returncode) is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        size = output.seek(0, os.SEEK_END)
        output.seek(
            max(0, size - SETUP_CHARACTERS - MAX_SECRET_BYTES)
        )  # no secret is to be cut in two before it is masked
        return code, output.read().decode("utf-8", "replace").strip()
