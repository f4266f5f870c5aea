"""Which tasks had better run elsewhere, in which order they can be moved, and what that gains. Pure.

What is better follows from the scheduler of each service, which is asked for two hosts of which one is fuller: one that
chooses the emptier one spreads, one that chooses the fuller one packs. In this order:

1. Tasks that break a rule of their service, or stand on a host that has given away more than it has, move to where the
   scheduler would place them now.
2. Tasks move to where it is wished more that they are, if no other service loses as much by that.
3. Hosts are emptied that have tasks of packing services only, if they all fit on other hosts with such tasks: those
   with the fewest tasks first.
4. Tasks of spreading services move from hosts with at least two more of the service than where the scheduler would
   place them now: the greatest difference first.
5. Tasks of spreading services leave hosts that are fuller by LOAD_STEP, or, where nothing is said of what they take,
   have two tasks more.

Each of them makes a figure smaller and none before it larger, so a second look at the result finds nothing to do: it
never swings. This is a descent without going back, not an optimum: for that, whole clusters would be placed anew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import ceil

from sked_core.interfaces.scheduler import Demand, Scheduler
from sked_core.logic.constrained import WEIGHT
from sked_core.logic.lifecycle import shutdown_delay
from sked_core.logic.movable import Movable
from sked_core.logic.rebalance_search import Search
from sked_core.logic.review import Numbered
from sked_core.logic.rollout import healthy_for
from sked_core.logic.world import Pair, World
from sked_core.model.duration import to_seconds
from sked_core.model.types import Moves, Placement, Task, TaskMove

DEFAULT_MOST = 10
PASSES = 8
"""How often all kinds of moves are looked for at most: should they ever undo one another, that ends it."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """One move, and why it is worth it."""

    task: Task
    to: str
    why: str


@dataclass(frozen=True, slots=True)
class Figures:
    """How things stand. ``broken``: tasks that break a rule; ``wishes``: the weights of what is wished
    for and so, in all; ``difference``: the largest one between the hosts in how
    many tasks of one spreading service they have; ``tasks``: the most and the fewest on a host; ``memory`` and ``cpu``:
    the share of the fullest host that is given away; ``used``: hosts with tasks."""

    broken: int = 0
    wishes: int = 0
    difference: int = 0
    tasks: tuple[int, int] = (0, 0)
    memory: float = 0.0
    cpu: float = 0.0
    used: int = 0


@dataclass(frozen=True, slots=True)
class Effort:
    """What the moves of one pair come to. ``moves``: how many of its ``tasks``; ``steps``: how often it is waited for
    health; ``seconds``: how long a step takes at most, if nothing fails; ``fewest``: healthy tasks on the way."""

    moves: int
    tasks: int
    steps: int
    seconds: float
    fewest: int


@dataclass(frozen=True, slots=True)
class Proposal(Numbered):
    """``moves`` in an order in which each one fits; ``left_out``: pairs that are not looked at, and why; ``more``:
    whether there was more to gain than the budget allows."""

    moves: tuple[Proposed, ...] = ()
    before: Figures = field(default_factory=Figures)
    after: Figures = field(default_factory=Figures)
    efforts: Mapping[Pair, Effort] = field(default_factory=dict)
    left_out: Mapping[Pair, str] = field(default_factory=dict)
    more: bool = False

    def said(self) -> object:
        return [(move.task, move.to) for move in self.moves], self.before, self.after

    def records(self, world: World, *, by: str, why: str, at: str) -> dict[str, Moves]:
        """What is to be written to have it carried out, by service."""
        found: dict[str, list[TaskMove]] = {}
        for turn, move in enumerate(self.moves, 1):
            task = move.task
            one = TaskMove(task=task.id, cluster=task.cluster.name, source=task.host, to=move.to, turn=turn)
            found.setdefault(task.service, []).append(one)
        return {
            name: Moves(moves=moves, desired=world.services[name].desired, by=by, at=at, why=why)
            for name, moves in found.items()
        }


def rebalance(
    world: World,
    schedulers: Mapping[str, Scheduler],
    *,
    most: int = DEFAULT_MOST,
    services: Collection[str] = (),
    hosts: Collection[str] = (),
) -> Proposal:
    """What to move in ``world``, with at most ``most`` moves. ``schedulers``: those that are installed, by name.
    ``services``: only those, none: all; ``hosts``: only moves from or to one of those."""
    search = Search(world, schedulers, most, services, hosts)
    before = _figures(search)
    for _ in range(PASSES):  # one move may be what makes room for another
        taken = search.taken
        for work in (search.repair, search.please, search.pack, search.even, search.level):
            work()
        if search.taken == taken:
            break
    moves = _in_order(search)
    return Proposal(moves, before, _figures(search), _efforts(search, moves), search.left_out, search.more)


def _figures(search: Search) -> Figures:
    ready = sorted(search.ready)
    places: dict[object, list[str]] = {}
    counts = [search.counts.get(host, 0) for host in ready] or [0]
    shares = [search.shares(host) for host in ready] or [(0.0, 0.0)]
    return Figures(
        broken=sum(1 for pair in search.services for _ in search.broken(pair)),
        wishes=round(sum(map(search.wishes.met, search.services)) / WEIGHT),
        difference=max(
            (_difference(search, one, places) for one in search.services.values() if one.aim == "spread"), default=0
        ),
        tasks=(max(counts), min(counts)),
        memory=round(max(memory for memory, _ in shares), 4),
        cpu=round(max(cpu for _, cpu in shares), 4),
        used=sum(count > 0 for count in search.counts.values()),
    )


def _difference(search: Search, one: Movable, places: dict[object, list[str]]) -> int:
    """Between the hosts that could take a task of this kind if they were empty. ``places``: those known already."""
    if max(one.counts.values()) < 2:
        return 0  # one on some hosts and none on others is as even as it gets
    demand, rules = one.demand, Placement(require=one.demand.placement.require)
    kind = demand.executors, tuple(one.allowed or ("",)), tuple(rules.require)
    if kind not in places:
        asked = Demand(demand.cluster, demand.service, executors=demand.executors, placement=rules)
        places[kind] = [host for host in search.ready if not search.fleet.refusal(host, asked, one.allowed, {})]
    counts = [one.counts.get(host, 0) for host in places[kind]] or [0]
    return max(counts) - min(counts)


def _in_order(search: Search) -> tuple[Proposed, ...]:
    """The moves in an order in which each fits: beside the task where max allows, else in its place. Those that never
    fit are taken back."""
    fleet, found = search.world.fleet(), list[Proposed]()
    left = dict(search.whys)
    pairs = {name: pair for pair, one in search.services.items() for name in one.tasks if name in left}
    while left:
        begun = len(found)
        for name, why in list(left.items()):
            one, task = search.services[pairs[name]], search.origins[name]
            host, service = one.tasks[name].host, one.goal.service
            fits = service.max > service.desired and not fleet.refusal(host, one.demand, one.allowed, {})
            if not fits:
                with fleet.trial():
                    fleet.release(task)
                    alone = not fleet.refusal(host, one.demand, one.allowed, {})
                fits = alone and service.min < service.desired
            if fits:
                fleet.reserve(one.on(fleet, task, host))
                fleet.release(task)
                found.append(Proposed(task, host, why))
                del left[name]
        if len(found) == begun:
            break
    for name in left:
        search.put(pairs[name], search.services[pairs[name]].tasks[name], search.origins[name].host)
    return tuple(found)


def _efforts(search: Search, moves: Collection[Proposed]) -> dict[Pair, Effort]:
    found: dict[Pair, Effort] = {}
    for pair, one in search.services.items():
        count = sum((move.task.cluster.name, move.task.service) == pair for move in moves)
        if count and one.goal.definition is not None:
            service, definition = one.goal.service, one.goal.definition
            seconds = to_seconds(definition.grace_period) + healthy_for(service.update_policy, definition)
            seconds += max(shutdown_delay(task) for task in one.tasks.values())
            room, fewest = service.max - service.desired, service.desired - (service.max <= service.desired)
            found[pair] = Effort(count, service.desired, ceil(count / max(1, room)), seconds, fewest)
    return found
