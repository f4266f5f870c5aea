"""One agent in the test's own thread, on a clock that the test moves: nothing happens but what the test lets happen."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from runtime.issuing import HOST, Issuing
from sked_core.errors import SkedError
from sked_core.model.ports import Binding
from sked_core.model.types import Event
from sked_core.runtime.agent.loop import AgentLoop
from sked_core.runtime.agent.settings import AgentSettings
from sked_core.runtime.agent.task_secrets import SecretSource
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.stores.memory import MemoryStore
from sked_core.testing.builders import an_open_policy
from sked_core.testing.clock import FakeClock
from sked_core.testing.fakes import FakeEngine, FakeHealth, RecordingStore


class HeldJobs:
    """Workers that keep each job until it is let run; those of a pool in ``hung`` never do."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, Callable[[], None]]] = []
        self.hung: set[str] = set()

    def submit(self, pool: str, job: Callable[[], None]) -> None:
        self.waiting.append((pool, job))

    def close(self) -> None:
        self.waiting.clear()

    def run(self) -> bool:
        """Let what waits run, in order; whether there was anything."""
        ready = [one for one in self.waiting if one[0] not in self.hung]
        self.waiting = [one for one in self.waiting if one[0] in self.hung]
        for _, job in ready:
            job()
        return bool(ready)


class SmallMachine:
    """A machine with nothing else on it. ``taken``: ports that a stranger holds."""

    taken: frozenset[int] = frozenset()
    memory = 8000

    def attributes(self) -> dict[str, str]:
        return {"arch": "x86_64", "kernel": "6.1.0"}

    def memory_mb(self) -> int:
        return self.memory

    def cpu_units(self) -> int:
        return 4096

    def disk_mb(self, folder: Path) -> int:
        return 100_000

    def free_disk_mb(self, folder: Path) -> int:
        return 50_000

    def ports_in_use(self) -> set[int]:
        return set(self.taken)

    def taken_ports(self, bindings: Collection[Binding]) -> dict[Binding, str]:
        return {one: "a stranger" for one in bindings if one.port in self.taken}

    def outgoing_ports(self) -> list[tuple[int, int]]:
        return [(32768, 60999)]

    def reserved_ports(self) -> str:
        return ""


class Solo(Issuing):
    """A host: its engine, its store, its health provider and, one after another, its agents."""

    def __init__(self, folder: Path, offering: Callable[..., Plugins]) -> None:
        self.folder, self.offering = folder, offering
        self.clock, self.machine = FakeClock(), SmallMachine()
        self.memory = MemoryStore()
        self.store = RecordingStore(self.memory)
        self.engine, self.health = FakeEngine(), FakeHealth()
        self.events: list[Event] = []
        self.settings: dict[str, Any] = {}
        self.secrets: SecretSource | None = None
        self.agent, self.jobs = self.boot()

    def boot(self) -> tuple[AgentLoop, HeldJobs]:
        """Open an agent, the next one if there was one."""
        self.jobs = HeldJobs()
        self.agent = AgentLoop(
            store=self.store,
            plugins=self.offering(sked_executors={"bash": self.engine.executor}),
            health=self.health,
            settings=AgentSettings(
                host=HOST,
                state_dir=self.folder / "state",
                stop_grace=0.1,
                **{"policy": an_open_policy("bash", "other")} | self.settings,
            ),
            clock=self.clock,
            observer=self.events.append,
            workers=self.jobs,
            machine=self.machine,
            secrets=self.secrets,
        )
        self.agent.open()
        return self.agent, self.jobs

    def crash(self) -> None:
        """The agent's process is killed: what had not begun never happens. The next one is opened."""
        self.jobs.waiting.clear()
        self.agent.disk.unlock()
        self.boot()

    def close(self) -> None:
        self.agent.close()
        self.memory.close()

    def settle(self) -> None:
        """Let everything happen that can happen now."""
        for part in (self.agent.keeper.renew_if_due, self.agent.feed.read_and_deliver, self.agent.presence.announce):
            try:
                part()
            except SkedError:
                self.agent.presence.wanted.set()
        self.agent.want_health()
        self.agent.tick()
        while self.jobs.run():
            self.agent.tick()
        try:
            self.agent.flush_events()
        except SkedError:
            assert self.store.down

    def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Let ``seconds`` pass, in steps, with all that happens meanwhile."""
        self.settle()
        end = self.clock.monotonic() + seconds
        while (left := end - self.clock.monotonic()) > 1e-9:
            self.clock.advance(min(step, left))
            self.settle()

    def told(self, what: str) -> list[Event]:
        return [event for event in self.events if event.what == what]
