"""What people should know besides a result: a record that can't be read, a plugin that is broken.

Whoever calls decides where it goes: the command line prints it, the API hands it over with the answer. Per thread and
context, so that two requests don't get each other's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str], None]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def notice(text: str) -> None:
    """Tell ``text`` (one line, fit for printing) to whoever listens; nobody need."""
    listener = _listener.get()
    if listener is not None:
        listener(text)


@contextmanager
def noticed(listener: Listener) -> Iterator[None]:
    """Within the block, and in what it calls in this context, ``listener`` is told."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
