"""Sees what code asks of the world, and counts what it does: for kits of what must be pure and come to an end."""

from __future__ import annotations

import contextlib
import datetime
import gc
import os
import random
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import pytest

EVENTS = ("open", "os.", "shutil.", "socket.", "subprocess.", "tempfile.", "time.sleep", "_thread.start")
MODULES = {"time": "the clock", "posix": "the system", "_socket": "the network"}
PURE = {"fspath", "_path_normpath", "_path_splitroot_ex", "mktime", "strftime", "strptime"}
PRINTS = {"print", "open", "input"}
_NOW = {"now", "utcnow", "today"}
_ENVIRONMENT = {type(os.environ).__getitem__.__code__: "the environment"}
_SHARED_DICE = random.random.__self__  # type: ignore[attr-defined]


@dataclass(slots=True)
class Counted:
    lines: int = 0


class _TooLong(BaseException):
    """No Exception, so that code which catches those is ended as well."""


@contextlib.contextmanager
def counting(most: int, *, always: bool = False) -> Iterator[Counted]:
    """Counts the lines of Python that the block runs in this thread; fails once they are ``most``. Where a debugger or
    the measuring of coverage looks on already, that is done only if ``always`` is set: it takes its place."""
    counted = Counted()
    before = sys.gettrace()
    if before is not None and not always:
        yield counted
        return

    def local(_frame: FrameType, event: str, _argument: object) -> Any:
        if event == "line":
            counted.lines += 1
            if counted.lines > most:
                raise _TooLong
        return local

    sys.settrace(lambda frame, event, argument: local)
    try:
        yield counted
    except _TooLong:
        pytest.fail(f"it has not come to an end within {most:,} lines")
    finally:
        sys.settrace(before)


_watchers: dict[int, list[str]] = {}
"""What was seen, by the thread that is watched."""
_hooked = False


@contextlib.contextmanager
def watching() -> Iterator[list[str]]:
    """A list of what the block asks the world in this thread, which is empty if it asks for nothing: clocks, chance,
    files, sockets, programs, threads, the environment, the terminal. Not all can be seen: what C code does by itself is
    not."""
    global _hooked
    if not _hooked:
        sys.addaudithook(_audited)
        _hooked = True
    seen: list[str] = []
    thread = threading.get_ident()

    def called(frame: FrameType, event: str, argument: Any) -> None:
        what = _ENVIRONMENT.get(frame.f_code, "") if event == "call" else ""
        if event == "c_call":
            what = _what(argument)
        if what:
            seen.append(f"{what}, {_where(frame)}")

    gc.collect()
    collecting = gc.isenabled()
    gc.disable()  # what others left behind ends by itself, and not in here
    _watchers[thread] = seen
    before = sys.getprofile()
    sys.setprofile(called)
    try:
        yield seen
    finally:
        sys.setprofile(before)
        del _watchers[thread]
        if collecting:
            gc.enable()
        seen[:] = dict.fromkeys(seen)


def _audited(event: str, arguments: tuple[object, ...]) -> None:
    seen = _watchers.get(threading.get_ident()) if _watchers else None
    if seen is not None and event.startswith(EVENTS):
        seen.append(f"{event} {arguments!r:.80}")


def _what(function: Any) -> str:
    """What a function of C asks for; empty if that is nothing."""
    name, module = getattr(function, "__name__", ""), getattr(function, "__module__", None) or ""
    owner = getattr(function, "__self__", None)
    if owner is _SHARED_DICE or isinstance(owner, random.SystemRandom):
        return f"chance: random.{name}"
    if isinstance(owner, type) and issubclass(owner, datetime.date) and name in _NOW:
        return f"the clock: datetime.{name}"
    if module in MODULES and name not in PURE:
        return f"{MODULES[module]}: {name}"
    return f"the terminal or a file: {name}" if module == "builtins" and name in PRINTS else ""


def _where(frame: FrameType) -> str:
    return f"asked in {frame.f_code.co_filename}:{frame.f_lineno}"
