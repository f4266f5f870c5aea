"""The way to the containers of one host's tasks for those who read their logs and run commands in them.

Other threads than the agent's own look at what that one changes: each look takes a copy, and what it finds may have
ended the moment after. A handle that has is no harm: executors say that nothing runs there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from sked_core.errors import SkedError
from sked_core.interfaces.executor import Executor, Handle, LogSource
from sked_core.model.types import TaskId
from sked_core.runtime.agent.local_tasks import Slot


@dataclass(frozen=True, slots=True)
class Place:
    """One container of a task. ``executor`` runs it; ``handle`` None: it was not started yet, or is gone."""

    container: str
    type: str
    executor: Executor | None
    handle: Handle | None


class TaskAccess:
    """``slots``: the agent's own. ``executors`` by type. ``mask`` takes the secrets of a task out of a text, as far as
    they are known."""

    def __init__(
        self,
        slots: Callable[[], Mapping[TaskId, Slot]],
        executors: Mapping[str, Executor],
        mask: Callable[[str, str], str] = lambda _, text: text,
    ) -> None:
        self._slots, self._executors, self.mask = slots, executors, mask

    def find(self, task_id: str) -> list[Place]:
        """The containers of a task in the order of its definition; empty where the agent knows of no such task."""
        slot = self._slots().get(TaskId(task_id))
        if slot is None:
            return []
        task = slot.record.task if slot.record is not None else slot.task
        held = {one.handle.container: one for one in list(slot.held)}
        kinds = {one.name: one.type for one in task.task_definition.containers} if task is not None else {}
        kinds |= {name: one.type for name, one in held.items()}
        return [
            Place(name, kind, self._executors.get(kind), held[name].handle if name in held else None)
            for name, kind in kinds.items()
        ]

    def kept(self, task_id: str) -> list[Place]:
        """Containers of a task that is gone, of which an executor still has logs."""
        found = []
        for kind, executor in list(self._executors.items()):
            if isinstance(executor, LogSource):
                with suppress(SkedError):
                    found += [Place(one.container, kind, executor, one) for one in executor.kept(TaskId(task_id))]
        return found
