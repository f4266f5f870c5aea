"""The health of all tasks, kept fresh beside the copy of the state; a provider that takes its time holds nobody up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping

from sked_core.clock import Clock
from sked_core.errors import SkedError
from sked_core.interfaces.health import HealthProvider, by_host
from sked_core.logic import backoff
from sked_core.model.types import Health, Task, TaskId
from sked_core.runtime.loop import Watcher

log = logging.getLogger("sked.mirror")
REST, LONGEST_REST = 3.0, 1.0
"""After health was read, so many times the duration of that passes until it is read again, seconds at most."""
RETRY_FIRST, RETRY_LAST = 0.1, 2.0


class HealthCopy:
    """``now`` is what was read last, and replaced, never changed. ``trouble``: why it can't be had, empty while it can.
    ``tasks`` says whose health is wanted, and where they are: whose word counts for each; ``told`` is called, from a
    thread, after each of them has changed."""

    def __init__(
        self, provider: HealthProvider, clock: Clock, tasks: Callable[[], Iterable[Task]], told: Callable[[], None]
    ) -> None:
        self._provider, self._clock, self._tasks, self._told = provider, clock, tasks, told
        self._dirty, self._stop = threading.Event(), threading.Event()
        self.now: Mapping[TaskId, Health] = {}
        self.trouble = ""
        self._places: Mapping[str, frozenset[TaskId]] = {}
        """Where tasks were when it was read last."""

    def start(self) -> None:
        """Begin to watch and to read."""
        Watcher("health", self._provider.wait, self.invalidate, self._stop)
        threading.Thread(target=self._run, name="mirror of health", daemon=True).start()

    def invalidate(self) -> None:
        """Read it again soon."""
        self._dirty.set()

    def tasks_changed(self) -> None:
        """Read it again soon if there are others than there were, or they are elsewhere."""
        if by_host(self._tasks()) != self._places:
            self.invalidate()

    def close(self) -> None:
        """Idempotent."""
        self._stop.set()
        self._dirty.set()
        self._provider.close()

    def read(self) -> None:
        """Read it now. Raises Unavailable."""
        self._dirty.clear()
        tasks = list(self._tasks())
        pairs = {(task.cluster.name, task.service) for task in tasks}
        self._places = by_host(tasks)
        self.now = self._provider.health(pairs, self._places) if pairs else {}
        self.trouble = ""

    def _run(self) -> None:
        failures = 0
        while True:
            self._dirty.wait()
            if self._stop.is_set():
                return
            begun = self._clock.monotonic()
            try:
                self.read()
                failures = 0
            except Exception as error:  # noqa: BLE001 - a plugin's mistake must not leave the mirror blind for good
                log.log(logging.DEBUG if isinstance(error, SkedError) else logging.ERROR, "health: %s", error)
                failures, self.trouble = failures + 1, str(error) or type(error).__name__
                self._dirty.set()
            self._told()
            rest = min(REST * (self._clock.monotonic() - begun), LONGEST_REST)
            pause = backoff.delay(failures, "health", base=RETRY_FIRST, cap=RETRY_LAST) if failures else rest
            self._stop.wait(pause)
