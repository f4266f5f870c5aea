"""The executor: one container of the engine for each container of a task, found again by its labels."""

from __future__ import annotations

import logging
import math
import re
import secrets
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sked_core.plugin import (
    Binding,
    Clock,
    Container,
    Denial,
    ExecRequest,
    ExecutorContext,
    ExecutorError,
    Handle,
    InvalidValue,
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
    failpoint,
)
from sked_docker import creation as labels
from sked_docker import spec as specs
from sked_docker.cases import Case, reject
from sked_docker.commands import Command
from sked_docker.creation import Creation, creation
from sked_docker.engine import Answer, Engine, one_line, own_sockets
from sked_docker.gates import has_paths, judge, judge_volume, named_volumes
from sked_docker.output import last_lines
from sked_docker.paths import CannotHold, Hold, Resolved, guarded, resolved
from sked_docker.policy import DockerPolicy
from sked_docker.reading import lines_of
from sked_docker.views import View, Views

CREATE_SECONDS = 60.0
START_SECONDS = 60.0
REMOVE_SECONDS = 60.0
STOP_MARGIN_SECONDS = 30.0
"""What the engine gets beyond the grace time to kill a container and say so."""
MOST_BACKOFF_SECONDS = 5.0
LIST_LAGS_SECONDS = 2.0
"""For so long after the engine told of an end its list may still call the container running."""
_CLAIM_ATTEMPTS = 100
_PAUSE_SECONDS = 0.1

_RUNNING = {"running": "", "paused": "paused", "restarting": "restarting by the engine's own policy"}
_PORT_TAKEN = re.compile(r"port is already allocated|address already in use", re.IGNORECASE)
_PORT = re.compile(r"(?:Bind for|listen \w+|host port(?: for)?) (?:\[[^\]]*\]|[^\s:]*):([0-9]{1,5})")
_log = logging.getLogger(__name__)


