"""What tasks with ttl checks say of themselves, through the store key ``reports/<host>/<task id>``.

A report counts from when this process saw the key change, on its own monotonic clock: no clock of the task, the
store or another host is trusted. While the store does not answer nobody can report, so that time does not count.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from sked_core.clock import Clock
from sked_core.errors import InvalidValue, Unavailable
from sked_core.interfaces.store import Revision, Store
from sked_core.model import keys
from sked_core.model.codec import decode
from sked_core.model.types import Health, TaskId

REFRESH_SECONDS = 0.5
"""One read serves every ttl check of the host for this long."""


@dataclass(frozen=True, slots=True)
class _Report:
    health: Health
    revision: Revision
    seen: float


class Reports:
    """The reports of the tasks of one host."""

    def __init__(self, *, store: Store, host: str, clock: Clock) -> None:
        self._store = store
        self._host = host
        self._clock = clock
        self._lock = threading.Lock()
        self._reports: dict[TaskId, _Report] = {}
        self._read_at: float | None = None
        self._answered = False

    def health(self, task_id: TaskId, ttl: float) -> Health | None:
        """The task's own word while it is not older than ``ttl`` seconds; None when the store does not answer."""
        with self._lock:
            self._refresh()
            if not self._answered:
                return None
            report = self._reports.get(task_id)
            age = self._clock.monotonic() - report.seen if report else 0.0
        if report is None:
            return Health(False, "ttl: the task has not reported yet (sked report)")
        if age > ttl:
            return Health(False, f"ttl: no report for more than {ttl:g} s")
        return report.health

    def _refresh(self) -> None:
        now = self._clock.monotonic()
        if self._read_at is not None and now - self._read_at < REFRESH_SECONDS:
            return
        self._read_at = now
        prefix = keys.host_reports(self._host)
        try:
            entries = self._store.read(prefix).entries
        except Unavailable:
            self._answered = False
            return
        known = self._reports if self._answered else {}
        self._reports = {}
        for key, entry in entries.items():
            task_id = TaskId(key.removeprefix(prefix))
            before = known.get(task_id)
            if before is not None and before.revision == entry.revision:
                self._reports[task_id] = before
            else:
                self._reports[task_id] = _Report(_word(entry.value), entry.revision, now)
        self._answered = True


def _word(value: bytes) -> Health:
    try:
        return decode(value, Health)
    except InvalidValue as error:
        return Health(False, f"ttl: {error}")
