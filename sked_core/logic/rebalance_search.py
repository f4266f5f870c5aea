"""The search for better places of tasks, one kind of gain after another. Pure. See ``rebalance``."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence

from sked_core.errors import PluginError
from sked_core.interfaces.scheduler import Demand, Scheduler
from sked_core.logic.fleet import Fleet
from sked_core.logic.movable import Movable, Wishes, aim, together
from sked_core.logic.plan import Goal, demand_of
from sked_core.logic.settled import settled
from sked_core.logic.world import Pair, World
from sked_core.model import keys
from sked_core.model.types import Task, TaskId

LOAD_STEP = 0.1
"""Of a host's memory or cpu: smaller differences are not worth a move."""
LEAST_GAIN = 0.01
"""By how much the fuller one of two hosts has to become emptier with a move."""
DONORS = 50
"""How many of the fullest hosts are looked at for each move."""
TRIES = 8
"""How many services of one host are looked at for each move."""


class Search:
    """Tasks as they would stand after the moves so far; ``origins``: as they stand now."""

    def __init__(
        self,
        world: World,
        schedulers: Mapping[str, Scheduler],
        most: int,
        services: Collection[str],
        hosts: Collection[str],
    ) -> None:
        self.world, self.most, self.only = world, most, frozenset(hosts)
        self.fleet: Fleet = world.fleet()
        self.ready = self.fleet.ready(None)
        self.left_out: dict[Pair, str] = {}
        self.services: dict[Pair, Movable] = {}
        self.more = False
        self.taken = 0
        self.whys: dict[TaskId, str] = {}
        self.on_host: dict[str, set[tuple[Pair, TaskId]]] = {}
        """Tasks that may be moved, by host."""
        self.counts: dict[str, int] = {}
        """All tasks, by host."""
        for one in world.issued.values():
            if not one.task.rejected:
                self.counts[one.task.host] = self.counts.get(one.task.host, 0) + 1
        aims = {name: aim(scheduler) for name, scheduler in schedulers.items()}
        there = world.tasks()
        for pair, goal in sorted(world.goals().items()):
            if goal.cluster is None or (services and pair[1] not in services):
                continue
            tasks = {one.id: one.task for one in there.get(pair, ())}
            why = self._out(pair, goal, tasks, schedulers)
            if why:
                self.left_out[pair] = why
            elif goal.definition is not None and tasks:
                name = goal.service.scheduler
                demand = demand_of(goal, goal.definition, goal.fixed_ports)
                self.services[pair] = Movable(goal, demand, schedulers[name], aims[name], tasks)
                for task in tasks.values():
                    self._count(pair, task, 1)
        self.wishes = Wishes(self.fleet, self.services, self.broken)
        self.origins = {name: task for one in self.services.values() for name, task in one.tasks.items()}

    def _out(self, pair: Pair, goal: Goal, tasks: Mapping[TaskId, Task], schedulers: Mapping[str, Scheduler]) -> str:
        """Why tasks of the pair are not to be moved now; empty if they may be."""
        service, world = goal.service, self.world
        if service.scheduler not in schedulers:
            return f"scheduler {service.scheduler} is not installed here"
        if service.name in world.rollouts:
            return f"roll-out {world.rollouts[service.name].number} is under way"
        if keys.moves(service.name) in world.faults:
            return f"{keys.moves(service.name)} can't be read"
        if service.name in world.moves:
            return f"moves are under way: sked rebalance --cancel {service.name} ends them"
        if not settled(goal, [world.issued[name] for name in tasks], self.fleet):
            return "it has not all tasks that it is to have, or some have to go in any case"
        unwell = [name for name in sorted(tasks) if name in world.health and not world.health[name].healthy]
        if unwell:
            return f"{unwell[0]} is not healthy"
        if tasks and service.max <= service.desired <= service.min:
            return (
                f"min {service.min} and max {service.max} leave no room to replace a task: "
                f"raise max to {service.desired + 1} or lower min"
            )
        return ""

    # --- the state of the search ---------------------------------------------------------------------------------

    def _count(self, pair: Pair, task: Task, sign: int) -> None:
        counts, host = self.services[pair].counts, task.host
        counts[host] = counts.get(host, 0) + sign
        if not counts[host]:
            del counts[host]
        there = self.on_host.setdefault(host, set())
        (there.add if sign > 0 else there.discard)((pair, task.id))

    def put(self, pair: Pair, task: Task, host: str) -> None:
        """Have ``task`` stand on ``host``."""
        one = self.services[pair]
        origin = self.origins[task.id]
        self.fleet.release(task)
        moved = origin if host == origin.host else one.on(self.fleet, task, host)
        self.fleet.reserve(moved)
        self._count(pair, task, -1)
        self.counts[task.host] -= 1
        self.counts[host] = self.counts.get(host, 0) + 1
        one.tasks[task.id] = moved
        self._count(pair, moved, 1)

    def spent(self) -> int:
        """How many tasks stand elsewhere than now."""
        return len(self.whys)

    def _take(self, pair: Pair, task: Task, host: str, why: str) -> bool:
        """Move ``task``, unless that is more than the budget allows."""
        origin = self.origins[task.id]
        if task.id not in self.whys and self.spent() >= self.most:
            self.more = True
            return False
        self.put(pair, task, host)
        self.taken += 1
        if host == origin.host:
            del self.whys[task.id]
        else:
            self.whys[task.id] = why
        return True

    def _better(
        self, pair: Pair, task: Task, among: Collection[str] | None = None, *, wished: bool = True
    ) -> str | None:
        """Where the scheduler would place ``task`` now, if that is not where it is. ``among``: only those hosts;
        ``wished``: only if that takes nothing away from what is wished for."""
        one = self.services[pair]
        allowed: Collection[str] | None = one.allowed
        bound = self.only if self.origins[task.id].host not in self.only else ()
        for some in (among, bound):
            if some:
                allowed = frozenset(some) if allowed is None else frozenset(some) & frozenset(allowed)
        with self.fleet.trial():
            self.fleet.release(task)
            try:
                placed = self.fleet.place(one.scheduler, one.goal.service.scheduler, one.demand, 1, allowed, {})
                host = next(iter(placed), None)
            except PluginError:
                return None
        if host is None or host == task.host or (wished and self.wishes.change(pair, task, host) < 0):
            return None
        return host

    def _load(self, host: str) -> tuple[float, int]:
        """How full the host is: the larger one of the shares of memory and cpu, then the number of tasks."""
        return max(self.shares(host)), self.counts.get(host, 0)

    def shares(self, host: str) -> tuple[float, float]:
        """The shares of its memory and cpu that are given away."""
        if host not in self.fleet.hosts:
            return 0.0, 0.0
        now = self.fleet.candidate(host, Demand("", ""))
        return (
            1 - now.free_memory / now.memory if now.memory else 0.0,
            1 - now.free_cpu_units / now.cpu_units if now.cpu_units else 0.0,
        )

    def _tasks(self, pair: Pair, host: str) -> list[Task]:
        """The tasks of the pair on the host, the highest instance first."""
        one = self.services[pair]
        found = [one.tasks[name] for other, name in self.on_host.get(host, ()) if other == pair]
        return sorted(found, key=lambda task: -task.instance)

    # --- 1: rules --------------------------------------------------------------------------------------------------

    def broken(self, pair: Pair) -> Iterator[tuple[Task, str]]:
        """The tasks of the pair that their own host would not take if they came now. What a service leaves free is for
        others to come later: that they have come breaks nothing."""
        one = self.services[pair]
        rules = one.goal.service.placement_rules
        ruled = bool(rules.distinct_hosts or rules.at_most or rules.near or rules.apart)
        for task in sorted(one.tasks.values(), key=lambda task: -task.instance):
            if task.host in self.ready and (ruled or one.demand.shunned_by or max(self.shares(task.host)) > 1):
                with self.fleet.trial():
                    self.fleet.release(task)
                    why = self.fleet.refusal(task.host, one.standing, one.allowed, {})
                if why:
                    yield task, "; ".join(why)

    def repair(self) -> None:
        """Move what breaks a rule."""
        for pair in self.services:
            for task, _ in list(self.broken(pair)):
                # Looked at anew: an earlier move may have mended it.
                why = next((why for other, why in self.broken(pair) if other.id == task.id), "")
                host = self._better(pair, task, wished=False) if why else None
                if host is None or not self._mends(pair, task, host):
                    continue
                if not self._take(pair, task, host, f"{task.host}: {why}"):
                    return

    def _mends(self, pair: Pair, task: Task, host: str) -> bool:
        """Whether fewer tasks break a rule if ``task`` moves to ``host``: others may have to be near it."""
        before = self.wishes.all_broken(pair)
        self.put(pair, task, host)
        after = self.wishes.all_broken(pair)
        self.put(pair, self.services[pair].tasks[task.id], task.host)
        return after < before

    # --- 2: wishes ------------------------------------------------------------------------------------------------

    def please(self) -> None:
        """Move what is better liked elsewhere, the greatest wishes first."""
        found: list[tuple[int, Pair, TaskId]] = []
        for pair in [pair for pair, one in self.services.items() if one.wishes]:
            for task in self.services[pair].tasks.values():
                host = self._better(pair, task)
                if host is not None and (change := self.wishes.change(pair, task, host)) > 0:
                    found.append((-change, pair, task.id))
        for _, pair, name in sorted(found):
            task = self.services[pair].tasks[name]
            host = self._better(pair, task)  # looked at anew: earlier moves may have changed it
            if host is None or self.wishes.change(pair, task, host) <= 0:
                continue
            if not self._take(pair, task, host, self.wishes.why(pair, task, host)):
                return

    # --- 3: packing ------------------------------------------------------------------------------------------------

    def pack(self) -> None:
        """Empty hosts, those first whose tasks are fewest."""
        while self._empty_one():
            pass

    def _empty_one(self) -> bool:
        packing = {pair for pair, one in self.services.items() if one.aim == "pack"}
        # Only to hosts that have such tasks already: what spreads might leave the others again.
        used = {host for host in self.ready if any(pair in packing for pair, _ in self.on_host.get(host, ()))}
        for host in sorted(used, key=lambda name: (self.counts[name], self._load(name), name)):
            there = sorted(self.on_host.get(host, ()))
            if len(used) < 2 or len(there) < self.counts[host] or not all(pair in packing for pair, _ in there):
                continue
            ways = self._all_of(host, there, used - {host})
            if ways is None:
                continue
            if self.spent() + sum(name not in self.whys for (_, name), _ in ways) > self.most:
                self.more = True
                continue
            for (pair, name), to in ways:
                self._take(pair, self.services[pair].tasks[name], to, f"empties {host}")
            return True
        return False

    def _all_of(
        self, host: str, there: Sequence[tuple[Pair, TaskId]], receivers: Collection[str]
    ) -> list[tuple[tuple[Pair, TaskId], str]] | None:
        """Where all tasks of ``host`` would go, together or else the largest first; None if some fit nowhere."""
        if (together := self._together(host, there, receivers)) is not None:
            return together
        found: list[tuple[tuple[Pair, TaskId], str]] = []

        def size(which: tuple[Pair, TaskId]) -> tuple[int, int, Pair, TaskId]:
            demand = self.services[which[0]].demand
            return -demand.memory, -demand.cpu_units, *which

        with self.fleet.trial():
            for which in sorted(there, key=size):
                pair, name = which
                task = self.services[pair].tasks[name]
                to = self._better(pair, task, receivers)
                if to is None:
                    return None
                self.fleet.release(task)
                self.fleet.reserve(self.services[pair].on(self.fleet, task, to))
                found.append((which, to))
        return found

    def _together(
        self, host: str, there: Sequence[tuple[Pair, TaskId]], receivers: Collection[str]
    ) -> list[tuple[tuple[Pair, TaskId], str]] | None:
        """The same, if one scheduler can place all of them at once and finds room for all."""
        groups: dict[Pair, list[TaskId]] = {}
        for pair, name in there:
            groups.setdefault(pair, []).append(name)
        among = receivers if host in self.only or not self.only else self.only.intersection(receivers)
        counts = [(self.services[pair], len(names)) for pair, names in groups.items()]
        places = together(self.fleet, counts, among)
        if places is None:
            return None
        all_names = zip(groups.items(), places, strict=True)
        return [((pair, name), to) for (pair, names), some in all_names for name, to in zip(names, some, strict=True)]

    # --- 4: tasks of one service ---------------------------------------------------------------------------------

    def even(self) -> None:
        """Even out how many tasks of one service hosts have."""
        heap = [(-self._bound(one), pair) for pair, one in self.services.items() if one.aim == "spread"]
        heapq.heapify(heap)
        while heap:
            bound, pair = heapq.heappop(heap)
            one = self.services[pair]
            found = self._evening(one, pair) if bound <= -2 else None
            if found is None:
                continue
            task, host, gain = found
            if heap and gain < -heap[0][0] and gain < -bound:
                heapq.heappush(heap, (-gain, pair))
                continue
            counts = one.counts
            why = f"{counts[task.host]} tasks of {pair[1]} on {task.host}, {counts.get(host, 0)} on {host}"
            if not self._take(pair, task, host, why):
                return
            heapq.heappush(heap, (-self._bound(one), pair))

    def _bound(self, one: Movable) -> int:
        """The largest difference that a move could lessen."""
        most = max(one.counts.values())
        ready = len(self.ready if one.allowed is None else self.ready.intersection(one.allowed))
        return most - (min(one.counts.values()) if len(one.counts) >= ready else 0)

    def _evening(self, one: Movable, pair: Pair) -> tuple[Task, str, int] | None:
        ready = self.ready.intersection(one.counts)
        donors = sorted(ready, key=lambda host: (-one.counts[host], [-part for part in self._load(host)], host))
        for source in donors[:DONORS]:
            if one.counts[source] < 2:
                break
            task = self._tasks(pair, source)[0]
            host = self._better(pair, task)
            difference = one.counts[source] - one.counts.get(host, 0) if host is not None else 0
            if host is not None and difference >= 2:
                return task, host, difference
        return None

    # --- 5: hosts ----------------------------------------------------------------------------------------------------

    def level(self) -> None:
        """Have the fullest hosts give tasks away."""
        while True:
            loads = {host: self._load(host) for host in self.ready}
            least = min((full for full, _ in loads.values()), default=0.0)
            fewest = min((many for _, many in loads.values()), default=0)
            donors = sorted(self.ready.intersection(self.on_host), key=lambda host: (loads[host], host), reverse=True)
            found = (self._levelling(source, least, fewest) for source in donors[:DONORS])
            best = next((move for move in found if move is not None), None)
            if best is None or not self._take(*best):
                return

    def _levelling(self, source: str, least: float, fewest: int) -> tuple[Pair, Task, str, str] | None:
        """The move from ``source`` that lessens most how full it and the other host are. ``least``: how full the
        emptiest host is; ``fewest``: the least number of tasks on one."""
        full, many = self._load(source)
        best: tuple[tuple[float, int], Pair, Task, str] | None = None
        for pair in self._worth_trying(source, full - least, many - fewest):
            one = self.services[pair]
            task = self._tasks(pair, source)[0]
            host = self._better(pair, task)
            if host is None or one.counts.get(host, 0) >= one.counts[source]:
                continue
            other, few = self._load(host)
            with self.fleet.trial():
                self.fleet.release(task)
                self.fleet.reserve(one.on(self.fleet, task, host))
                gain = full - max(max(self.shares(source)), max(self.shares(host)))
            if (full - other < LOAD_STEP or gain < LEAST_GAIN) if one.sized else many - few < 2:
                continue
            if best is None or (gain, many - few) > best[0]:
                best = (gain, many - few), pair, task, host
        if best is None:
            return None
        _, pair, task, host = best
        other, few = self._load(host)
        shares = f"{full:.0%} of {source} is given away, {other:.0%} of {host}"
        return pair, task, host, shares if full - other >= LOAD_STEP else f"{many} tasks on {source}, {few} on {host}"

    def _worth_trying(self, source: str, difference: float, tasks: int) -> list[Pair]:
        """Pairs whose tasks on ``source`` may go, those first of which one task is about half of the difference."""
        host = self.fleet.hosts[source].host

        def miss(pair: Pair) -> tuple[float, Pair]:
            demand = self.services[pair].demand
            share = max(demand.memory / (host.memory or 1), demand.cpu_units / (host.cpu_units or 1))
            return abs(share - difference / 2), pair

        found = {pair for pair, _ in self.on_host[source] if self.services[pair].aim == "spread"}
        worth = [pair for pair in found if (difference >= LOAD_STEP if self.services[pair].sized else tasks >= 2)]
        return sorted(worth, key=miss)[:TRIES]
