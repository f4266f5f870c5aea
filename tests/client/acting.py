"""What schedulers do, done by a test, and waiting for what comes of it."""

from __future__ import annotations

import time
from collections.abc import Callable

from sked_core.interfaces.store import Delete, Op, Put, Revision, Store
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Task
from sked_core.runtime.state import marker


def issue(store: Store, *tasks: Task) -> Revision:
    """As a scheduler does it."""
    ops: list[Op] = []
    for task in tasks:
        ops += [Put(keys.task(task.id), encode(task)), Put(keys.host_task(task.host, task.id), encode(task))]
    return store.commit([*ops, *(marker(name, "test") for name in sorted({task.service for task in tasks}))])


def withdraw(store: Store, task: Task) -> None:
    store.commit([Delete(keys.task(task.id)), Delete(keys.host_task(task.host, task.id)), marker(task.service, "test")])


def until(true: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)
