"""Calls of strangers' code that may never come back: each in a thread of its own, which is left to itself when it takes
too long. Whoever calls goes on, and must not use what the call was given to work on, unless that can't be changed."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from sked_core.errors import PluginError, SkedError
from sked_core.model.spec import plain
from sked_core.strangers import end, strangers_turn

PATIENCE_SECONDS = 10.0
"""How long a plugin may take for what has to be thought out only, not waited for."""
ALONE_SECONDS = (60.0, 120.0, 300.0, 600.0)
"""For how long a plugin that hung is left alone, the first time, the second, …"""
MAX_STUCK = 3
"""With so many calls that have not come back it is not asked at all: each keeps a thread."""
MAX_TEXT = 300
"""How many characters of what a plugin says of its failure are kept."""
MAX_IDLE = 4
"""How many threads are kept for the next calls."""
T = TypeVar("T")


class Hung(PluginError):
    """It did not come back in time. ``thread``: where it still is."""

    def __init__(self, message: str, thread: threading.Thread) -> None:
        super().__init__(message)
        self.thread = thread


def failed(what: str, error: BaseException) -> PluginError:
    """What is said of ``what``, which raised ``error``, uncut: who masks secrets has to see them whole."""
    return PluginError(plain(f"{what} failed: {type(error).__name__}: {error}".rstrip(": ")))


class _Call(Generic[T]):
    def __init__(self, what: str, function: Callable[[], T]) -> None:
        self.what, self._function = what, function
        self._ended = threading.Lock()
        self._ended.acquire()
        self._outcome: tuple[T | None, BaseException | None] | None = None

    def run(self) -> None:
        try:
            self._outcome = self._function(), None
        except BaseException as error:  # noqa: BLE001 - goes to whoever waits
            self._outcome = None, error
        finally:
            self._ended.release()

    def outcome(self, seconds: float) -> tuple[T | None, BaseException | None] | None:
        """What came of it, as answer and error; None if the time was over before."""
        return self._outcome if self._ended.acquire(timeout=seconds) else None


class _Worker:
    """A thread that runs one call after another, until it is left."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[_Call[Any] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, name="sked-aside", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        with contextlib.suppress(SystemExit), strangers_turn():
            while (call := self.calls.get()) is not None:
                self.thread.name = f"sked-aside: {call.what}"
                call.run()
                self.thread.name = "sked-aside"

    def leave(self) -> None:
        end(self.thread)  # first, since by the other it may be gone
        self.calls.put(None)


_idle: deque[_Worker] = deque()
os.register_at_fork(after_in_child=_idle.clear)  # threads are not there in a child


def aside(what: str, function: Callable[[], T], seconds: float | None = None) -> T:
    """What ``function`` returns, at most ``seconds`` from now (by default PATIENCE_SECONDS).

    Raises the SkedError that it raises; PluginError, which begins with ``what``, for all else, SystemExit and its like
    too; Hung when the time is over.
    """
    patience = PATIENCE_SECONDS if seconds is None else seconds
    try:
        worker = _idle.pop()
    except IndexError:
        worker = _Worker()
    call = _Call(what, function)
    worker.calls.put(call)
    try:
        outcome = call.outcome(patience)
    except BaseException:  # Ctrl-C
        worker.leave()
        raise
    if outcome is None:
        worker.leave()
        raise Hung(f"{what} did not come back within {patience:g} s", worker.thread)
    if len(_idle) < MAX_IDLE:
        _idle.append(worker)
    else:
        worker.calls.put(None)
    answer, error = outcome
    if isinstance(error, SkedError):
        raise error
    if error is not None:
        raise PluginError(str(failed(what, error))[:MAX_TEXT]) from error
    return answer  # type: ignore[return-value]  # None only where that is what it returned


class Stranger:
    """One part of a plugin that is asked over and over, and left alone for a while after it hung. Thread-safe."""

    def __init__(self, who: str) -> None:
        """``who``: its name with its package, for messages."""
        self.who = who
        self._until, self._times, self._why = float("-inf"), 0, ""
        self._stuck: list[threading.Thread] = []

    def ask(
        self,
        function: Callable[[], T],
        *,
        seconds: float | None = None,
        now: float | None = None,
        left: Callable[[], None] = lambda: None,
    ) -> T:
        """As ``aside``; raises PluginError as well while it is left alone. ``now``: monotonic seconds. ``left``: called
        when the call is left to itself."""
        now = time.monotonic() if now is None else now
        self._stuck = [thread for thread in self._stuck if thread.is_alive()]
        if now < self._until or len(self._stuck) >= MAX_STUCK:
            raise PluginError(self._why)
        try:
            answer = aside(self.who, function, seconds)
        except Hung as hung:
            left()
            alone = ALONE_SECONDS[min(self._times, len(ALONE_SECONDS) - 1)]
            self._until, self._times = now + alone, self._times + 1
            self._stuck.append(hung.thread)
            self._why = f"{hung}: it is left alone for {alone:g} s"
            if len(self._stuck) >= MAX_STUCK:
                self._why = f"{hung}, {MAX_STUCK} times: it is left alone until one of them does"
            raise Hung(self._why, hung.thread) from None
        self._times = 0
        return answer
