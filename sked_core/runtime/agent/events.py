"""What an agent tells of its tasks and of its host."""

from __future__ import annotations

import logging

from sked_core.model.types import TaskId
from sked_core.runtime.agent.local_tasks import Slot
from sked_core.runtime.journal import Journal

log = logging.getLogger("sked.agent")


class AgentEvents:
    """Adds events to the journal of one agent. Called by its main thread."""

    def __init__(self, journal: Journal, host: str) -> None:
        self._journal, self._host = journal, host
        self._unchecked: dict[TaskId, str] = {}

    def task(self, what: str, slot: Slot, why: str = "", *, before: str = "", after: str = "") -> None:
        """Something happened to a task."""
        task = slot.record.task if slot.record is not None else slot.task
        texts = {"service": task.service if task is not None else "", "before": before, "after": after}
        self._journal.add(self._journal.event(what, f"task/{slot.local.id}", why=why, host=self._host, **texts))

    def unchecked(self, slot: Slot, why: str) -> None:
        """It runs without some of its checks: told once, until there is another reason."""
        if self._unchecked.get(slot.local.id) != why:
            self._unchecked[slot.local.id] = why
            log.warning("some checks of %s are not run: %s", slot.local.id, why, extra={"task": slot.local.id})
            self.task("task.unchecked", slot, why)

    def host(self, what: str, why: str = "") -> None:
        """Something happened to the host or its agent."""
        self._journal.add(self._journal.event(what, f"host/{self._host}", why=why, host=self._host))