class DockerExecutor:
    """Implements the Executor port. Nothing is asked of an engine before the first start, inspect or recover."""

    spec_type = specs.Spec
    policy_type = DockerPolicy

    def __init__(self, context: ExecutorContext, clock: Clock | None = None) -> None:
        self._context = context
        self._clock = clock or SystemClock()
        self._engine = Engine(self._clock)
        self._labels = {labels.STORE: context.store_uid, labels.HOST: context.host}
        self._policy = context.policy.section("docker", DockerPolicy)
        self._views = Views(context.state_dir / "held")
        self._guarded = guarded(context.state_dir, own_sockets())
        self._can_hold = True
        self._starting: dict[str, tuple[threading.Lock, int]] = {}
        self._starting_lock = threading.Lock()
        self._died: dict[str, float] = {}  # when the engine told of their end, by container id
        self._died_lock = threading.Lock()
        self._closing = threading.Event()
        self._watcher: threading.Thread | None = None

    def validate(self, spec: Mapping[str, Any]) -> list[Problem]:
        return specs.validate(spec)

    def ports(self, spec: Mapping[str, Any], port: int) -> frozenset[int]:
        return frozenset(one.port for one in self.bindings(spec, port) if one.protocol == "tcp")

    def bindings(self, spec: Mapping[str, Any], port: int) -> frozenset[Binding]:
        return specs.host_bindings(spec, port)

    def denials(self, task: Task, container: Container) -> list[Denial]:
        try:
            spec = specs.parse(container.executor)
        except InvalidValue:
            return []
        wanted = creation(self._context, task, container, spec=spec, env={})
        return judge(self._case(task, resolved), wanted.body)

    def start(self, task: Task, container: Container, env: Mapping[str, str]) -> Handle:
        """Create and start, two calls to the engine; everything else is done only when one of them is refused.

        Judged is the very body that is sent, with the host's paths held from before that until the container has them.
        The container's name makes it at most one per host even when the outcome of a call stays unknown: what such
        a call leaves behind is removed by the next start. One that ends at once has been started all the same.
        """
        try:
            spec = specs.parse(container.executor)
        except InvalidValue as error:
            raise Rejected(f"container {container.name}: {error}") from None
        wanted = creation(self._context, task, container, spec=spec, env=env)
        wanted.body["Labels"][labels.START] = secrets.token_hex(8)
        with self._view(wanted.body).place.hold() as hold, self._marked_as_starting(wanted.name):
            reject(judge(self._case(task, hold.resolve), wanted.body))
            self._check_volumes(wanted.body)
            ref, digest, running = self._claim_held(wanted, hold)
            failpoint("created")
            if not running:
                self._run(ref, container.name)
        return Handle(task.id, container.name, ref, digest)

    def _case(self, task: Task, resolve: Callable[[str], Resolved]) -> Case:
        return Case(self._policy, self._context.policy.limits, task.port, resolve, self._guarded)

    def _view(self, body: Mapping[str, Any]) -> View:
        """Where the paths of the host in ``body`` have to be looked up."""
        local = has_paths(body) and not self._policy.whole_host and self._engine.shares_our_files()
        return self._views.of(self._engine.peer()) if local else self._views.own

    def _check_volumes(self, body: Mapping[str, Any]) -> None:
        """A named volume that exists already may be anything, such as a folder of the host: the engine knows."""
        for name in named_volumes(body):
            answer = self._engine.call("GET", f"/volumes/{name}", deadline=CREATE_SECONDS)
            if answer.status == 200:
                reject(judge_volume(self._policy, answer.body))
            elif answer.status != 404:
                raise ExecutorError(f"the Docker engine can't describe volume {name}: {answer.message}")

    def _claim_held(self, wanted: Creation, hold: Hold) -> tuple[str, str, bool]:
        """As _claim, with what is held in place of the host's paths."""
        paths = [] if self._policy.whole_host else hold.paths
        if paths and not self._engine.shares_our_files():
            raise Rejected(f"host path {paths[0]} can't be judged: the Docker engine runs on another machine")
        while True:
            mount = self._can_hold and bool(paths)
            try:
                body = hold.given(wanted.body, mount=mount, volumes=self._policy.volumes) if paths else wanted.body
                return self._claim(replace(wanted, body=body))
            except (CannotHold, ExecutorError) as error:
                if not mount or (isinstance(error, ExecutorError) and str(hold.place.folder) not in str(error)):
                    raise
                _log.warning("host paths can't be held for the Docker engine, only named: %s", error)
                self._can_hold = False

    def stop(self, handle: Handle, grace: float) -> None:
        path = f"/containers/{handle.ref}"
        if grace > 0:
            seconds = math.ceil(grace)
            answer = self._engine.call(
                "POST", f"{path}/stop", query={"t": str(seconds)}, deadline=seconds + STOP_MARGIN_SECONDS
            )
            if answer.status == 404:
                return
            if answer.status not in (204, 304):
                _log.warning("container %s would not stop, removing it by force: %s", handle.ref[:12], answer.message)
        self._remove(handle.ref)

    def inspect(self, handles: Iterable[Handle]) -> Mapping[Handle, Observation]:
        wanted = list(handles)
        rows = {row["Id"]: row for row in self._engine.list(self._labels)}
        with self._died_lock:
            self._died = {ref: told_at for ref, told_at in self._died.items() if ref in rows}
        missing = [handle for handle in wanted if handle.ref not in rows]
        if missing and not self._engine.settled():
            raise ExecutorError(
                f"the Docker engine has just come back and does not list {len(missing)} of {len(wanted)} containers yet"
            )
        return {
            handle: self._observe(rows[handle.ref]) if handle.ref in rows else Observation(State.ABSENT)
            for handle in wanted
        }

    def recover(self) -> Mapping[Handle, Observation]:
        found = {}
        for row in self._engine.list(self._labels):
            task_id, container = row["Labels"].get(labels.TASK), row["Labels"].get(labels.CONTAINER)
            in_flight = row["State"] == "created" and any(n.lstrip("/") in self._starting for n in row["Names"])
            if task_id and container and not in_flight:
                handle = Handle(TaskId(task_id), container, row["Id"], row["Labels"].get(labels.DIGEST, ""))
                found[handle] = self._observe(row)
        return found

    def tail(self, handle: Handle, lines: int) -> list[str]:
        return last_lines(self._engine.output(handle.ref, lines), lines)

    def logs(self, handle: Handle, query: LogQuery, stop: Stop) -> Iterator[LogLine]:
        return lines_of(self._engine, handle.ref, query, stop)

    def kept(self, task_id: TaskId) -> list[Handle]:
        return []  # the engine keeps nothing of a container that was removed

    def exec(self, handle: Handle, request: ExecRequest) -> Command:
        return Command(self._engine, handle.ref, request)

    def watch(self, notify: Callable[[], None]) -> None:
        self._watcher = threading.Thread(target=self._watch, args=(notify,), name="docker-events", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        self._closing.set()
        self._engine.close()
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join(timeout=MOST_BACKOFF_SECONDS)

    @contextmanager
    def _marked_as_starting(self, name: str) -> Iterator[None]:
        """Between create and start a container looks like one that was left behind; recover must not report it, nor
        another thread remove it."""
        with self._starting_lock:
            turn, others = self._starting.get(name, (threading.Lock(), 0))
            self._starting[name] = turn, others + 1
        try:
            with turn:
                yield
        finally:
            with self._starting_lock:
                turn, others = self._starting.pop(name)
                if others > 1:
                    self._starting[name] = turn, others - 1

    def _claim(self, wanted: Creation) -> tuple[str, str, bool]:
        """Id, digest and whether it runs of the one container with the wanted name, created if there was none."""
        pulled = False
        for _ in range(_CLAIM_ATTEMPTS):
            answer = self._create(wanted)
            if answer.status == 201:
                return answer.body["Id"], wanted.digest, False
            if answer.status == 404 and "no such image" in answer.message.lower():
                if pulled:
                    raise ExecutorError(
                        f"image {wanted.image} is not on this host, and no pull brings it", permanent=True
                    )
                self._engine.pull(wanted.image, platform=wanted.query.get("platform", ""))
                pulled = True
                continue
            if answer.status != 409:
                raise ExecutorError(
                    f"the Docker engine refuses to create the container: {answer.message}",
                    permanent=400 <= answer.status < 500,
                )
            found = self._engine.find(wanted.name)
            if found is None:  # it went between the two calls, or another thread is still creating it
                self._clock.wait(threading.Event(), _PAUSE_SECONDS)
                continue
            self._check_owner(found, wanted.name)
            status, digest = found["State"]["Status"], found["Config"]["Labels"].get(labels.DIGEST, "")
            if status in _RUNNING:
                return found["Id"], digest, True
            if (
                status == "created"
                and found["Config"]["Labels"].get(labels.START) == wanted.body["Labels"][labels.START]
            ):
                return found["Id"], digest, False
            # Dead, or created by another start: maybe under another policy, and from paths that are held no more.
            self._remove(found["Id"])
        raise ExecutorError(f"container {wanted.name} could not be created: others keep taking or removing its name")

    def _create(self, wanted: Creation) -> Answer:
        query = {"name": wanted.name} | wanted.query
        try:
            return self._engine.call(
                "POST", "/containers/create", query=query, body=wanted.body, deadline=CREATE_SECONDS
            )
        except ExecutorError:
            # The outcome is unknown. If it was created after all, go on with that one.
            if self._engine.find(wanted.name) is None:
                raise
            return Answer(409, None)

    def _check_owner(self, found: Mapping[str, Any], name: str) -> None:
        held = found["Config"]["Labels"] or {}
        if any(held.get(label) != value for label, value in self._labels.items()):
            raise Rejected(f"a container named {name} exists that Sked did not create; remove or rename it")

    def _run(self, ref: str, container: str) -> None:
        try:
            answer = self._engine.call("POST", f"/containers/{ref}/start", deadline=START_SECONDS)
        except ExecutorError:
            # An engine that hung carries the call out once it wakes: look, don't guess. If it can't be asked, the
            # container keeps its name and the next start takes it over.
            found = self._engine.find(ref)
            if found is not None and found["State"]["Status"] != "created":
                return
            self._discard(ref)
            raise
        if answer.status not in (204, 304):
            self._discard(ref)
            raise _not_started(answer, ref=ref, container=container)

    def _discard(self, ref: str) -> None:
        """Remove what could not be started; that it failed to start is the error that matters."""
        try:
            self._remove(ref)
        except ExecutorError as error:
            _log.warning("container %s stays behind until its next start: %s", ref[:12], error)

    def _remove(self, ref: str) -> None:
        """Kill and remove a container with its anonymous volumes, and return once it is gone."""
        end = self._clock.monotonic() + REMOVE_SECONDS
        while True:
            answer = self._engine.call(
                "DELETE", f"/containers/{ref}", query={"force": "1", "v": "1"}, deadline=REMOVE_SECONDS
            )
            if answer.status in (204, 404):
                return
            if answer.status != 409:
                raise ExecutorError(f"the Docker engine can't remove container {ref[:12]}: {answer.message}")
            if self._clock.monotonic() > end:
                raise ExecutorError(f"container {ref[:12]} is still being removed after {REMOVE_SECONDS:.0f} s")
            self._clock.wait(threading.Event(), _PAUSE_SECONDS)  # somebody else is removing it

    def _observe(self, row: Mapping[str, Any]) -> Observation:
        """What one row of the list means; a dead container is looked at once more, for how it died."""
        state, told_at = row["State"], self._died.get(row["Id"])
        if state in _RUNNING and told_at is None:
            return Observation(State.RUNNING, detail=_RUNNING[state])
        if state == "created":
            return Observation(State.EXITED, detail="created but never started")
        found = self._engine.find(row["Id"])
        if found is None:
            return Observation(State.ABSENT)
        status = found["State"]["Status"]
        if status in _RUNNING:
            # Restarted by the engine's own policy, once what was told is old enough to have shown itself.
            if told_at is not None and self._clock.monotonic() - told_at > LIST_LAGS_SECONDS:
                self._forget(row["Id"], told_at)
            return Observation(State.RUNNING, detail=_RUNNING[status])
        self._forget(row["Id"], told_at)
        return Observation(State.EXITED, found["State"]["ExitCode"], _ending(found["State"]))

    def _forget(self, ref: str, told_at: float | None) -> None:
        """The end that was told of at ``told_at`` has been seen to; one told of since has not."""
        with self._died_lock:
            if self._died.get(ref) == told_at:
                self._died.pop(ref, None)

    def _watch(self, notify: Callable[[], None]) -> None:
        pause = 0.1
        while not self._closing.is_set():
            try:
                for ended in self._engine.events(self._labels):
                    pause = 0.1
                    # The engine tells of an end before its list shows it: such a one is looked at by itself.
                    with self._died_lock:
                        self._died[ended] = self._clock.monotonic()
                    notify()
            except ExecutorError as error:
                if not self._closing.is_set():
                    _log.warning("no events from the Docker engine, next try in %.1f s: %s", pause, error)
                self._clock.wait(self._closing, pause)
                pause = min(2 * pause, MOST_BACKOFF_SECONDS)


def _ending(state: Mapping[str, Any]) -> str:
    """How a container ended, for people."""
    code = state["ExitCode"]
    if state.get("OOMKilled"):
        detail = "out of memory"
    elif 128 < code <= 128 + signal.NSIG:
        detail = f"killed by signal {code - 128}"
    else:
        detail = f"exit {code}"
    return f"{detail}: {one_line(state['Error'])}" if state.get("Error") else detail


def _not_started(answer: Answer, *, ref: str, container: str) -> Exception:
    """The error for a start that the engine refused: the port's number where it is taken, else its own words."""
    message = answer.message
    if _PORT_TAKEN.search(message):
        port = _PORT.search(message)
        return Rejected(f"port {port[1]} is already in use on this host" if port else f"port not available: {message}")
    # What the engine calls the caller's fault (a command that the image lacks, a network that isn't there) stays so.
    permanent = 400 <= answer.status < 500 and ref not in message
    return ExecutorError(f"container {container} could not be started: {message}", permanent=permanent)
