"""Whether a thread runs a plugin's code just now. By itself, since every command asks for it."""

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
