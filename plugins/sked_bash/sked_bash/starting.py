"""What an executor starts: the processes of a container, its stop command, and commands beside it, each as the user and
in the control groups that it belongs to."""

from __future__ import annotations

import errno
import logging
import os
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import msgspec

from sked_bash import groups, logs
from sked_bash import record as records
from sked_bash.artifact import ArtifactFolder
from sked_bash.groups import Groups
from sked_bash.instance import Instance
from sked_bash.processes import ProcessTable, identify
from sked_bash.record import Record
from sked_bash.rights import BashPolicy
from sked_bash.spec import BashSpec
from sked_bash.tree import end_tree
from sked_core.plugin import (
    Account,
    Container,
    Denial,
    ExecutorError,
    Limits,
    Rejected,
    Task,
    account,
    failpoint,
    own_account,
    spawn,
)

SEARCHED = 0o711
"""The mode of folders that users of tasks pass through on the way to their own: they can't list them."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Spawn:
    """How the commands of one container are started: as ``who``, in ``part`` of the groups in ``folders``."""

    who: Account
    folders: Sequence[str]
    part: str
    new_privileges: bool

    def __call__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        stdin: int | IO[bytes],
        stdout: int | IO[bytes],
        stderr: int | IO[bytes],
        pass_fds: tuple[int, ...] = (),
    ) -> subprocess.Popen[bytes]:
        entry = groups.entry(self.folders, self.part)
        try:
            return spawn(
                argv,
                self.who,
                env=env,
                cwd=cwd,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=pass_fds,
                new_privileges=self.new_privileges,
                before=partial(groups.join_by_thread, self.folders, self.part) if entry < 0 else None,
                entry=entry,
            )
        finally:
            if entry >= 0:
                os.close(entry)


class Starter:
    """Starts what the policy allows; what may be asked for was judged by the caller."""

    def __init__(
        self,
        scope: str,
        root: Path,
        table: ProcessTable,
        policy: BashPolicy,
        limits: Limits,
        artifacts: ArtifactFolder,
    ) -> None:
        self._artifacts = artifacts
        self._scope, self._root, self._table, self._policy, self._limits = scope, root, table, policy, limits
        self._usable: Groups | None = None
        self._finding = threading.Lock()

    def usable(self) -> Groups:
        """Where control groups can be made; looked for once, and said where not all that can be limited is."""
        with self._finding:
            if self._usable is None:
                self._usable = groups.here() if self._policy.cgroups != "off" else Groups(lacks="the policy says off")
                if self._usable.lacks:
                    _log.warning("bash tasks are not limited in all that they use: %s", self._usable.lacks)
            return self._usable

    def denials(self) -> list[Denial]:
        """What is denied because this host has no control groups."""
        if self._policy.cgroups != "required" or {"memory", "pids"} <= self.usable().controllers:
            return []
        what = f"control groups are required, and can't be used here: {self.usable().lacks}"
        return [Denial("bash.cgroups", what, "bash: {cgroups: auto}")]

    def launch(
        self, folder: Path, record: Record, spec: BashSpec, argv: list[str], who: Account, limits: groups.Limits,
        secrets: Mapping[str, str], clear: Callable[[Path], None],
    ) -> Instance:  # fmt: skip
        """Start the container of ``record`` in ``folder``. ``secrets``: what of its environment is not on record.
        Raises ExecutorError or Rejected; nothing runs then, and ``clear`` was called for what was begun. Where somebody
        else holds the lock it is not: the folder is theirs."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with records.locked(folder) as lock:
                try:
                    return self._launch(folder, record, spec, argv, who, limits, secrets, lock)
                except BaseException:
                    clear(folder)
                    raise
        except OSError as error:
            raise ExecutorError(
                f"cannot start {record.task_id}/{record.container}: {error.strerror or error}",
                permanent=error.errno == errno.E2BIG,
                hint=f"check space and permissions of {self._root}, and the limits on processes and open files",
            ) from error

    def _launch(
        self, folder: Path, record: Record, spec: BashSpec, argv: list[str], who: Account, limits: groups.Limits,
        secrets: Mapping[str, str], lock: int,
    ) -> Instance:  # fmt: skip
        logs.begin(folder, record.nonce)
        self._make_room(folder, spec, who)
        record = msgspec.structs.replace(record, groups=self._new_groups(record, limits))
        process = None
        try:
            records.save(folder, record)
            failpoint("recorded")
            process = self._popen(
                folder, record, dict(record.env) | dict(secrets), argv, self._spawn(who, record, groups.MAIN), lock
            )
            failpoint("spawned")
            identity = identify(process.pid)
            if identity is None:  # can't be: it is our child, and not reaped
                raise ExecutorError("the process vanished while it was started")
            record = msgspec.structs.replace(record, pid=identity.pid, started=identity.started)
            records.save(folder, record)
            instance = Instance(folder, record, self._table, process, secrets)
            instance.watch_main()
        except BaseException:
            if process is not None:
                process.kill()
                process.wait()
                end_tree(Instance(folder, record, self._table).left, 0)
            groups.remove(record.groups)
            raise
        return instance

    def _make_room(self, folder: Path, spec: BashSpec, who: Account) -> None:
        """A new working folder of the task's user, who may pass through those above it but not look into them."""
        work = folder / records.WORK
        if work.exists():
            shutil.rmtree(work)
        other = who.uid != os.geteuid()
        self._artifacts.put(spec.source, work, who if other else None)
        if not other:
            return
        for one in (folder, *list(folder.parents)[:3]):
            one.chmod(SEARCHED)
        closed = who.closed(work)
        if closed:
            remedy = f"chmod o+x {shlex.join(closed)}"
            raise Rejected(f"user {who.name} can't reach its task's folder: on this host, {remedy}")

    def _new_groups(self, record: Record, limits: groups.Limits) -> list[str]:
        try:
            return self.usable().create(f"{self._scope}-{record.nonce}", limits)
        except OSError as error:
            if self._policy.cgroups == "required":
                raise
            _log.warning("%s runs without limits: no control group for it: %s", record.task_id, error)
            return []

    def _spawn(self, who: Account, record: Record, part: str) -> Spawn:
        return Spawn(who, record.groups, part, self._policy.new_privileges)

    def beside(self, instance: Instance) -> Spawn:
        """How commands are started that are no part of what decides whether the container runs. Raises ExecutorError
        where its user is not allowed, or not there, any more."""
        record = instance.record
        try:
            who = account(record.user) if record.user else own_account()
        except LookupError as error:
            raise ExecutorError(str(error)) from None
        if record.uid not in (-1, who.uid):
            raise ExecutorError(f"{record.user} is another user now than when the task was started")
        if who.uid == 0 and not self._policy.root:
            raise ExecutorError("the task runs as root, and the host's policy says bash: {root: false}")
        return Spawn(who, instance.groups, groups.BESIDE, self._policy.new_privileges)

    def stop_command(self, instance: Instance, command: str) -> subprocess.Popen[bytes] | None:
        """Run the command that stops the container; None where that can't be done."""
        try:
            (instance.folder / records.WORK).mkdir(mode=0o700, exist_ok=True)
            argv = [shutil.which("bash") or "bash", "-c", command]
            return self._popen(instance.folder, instance.record, instance.env, argv, self.beside(instance))
        except (OSError, ExecutorError) as error:
            _log.warning("the stop command of %s can't be run: %s", instance.record.owner, error)
            return None

    def _popen(
        self, folder: Path, record: Record, env: Mapping[str, str], argv: list[str], start: Spawn, *pass_fds: int
    ) -> subprocess.Popen[bytes]:
        output = logs.open_log(folder)
        try:
            return start(
                argv,
                cwd=folder / records.WORK,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=pass_fds,
            )
        finally:
            os.close(output)

    def limits(self, task: Task, container: Container) -> groups.Limits:
        """What a container may use: what it asks for, or the task where that is all of it, or else what the policy
        gives those that ask for nothing, which is never more than may be asked for."""
        definition, policy = task.task_definition, self._limits
        alone = len(definition.containers) == 1
        memory = container.memory or (definition.memory if alone else 0) or policy.default_memory
        memory = min(memory or policy.max_memory, policy.max_memory) if policy.max_memory else memory
        cpu_units = container.cpu_units or (definition.cpu_units if alone else 0) or policy.max_cpu_units
        return groups.Limits(memory, cpu_units, policy.pids)
