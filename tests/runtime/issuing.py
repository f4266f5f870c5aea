"""What a test writes for an agent, and reads of it, straight from a store in memory."""

from __future__ import annotations

from typing import Any

from sked_core.interfaces.store import Delete, Put
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.types import Task
from sked_core.runtime.stores.memory import MemoryStore

HOST = "h1"


class Issuing:
    """For worlds with a store in ``memory`` and an agent of HOST."""

    memory: MemoryStore

    def issue(self, *tasks: Task) -> None:
        for task in tasks:
            both = (keys.task(task.id), keys.host_task(task.host, task.id))
            self.memory.commit([Put(key, encode(task)) for key in both])

    def withdraw(self, task: Task) -> None:
        self.issue(decode(encode({**decode(encode(task), dict), "scheduled": False}), Task))

    def forget(self, *tasks: Task) -> None:
        both = [key for task in tasks for key in (keys.task(task.id), keys.host_task(task.host, task.id))]
        self.memory.commit([Delete(key) for key in both])

    def raw(self, key: str) -> dict[str, Any] | None:
        entry = self.memory.read(key).entries.get(key)
        return decode(entry.value, dict) if entry else None

    def mine(self, task: Task) -> dict[str, Any] | None:
        return self.raw(keys.host_task(HOST, task.id))
