"""Watching: a thread that waits for changes and only wakes others; what changed is read by those who act."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable

from sked_core.errors import SkedError
from sked_core.logic import backoff

log = logging.getLogger("sked.watch")
WAIT_SECONDS = 55.0
"""Longest wait on the store in one call (reliability.md C1: at most 60 s)."""
MAX_RETRY_SECONDS = 5.0
MIN_INTERVAL_SECONDS = 0.01
"""Shortest time between two wake-ups, so that a store which wakes for nothing can't make a tight loop."""


class Watcher:
    """Calls ``notify`` after each change that ``wait(since, timeout)`` reports, from a daemon thread.

    It notifies once at the start, and after every error that has passed, since changes may have been missed.
    """

    def __init__(
        self, name: str, wait: Callable[[int, float], int], notify: Callable[[], None], stop: threading.Event
    ) -> None:
        self._name, self._wait, self._notify, self._stop = name, wait, notify, stop
        threading.Thread(target=self._run, name=f"watch {name}", daemon=True).start()

    def _run(self) -> None:
        since, failures = 0, 0
        while not self._stop.is_set():
            try:
                revision = self._wait(since, WAIT_SECONDS)
            except Exception as error:  # noqa: BLE001 - a plugin's mistake must not leave the process blind for good
                failures += 1
                log.log(logging.DEBUG if isinstance(error, SkedError) else logging.ERROR, "%s: %s", self._name, error)
                self._stop.wait(backoff.delay(failures, self._name, base=0.1, cap=MAX_RETRY_SECONDS))
                continue
            if revision != since or failures:
                since, failures = revision, 0
                self._notify()
            self._stop.wait(MIN_INTERVAL_SECONDS)


def call_when_set(event: threading.Event, call: Callable[[], None]) -> None:
    """Call ``call`` once ``event`` is set, from a daemon thread: lets a loop wait for one event and notice another."""

    def wait() -> None:
        event.wait()
        call()

    threading.Thread(target=wait, name="until stop", daemon=True).start()


def collect_seldom() -> None:
    """Have this process look for garbage in circles a hundred times less often than Python does by itself.

    A scheduler keeps up to millions of small objects, hardly any of them in circles; looking through them time and
    again is a quarter of what placing tasks costs (benchmarks/placement.py). Idempotent.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
