"""A store for what needs one and does not care which."""

from __future__ import annotations

from collections.abc import Callable

from sked_core.interfaces.store import Store
from sked_core.runtime.stores.memory import MemoryStore


def in_memory() -> Callable[[], Store]:
    """Opens clients of one store in this process's memory, which is empty at first."""
    return MemoryStore().client
