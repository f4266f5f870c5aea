"""An executor that is a program."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec

from sked_bridge import commands
from sked_bridge.pool import Pool, Refusal, Short, T, shared
from sked_bridge.programs import Program
from sked_core.plugin import (
    MAX_LINE_BYTES,
    Container,
    ExecRequest,
    ExecutorContext,
    ExecutorError,
    Handle,
    HostCommand,
    LogLine,
    LogQuery,
    Observation,
    PluginError,
    Problem,
    Rejected,
    State,
    Stop,
    Task,
    TaskId,
    digest,
    plain,
)

SECONDS = {"start": 120.0, "stop": 30.0, "recover": 30.0}
"""What a request may take where the program's hello says nothing else; 15 for all others. ``stop``: and the grace."""
OTHER_SECONDS = 15.0
MAX_DEPTH = 64
WAIT_SECONDS = 30.0
"""What ``wait`` is asked to wait at most; it gets OTHER_SECONDS more."""
LOOK_SECONDS = 2.0
"""How often it is looked for ends where the program has no ``wait``."""
FOLLOW_SECONDS = 0.5
REMEMBERED = 4096
"""Answers to ``ports`` that are kept: schedulers ask for the same ones over and over."""
_log = logging.getLogger(__name__)
Key = tuple[str, str]
Line = Annotated[str, msgspec.Meta(max_length=1024 * 1024)]


class _Problem(msgspec.Struct):
    message: Short
    path: Short = ""
    warning: bool = False


class _Problems(msgspec.Struct):
    problems: list[_Problem]


class _Ports(msgspec.Struct):
    ports: Annotated[list[Annotated[int, msgspec.Meta(ge=1, le=65535)]], msgspec.Meta(max_length=1000)]


class _Started(msgspec.Struct):
    ref: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    digest: Short = ""


class _Seen(msgspec.Struct):
    state: State
    exit_code: int | None = None
    detail: Short = ""

    def observation(self) -> Observation:
        code = self.exit_code
        by_signal = code is not None and 128 < code < 128 + 65
        ended = "ended" if code is None else f"killed by signal {code - 128}" if by_signal else f"exit {code}"
        detail = plain(self.detail[:300]) or (ended if self.state is State.EXITED else "")
        return Observation(self.state, self.exit_code, detail)


class _Observations(msgspec.Struct):
    observations: list[_Seen]


class _Found(_Seen, kw_only=True):
    task: Short
    container: Short
    ref: Short
    digest: Short = ""


class _Containers(msgspec.Struct):
    containers: list[_Found]


class _Lines(msgspec.Struct):
    lines: list[Line]


class _LogLine(msgspec.Struct):
    text: Line
    stream: Short = ""
    at: Short = ""
    cursor: Short = ""


class _LogLines(msgspec.Struct):
    lines: list[_LogLine]
    cursor: Short = ""


class _Kept(msgspec.Struct):
    containers: list[_KeptOne]


class _KeptOne(msgspec.Struct):
    container: Short
    ref: Short


class _Command(msgspec.Struct):
    command: Annotated[list[str], msgspec.Meta(min_length=1)]
    env: dict[str, str] = {}
    cwd: str = "/"


class _Nothing(msgspec.Struct):
    pass


