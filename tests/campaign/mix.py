"""Constant change and seeded faults over one cluster; in the end all has to be as declared."""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from campaign.stage import Stage, busybox
from rigs.relay import Relay
from rigs.sked import service
from sked_core.interfaces.store import Delete
from sked_core.model import keys

HOSTS = ("a", "b", "c")
SCHEDULERS = ("scheduler-1", "scheduler-2")
SPARED = ("a", "scheduler-1")
"""They are paused and cut off as the others are, but live from the beginning to the end: a leak has to show."""
FAR = "c"
"""Its agent reaches the store by a way that is cut now and then."""
LOST_AFTER_SECONDS = 15.0
PORTS = {"a": "24000-24199", "b": "24200-24399", "c": "24400-24599"}
SETTLE_SECONDS = 240.0


@dataclass(slots=True)
class Declared:
    """A service as its user wants it."""

    name: str
    desired: int
    docker: bool = False
    version: int = 1


@dataclass(slots=True)
class Told:
    """What was done, by name."""

    faults: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)


class Mix:
    """``tasks``: about how many there are; ``containers`` of them in Docker. ``seed`` plans all; processes differ."""

    def __init__(self, stage: Stage, seed: int, *, tasks: int = 12, containers: int = 3, pace: float = 4.0) -> None:
        self._stage, self._dice, self._pace = stage, random.Random(seed), pace
        self._tasks = tasks
        self.told = Told()
        bash = tasks - containers
        self._services = {
            one.name: one
            for one in [
                *(Declared(f"web-{number}", max(1, bash // 4)) for number in range(1, 5)),
                *([Declared("box", containers, docker=True)] if containers else []),
            ]
        }
        self._drained: str = ""
        self._numbers = iter(range(1, 100_000))

    def begin(self) -> None:
        kind, _, address = self._stage.server.url.partition("://")
        self._relay = Relay(address)
        self._stage.clean(lambda: self._relay.__exit__(None, None, None))
        for host in HOSTS:
            way = {"backend": f"{kind}://127.0.0.1:{self._relay.port}"} if host == FAR else {}
            self._stage.agent(host, "--port-range", PORTS[host], **way)
        for name in SCHEDULERS:
            self._stage.scheduler(name, "--lost-after", f"{LOST_AFTER_SECONDS:g}s")
        self._stage.hosts(*HOSTS)
        self._apply()
        self._stage.settle(SETTLE_SECONDS)

    def run(self, seconds: float) -> None:
        """Change and faults by turns until the time is over."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._change()
            time.sleep(self._dice.uniform(0.2, 1.0) * self._pace)
            self._fault()
            time.sleep(self._dice.uniform(0.2, 1.0) * self._pace)

    def end(self) -> None:
        """Faults have ended: let everything become as it is declared."""
        self._stage.fault()
        if self._drained:
            self._undrain()
        for name in (*HOSTS, *SCHEDULERS):
            if not self._stage.procs[name].alive():
                self._stage.start(name)
        self._stage.hosts(*HOSTS)
        self._insist(self._apply)
        self._stage.settle(SETTLE_SECONDS)

    # --- change -----------------------------------------------------------------------------------------------------

    def _change(self) -> None:
        changes: list[Callable[[], None]] = [
            self._scale, self._scale, self._roll, self._roll, self._add, self._remove, self._drain, self._restart
        ]  # fmt: skip
        change = self._dice.choice(changes)
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):  # the store is away now and then
            change()
            self.told.changes[change.__name__.strip("_")] += 1

    def _insist(self, act: Callable[[], None]) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            try:
                return act()
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def _apply(self) -> None:
        manifest: dict[str, Any] = {"clusters": [], "services": [], "task_definitions": []}
        for one in self._services.values():
            made = service(one.name, desired=one.desired, version=one.version, **_fields(one))
            for kind in ("services", "task_definitions"):
                manifest[kind] += made[kind]
        manifest["clusters"] = [{"name": "default", "services": list(self._services)}]
        self._stage.note("loosen")
        self._stage.rig.apply(manifest)

    def _scale(self) -> None:
        one = self._dice.choice(list(self._services.values()))
        most = max(2, 2 * self._tasks // (len(self._services) + 1))
        one.desired = self._dice.randint(1, min(most, 6) if one.docker else most)
        self._stage.scale(one.name, one.desired)

    def _roll(self) -> None:
        one = self._dice.choice(list(self._services.values()))
        one.version += 1
        self._apply()

    def _add(self) -> None:
        if len(self._services) < 8:
            one = Declared(f"more-{next(self._numbers)}", self._dice.randint(1, 3))
            self._services[one.name] = one
            self._apply()

    def _remove(self) -> None:
        extra = [name for name in self._services if name.startswith("more-")]
        if extra:
            name = self._dice.choice(extra)
            del self._services[name]
            self._stage.note("loosen")
            self._insist(lambda: self._stage.rig.sked("delete", f"service/{name}", "--cascade", "-y") and None)

    def _drain(self) -> None:
        if self._drained:
            self._undrain()
        else:
            self._drained = self._dice.choice(HOSTS)
            self._stage.note("loosen")
            self._stage.rig.sked("drain", self._stage.rig.host(self._drained), "-y")

    def _undrain(self) -> None:
        host, self._drained = self._drained, ""
        self._insist(lambda: self._stage.rig.sked("uncordon", self._stage.rig.host(host)) and None)

    def _restart(self) -> None:
        one = self._dice.choice(list(self._services.values()))
        self._stage.note("loosen")
        self._stage.rig.sked("restart", one.name, "-y")

    # --- faults -----------------------------------------------------------------------------------------------------

    def _fault(self) -> None:
        faults: Mapping[str, Callable[[], None]] = {
            "agent killed": lambda: self._kill(self._dice.choice([one for one in HOSTS if one not in SPARED])),
            "scheduler killed": lambda: self._kill(self._dice.choice([x for x in SCHEDULERS if x not in SPARED])),
            "agent paused": lambda: self._pause(self._dice.choice(HOSTS)),
            "scheduler paused": lambda: self._pause(self._dice.choice(SCHEDULERS), 40.0),
            "store killed": self._store_killed,
            "store paused": self._store_paused,
            "task killed": self._task_killed,
            "key deleted": self._key_deleted,
            "agent cut off": self._cut,
        }
        name = self._dice.choice(list(faults))
        self.told.faults[name] += 1
        faults[name]()

    def _kill(self, name: str) -> None:
        self._stage.kill(name)
        time.sleep(self._dice.uniform(0, 6))
        self._stage.start(name)

    def _pause(self, name: str, most: float = 12.0) -> None:
        self._stage.pause(name)
        time.sleep(self._dice.uniform(0, most))
        self._stage.go_on(name)

    def _cut(self) -> None:
        self._stage.note("cut", self._stage.rig.host(FAR))
        self._relay.cut()
        time.sleep(self._dice.uniform(0, 3 * LOST_AFTER_SECONDS))
        self._relay.heal()
        self._stage.note("heal", self._stage.rig.host(FAR))

    def _store_killed(self) -> None:
        with self._stage.outage():
            self._stage.server.kill()
            time.sleep(self._dice.uniform(0, 15))
            self._stage.server.start(60)

    def _store_paused(self) -> None:
        with self._stage.outage():
            self._stage.server.pause()
            time.sleep(self._dice.uniform(0, 20))
            self._stage.server.resume()

    def _task_killed(self) -> None:
        running = sorted(self._stage.running().values(), key=lambda one: one.mark)
        if running:
            self._stage.harm(self._dice.choice(running))

    def _key_deleted(self) -> None:
        """One key of a task, by an operator's hand."""
        running = sorted(self._stage.running().values(), key=lambda one: one.mark)
        if running:
            one = self._dice.choice(running)
            self._stage.note("hand", one.task)
            with self._stage.store() as store:
                store.commit([Delete(keys.host_task(one.host, one.task))])


def _fields(one: Declared) -> dict[str, Any]:
    if one.docker:
        executor = {"image": busybox(), "cmd": ["sleep", "100000"], "container_port": 80}
        return {"provide_port": True, "container": {"type": "docker", "executor": executor}}
    return {"provide_port": True, "start": "exec sleep 100000"}
