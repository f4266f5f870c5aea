"""What the running code is busy with, for logs: whatever is logged meanwhile, also by plugins, carries it as fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

NAMES = ("task", "service", "host")
_now: ContextVar[Mapping[str, str]] = ContextVar("about", default={})  # noqa: B039 - never changed in place


@contextmanager
def about(**fields: str) -> Iterator[None]:
    """While the body runs, what this thread logs is about ``task``, ``service`` or ``host`` (NAMES); empty: unknown."""
    token = _now.set({**_now.get(), **{name: value for name, value in fields.items() if value}})
    try:
        yield
    finally:
        _now.reset(token)


def fields() -> Mapping[str, str]:
    """What this thread is busy with."""
    return _now.get()
