"""Whether everything would still find a place if one host were lost, asked for one host after another. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from sked_core.errors import PluginError
from sked_core.interfaces.scheduler import Candidate, Demand, Scheduler
from sked_core.logic.placement import Scored
from sked_core.logic.plan import Goal, demand_of
from sked_core.logic.world import Pair, World, runs
from sked_core.model.types import Cluster, Placement, Task, TaskDefinition

LOST = "is the one that is lost"
KINDS = range(4)
"""Of what a task may ask: memory, cpu, disk, a port."""
NOTHING = Demand("", "")
Kind = tuple[frozenset[str] | None, frozenset[str], tuple[str, ...]]
"""What matters about a host but its size: the cluster's hosts, executors, and what is required."""


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

    Most losses need no placing. Take the hosts that could take any of the tasks but for their sizes, let ``L`` be what
    all tasks ask for of some resource, and ``d`` the most that one of them does. Once one of them finds no host, each
    host has of some resource less than ``d`` left, so it was given more than ``free - d`` of it. Over all hosts and
    ``K`` resources, the shares of ``L`` that were given away are less than ``K`` in sum. So where the sum over the
    hosts of the least ``(free - d) / L`` is ``K`` or more, every task finds a host, whatever the order, as long as
    schedulers pass over no host that a task would fit on.
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
        self.unasked = 0
        """Tasks that are left out, since what places them can't be asked here."""
        for pair, tasks in world.tasks().items():
            here = [one.task for one in tasks if runs(one.task) and one.task.host in world.hosts]
            for task in here if pair in self._goals else ():
                if not world.hosts[task.host].lost:
                    self._tasks.setdefault(task.host, {}).setdefault(pair, []).append(task)
            if pair in goals and goals[pair].service.scheduler not in schedulers:
                self.unasked += len(here)

        self._demands = {pair: demand_of(goal, one, goal.fixed_ports) for pair, (goal, _, one) in self._goals.items()}
        self._free = {name: _sizes_of(self._fleet.candidate(name, NOTHING)) for name in world.hosts}
        self._kinds: dict[Pair, Kind] = {pair: self._kind_of(pair) for pair in self._goals}
        self._able: dict[frozenset[Kind], frozenset[str]] = {}
        self._sure = {host for host in self._tasks if self._is_sure(host)}

    @property
    def hosts(self) -> list[str]:
        """Hosts whose loss means something: those with tasks, by name."""
        return sorted(self._tasks)

    @property
    def work(self) -> int:
        """How many hosts have to be looked at to place what the losses of all hosts leave, at most."""
        return len(self._free) * sum(len(pairs) for host, pairs in self._tasks.items() if host not in self._sure)

    def loss(self, host: str, *, explain: bool = False) -> Loss:
        """What the loss of ``host`` comes to. ``explain``: with the refusals, which cost as much as there are hosts."""
        there = self._tasks.get(host, {})
        unplaced: dict[Pair, int] = {}
        refusals: dict[Pair, Mapping[str, tuple[str, ...]]] = {}
        if host in self._sure:
            return Loss(host, sum(map(len, there.values())))
        with self._fleet.trial():
            for tasks in there.values():
                for task in tasks:
                    self._fleet.release(task)
            for pair in sorted(there, key=self._order.__getitem__):
                missed, why = self._place(pair, there[pair], host, explain)
                if missed:
                    unplaced[pair], refusals[pair] = missed, why
        return Loss(host, sum(map(len, there.values())), unplaced, refusals)

    def _is_sure(self, host: str) -> bool:
        """Whether the sizes alone show that all tasks of ``host`` would find another one."""
        there = self._tasks[host]
        for pair in there:
            if not isinstance(self._schedulers[self._goals[pair][0].service.scheduler], Scored):
                return False
            if _matters_where(self._demands[pair]):
                return False
        able = self._able_for(there)
        asked = [(len(tasks), _asked(self._demands[pair])) for pair, tasks in there.items()]
        most = [max(sizes[kind] for _, sizes in asked) for kind in KINDS]
        total = [sum(count * sizes[kind] for count, sizes in asked) for kind in KINDS]
        kinds = [kind for kind in KINDS if total[kind]]
        left = float(len(kinds)) or 1.0
        for name in able:
            if name == host:
                continue
            free = self._free[name]
            left -= max(0.0, min([(free[kind] - most[kind]) / total[kind] for kind in kinds], default=1.0))
            if left < 0:
                return True
        return not kinds and left <= 0

    def _kind_of(self, pair: Pair) -> Kind:
        hosts, demand = self._goals[pair][1].hosts, self._demands[pair]
        return None if hosts is None else frozenset(hosts), demand.executors, tuple(demand.placement.require)

    def _able_for(self, pairs: Iterable[Pair]) -> frozenset[str]:
        """Hosts that could take tasks of all of the pairs but for their sizes."""
        kinds = frozenset(self._kinds[pair] for pair in pairs)
        if kinds not in self._able:
            self._able[kinds] = frozenset.intersection(*map(self._able_of, kinds))
        return self._able[kinds]

    def _able_of(self, kind: Kind) -> frozenset[str]:
        among, executors, require = kind
        demand = Demand("", "", executors=executors, placement=Placement(require=list(require)))
        return frozenset(name for name in self._free if not self._fleet.refusal(name, demand, among, {}))

    def _place(
        self, pair: Pair, tasks: list[Task], lost: str, explain: bool
    ) -> tuple[int, Mapping[str, tuple[str, ...]]]:
        goal, cluster, definition = self._goals[pair]
        demand = self._demands[pair]
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


def _sizes_of(one: Candidate) -> tuple[int, ...]:
    return one.free_memory, one.free_cpu_units, one.free_disk, one.free_ports


def _asked(demand: Demand) -> tuple[int, ...]:
    return demand.memory, demand.cpu_units, demand.disk, int(demand.provide_port)


def _matters_where(demand: Demand) -> bool:
    """Whether more than its size may keep a task from a host that could take it otherwise."""
    rules = demand.placement
    ruled = rules.distinct_hosts or rules.at_most or rules.near or rules.apart or rules.leave_free or demand.shunned_by
    return bool(ruled or demand.fixed_ports)
