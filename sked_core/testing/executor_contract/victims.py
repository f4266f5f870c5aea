"""Processes that use an executor and are killed at a moment of one's choice.

They are forked: what a test has as lambdas and local classes can be used in them, and hundreds of them cost little.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sked_core.testing.executor_contract.base import Rig

EFFECTS = frozenset(
    {
        *("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.kill"),
        *("subprocess.Popen", "os.posix_spawn", "os.fork", "os.exec", "socket.connect", "socket.bind"),
    }
)
"""The events of the audit (sys.addaudithook) that come before something of the world changes; of ``open`` those that
write."""
Point = tuple[str, Any]
"""``("line", (file, number))``: before that line of the executor's own code is run for the first time; ``("effect",
(N, what))``: before the Nth event of EFFECTS; ``("end", 0)``: when all is done, and nobody has heard of it."""


@dataclass
class Steps:
    """Records the points that the executor's code passes, and dies at ``until``."""

    root: str
    until: Point | None = None
    lines: dict[tuple[str, int], None] = field(default_factory=dict)
    effects: list[str] = field(default_factory=list)

    def begin(self) -> None:
        sys.addaudithook(self._audit)
        threading.settrace(self._trace)
        sys.settrace(self._trace)

    def points(self) -> list[Point]:
        effects: list[Point] = [("effect", (number, what)) for number, what in enumerate(self.effects)]
        return [*effects, ("end", 0), *(("line", line) for line in self.lines)]

    def _trace(self, frame: Any, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(self.root):
            return None
        if event == "line":
            line = (frame.f_code.co_filename, frame.f_lineno)
            if self.until == ("line", line):
                die()
            self.lines.setdefault(line)
        return self._trace

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in EFFECTS or (event == "open" and not _writes(arguments)):
            return
        if self.until is not None and self.until[0] == "effect" and self.until[1][0] == len(self.effects):
            self.until = None  # the kill is an event as well
            die()
        self.effects.append(f"{event}{arguments!r:.120}")


class Victim:
    """One process with an executor of its own."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._answer = rig.folder / "answer"

    def does(self, action: Callable[[Any], Any]) -> Any:
        """What ``action(executor)`` returns, or the text of what it raises; the process is killed afterwards."""
        return self._run(lambda: action(self._rig.executor()))

    def passes(self, action: Callable[[Any], Any]) -> list[Point]:
        """The points that ``action(executor)`` passes."""

        def look() -> list[Point]:
            executor = self._rig.executor()
            steps = Steps(code_of(executor.inner))
            steps.begin()
            action(executor)
            sys.settrace(None)
            threading.settrace(None)
            return steps.points()

        found = self._run(look)
        assert isinstance(found, list), found
        return found

    def dies(self, action: Callable[[Any], Any], at: Point) -> None:
        """``action(executor)`` is begun, and killed at this point, or at its end."""

        def go() -> None:
            executor = self._rig.executor()
            Steps(code_of(executor.inner), at).begin()
            action(executor)
            die()

        self._run(go)

    def dies_after(self, action: Callable[[Any], Any], seconds: float) -> None:
        """``action(executor)`` is begun, and killed so long after that."""

        def go() -> None:
            executor = self._rig.executor()
            timer = threading.Timer(seconds, die)
            timer.daemon = True
            timer.start()
            action(executor)
            time.sleep(seconds)

        self._run(go)

    def _run(self, action: Callable[[], Any]) -> Any:
        with contextlib.suppress(FileNotFoundError):
            self._answer.unlink()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: the child uses none of them
            child = os.fork()
        if child == 0:
            try:
                self._answer_with(action)
            finally:
                die()  # whatever it raised: the test itself goes on in one process only
        deadline = time.monotonic() + self._rig.patience
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                raise AssertionError(f"a process that used the executor was not through in {self._rig.patience:g} s")
            time.sleep(0.002)
        return pickle.loads(self._answer.read_bytes()) if self._answer.exists() else None  # noqa: S301  our own

    def _answer_with(self, action: Callable[[], Any]) -> None:
        try:
            said = action()
        except Exception as error:  # noqa: BLE001  told to the one that waits
            said = f"{type(error).__name__}: {error}"
        draft = self._answer.with_suffix(".new")
        draft.write_bytes(pickle.dumps(said))
        draft.replace(self._answer)


def die() -> None:
    """As if the power went: nothing is flushed, closed or told."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def code_of(executor: object) -> str:
    """Where the executor's own code lies: its package, or the one file."""
    path = Path(inspect.getsourcefile(type(executor)) or inspect.getfile(type(executor)))
    folder = path.parent
    if not (folder / "__init__.py").exists():
        return str(path)
    while (folder.parent / "__init__.py").exists():
        folder = folder.parent
    return f"{folder}{os.sep}"


def chosen(points: Iterable[Point], most: int) -> list[Point]:
    """At most so many of them: all effects and the end if they fit, and as many lines, evenly spread."""
    first = [point for point in points if point[0] != "line"]
    lines = [point for point in points if point[0] == "line"]
    return [*spread(first, most), *spread(lines, most - min(len(first), most))]


def spread(points: list[Point], most: int) -> list[Point]:
    return [points[number * len(points) // most] for number in range(most)] if len(points) > most else points


def told(point: Point) -> str:
    """A point in words."""
    kind, where = point
    if kind == "line":
        return f"killed before {Path(where[0]).name}:{where[1]}"
    return "killed when all was done" if kind == "end" else f"killed before {where[1]}"


def _writes(arguments: tuple[Any, ...]) -> bool:
    """Whether an ``open`` is for writing: (path, mode, flags)."""
    flags = arguments[2] if len(arguments) > 2 and isinstance(arguments[2], int) else 0
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
