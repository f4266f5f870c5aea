"""The ``bash`` executor: starts, finds again, inspects and stops plain processes on this host.

What they may use is limited by control groups, where there are any: a limit on the address space breaks programs that
reserve more than they use, and there is no other one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from sked_bash import commands, groups, logs, reading, rights
from sked_bash import record as records
from sked_bash.artifact import ArtifactFolder
from sked_bash.instance import Instance
from sked_bash.kept import KeptLogs
from sked_bash.processes import Looks, ProcessTable, Snapshot, boot_id
from sked_bash.record import Record
from sked_bash.rights import BashPolicy
from sked_bash.source import warnings_of
from sked_bash.spec import BashSpec, environment, parse, problems
from sked_bash.starting import Starter
from sked_bash.tree import end_tree
from sked_bash.watcher import Watcher
from sked_core.plugin import (
    Account,
    Container,
    Denial,
    ExecRequest,
    ExecutorContext,
    ExecutorError,
    Handle,
    HostCommand,
    LogLine,
    LogQuery,
    Observation,
    Problem,
    Rejected,
    State,
    Stop,
    SystemClock,
    Task,
    TaskId,
    digest,
    secret_variables,
)

_log = logging.getLogger(__name__)
_LEFTOVER_GRACE = 2.0  # seconds for what a failed instance left behind to end politely before a new one starts
MOST_DENIALS = 5
"""How many of them the reason of a rejection names."""
_SAFE = re.compile(r"[a-z0-9][a-z0-9-]{0,200}\Z")

Key = tuple[str, str]


class BashExecutor:
    """Executor of plain processes (see the port's docstrings for what each method promises).

    Everything lives below ``state_dir``/<scope>/<task id>/<container>/, the scope being a short hash of store and host:
    ``record.json``, ``lock``, ``output.log`` and its elders, and ``work/``, the current folder, new with every start.
    """

    spec_type = BashSpec
    policy_type = BashPolicy

    def __init__(self, context: ExecutorContext) -> None:
        self._scope = hashlib.sha256(f"{context.store_uid}\0{context.host}".encode()).hexdigest()[:12]
        self._root = context.state_dir / self._scope
        self._artifacts = ArtifactFolder(context.state_dir / "artifacts", context.policy.artifacts)
        self._table = ProcessTable()
        self._policy = context.policy.section("bash", BashPolicy)
        self._starter = Starter(
            self._scope, self._root, self._table, self._policy, context.policy.limits, self._artifacts
        )
        self._instances: dict[Key, Instance] = {}
        self._lock = threading.Lock()
        self._recovery = threading.Lock()
        self._recovered = False
        self._keys: weakref.WeakValueDictionary[Key, threading.Lock] = weakref.WeakValueDictionary()
        self._kept = KeptLogs()
        self._commands: weakref.WeakKeyDictionary[HostCommand, str] = weakref.WeakKeyDictionary()
        self._watching: Watcher | None = None

    def validate(self, spec: Mapping[str, Any]) -> list[Problem]:
        return [*problems(spec), *warnings_of(spec.get("artifact"))]

    def ports(self, spec: Mapping[str, Any], port: int) -> frozenset[int]:
        return frozenset({port} if port else ())

    def start(self, task: Task, container: Container, env: Mapping[str, str]) -> Handle:
        found = problems(container.executor)
        if found:
            raise Rejected("; ".join(str(problem) for problem in found))
        spec = parse(container.executor)
        denied = self._denials(spec, env)
        if denied:
            raise Rejected("\n".join(map(str, denied[:MOST_DENIALS])))
        who = rights.who(self._policy, spec)
        bash = shutil.which("bash")
        if bash is None:
            raise Rejected("bash is not installed on this host")
        self._recover_once()
        key = (task.id, container.name)
        with self._key_lock(key):
            current = self._find(key)
            if current is not None:
                self._watcher.settle([current])
                if current.running:
                    return current.handle
                self._end(current, _LEFTOVER_GRACE)
                self._forget(key, current)
            nonce = records.new_nonce()
            fresh = Record(
                scope=self._scope,
                task_id=task.id,
                container=container.name,
                digest=digest(task),
                nonce=nonce,
                boot_id=boot_id(),
                stop=spec.stop or "",
                user=who.name,
                uid=who.uid,
                withheld=secret_variables(task, container.name),
            )
            login = who.environment() if who.uid != os.geteuid() else {}
            whole = environment(os.environ, login, env, spec, fresh.mark)
            secrets = {name: whole.pop(name) for name in fresh.withheld if name in whole}
            fresh = msgspec.structs.replace(fresh, env=whole)
            limits = self._starter.limits(task, container)
            argv = [bash, "-c", spec.start]
            try:
                return self._launch(key, fresh, spec, argv, who, limits=limits, secrets=secrets)
            except records.Held:
                # Another agent of this host may have started it since it was looked for.
                current = self._find(key)
                if current is None or not current.running:
                    raise
                return current.handle

    def denials(self, task: Task, container: Container) -> list[Denial]:
        if problems(container.executor):
            return []
        return self._denials(parse(container.executor))

    def _denials(self, spec: BashSpec, provided: Iterable[str] = ()) -> list[Denial]:
        found = rights.denials(self._policy, spec, provided) + self._starter.denials()
        return found + (self._artifacts.denials(spec.source) if spec.source is not None else [])

    def stop(self, handle: Handle, grace: float) -> None:
        key = (str(handle.task_id), handle.container)
        if not all(_SAFE.match(part) for part in key):
            return
        self._recover_once()
        with self._key_lock(key):
            instance = self._find(key)
            if instance is None or instance.handle.ref != handle.ref:
                return
            self._end(instance, grace, command=instance.record.stop)
            self._forget(key, instance)
            self._clear(instance.folder)

    def inspect(self, handles: Iterable[Handle]) -> Mapping[Handle, Observation]:
        self._recover_once()
        known = {handle: self._known(handle) for handle in handles}
        self._watcher.settle([instance for instance in known.values() if instance])
        absent = Observation(State.ABSENT)
        return {handle: instance.observation() if instance else absent for handle, instance in known.items()}

    def recover(self) -> Mapping[Handle, Observation]:
        self._recover_once()
        instances = self._all()
        self._watcher.settle(instances)
        return {instance.handle: instance.observation() for instance in instances}

    def tail(self, handle: Handle, lines: int) -> list[str]:
        self._recover_once()
        instance = self._known(handle)
        try:
            return logs.tail(instance.folder, lines) if instance is not None else []
        except OSError as error:
            raise ExecutorError(f"the output of {handle.task_id}/{handle.container}: {error.strerror}") from error

    def logs(self, handle: Handle, query: LogQuery, stop: Stop) -> Iterator[LogLine]:
        self._recover_once()
        folder = self._folder(_key(handle))

        def running() -> bool:
            instance = self._known(handle)
            return instance is not None and instance.running

        try:
            yield from reading.lines(folder, handle.ref, query, stop, running=running, clock=SystemClock())
        except OSError as error:
            raise ExecutorError(f"the output of {handle.task_id}/{handle.container}: {error.strerror}") from error

    def kept(self, task_id: TaskId) -> list[Handle]:
        self._recover_once()
        return [Handle(task_id, path.name, logs.parts(path)[-1].instance) for path in self._kept.of(str(task_id))]

    def exec(self, handle: Handle, request: ExecRequest) -> HostCommand:
        self._recover_once()
        instance, bash = self._known(handle), shutil.which("bash")
        if instance is None or not instance.running or bash is None:
            raise ExecutorError(f"{handle.task_id}/{handle.container} does not run")
        work, start = instance.folder / records.WORK, self._starter.beside(instance)
        command = commands.run(work, instance.record.mark, instance.env, request, bash, start)
        self._commands[command] = handle.ref
        return command

    def attributes(self) -> Mapping[str, str]:
        """By which version of control groups tasks are limited here, and in what."""
        usable = self._starter.usable()
        version = 2 if usable.bases and groups.is_second(str(usable.bases[0])) else 1
        return {"cgroups": " ".join([f"v{version}", *sorted(usable.controllers)]) if usable.controllers else "none"}

    def watch(self, notify: Callable[[], None]) -> None:
        self._watcher.call(notify)

    def close(self) -> None:
        self._artifacts.close()
        with self._lock:
            watcher, self._watching = self._watching, None
            instances = list(self._instances.values())
        if watcher is not None:
            watcher.close()
        for instance in instances:
            instance.release()

    @property
    def _watcher(self) -> Watcher:
        # Made on demand: the executor is also made just to validate specs.
        with self._lock:
            if self._watching is None:
                self._watching = Watcher(self._all, self._table)
            return self._watching

    def _all(self) -> list[Instance]:
        with self._lock:
            return list(self._instances.values())

    def _key_lock(self, key: Key) -> threading.Lock:
        with self._lock:
            return self._keys.setdefault(key, threading.Lock())

    def _folder(self, key: Key) -> Path:
        return self._root / key[0] / key[1]

    def _known(self, handle: Handle) -> Instance | None:
        with self._lock:
            instance = self._instances.get((str(handle.task_id), handle.container))
        return instance if instance is not None and instance.handle.ref == handle.ref else None

    def _find(self, key: Key) -> Instance | None:
        """The instance of ``key``, also one that another agent of this host has started meanwhile."""
        with self._lock:
            instance = self._instances.get(key)
        if instance is None and (record := self._load(key)):
            instance = self._adopt(record, Looks(self._table))
        return instance

    def _load(self, key: Key) -> Record | None:
        """The record of ``key`` on disk, if there is one that can be read and stands where it belongs."""
        record = records.load(self._folder(key))
        belongs = record is not None and (record.scope, record.task_id, record.container) == (self._scope, *key)
        return record if belongs else None

    def _recover_once(self) -> None:
        with self._recovery:
            if self._recovered:
                return
            looks = Looks(self._table)
            for record in self._recorded():
                self._adopt(record, looks)
            for snapshot in (looks.first, looks.second):
                for record in self._unrecorded(snapshot):
                    self._adopt(record, looks)
            self._kept.load(self._root)
            known = {folder for instance in self._all() for folder in instance.record.groups}
            self._starter.usable().sweep(f"{self._scope}-", known)
            self._recovered = True

    def _recorded(self) -> list[Record]:
        """The records on disk."""
        found = []
        for path in self._root.glob(f"*/*/{records.RECORD}"):
            record = self._load((path.parts[-3], path.parts[-2]))
            if record is None:
                _log.warning("%s can't be read; looking for its processes by their mark", path)
            else:
                found.append(record)
        return found

    def _unrecorded(self, snapshot: Snapshot) -> list[Record]:
        """A record for each container that runs without one."""
        found = []
        for owner, processes in snapshot.marked.items():
            processes = [one for one in processes if rights.is_known(self._policy, one.user)]
            if not processes:
                continue
            record = records.of_mark(processes[0].mark, boot_id(), processes[0].user)
            if record is None or record.scope != self._scope:
                continue
            key = (record.task_id, record.container)
            if all(_SAFE.match(part) for part in key) and key not in self._instances and self._load(key) is None:
                _log.warning("%s runs, but its record is lost; taking it over", owner)
                found.append(record)
        return found

    def _adopt(self, record: Record, looks: Looks) -> Instance | None:
        """Make the instance of ``record`` known. None, and nothing left, if its start was cut short before it ran."""
        key = (record.task_id, record.container)
        folder = self._folder(key)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        instance = Instance(folder, record, self._table)
        instance.adopt(boot_id(), looks)
        if instance.never_ran:
            if not records.is_held(folder):  # else another agent is about to start it
                self._clear(folder)
            return None
        with self._lock:
            self._instances[key] = instance
        self._watcher.add(instance)
        return instance

    def _launch(self, key: Key, record: Record, spec: BashSpec, argv: list[str], who: Account, **more: Any) -> Handle:
        folder = self._folder(key)
        self._kept.discard(folder)
        instance = self._starter.launch(folder, record, spec, argv, who, clear=self._clear, **more)
        with self._lock:
            self._instances[key] = instance
        self._watcher.add(instance)
        return instance.handle

    def _end(self, instance: Instance, grace: float, command: str = "") -> None:
        """Run the stop ``command``, then end all that is left, all within ``grace`` and a few seconds."""
        deadline = time.monotonic() + grace
        stopper = self._starter.stop_command(instance, command) if command else None
        if stopper is not None:
            # Whatever the command takes, processes that don't react to it get a moment for the TERM.
            stopper_grace = max(grace - 1, grace / 2)
            try:
                code = stopper.wait(timeout=stopper_grace)
                if code:
                    _log.warning("the stop command of %s failed: exit %s", instance.record.owner, code)
            except subprocess.TimeoutExpired:
                _log.warning("the stop command of %s is ended after %.1f s", instance.record.owner, stopper_grace)
        with commands.hung_up([one for one, ref in list(self._commands.items()) if ref == instance.handle.ref]):
            left = end_tree(instance.left, max(0.0, deadline - time.monotonic()), instance.kill)
        if left:
            raise ExecutorError(
                f"{instance.record.task_id}/{instance.record.container} can't be ended: "
                f"still there is pid {', '.join(str(identity.pid) for identity in left)}",
                hint="it hangs in the kernel (a dead network drive?) or belongs to another user",
            )
        if stopper is not None:
            stopper.wait(timeout=5)
        instance.reap()
        groups.remove(instance.groups)

    def _clear(self, folder: Path) -> None:
        """Remove what is left of a container that ended; its logs are kept for a while."""
        logs.drop_empty(folder)
        records.remove(folder)
        self._kept.add(folder)

    def _forget(self, key: Key, instance: Instance) -> None:
        instance.release()
        with self._lock:
            self._instances.pop(key, None)


def _key(handle: Handle) -> Key:
    """Raises ExecutorError for what can be no container's: it would lead out of the executor's folder."""
    key = (str(handle.task_id), handle.container)
    if not all(_SAFE.match(part) for part in key):
        raise ExecutorError(f"there is no container {handle.container} of {handle.task_id}")
    return key
