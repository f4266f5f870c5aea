"""Hands events to plugins in a thread of its own, so that a slow one holds up no scheduler and no agent."""

from __future__ import annotations

import logging
import threading
from collections import deque

from sked_core.model.types import Event
from sked_core.runtime.journal import Observer

log = logging.getLogger("sked.events")
MAX_QUEUED = 1000
"""How many events wait for slow plugins; the oldest are left out first."""


class Delivery:
    """Calls ``target`` with each event, in order, in one daemon thread. ``target`` must not raise."""

    def __init__(self, target: Observer) -> None:
        self._target = target
        self._queue: deque[Event] = deque()
        self._changed = threading.Condition()
        self._closing = self._behind = False
        self._thread = threading.Thread(target=self._run, name="sked-events", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Queue ``event``; never waits. When the queue is full the oldest is dropped, and that is logged once until
        it is empty again."""
        with self._changed:
            self._queue.append(event)
            full = len(self._queue) > MAX_QUEUED
            if full:
                self._queue.popleft()
                if not self._behind:
                    log.warning("plugins take events in too slowly: the oldest are left out")
            self._behind = self._behind or full
            self._changed.notify_all()

    def close(self, timeout: float) -> None:
        """Deliver what waits, for ``timeout`` seconds at most; what comes later is dropped. Idempotent."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._behind = self._behind and bool(self._queue)
                self._changed.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    return
                event = self._queue.popleft()
            self._target(event)
