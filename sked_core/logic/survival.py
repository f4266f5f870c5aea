"""Whether everything would still find a place if one host were lost, asked for one host after another. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from sked_core.errors import PluginError
from sked_core.interfaces.scheduler import Scheduler
from sked_core.logic.plan import Goal, demand_of
from sked_core.logic.world import Pair, World, runs
from sked_core.model.types import Cluster, Task, TaskDefinition

LOST = "is the one that is lost"


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss of one host. ``tasks``: how many have to be placed anew; ``unplaced``: how many of them find no other
    host, by pair; ``refusals``: why, host by host, where that was asked for."""

    host: str
    tasks: int
    unplaced: Mapping[Pair, int] = field(default_factory=dict)
    refusals: Mapping[Pair, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)

    @property
    def severity(self) -> tuple[int, int]:
        """More is worse: tasks without a place, then tasks that have to move."""
        return sum(self.unplaced.values()), self.tasks


class Survival:
    """Answers for one World. Not thread-safe.

    A loss is answered as if it were the only one, with all other tasks where they are, by the schedulers that place
    the services; one that is not installed here can't be asked, and its services are left out.
    """

    def __init__(self, world: World, schedulers: Mapping[str, Scheduler]) -> None:
        self._schedulers, self._fleet = schedulers, world.fleet()
        goals = world.goals()
        self._order = {pair: place for place, pair in enumerate(goals)}
        self._goals: dict[Pair, tuple[Goal, Cluster, TaskDefinition]] = {
            pair: (goal, goal.cluster, goal.definition)
            for pair, goal in goals.items()
            if goal.cluster is not None and goal.definition is not None and goal.service.scheduler in schedulers
        }
        self._tasks: dict[str, dict[Pair, list[Task]]] = {}
        for pair, tasks in world.tasks().items():
            for one in tasks if pair in self._goals else ():
                if runs(one.task) and one.task.host in world.hosts and not world.hosts[one.task.host].lost:
                    self._tasks.setdefault(one.task.host, {}).setdefault(pair, []).append(one.task)

    @property
    def hosts(self) -> list[str]:
        """Hosts whose loss means something: those with tasks, by name."""
        return sorted(self._tasks)

    @property
    def work(self) -> int:
        """How many times a host has to be found for tasks of one service, for the losses of all hosts."""
        return sum(len(pairs) for pairs in self._tasks.values())

    def loss(self, host: str, *, explain: bool = False) -> Loss:
        """What the loss of ``host`` comes to. ``explain``: with the refusals, which cost as much as there are hosts."""
        there = self._tasks.get(host, {})
        unplaced: dict[Pair, int] = {}
        refusals: dict[Pair, Mapping[str, tuple[str, ...]]] = {}
        with self._fleet.trial():
            for tasks in there.values():
                for task in tasks:
                    self._fleet.release(task)
            for pair in sorted(there, key=self._order.__getitem__):
                missed, why = self._place(pair, there[pair], host, explain)
                if missed:
                    unplaced[pair], refusals[pair] = missed, why
        return Loss(host, sum(map(len, there.values())), unplaced, refusals)

    def _place(
        self, pair: Pair, tasks: list[Task], lost: str, explain: bool
    ) -> tuple[int, Mapping[str, tuple[str, ...]]]:
        goal, cluster, definition = self._goals[pair]
        demand = demand_of(goal, definition, goal.fixed_ports)
        name, avoid, left = goal.service.scheduler, {lost: LOST}, list(tasks)
        try:
            for host in self._fleet.place(self._schedulers[name], name, demand, len(left), cluster.hosts, avoid):
                former = left.pop()
                port = self._fleet.pick_port(host, former.id) if definition.provide_port else definition.port
                self._fleet.reserve(replace(former, task_definition=definition, port=port, host=host))
        except PluginError as error:
            return len(left), {lost: (str(error),)}
        if not left or not explain:
            return len(left), {}
        refusals = self._fleet.refusals(demand, cluster.hosts, avoid)
        return len(left), {host: reasons for host, reasons in refusals.items() if host != lost}
