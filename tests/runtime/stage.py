"""A store, hosts in it, and schedulers on it that a test drives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sked_core.interfaces.store import Put
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.types import Liveness, Task
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.scheduling.loop import SchedulerLoop
from sked_core.runtime.stores.memory import MemoryStore
from sked_core.testing.builders import a_cluster, a_definition, a_host, a_service
from sked_core.testing.clock import FakeClock
from sked_core.testing.fakes import FakeHealth, RecordingStore

Declare = Callable[..., None]


class Stage:
    """The schedulers are stepped by hand or run in threads.

    Their clock is moved by hand; the store's own is the machine's, since threads wait on it.
    """

    def __init__(self, until: Callable[..., Any]) -> None:
        self.memory, self.health, self.clock, self.until = MemoryStore(), FakeHealth(), FakeClock(), until
        self.stores: list[RecordingStore] = []
        self.loops: list[SchedulerLoop] = []
        self.memory.commit([Put(keys.STORE_UID, b"this-store")])

    def scheduler(self, *, store: RecordingStore | None = None, **more: Any) -> SchedulerLoop:
        """A new one, ``s0``, ``s1`` and on, as a client of its own unless it is given a ``store``; ``more`` goes to
        the loop. It has seen nothing yet, so that its first step sees all that stands in the store."""
        self.stores.append(store or RecordingStore(self.memory.client()))
        ports = {"store": self.stores[-1], "plugins": Plugins([]), "health": self.health, "clock": self.clock}
        loop = SchedulerLoop(name=f"s{len(self.loops)}", **ports | more)
        loop.start_watching()
        self.loops.append(loop)
        return loop

    def hosts(self, *names: str, alive: bool = True, **facts: Any) -> None:
        for name in names:
            self.memory.commit([Put(keys.host(name), encode(a_host(name, **facts).host))])
            if alive:
                self.memory.commit([Put(keys.live(name), encode(Liveness("agent")))])

    def tasks(self) -> dict[str, Task]:
        entries = self.memory.read(keys.TASKS).entries
        return {keys.last_segment(key): decode(entry.value, Task) for key, entry in entries.items()}

    def seen(self, loop: SchedulerLoop, prefix: str) -> None:
        """Wait until the loop's watch has noticed a change."""
        self.until(f"{prefix} noticed", loop._feed._changed[prefix].is_set)

    def close(self) -> None:
        for loop in self.loops:
            loop._halt.set()
        self.health.close()
        self.memory.close()


def services(stage: Stage, declare: Declare, count: int, desired: int = 1) -> list[str]:
    """Declare ``service-0`` and on, all in one cluster; returns their names."""
    names = [f"service-{number}" for number in range(count)]
    declare(stage.memory, a_cluster(services=names))
    for name in names:
        declare(stage.memory, a_service(name, desired=desired), a_definition(name))
    return names
