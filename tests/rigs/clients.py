"""What tests do with clients of a store: open them, wait for what they come to see, and see them fail in time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import pytest

from sked_core.plugin import Lease, Put, Revision, Store, Unavailable


class Closable(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=Closable)


@contextlib.contextmanager
def opening(kind: Callable[..., C]) -> Iterator[Callable[..., C]]:
    """Each call of what it yields opens one more, with the arguments that ``kind`` takes; all are closed in the end."""
    opened: list[C] = []

    def open_one(*arguments: Any, **more: Any) -> C:
        opened.append(kind(*arguments, **more))
        return opened[-1]

    try:
        yield open_one
    finally:
        for each in opened:
            each.close()


def within(seconds: float, holds: Callable[[], Any]) -> Any:
    """Look until ``holds`` gives something true, and return that; fail after so many seconds, a bound for hangs."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
    return found


def reads(store: Store) -> bool:
    """Whether a read gets through."""
    try:
        store.read("a/")
    except Unavailable:
        return False
    return True


def every_call(store: Store, lease: Lease, since: Revision) -> list[Callable[[], object]]:
    """All that can be asked of a store, none of it patient. ``lease`` is one of this store."""
    return [
        lambda: store.read("a/"),
        lambda: store.commit([Put("a/1", b"2")]),
        lambda: store.grant(10),
        lease.renew,
        lease.revoke,
        lambda: store.wait("a/", since, 0.5),
    ]


def unavailable_within(seconds: float, call: Callable[[], object], match: str | None = None) -> Unavailable:
    """The error in which the call has to end, in that time; ``match`` is a pattern of its text."""
    begun = time.monotonic()
    with pytest.raises(Unavailable, match=match) as failure:
        call()
    assert time.monotonic() - begun < seconds
    return failure.value