class BridgedExecutor:
    """Each method asks the program (docs/bridge.md). Requests about one container come one after another."""

    def __init__(self, program: Program, context: ExecutorContext) -> None:
        self._program, self._context = program, context
        about = {"host": context.host, "store": context.store_uid, "state_dir": str(context.state_dir)}
        limits = msgspec.to_builtins(context.policy.limits)
        # Made for no host, it only judges specs, as all do that are made for none.
        self._pool = Pool(program, {**about, "limits": limits}) if context.host else shared(program)
        self._ports: dict[bytes, frozenset[int]] = {}
        self._locks: weakref.WeakValueDictionary[Key, threading.Lock] = weakref.WeakValueDictionary()
        self._locking = threading.Lock()
        self._running: set[Handle] = set()
        """What is looked at for its end, where the program does not tell of that."""
        self._closed = threading.Event()

    def validate(self, spec: Mapping[str, Any]) -> list[Problem]:
        try:
            return self._judged(spec)
        except ExecutorError as error:  # nobody can tell whether it is right, and that is told
            return [Problem("", str(error))]

    def ports(self, spec: Mapping[str, Any], port: int) -> frozenset[int]:
        if not self._offers("ports"):
            return frozenset({port} if port else ())
        params = {"spec": spec, "port": port}
        key = msgspec.json.encode(params, order="sorted")
        if (known := self._ports.get(key)) is None:
            if len(self._ports) >= REMEMBERED:
                self._ports.clear()
            known = self._ports[key] = frozenset(self._ask("ports", params, _Ports).ports)
        return known

    def start(self, task: Task, container: Container, env: Mapping[str, str]) -> Handle:
        wrong = [problem for problem in self._judged(container.executor) if not problem.warning]
        if wrong:
            raise Rejected("; ".join(map(str, wrong)))
        mark = digest(task)
        params = {"task": task.id, "container": container, "env": env, "digest": mark, "record": task}
        try:
            self._context.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ExecutorError(f"{self._context.state_dir} can't be made: {error.strerror}") from error
        with self._alone((task.id, container.name)):
            started = self._ask("start", params, _Started, lane="slow")
        handle = Handle(task.id, container.name, started.ref, started.digest or mark)
        self._running.add(handle)
        return handle

    def stop(self, handle: Handle, grace: float) -> None:
        self._running.discard(handle)
        with self._alone((handle.task_id, handle.container)):
            self._ask("stop", {"handle": _shown(handle), "grace": grace}, _Nothing, lane="slow", more=grace)

    def inspect(self, handles: Iterable[Handle]) -> Mapping[Handle, Observation]:
        asked = list(handles)
        if not asked:
            return {}
        found = self._ask("inspect", {"handles": [_shown(one) for one in asked]}, _Observations).observations
        if len(found) != len(asked):
            raise ExecutorError(f"{self._program} told of {len(found)} containers, and {len(asked)} were asked for")
        return {handle: seen.observation() for handle, seen in zip(asked, found, strict=True)}

    def recover(self) -> Mapping[Handle, Observation]:
        found = self._ask("recover", {}, _Containers).containers
        known = {
            Handle(TaskId(one.task), one.container, one.ref, one.digest): one.observation()
            for one in found
            if one.state is not State.ABSENT
        }
        self._running |= {handle for handle, seen in known.items() if seen.state is State.RUNNING}
        return known

    def tail(self, handle: Handle, lines: int) -> list[str]:
        if self._offers("tail"):
            said = self._ask("tail", {"handle": _shown(handle), "lines": lines}, _Lines).lines
        elif self._offers("logs"):
            said = [line.text for line in self._log_lines(handle, lines, "", previous=False).lines]
        else:
            return []
        return said[-lines:] if lines > 0 else []

    def logs(self, handle: Handle, query: LogQuery, stop: Stop) -> Iterator[LogLine]:
        if not self._offers("logs"):
            raise ExecutorError(f"the program of executor {self._program.name} tells no logs")
        lines, after, last = query.lines, query.after, False
        while not stop.is_set():
            # Asked first: what is written between the two would be missed otherwise.
            running = query.follow and not query.previous and self._runs(handle)
            found = self._log_lines(handle, lines, after, previous=query.previous)
            for line in found.lines:
                for text in _pieces(line.text):
                    yield LogLine(text, line.stream, line.at, line.cursor)
            behind = found.cursor or (found.lines[-1].cursor if found.lines else "")
            moved, after, lines = bool(behind) and behind != after, behind or after, -1
            if not after or (not moved and last):
                return  # no place to go on from, or nothing more to come
            last = not running
            if not moved and not last and stop.wait(FOLLOW_SECONDS):
                return

    def kept(self, task_id: TaskId) -> list[Handle]:
        if not self._offers("kept"):
            return []
        found = self._ask("kept", {"task": task_id}, _Kept).containers
        return [Handle(task_id, one.container, one.ref) for one in found]

    def exec(self, handle: Handle, request: ExecRequest) -> HostCommand:
        if not self._offers("exec"):
            raise ExecutorError(f"the program of executor {self._program.name} runs no commands")
        params = {"handle": _shown(handle), "command": request.command, "tty": request.tty, "term": request.term}
        return commands.run(self._ask("exec", params, _Command), request)

    def attributes(self) -> Mapping[str, str]:
        """What its hello says; nothing where it says none now."""
        try:
            return {plain(name): plain(value) for name, value in self._pool.hello().attributes.items()}
        except PluginError as error:
            _log.warning("what %s tells of this host is not known: %s", self._program, error)
            return {}

    def watch(self, notify: Callable[[], None]) -> None:
        threading.Thread(target=self._watch, args=(notify,), name=f"watch {self._program.name}", daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        if self._context.host:
            self._pool.close()

    def _watch(self, notify: Callable[[], None]) -> None:
        while not self._closed.is_set():
            try:
                if self._running and self._offers("wait"):
                    self._ask("wait", {"seconds": WAIT_SECONDS}, _Nothing, lane="slow", more=WAIT_SECONDS)
                    notify()
                elif not self._closed.wait(LOOK_SECONDS) and self._ended():
                    notify()
            except ExecutorError as error:
                _log.debug("whether containers of %s have ended is not known: %s", self._program, error)
                self._closed.wait(OTHER_SECONDS)

    def _ended(self) -> bool:
        """Whether any of those that ran does so no more."""
        over = {one for one, seen in self.inspect(self._running).items() if seen.state is not State.RUNNING}
        self._running -= over
        return bool(over)

    def _runs(self, handle: Handle) -> bool:
        return self.inspect([handle])[handle].state is State.RUNNING

    def _log_lines(self, handle: Handle, lines: int, after: str, *, previous: bool) -> _LogLines:
        params = {"handle": _shown(handle), "lines": lines, "after": after, "previous": previous}
        return self._ask("logs", params, _LogLines)

    def _judged(self, spec: Mapping[str, Any]) -> list[Problem]:
        if not self._offers("validate"):
            return []
        if _deeper(spec, MAX_DEPTH):
            return [Problem("", f"it is nested more than {MAX_DEPTH} levels deep")]
        try:
            found = self._pool.ask("validate", {"spec": spec}, _Problems, OTHER_SECONDS).problems
        except Refusal as refusal:
            return [Problem("", str(refusal))]
        except PluginError as error:
            raise ExecutorError(str(error), hint=error.hint) from None
        return [Problem(plain(one.path), plain(one.message), warning=one.warning) for one in found]

    def _offers(self, method: str) -> bool:
        try:
            return method in self._pool.hello().methods
        except PluginError as error:
            raise ExecutorError(str(error), hint=error.hint) from None

    def _ask(
        self, method: str, params: Mapping[str, Any], kind: type[T], *, lane: str = "quick", more: float = 0.0
    ) -> T:
        try:
            seconds = self._pool.hello().deadlines.get(method, SECONDS.get(method, OTHER_SECONDS))
            return self._pool.ask(method, params, kind, seconds + more, lane=lane)
        except Refusal as refusal:
            if refusal.kind == "rejected":
                raise Rejected(str(refusal), hint=refusal.hint) from None
            raise ExecutorError(str(refusal), permanent=refusal.kind == "permanent", hint=refusal.hint) from None
        except PluginError as error:
            raise ExecutorError(str(error), hint=error.hint) from None

    @contextmanager
    def _alone(self, key: Key) -> Iterator[None]:
        with self._locking:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            yield


def _shown(handle: Handle) -> dict[str, str]:
    return {"task": handle.task_id, "container": handle.container, "ref": handle.ref, "digest": handle.digest}


def _deeper(value: Any, levels: int) -> bool:
    """Whether there is something below so many levels: more than some readers of JSON can take."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return bool(inner) and (levels <= 0 or any(_deeper(one, levels - 1) for one in inner))


def _pieces(text: str) -> Iterator[str]:
    """A long line as several ones."""
    if len(text) <= MAX_LINE_BYTES // 4:  # whatever it is made of
        yield text
        return
    data = text.encode(errors="replace")
    for start in range(0, len(data), MAX_LINE_BYTES):
        yield data[start : start + MAX_LINE_BYTES].decode(errors="replace")
