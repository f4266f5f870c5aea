"""Calls of strangers' code that may never come back: each in a thread of its own, which is left to itself when it takes
too long. Whoever calls goes on, and must not use what the call was given to work on, unless that can't be changed."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import TypeVar

from sked_core.errors import PluginError, SkedError
from sked_core.model.spec import plain

PATIENCE_SECONDS = 10.0
"""How long a plugin may take for what has to be thought out only, not waited for."""
T = TypeVar("T")


class Hung(PluginError):
    """It did not come back in time. ``thread``: where it still is."""

    def __init__(self, message: str, thread: threading.Thread) -> None:
        super().__init__(message)
        self.thread = thread


class _Left(BaseException):
    """Raised in a thread that nobody waits for any more: it ends a loop, though nothing that waits in the system."""


def aside(what: str, call: Callable[[], T], seconds: float | None = None) -> T:
    """What ``call`` returns, at most ``seconds`` from now (by default PATIENCE_SECONDS).

    Raises the SkedError that it raises; PluginError, which begins with ``what``, for all else, SystemExit and its like
    too; Hung when the time is over.
    """
    ended: list[tuple[T | None, BaseException | None]] = []

    def run() -> None:
        try:
            ended.append((call(), None))
        except BaseException as error:  # noqa: BLE001 - goes to whoever waits
            ended.append((None, error))

    patience = PATIENCE_SECONDS if seconds is None else seconds
    thread = threading.Thread(target=run, name="sked-aside", daemon=True)
    thread.start()
    thread.join(patience)
    if not ended:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_Left))
        raise Hung(f"{what} did not come back within {patience:g} s", thread)
    answer, error = ended[0]
    if isinstance(error, SkedError):
        raise error
    if error is not None:
        raise PluginError(plain(f"{what} failed: {type(error).__name__}: {error}"[:300].rstrip(": "))) from error
    return answer  # type: ignore[return-value]  # None only where that is what it returned
