"""A store that lets other threads go on while it is asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from sked_core.interfaces.store import Store
from sked_core.runtime.stores.around import StoreAround


class YieldingStore(StoreAround):
    """``store``, with ``monitor`` given up while it is read or written. Whoever calls holds it. ``came_back`` is called
    after each of these."""

    def __init__(self, store: Store, monitor: threading.Lock, came_back: Callable[[], None] = lambda: None) -> None:
        super().__init__(store)
        self._monitor, self._came_back = monitor, came_back

    @contextmanager
    def given_up(self) -> Iterator[None]:
        """Let others go on for the time of the body."""
        self._monitor.release()
        try:
            yield
        finally:
            self._monitor.acquire()
            self._came_back()

    def around(self, operation: str) -> AbstractContextManager[None]:
        """Nothing around waits, which are called by threads that watch and only wake others, nor around grants."""
        return self.given_up() if operation in ("read", "commit") else nullcontext()
