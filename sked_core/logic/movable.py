"""Services whose tasks may be moved: what their schedulers are out for, and how moves change what is wished. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec

from sked_core.errors import PluginError
from sked_core.interfaces.scheduler import Candidate, Demand, Scheduler, Wanted
from sked_core.logic.batch import place_all
from sked_core.logic.constrained import depends_on_others
from sked_core.logic.fleet import Fleet
from sked_core.logic.placement import place_checked
from sked_core.logic.plan import Goal
from sked_core.logic.world import Pair
from sked_core.model.types import Task, TaskId

ANY_PORT = Demand("", "", provide_port=True)
"""Has a candidate tell how many ports it could give."""


def aim(scheduler: Scheduler) -> Literal["spread", "pack", ""]:
    """What the scheduler does with two hosts of which one is half full; empty if that depends on their names."""
    demand = Demand("probe", "probe", memory=1, cpu_units=1)

    def host(name: str, free: int) -> Candidate:
        return Candidate(name, 100, 100, 100, free, free, free, free, tasks=(100 - free) // 10, tasks_of_service=0)

    try:
        first = place_checked(scheduler, "", demand, 1, [host("a", 100), host("b", 50)])
        second = place_checked(scheduler, "", demand, 1, [host("a", 50), host("b", 100)])
    except PluginError:
        return ""
    return "spread" if (first, second) == (["a"], ["b"]) else "pack" if (first, second) == (["b"], ["a"]) else ""


@dataclass(slots=True)
class Movable:
    """A pair whose tasks may be moved, as they would stand."""

    goal: Goal
    demand: Demand
    scheduler: Scheduler
    aim: str
    tasks: dict[TaskId, Task]
    counts: dict[str, int] = field(default_factory=dict)
    """Tasks by host; without those that have none."""

    @property
    def allowed(self) -> list[str] | None:
        """The hosts of the cluster, None for all."""
        return self.goal.cluster.hosts if self.goal.cluster else None

    @property
    def standing(self) -> Demand:
        """What a task asks of the host that it is on already: nothing of what it left free when it came."""
        placement = self.demand.placement
        return (
            replace(self.demand, placement=msgspec.structs.replace(placement, leave_free=0))
            if placement.leave_free
            else self.demand
        )

    @property
    def sized(self) -> bool:
        """Whether anything is said of what its tasks take."""
        return bool(self.demand.memory or self.demand.cpu_units)

    def on(self, fleet: Fleet, task: Task, host: str) -> Task:
        """``task`` as it would stand on ``host``, with a port that is free there now."""
        port = fleet.pick_port(host, task.id) if self.demand.provide_port else task.port
        return msgspec.structs.replace(task, host=host, port=port)

    @property
    def wishes(self) -> bool:
        """Whether it is wished that its tasks are here rather than there."""
        return bool(self.demand.placement.prefer or self.demand.placement.spread)


def together(fleet: Fleet, services: Sequence[tuple[Movable, int]], hosts: Collection[str]) -> list[list[str]] | None:
    """Where so many tasks of each of ``services`` go if their scheduler places all of them at once, which finds room
    where asking for one after the other finds none. None where not all fit, or where it is not for one scheduler to
    say: there are several, it can't, or rules speak of other tasks."""
    first = services[0][0]
    if getattr(first.scheduler, "place_batch", None) is None or any(
        one.scheduler is not first.scheduler or depends_on_others(one.demand) for one, _ in services
    ):
        return None
    batch, candidates = [], [fleet.candidate(host, ANY_PORT) for host in sorted(hosts)]
    for one, count in services:
        able = (host for host in hosts if not fleet.refusal(host, one.demand, one.allowed, {}))
        batch.append(Wanted(one.demand, count, frozenset(able)))
    try:
        places = place_all(first.scheduler, first.goal.service.scheduler, batch, candidates)
    except PluginError:
        return None
    complete = all(len(chosen) == asked.count for chosen, asked in zip(places, batch, strict=True))
    return places if complete else None


class Wishes:
    """What is wished for and how a move changes that, as ``fleet`` stands. ``broken``: the tasks of a pair that break
    a rule."""

    def __init__(
        self, fleet: Fleet, services: Mapping[Pair, Movable], broken: Callable[[Pair], Iterable[object]]
    ) -> None:
        self._fleet, self._services, self._broken = fleet, services, broken
        self._fond: dict[str, list[Pair]] = {}
        """Pairs that wish to be with (or without) a service."""
        self._bound: dict[str, list[Pair]] = {}
        """Pairs that have to be near it."""
        for pair, one in services.items():
            for name in {wish.service for wish in one.demand.placement.prefer} - {"", pair[1]}:
                self._fond.setdefault(name, []).append(pair)
            for name in {rule.service for rule in one.demand.placement.near} - {pair[1]}:
                self._bound.setdefault(name, []).append(pair)

    def met(self, pair: Pair) -> int:
        """How much of what the pair wishes for is so: the sum over its tasks, as if they came one after another."""
        one, total = self._services[pair], 0
        if not one.wishes:
            return 0
        with self._fleet.trial():
            for task in one.tasks.values():
                self._fleet.release(task)
            rules = self._fleet.rules(one.demand, one.allowed)
            for task in one.tasks.values():
                if task.host in self._fleet.hosts:
                    host = self._fleet.hosts[task.host].host
                    total += rules.worth(host)
                    rules.placed(host)
        return total

    def change(self, pair: Pair, task: Task, host: str) -> int:
        """What it adds to what is wished for, by all services, if ``task`` moves to ``host``; below 0: it takes that
        much away, or others would break a rule then."""
        one, fond = self._services[pair], self._fond.get(pair[1], ())
        bound, own, hosts = self._bound.get(pair[1], ()), 0, self._fleet.hosts
        if not (one.wishes or fond or bound):
            return 0
        met, broken = sum(map(self.met, fond)), self._count(bound)
        with self._fleet.trial():
            self._fleet.release(task)
            if one.wishes and task.host in hosts:
                rules = self._fleet.rules(one.demand, one.allowed)
                own = rules.worth(hosts[host].host) - rules.worth(hosts[task.host].host)
            self._fleet.reserve(one.on(self._fleet, task, host))
            return -1 if self._count(bound) > broken else own + sum(map(self.met, fond)) - met

    def all_broken(self, pair: Pair) -> int:
        """How many tasks of the pair, and of those that have to be near it, break a rule."""
        return self._count([pair, *self._bound.get(pair[1], ())])

    def _count(self, pairs: Iterable[Pair]) -> int:
        return sum(1 for pair in pairs for _ in self._broken(pair))

    def why(self, pair: Pair, task: Task, host: str) -> str:
        """The wish that a move to ``host`` meets best, with how much there and here."""
        one, hosts = self._services[pair], self._fleet.hosts
        with self._fleet.trial():
            self._fleet.release(task)
            there = self._fleet.wishes(host, one.demand, one.allowed)
            here = self._fleet.wishes(task.host, one.demand, one.allowed) if task.host in hosts else {}
        gains = {name: worth - here.get(name, 0.0) for name, worth in there.items()}
        name = max(gains, key=lambda one: (gains[one], one), default="")
        if not name or gains[name] <= 0:
            return f"other services are to be nearer to {pair[1]}, or farther from it"
        return f"{name}: {there[name]:g} on {host}, {here.get(name, 0.0):g} on {task.host}"
