"""The processes of a simulated cluster: real agents and schedulers, and what their threads would do, one thing at a
time and whenever the world says so."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from sked_core.errors import SkedError
from sked_core.interfaces.executor import Executor, ExecutorContext
from sked_core.interfaces.hookspecs import hookimpl
from sked_core.logic import backoff
from sked_core.model import keys
from sked_core.runtime.agent.host_presence import PUBLISH_SECONDS
from sked_core.runtime.agent.issued_feed import CONFIRM_SECONDS
from sked_core.runtime.agent.loop import AgentLoop
from sked_core.runtime.agent.settings import AgentSettings
from sked_core.runtime.lock import LeaseKeeper
from sked_core.runtime.loop import WAIT_SECONDS
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.scheduling.evaluation import SOON_SECONDS
from sked_core.runtime.scheduling.loop import SchedulerLoop
from sked_core.testing.builders import an_open_policy
from sked_core.testing.sim.disk import SimDisk, SimMachine
from sked_core.testing.sim.engine import SimHealth
from sked_core.testing.sim.scene import Scene, SimHost
from sked_core.testing.sim.store import Killed

NEVER = float("inf")
RENEW_SECONDS = 3.0
WATCH_SECONDS = 0.02
"""From a change until those who watch for it look."""
FLUSH_SECONDS = 1.0
SHORTEST_SECONDS = 0.001
"""Between two rounds of one loop: each takes some time."""
LOST_AFTER_SECONDS = 30.0
EXECUTOR = "sim"


@dataclass(frozen=True, slots=True)
class _Module:
    """A plugin that offers one executor, as an entry point finds it."""

    make: Callable[[ExecutorContext], Executor]
    name: str = "sim"
    value: str = "sim"
    dist: object = None

    def load(self) -> Any:
        module = self

        class Hooks:
            @hookimpl
            def sked_executors(self) -> Mapping[str, Callable[[ExecutorContext], Executor]]:
                return {EXECUTOR: module.make}

        return Hooks()


class _Flag(threading.Event):
    """An Event that nobody waits for: there is one thread."""

    def __init__(self) -> None:
        self._flag = False

    def is_set(self) -> bool:
        return self._flag

    def set(self) -> None:
        self._flag = True

    def clear(self) -> None:
        self._flag = False


def plugins(make: Callable[[ExecutorContext], Executor]) -> Plugins:
    """The plugins of a process whose executor is made by ``make``."""
    known = _found()
    found = copy(known)
    found._plugins = [replace(one, offers=dict(one.offers), errors=list(one.errors)) for one in known._plugins]
    for one in found._plugins:
        if ("executor", EXECUTOR) in one.offers:
            one.offers["executor", EXECUTOR] = make
    return found


def _unmade(_context: ExecutorContext) -> Executor:
    raise AssertionError("each world makes its own")


@cache
def _found() -> Plugins:
    """All but whose executor it is, found once: asking each hook takes as long as some steps of a run."""
    return Plugins([_Module(_unmade)])  # type: ignore[list-item]


class Process(ABC):
    """One process. ``dues``: when each of its activities is to happen next (monotonic seconds).

    ``doom``: it is killed at the so many-th call from now; ``nap``: it is paused there. ``under_way`` counts how many
    of its activities are on the stack: others may act while one of its calls lasts.
    """

    def __init__(self, world: Scene, name: str) -> None:
        self.world, self.name = world, name
        self.client = world.store.client(name)
        self.client.process = self
        self.keeper = LeaseKeeper(self.client, world.clock)
        self.alive = True
        self.paused_until = 0.0
        self.doom = self.nap = 0
        self.waits_for = ""
        """The kind of calls that count for these; all, if empty."""
        self.under_way = 0
        self.started = world.clock.monotonic()
        self.failed_at = self.started
        """When one of its calls failed last."""
        self.read_at: dict[str, float] = {}
        """When it has last read each prefix."""
        self.dues: dict[str, float] = {}
        self.health_seen = -1
        self.planned: tuple[float, str] | None = None
        """What ``next`` said last, as long as nothing has happened to it since."""
        self.planned_for = -1
        """The version of health that it was said for."""

    def next(self, now: float) -> tuple[float, str]:
        """When it wants to do something next, and what."""
        dues = self.dues
        if self.health_seen != self.world.health_version and dues["health"] > now + 0.2:
            dues["health"] = now + 0.2
        due = min(dues.values())
        for what, at in dues.items():
            if at == due:
                return due, what
        raise AssertionError("the least of them is one of them")

    def act(self, what: str) -> None:
        """Do one activity now; a kill in its middle ends it there."""
        self.under_way += 1
        self.planned = None
        try:
            self.do(what)
        except Killed:
            if self.alive:
                self.die()
        finally:
            self.under_way -= 1
            self.planned = None

    @abstractmethod
    def do(self, what: str) -> None:
        """One activity, by its name among ``dues``."""

    def die(self) -> None:
        """Killed: whatever it was doing is dropped where it was."""
        self.alive = False
        self.client.dead = True

    @abstractmethod
    def changed(self, key: str) -> None:
        """Something under ``key`` has changed: a watch of it wakes soon."""

    def reconnect(self) -> None:  # noqa: B027 - most have nothing to do then
        """The store is in reach again, or another one."""

    def give_back(self) -> None:
        """What a process that is asked to end does last: end its lease, if it can."""
        with suppress(SkedError):
            self.keeper.lease().revoke()

    def reachable(self) -> bool:
        return not self.client.cut and not self.world.store.down

    def point(self, what: str) -> None:
        """It makes a call (the port Caller)."""
        self.world.point_of(self, what)

    def _renew(self) -> None:
        self.dues["renew"] = self.world.clock.monotonic() + RENEW_SECONDS
        self.keeper.renew_if_due()


class SimScheduler(Process):
    """A scheduler process."""

    def __init__(self, world: Scene, name: str) -> None:
        super().__init__(world, name)
        self.health = SimHealth(world.registry, self)
        self.loop = SchedulerLoop(
            store=self.client,
            plugins=world.plugins,
            health=self.health,
            name=name,
            lost_after=LOST_AFTER_SECONDS,
            clock=world.clock,
            keeper=self.keeper,
        )
        self.loop._wake = _Flag()
        for flags in (self.loop._feed._changed, self.loop._feed._taken):
            flags.update({prefix: _Flag() for prefix in flags})
        now = self.started
        self.dues = {"step": now, "renew": now + RENEW_SECONDS, "health": NEVER}
        self._watched = dict.fromkeys(self.loop._feed._changed, NEVER)

    def next(self, now: float) -> tuple[float, str]:
        due, what = super().next(now)
        for prefix, at in self._watched.items():
            if at < due:
                due, what = at, prefix
        return due, what

    def changed(self, key: str) -> None:
        for prefix, due in self._watched.items():
            if key.startswith(prefix):
                self._watched[prefix] = min(due, self.world.clock.now + WATCH_SECONDS)
                self.planned = None

    def reconnect(self) -> None:
        """Each watch wakes once, since changes may have been missed."""
        for prefix in self._watched:
            self.changed(prefix)

    def do(self, what: str) -> None:
        now = self.world.clock.monotonic()
        if what in self._watched:
            self._watched[what] = NEVER
            if self.reachable():
                self.loop._feed._noticed(what, self.wake)
        elif what == "renew":
            self._renew()
        elif what == "health":
            self.dues["health"], self.health_seen = NEVER, self.world.health_version
            self.loop._health_changed()
            self.wake()
        else:
            self._step(now)

    def wake(self) -> None:
        pause = SOON_SECONDS if self.loop._failures else 0.0
        self.dues["step"] = min(self.dues["step"], self.world.clock.monotonic() + pause)

    def _step(self, now: float) -> None:
        self.dues["step"] = NEVER
        failures = self.loop._failures
        pause = self.loop.step()
        if self.loop._failures > failures:
            self.failed_at = self.world.clock.monotonic()
        self.dues["step"] = min(self.dues["step"], self.world.clock.monotonic() + max(pause, SHORTEST_SECONDS))


@dataclass(slots=True, eq=False)
class Job:
    """A job of an agent, and when it is to run."""

    pool: str
    run: Callable[[], None]
    due: float


class SimAgent(Process):
    """The agent of a host."""

    def __init__(self, world: Scene, host: SimHost, *, accept: bool = False) -> None:
        super().__init__(world, f"agent {host.name}")
        self.host = host
        self.health = SimHealth(world.registry, self, host.name)
        self.jobs: list[Job] = []
        self.in_tick = False
        self._read_failures = 0
        host.agent = self
        self.loop = AgentLoop(
            store=self.client,
            plugins=world.plugins,
            health=self.health,
            settings=AgentSettings(
                host=host.name, state_dir=Path("/simulated"), accept_store=accept, policy=an_open_policy("sim")
            ),
            clock=world.clock,
            keeper=self.keeper,
            workers=self,
            machine=SimMachine(),
        )
        self.loop.disk = SimDisk(host.files)
        self.loop.open()
        self.prefix = keys.host_tasks(host.name)
        now = self.started
        self.dues = {"feed": now, "tick": now + 0.1, "announce": now, "renew": now + RENEW_SECONDS}
        self.dues |= {"flush": NEVER, "health": NEVER}

    # --- Workers -------------------------------------------------------------------------------------------------

    def submit(self, pool: str, job: Callable[[], None]) -> None:
        self.jobs.append(Job(pool, job, self.world.clock.monotonic() + self.world.takes(pool)))

    def close(self) -> None:
        self.jobs.clear()

    # --- Process -------------------------------------------------------------------------------------------------

    def next(self, now: float) -> tuple[float, str]:
        if self.loop._wake.is_set():
            self.loop._wake.clear()
            self.dues["tick"] = min(self.dues["tick"], now)
        if self.loop.presence.wanted.is_set():
            self.loop.presence.wanted.clear()
            self.dues["announce"] = min(self.dues["announce"], now)
        if self.dues["flush"] == NEVER and self.loop.journal._waiting:
            self.dues["flush"] = now + FLUSH_SECONDS
        due, what = super().next(now)
        for job in self.jobs:
            if job.due < due:
                due, what = job.due, "job"
        return due, what

    def changed(self, key: str) -> None:
        if key.startswith(self.prefix) and self.reachable() and not self._read_failures:
            self.dues["feed"] = min(self.dues["feed"], self.world.clock.now + WATCH_SECONDS)
            self.planned = None

    def do(self, what: str) -> None:
        clock = self.world.clock
        match what:
            case "tick":
                self.dues["tick"], self.in_tick = NEVER, True
                try:
                    pause = self.loop.tick()
                finally:
                    self.in_tick = False
                self.dues["tick"] = min(self.dues["tick"], clock.monotonic() + max(pause, SHORTEST_SECONDS))
            case "job":
                self.act_job(min(range(len(self.jobs)), key=lambda number: self.jobs[number].due))
            case "feed":
                self._read()
            case "announce":
                self.dues["announce"] = clock.monotonic() + PUBLISH_SECONDS
                self._attempt(self.loop.presence.announce)
                if self.loop.presence.usurper:
                    self.die()
            case "renew":
                self._renew()
            case "flush":
                self.dues["flush"] = NEVER
                self._attempt(self.loop.flush_events)
            case "health":
                self.dues["health"], self.health_seen = NEVER, self.world.health_version
                self.loop.want_health()

    def act_job(self, number: int) -> None:
        """Run one of the jobs now, whenever it was due, also while something else of this agent is under way."""
        in_tick, self.in_tick = self.in_tick, False
        self.under_way += 1
        self.planned = None
        job = self.jobs.pop(number)
        try:
            job.run()
        except Killed:
            if self.alive:
                self.die()
        finally:
            self.in_tick = in_tick
            self.under_way -= 1
            self.planned = None

    def _read(self) -> None:
        clock = self.world.clock
        try:
            _, soon = self.loop.feed.read_and_deliver()
        except SkedError:
            self.failed_at = clock.monotonic()
            self._read_failures += 1
            pause = backoff.delay(self._read_failures, self.host.name, base=0.2, cap=5.0)
        else:
            self._read_failures = 0
            pause = CONFIRM_SECONDS if soon else WAIT_SECONDS
        self.dues["feed"] = clock.monotonic() + pause

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except SkedError:
            self.failed_at = self.world.clock.monotonic()

    def die(self) -> None:
        super().die()
        self.jobs.clear()
        self.loop.disk.unlock()
