"""Taking in what is issued to a host, read by read, and holding back orders that look like an accident."""

from __future__ import annotations

import logging

from sked_core.logic.lifecycle import held_back
from sked_core.model.types import TaskId
from sked_core.runtime.agent.issued_feed import Issue, Record
from sked_core.runtime.agent.local_tasks import LocalTasks, Slot

log = logging.getLogger("sked.agent")


class Intake:
    """Keeps the records of ``tasks`` as they were read last. Called by the agent's main thread."""

    def __init__(self, tasks: LocalTasks) -> None:
        self._tasks = tasks
        self._absent_since: dict[TaskId, float] = {}
        self._faults: dict[str, str] = {}
        self._held: frozenset[TaskId] = frozenset()
        self._read_at = 0.0
        self._reads = 0

    def take(self, issue: Issue, now: float) -> None:
        """Take in one authoritative read."""
        self._reads += 1
        self._tasks.remember()
        for task_id, record in issue.records.items():
            fresh = task_id not in self._tasks.slots
            slot = self._tasks.slot(task_id)
            if fresh and self._reads > 1:
                slot.new = True
            if slot.record is None or slot.record.revision != record.revision:
                self._renew(slot, record)
        for fault in issue.faults.keys() - self._faults.keys():
            log.warning(
                "%s is left as it is: its record is no valid task: %s",
                fault,
                issue.faults[fault],
                extra={"task": fault},
            )
        self._faults = dict(issue.faults)
        gone = [i for i, slot in self._tasks.slots.items() if i not in issue.records and i not in issue.faults]
        for task_id in gone:
            self._tasks.slots[task_id].record = None
        self._read_at = now

    def _renew(self, slot: Slot, record: Record) -> None:
        """The record is new or was written anew: an earlier verdict no longer counts."""
        asked_anew = slot.record is not None and slot.record.digest != record.digest
        slot.record = record
        slot.local.verdict = ""
        if record.task.rejected or asked_anew:  # whoever asks for a restart wants it tried at once
            slot.local.attempts, slot.local.unhealthy_restarts, slot.local.next_try = 0, 0, 0.0

    def brake(self) -> frozenset[TaskId]:
        """The tasks that must not be stopped yet, though the store lacks them."""
        # Also those that were found only after the read: by an agent that was started when their records were gone.
        away = (i for i, slot in self._tasks.slots.items() if slot.record is None and slot.local.exists)
        since = {i: self._absent_since.get(i, self._read_at) for i in away if not self._tasks.slots[i].unreadable}
        self._absent_since = since
        if not since:  # nothing is missing, so nothing is held back
            self._held = frozenset()
            return self._held
        running = sum(slot.local.running > 0 for slot in self._tasks.slots.values())
        held = held_back(self._absent_since, running, self._read_at, held=self._held)
        if held - self._held:
            log.error("%d running tasks vanished from the store at once: stopped only if they stay away", len(held))
        self._held = held
        return held
