"""Why tasks don't run well on one host, kept in the store for as long as it is so.

What should stand there is decided by the agent's main thread; a job per task brings the store in line with it. A store
that is slow or away holds up nothing else, and what it did not take is written later.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

from sked_core.clock import Clock
from sked_core.errors import Conflict, InvalidValue, SkedError
from sked_core.interfaces.store import Check, Delete, Put, Revision, Store, entry_at
from sked_core.logic.lifecycle import Local, is_well
from sked_core.model import codec, keys
from sked_core.model.spec import plain_lines
from sked_core.model.types import Failure, TaskId
from sked_core.runtime.agent.issued_feed import Record
from sked_core.runtime.agent.local_tasks import Slot
from sked_core.runtime.journal import utc
from sked_core.runtime.state import marker
from sked_core.runtime.workers import Message, Submit

log = logging.getLogger("sked.agent")
RETRY_SECONDS = 10.0
"""When to try again what the store did not take."""
MAX_TEXT = 1000
"""Characters of a reason and of a check's output that are kept."""
POOL = "failures"


class FailureNotes:
    """Used by the agent's main thread."""

    def __init__(self, *, store: Store, host: str, clock: Clock, submit: Submit) -> None:
        self._store, self._host, self._clock, self._submit = store, host, clock, submit
        self._wanted: dict[TaskId, Failure] = {}
        self._stored: dict[TaskId, Failure] = {}
        self._loaded = False
        self._loading = False
        self._busy: set[TaskId] = set()
        self._due: dict[TaskId, float] = {}
        self._refused: dict[TaskId, Revision] = {}
        """Which revision of the task's record was not the latest any more."""
        self._load_due = 0.0

    def note(self, local: Local, now: float, *, unhealthy: bool = False, gives_up: bool = False) -> Failure:
        """It has just failed, as ``local`` says; it is written with the next ``begin``."""
        wall = self._clock.wall()
        failure = Failure(
            host=self._host,
            attempts=local.attempts,
            unhealthy=unhealthy,
            reason=plain_lines(local.last_error[:MAX_TEXT]),
            output=plain_lines(local.check_output[:MAX_TEXT]),
            log=local.log,
            at=utc(wall),
            next_try="" if gives_up else utc(wall + max(0.0, local.next_try - now)),
        )
        self._wanted[local.id] = failure
        self._due.pop(local.id, None)
        return failure

    def latest(self, task_id: TaskId) -> Failure | None:
        """What should be kept about the task."""
        return self._wanted.get(task_id)

    def kept(self, task_id: TaskId, failure: Failure) -> None:
        """It stands in the store: another commit carried it."""
        self._stored[task_id] = failure

    def begin(self, slots: Mapping[TaskId, Slot], now: float) -> None:
        """Begin to bring the store in line. Not to be called while the store may be a stranger's."""
        if not self._loaded:
            if not self._loading and now >= self._load_due:
                self._loading = True
                self._submit(POOL, self._load)
            return
        if not self._wanted and not self._stored:
            return
        for task_id in list(self._wanted):
            slot = slots.get(task_id)
            task = slot.record.task if slot is not None and slot.record is not None else None
            well = slot is not None and task is not None and slot.busy is None and is_well(slot.local, task, now)
            if task is None or not task.scheduled or well:
                del self._wanted[task_id]
        for task_id in sorted(self._wanted.keys() | self._stored.keys()):
            wanted, slot = self._wanted.get(task_id), slots.get(task_id)
            record = slot.record if slot is not None else None
            if wanted == self._stored.get(task_id) or task_id in self._busy:
                continue
            read_anew = record is not None and self._refused.get(task_id, record.revision) != record.revision
            if now < self._due.get(task_id, 0.0) and not read_anew:
                continue
            self._refused.pop(task_id, None)
            self._busy.add(task_id)
            self._submit(POOL, partial(self._settle, task_id, record, wanted))

    def _load(self) -> Message:
        """What an earlier agent of this host left."""
        try:
            entries = self._store.read(keys.FAILURES).entries
        except SkedError as error:
            log.debug("failures are not read: %s", error)
            return partial(self._take, None)
        found: dict[TaskId, Failure] = {}
        for key, entry in entries.items():
            failure = self._mine(entry.value)
            if failure is not None:
                found[TaskId(keys.last_segment(key))] = failure
        return partial(self._take, found)

    def _take(self, found: Mapping[TaskId, Failure] | None, now: float) -> None:
        self._loading, self._loaded, self._load_due = False, found is not None, now + RETRY_SECONDS
        self._stored.update(found or {})
        self._wanted = dict(found or {}) | self._wanted

    def _settle(self, task_id: TaskId, record: Record | None, wanted: Failure | None) -> Message:
        try:
            if wanted is None:
                self._remove(task_id)
            elif record is not None:
                # Only while the task is this host's: otherwise another host's word would be overwritten.
                mine = Check(keys.host_task(self._host, task_id), record.revision)
                told = marker(record.task.service, self._host)
                self._store.commit([mine, Put(keys.failure(task_id), codec.encode(wanted)), told])
        except Conflict:
            return partial(self._changed, task_id, record)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
            log.log(
                logging.DEBUG if isinstance(error, SkedError) else logging.ERROR,
                "%s: %s",
                task_id,
                error,
                extra={"task": task_id},
            )
            return partial(self._settled, task_id, wanted, False)
        return partial(self._settled, task_id, wanted, True)

    def _settled(self, task_id: TaskId, written: Failure | None, done: bool, now: float) -> None:
        self._busy.discard(task_id)
        if not done:
            self._due[task_id] = now + RETRY_SECONDS
        elif written is not None:
            self._stored[task_id] = written
        else:
            self._stored.pop(task_id, None)

    def _changed(self, task_id: TaskId, record: Record | None, now: float) -> None:
        self._settled(task_id, None, False, now)
        if record is not None:
            self._refused[task_id] = record.revision

    def _remove(self, task_id: TaskId) -> None:
        key = keys.failure(task_id)
        entry = entry_at(self._store, key)
        if entry is not None and self._mine(entry.value) is not None:
            self._store.commit([Check(key, entry.revision), Delete(key)])

    def _mine(self, value: bytes) -> Failure | None:
        try:
            failure = codec.decode(value, Failure)
        except InvalidValue:
            return None
        return failure if failure.host == self._host else None
