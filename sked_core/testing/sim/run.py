"""Runs of simulated clusters: by seed, with what came of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from sked_core.errors import SkedError
from sked_core.model.duration import to_seconds
from sked_core.testing.sim import goals
from sked_core.testing.sim.faults import Nemesis
from sked_core.testing.sim.hands import Hands
from sked_core.testing.sim.judge import Violation
from sked_core.testing.sim.restarts import Restarts
from sked_core.testing.sim.users import CLUSTER, PROGRESS_DEADLINE, Users
from sked_core.testing.sim.world import World

Action = Callable[[], str]
SETTLE_SECONDS = 1200.0
"""How long it may take after faults until all is as declared: back-offs of up to 300 s, and brakes of 600 s."""
QUIET_SECONDS = 200.0
"""How long nothing may be written in the end, after the time in which markers are cleared."""
MARKERS_SECONDS = 260.0
LONGEST_ROLLOUT_SECONDS = 600.0
DEADLINE_SECONDS = to_seconds(PROGRESS_DEADLINE)
DEADLINE_SLACK_SECONDS = 30.0
UNDISTURBED_CHANCE = 0.25
SHORT_STEPS = 12
LONG_STEPS = 200
"""From here on a run also waits to see that nothing is written in the end."""


@dataclass(slots=True)
class Result:
    """What a run came to. ``seconds``: simulated ones; ``acts``: what processes did, each followed by the judge."""

    store: str
    seed: int
    steps: int
    violation: Violation | None
    seconds: float
    acts: int
    spent: float = 0.0
    """CPU seconds."""
    counts: dict[str, int] = field(default_factory=dict)
    story: list[str] = field(default_factory=list)

    @property
    def command(self) -> str:
        return f"scripts/simulate --store {self.store} --seed {self.seed} --steps {self.steps} --story"


class Simulation:
    """A world with its users and its nemesis; ``actions`` by name, each with its weight."""

    def __init__(self, dice: Random, *, store: str = "consul", telling: bool = False) -> None:
        self.dice = dice
        hosts, schedulers = dice.choice((2, 3, 3, 4, 5)), dice.choice((1, 2, 2, 3))
        self.world = World(dice, kind=store, hosts=hosts, schedulers=schedulers, telling=telling)
        self.users, self.nemesis = Users(self.world, dice), Nemesis(self.world, dice)
        self.hands = Hands(self.world, dice)
        restarts = Restarts(self.users)
        users, hands, nemesis = self.users, self.hands, self.nemesis
        self.actions: dict[str, tuple[int, Action]] = {
            "a moment": (12, lambda: self._pass(0.5)),
            "seconds": (14, lambda: self._pass(5.0)),
            "half a minute": (8, lambda: self._pass(30.0)),
            "minutes": (2, lambda: self._pass(150.0)),
            "deploy": (8, users.deploy),
            "scale": (4, users.scale),
            "scale within": (1, users.scale_within),
            "delete": (1, users.delete),
            "declare": (2, self._declare),
            "restrict": (1, users.restrict),
            "collide": (1, users.collide),
            "edit roll-out": (4, users.edit_rollout),
            "undo": (2, users.undo),
            "mark": (5, users.mark),
            "delete task": (3, hands.delete_task),
            "delete of host": (2, hands.delete_of_host),
            "garble": (2, hands.garble),
            "move by hand": (2, hands.move_by_hand),
            "kill": (3, nemesis.kill),
            "doom": (6, nemesis.doom),
            "nap": (8, nemesis.nap),
            "pause": (3, nemesis.pause),
            "start": (6, nemesis.start),
            "stop politely": (2, nemesis.stop_politely),
            "swap": (4, nemesis.swap),
            "cut": (5, nemesis.cut),
            "cut agents": (1, nemesis.cut_agents),
            "outage": (3, nemesis.outage),
            "lossy": (4, nemesis.lossy),
            "deliver": (3, nemesis.deliver),
            "copy": (2, nemesis.copy),
            "wipe": (1, nemesis.wipe),
            "restore": (1, nemesis.restore),
            "accept": (2, nemesis.accept),
            "power": (3, nemesis.power),
            "engine": (6, nemesis.engine),
            "refuse": (2, nemesis.refuse),
            "crash": (4, nemesis.crash),
            "sicken": (3, nemesis.sicken),
            "blur": (2, nemesis.blur),
            "drag": (2, nemesis.drag),
            "mix": (4, nemesis.mix),
            # Only where they are asked for by name:
            "move tasks": (0, users.move_tasks),
            "restart": (0, restarts.restart),
            "stop task": (0, restarts.stop),
        }
        self._names = list(self.actions)
        self._weights = [weight for weight, _ in self.actions.values()]

    @property
    def violation(self) -> Violation | None:
        found = self.world.judge.violations
        return found[0] if found else None

    def begin(self) -> None:
        """The first services, and the time in which they come up."""
        self.users.declare_first("web", desired=self.dice.choice((1, 2, 3, 4, 6)))
        if self.dice.random() < 0.5:
            self._declare()
        self.world.run_for(self.dice.choice((1.0, 5.0, 15.0)))

    def _declare(self) -> str:
        free = [name for name in ("web", "api", "db-x") if name not in self.users.wishes]
        if not free:
            return ""
        fixed = free[0] == "api" and self.dice.random() < 0.5
        return self.users.declare_first(
            free[0], desired=self.users.most_fixed if fixed else self.dice.randrange(1, 4), fixed=fixed
        )

    def _pass(self, seconds: float) -> str:
        self.world.run_for(self.dice.uniform(0.2, 1.0) * seconds)
        return "time passes"

    def step(self) -> None:
        """One action by dice."""
        self.act(self.dice.choices(self._names, self._weights)[0])

    def act(self, name: str) -> None:
        """One action, by name."""
        world = self.world
        try:
            told = self.actions[name][1]()
        except SkedError as error:
            told = f"can't {name}: {error}"
        if told:
            world.count(name)
            if told != "time passes":
                world.tell("world", told)
        world.look()
        if world.mixing and not world.judge.violations:
            world.act_of_somebody()

    def end(self, *, quiet: bool = False) -> None:
        """End all faults, have users ask for what can be had, and demand that it comes about."""
        if self.violation is not None:
            return
        world, users = self.world, self.users
        world.heal()
        users.restore_manifests()
        self.hands.clear_garbage()
        users.unmark_all()
        if users.cluster_hosts is not None:
            users.cluster_hosts = None
            users.restore_manifests()
        if self.dice.random() < UNDISTURBED_CHANCE:
            self._undisturbed()
        self._settle()
        if quiet and self.violation is None:
            self._quiet()

    def _undisturbed(self) -> None:
        """B7: every roll-out that runs ends or fails within its deadline after the last progress, or waits for people.
        Bad versions are left as they are, to see that they fail."""
        world, begun = self.world, self.world.clock.now
        marks: dict[str, tuple[object, float]] = {}
        while self.violation is None and world.clock.now - begun < LONGEST_ROLLOUT_SECONDS:
            running = {name: mark for name in sorted(self.users.wishes) if (mark := self._progress(name)) is not None}
            if not running:
                return
            marks = {name: marks[name] if marks.get(name, ("", 0))[0] == mark else (mark, world.clock.now)
                     for name, mark in running.items()}  # fmt: skip
            for name, (_, since) in marks.items():
                if world.clock.now - since > DEADLINE_SECONDS + DEADLINE_SLACK_SECONDS:
                    left = f"{world.clock.now - since:.0f} s without progress, its deadline is {DEADLINE_SECONDS:g} s"
                    world.judge.violated("B7", f"the roll-out of {name} goes on after {left}")
            world.run_for(5.0)

    def _progress(self, name: str) -> object:
        """What changes with every progress of the service's roll-out; None if none runs, or people are waited for."""
        mirror, service = self.world.judge.mirror, self.world.judge.mirror.service(name)
        active = mirror.rollout(name)
        if active is None or service is None or active.state != "running":
            return None
        if service.update_policy.canaries and not active.promoted:
            return None
        tasks = mirror.tasks_of((CLUSTER, name))
        healthy = sorted(task.id for task in tasks if self.world.registry.is_healthy(task.host, task.id))
        return active.number, healthy, sum(task.task_definition.version != service.task_version for task in tasks)

    def _settle(self) -> None:
        world, dice, end = self.world, self.dice, self.world.clock.now + SETTLE_SECONDS
        found: list[tuple[str, str]] = []
        while world.clock.now < end and self.violation is None:
            world.run_for(2.0)
            found = goals.unsettled(world, self.users) + goals.leases(world)
            if not self._people_look() and not found:
                return
            if dice.random() < 0.1:
                world.tell("user", self.hands.clear_garbage() or "finds nothing to clear up")
        if self.violation is None and found:
            rule = min(found)[0]
            world.judge.violated(rule, f"{SETTLE_SECONDS:g} s after all faults: " + "; ".join(one for _, one in found))

    def _people_look(self) -> bool:
        """Replace bad versions by good ones, and give roll-outs what they wait for. Whether there was a bad one."""
        bad = [name for name in sorted(self.users.wishes) if self.users.behaviour(name) != "good"]
        for name in bad:
            self.world.tell("world", self.users.deploy(name, "good"))
        for name in sorted(self.users.wishes):
            active = self.world.judge.mirror.rollout(name)
            if active is None:
                continue
            waits = active.state != "running"
            canaries = self.users.wishes[name].service.update_policy.canaries and not active.promoted
            if waits or (canaries and self.dice.random() < 0.1):
                self.world.tell("world", self.users.edit_rollout())
        return bool(bad)

    def _quiet(self) -> None:
        """B11: with nothing to do, nothing is written but leases."""
        world = self.world
        world.run_for(MARKERS_SECONDS)
        before = world.store.data.revision
        since = dict(world.store.entries)
        world.run_for(QUIET_SECONDS)
        if world.store.data.revision != before and self.violation is None:
            changed = sorted(key for key, entry in world.store.entries.items() if since.get(key) != entry)
            gone = sorted(since.keys() - world.store.entries.keys())
            count = world.store.data.revision - before
            world.judge.violated("B11", f"{count} commits with nothing to do: {', '.join([*changed, *gone])}")


def run(seed: int, *, store: str = "consul", steps: int = SHORT_STEPS, telling: bool = False) -> Result:
    """One run. The same arguments give the same run, to the last line of its story."""
    begun = time.process_time()
    simulation = Simulation(Random(f"{store}/{seed}"), store=store, telling=telling)  # noqa: S311 - dice
    world = simulation.world
    simulation.begin()
    for _ in range(steps):
        if simulation.violation is not None:
            break
        simulation.step()
    simulation.end(quiet=steps >= LONG_STEPS or seed % 20 == 0)
    return Result(
        store=store,
        seed=seed,
        steps=steps,
        violation=simulation.violation,
        seconds=world.clock.now - 1000.0,
        acts=world.acts,
        spent=time.process_time() - begun,
        counts=world.counts,
        story=world.lines() if telling else [],
    )


def told(result: Result, lines: int = 60) -> str:
    """A violation with how it came about, and the command that shows all of it."""
    again = result if result.story else run(result.seed, store=result.store, steps=result.steps, telling=True)
    return "\n".join([*again.story[-lines:], f"violated: {result.violation}", f"replay: {result.command}"])
