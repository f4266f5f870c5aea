"""The processes of one program: started when needed, several where several things are asked, again when they end."""

from __future__ import annotations

import functools
import logging
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec

from sked_bridge.process import Broken, Process
from sked_bridge.programs import Program
from sked_core.plugin import Clock, PluginError, SystemClock, plain

PROTOCOL = 1
MOST = {"quick": 4, "slow": 8}
"""Processes at once for requests that take moments, and for those that may take long: neither waits for the other."""
KEPT = 2
"""Processes that are kept while nothing is asked."""
HELLO_SECONDS = 20.0
LAST_WORDS_SECONDS = 2.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
_log = logging.getLogger(__name__)
T = TypeVar("T")
File = tuple[Path, int, int]
"""What ``Program.judged`` tells a file by."""
Short = Annotated[str, msgspec.Meta(max_length=4096)]


class Said(msgspec.Struct):
    """What a program answers instead of a result."""

    kind: Short = "failed"
    message: Annotated[str, msgspec.Meta(max_length=64 * 1024)] = ""
    hint: Short = ""


class Refusal(Exception):
    """The program answered, and the answer is an error."""

    def __init__(self, said: Said) -> None:
        super().__init__(plain(said.message[:1000]) or "it does not say why")
        self.kind, self.hint = said.kind, plain(said.hint[:300])


class Hello(msgspec.Struct):
    """What a program says of itself before anything else is asked."""

    protocol: int
    methods: list[Short] = []
    version: Short = ""
    deadlines: dict[Short, Annotated[float, msgspec.Meta(gt=0, le=3600)]] = {}
    attributes: dict[Short, Short] = {}


class _Answer(msgspec.Struct):
    id: int
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: Said | None = None


