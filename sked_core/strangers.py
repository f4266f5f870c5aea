"""Threads that run a plugin's code: which do just now, and how they are left. By itself, since every command asks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

_here = threading.local()


@contextlib.contextmanager
def strangers_turn() -> Iterator[None]:
    """The body is a plugin's code: what it prints is no data of ours."""
    before = is_strangers_turn()
    _here.stranger = True
    try:
        yield
    finally:
        _here.stranger = before


def is_strangers_turn() -> bool:
    """Whether this thread is in such a body."""
    return getattr(_here, "stranger", False)


def end(thread: threading.Thread) -> None:
    """Have ``thread`` raise SystemExit as soon as it runs Python again: one that spins would take a core for ever. What
    waits in the system goes on waiting. It must not be able to end meanwhile: another may have its number then."""
    import ctypes  # on demand: it takes long to load

    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
