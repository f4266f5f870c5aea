"""Restarting tasks for new versions of their secrets, one of a service at a time. The agent's main thread calls in."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping
from functools import partial

from sked_core.logic.lifecycle import is_well
from sked_core.model import secret_refs
from sked_core.model.types import Task, TaskId
from sked_core.runtime.agent.events import AgentEvents
from sked_core.runtime.agent.local_tasks import LocalTasks, Slot
from sked_core.runtime.agent.task_secrets import TaskSecrets
from sked_core.runtime.workers import Message, Submit

log = logging.getLogger("sked.agent")
POOL = "secrets"


class SecretWatch:
    """Looks every ``seconds``, about: hosts don't look in step; and at once at what an earlier agent started."""

    def __init__(
        self,
        *,
        tasks: LocalTasks,
        secrets: TaskSecrets,
        events: AgentEvents,
        host: str,
        seconds: float,
        submit: Submit,
        now: float,
    ) -> None:
        self._tasks, self._secrets, self._events, self._host = tasks, secrets, events, host
        self._seconds, self._submit = seconds, submit
        self._due, self._looks, self._busy = now + seconds, 0, False
        self._asked: set[TaskId] = set()
        """What was taken over from an earlier agent and looked at since."""
        self._new: dict[TaskId, list[str]] = {}
        """What is new for tasks that were not restarted yet."""
        self._turn: dict[tuple[str, str], TaskId] = {}
        """By service, the task that was restarted last, until it is well."""

    def begin(self, now: float) -> None:
        """Begin the look that is due, and have the next tasks restarted."""
        if self._new:
            self._take_turns(now)
        if self._busy:
            return
        over = [one for one, slot in self._tasks.slots.items() if slot.adopted and slot.local.up]
        if now < self._due and self._asked.issuperset(over):
            return
        self._asked = set(over)
        self._secrets.forget(self._tasks.slots.keys())
        self._looks += 1
        share = zlib.crc32(f"{self._host} {self._looks}".encode()) / 2**32
        self._due = now + self._seconds * (0.75 + share / 2)
        wanted = [task for slot in self._tasks.slots.values() if (task := self._of_interest(slot)) is not None]
        if wanted:
            self._busy = True
            self._submit(POOL, partial(self._look, wanted, self._tasks.epochs()))

    def _of_interest(self, slot: Slot) -> Task | None:
        task = slot.task
        if task is None or slot.busy is not None or not slot.local.up:
            return None
        refs = secret_refs.of_task(task).values()
        rotates = any(ref.rotate == "restart" for ref in refs)
        return task if rotates or (refs and not self._secrets.knows(task)) else None

    def _look(self, tasks: list[Task], epochs: Mapping[TaskId, int]) -> Message:
        try:
            return partial(self._looked, epochs, self._secrets.look(tasks))
        except Exception as error:  # noqa: BLE001  the next look may go better
            log.error("secrets were not looked at: %s", type(error).__name__)
            return partial(self._looked, epochs, {})

    def _looked(self, epochs: Mapping[TaskId, int], changed: Mapping[TaskId, list[str]], now: float) -> None:
        """``epochs``: of what ran when the look began; what was started since has what is new."""
        self._busy, slots = False, self._tasks.slots
        self._new = {one: why for one, why in changed.items() if one in slots and slots[one].epoch == epochs.get(one)}
        self._take_turns(now)

    def _take_turns(self, now: float) -> None:
        for service, task_id in list(self._turn.items()):
            slot = self._tasks.slots.get(task_id)
            if slot is None or slot.task is None or slot.going or self._is_renewed(slot, slot.task, now):
                del self._turn[service]
        for task_id in sorted(self._new):
            slot = self._tasks.slots.get(task_id)
            if slot is None or slot.task is None or slot.going or not slot.local.up:
                del self._new[task_id]  # started anew it gets what is new
                continue
            service = (slot.task.cluster.name, slot.task.service)
            if service in self._turn or slot.busy is not None or slot.local.renew:
                continue
            why = "; ".join(self._new.pop(task_id))
            self._turn[service] = task_id
            slot.local.renew = why
            self._events.task("task.secret_rotated", slot, why)

    def _is_renewed(self, slot: Slot, task: Task, now: float) -> bool:
        return not slot.local.renew and slot.busy is None and is_well(slot.local, task, now)