class Pool:
    """Asks a program. What goes wrong with it is a PluginError that names it, with what it said last."""

    def __init__(self, program: Program, about: Mapping[str, Any], *, clock: Clock | None = None) -> None:
        """``about``: what it is told of where it runs. Nothing is started yet."""
        self.program = program
        self._about = {"protocol": PROTOCOL, "kind": program.kind, "name": program.name, **about}
        self._clock = clock or SystemClock()
        self._lanes = {lane: threading.BoundedSemaphore(most) for lane, most in MOST.items()}
        self._lock = threading.Lock()
        self._idle: list[Process] = []
        self._all: set[Process] = set()
        self._known: weakref.WeakKeyDictionary[Process, tuple[File, Hello]] = weakref.WeakKeyDictionary()
        """Of each process which file it runs, and what it said of itself."""
        self._hello: Hello | None = None
        self._failures, self._not_before, self._last = 0, 0.0, ""
        self._closed = False
        self._finalizer = weakref.finalize(self, _end, self._all)

    def hello(self) -> Hello:
        """What it says of itself, from the process that was asked last. Raises PluginError."""
        if self._hello is None:
            with self._process("quick", self._clock.monotonic() + HELLO_SECONDS, "hello"):
                pass
        assert self._hello is not None
        return self._hello

    def ask(self, method: str, params: Mapping[str, Any], kind: type[T], seconds: float, *, lane: str = "quick") -> T:
        """What it answers, within ``seconds`` with all that has to be done first. Raises Refusal for an error that it
        answers, and PluginError for everything else."""
        try:
            msgspec.json.encode(params)
        except (ValueError, OverflowError, RecursionError, TypeError) as error:
            raise Refusal(Said("rejected", f"it can't be written as JSON: {error}")) from None
        until = self._clock.monotonic() + seconds
        with self._process(lane, until, method) as process:
            raw = self._exchange(process, method, params, until)
        try:
            return msgspec.json.decode(raw, type=kind)
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise PluginError(
                f"{self.program} answered {method} with what can't be one: {plain(str(error)[:300])}"
            ) from None

    def close(self) -> None:
        """End its processes. Idempotent."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            busy = self._all - set(idle)
        for process in busy:
            process.kill()  # whoever waits for it ends the rest of it
        _end(set(idle))
        with self._lock:
            self._all -= set(idle)

    @contextmanager
    def _process(self, lane: str, until: float, method: str) -> Iterator[Process]:
        """A process for one request, to be asked nothing else meanwhile."""
        if not self._lanes[lane].acquire(timeout=max(0.0, until - self._clock.monotonic())):
            raise PluginError(f"{self.program} has too much to do: {MOST[lane]} requests wait for it")
        process = None
        try:
            process = self._take(until)
            yield process
        except Broken as broken:
            self._failed(process, method, str(broken))
        except Refusal:
            self._give_back(process)
            raise
        except BaseException:
            self._drop(process)
            raise
        else:
            self._give_back(process)
        finally:
            self._lanes[lane].release()

    def _take(self, until: float) -> Process:
        file = self.program.judged()
        with self._lock:
            if self._closed:
                raise PluginError(f"{self.program} was ended")
            # One of an older file may come back from its request long after a newer one was started.
            idle = [one for one in self._idle if self._known[one][0] != file]
            self._idle = [one for one in self._idle if one not in idle]
            while self._idle:
                process = self._idle.pop()
                if not process.gone():
                    self._hello = self._known[process][1]
                    break
                idle.append(process)
            else:
                process = None
            pause = self._not_before - self._clock.monotonic()
        for old in idle:
            self._drop(old, LAST_WORDS_SECONDS)
        if process is not None:
            return process
        if pause > 0:
            raise PluginError(f"{self._last}; it is started again in {pause:.1f} s")
        return self._start(file, until)

    def _start(self, file: File, until: float) -> Process:
        try:
            kind = self.program.kind
            process = Process(file[0], executor=kind == "executor", secret=kind == "secrets", clock=self._clock)
        except OSError as error:
            self._failed(None, "start", f"can't be started: {error.strerror or error}")
        with self._lock:
            self._all.add(process)
            closed = self._closed
        try:
            if closed:
                raise Broken("was ended")
            raw = self._exchange(process, "hello", self._about, until)
            try:
                hello = msgspec.json.decode(raw, type=Hello)
            except (msgspec.MsgspecError, RecursionError, ValueError) as error:
                raise Broken(f"says hello as nobody can: {plain(str(error)[:300])}") from None
            if hello.protocol != PROTOCOL:
                raise Broken(f"speaks version {hello.protocol} of the protocol, and this Sked version {PROTOCOL}")
        except (Broken, Refusal) as error:
            self._failed(process, "hello", str(error))
        except BaseException:
            self._drop(process)
            raise
        with self._lock:
            self._hello, self._known[process] = hello, (file, hello)
        _log.debug("%s %s runs: %s", self.program, plain(hello.version), plain(", ".join(hello.methods)))
        return process

    def _exchange(self, process: Process, method: str, params: Mapping[str, Any], until: float) -> msgspec.Raw:
        """Raises Broken and Refusal."""
        process.numbers += 1
        number = process.numbers
        request = msgspec.json.encode({"id": number, "method": method, "params": params})
        line = process.exchange(request + b"\n", until)
        try:
            answer = msgspec.json.decode(line, type=_Answer)
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise Broken(f"wrote no answer ({plain(str(error)[:200])}): {process.quoted(line)}") from None
        if answer.id != number:
            raise Broken(f"answered request {answer.id}, where {number} was asked")
        with self._lock:
            if method != "hello":  # one that gets no further than that is no better for it
                self._failures = 0
        if answer.error is not None:
            raise Refusal(answer.error)
        if bytes(answer.result) == b"null":
            raise Broken("answered with neither a result nor an error")
        return answer.result

    def _failed(self, process: Process | None, method: str, what: str) -> NoReturn:
        """Raises PluginError, once ``process`` is ended; and has the next one be started later, if not for the first
        time."""
        said = ""
        if process is not None:
            self._drop(process)
            said = process.said()
        text = f"{self.program} {what}" + (f" (asked for {method})" if method not in ("start", "hello") else "")
        text += f"; it said: {said}" if said else ""
        with self._lock:
            self._failures += 1
            pause = FIRST_PAUSE_SECONDS * 2 ** min(self._failures - 2, 16) if self._failures > 1 else 0.0
            self._not_before = self._clock.monotonic() + min(pause, LONGEST_PAUSE_SECONDS)
            self._last = text
        raise PluginError(text, hint="its protocol: docs/bridge.md")

    def _give_back(self, process: Process | None) -> None:
        if process is None:
            return
        with self._lock:
            keep = not self._closed and len(self._idle) < KEPT
            if keep:
                self._idle.append(process)
        if not keep:
            self._drop(process, LAST_WORDS_SECONDS)

    def _drop(self, process: Process | None, seconds: float = 0.0) -> None:
        if process is not None:
            process.end(seconds)
            with self._lock:
                self._all.discard(process)


def _end(processes: set[Process]) -> None:
    for process in [*processes]:
        process.end(LAST_WORDS_SECONDS)


@functools.cache
def shared(program: Program) -> Pool:
    """The one pool of this process for what needs none of its own: schedulers, and executors that only judge specs."""
    return Pool(program, {})
