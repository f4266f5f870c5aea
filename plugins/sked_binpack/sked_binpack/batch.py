"""Many tasks at once: one host after the other is filled with those tasks that leave least of it unused.

What to put onto a host is a small knapsack problem, searched depth first with a bound, from large tasks to small ones;
the largest that fits is always among what is taken, since it will be the hardest to place later ("minimum bin slack":
Gupta and Ho, 1999; Fleszar and Hindi, 2002). Where several hosts have the same room, what was found for one is taken
for more of them. There is no chance in it, and a search is given up after a number of steps, not after a time: the
same input gives the same plan.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sked_core.plugin import Candidate, Wanted

STEPS = 1_000
"""How many steps the search for the filling of one host takes at most."""
ALL_STEPS = 3_000_000
"""After how many steps in all, some seconds, searches get only ``FEWEST_STEPS``."""
FEWEST_STEPS = 50
MORE_STEPS = 300_000
"""Until how many steps in all another style is tried."""
WIDTH = 160
"""How many kinds of tasks one search looks at: of more, every second one is left out, or two of three and so on."""
NO_BOUND = 1e12

Need = tuple[int, int, int, int]
"""cpu, memory, disk, ports."""
Filling = list[tuple["_Kind", int]]


@dataclass(slots=True, eq=False)
class _Kind:
    """Tasks that are alike to whoever fills hosts, of one service or several."""

    need: Need
    fixed_ports: frozenset[int]
    hosts: frozenset[str] | None
    takers: list[tuple[int, int]] = field(default_factory=list)
    """For which entry of the batch, and how many."""
    left: int = 0
    size: float = 0.0
    """The larger one of its shares of the most memory and of the most cpu that any host has left."""
    value: float = 0.0
    """What it is worth to have a task of it on a host."""


@dataclass(slots=True, eq=False)
class _Room:
    """What is left of a host."""

    host: str
    used: bool
    cpu: int
    memory: int
    disk: int
    ports: int
    sets: tuple[bool, ...]
    """Of each set of hosts that some kind is restricted to: whether the host is in it."""
    fixed_ports: set[int] = field(default_factory=set)

    def shape(self) -> tuple[object, ...]:
        """Equal for two hosts that can be filled alike."""
        return self.cpu, self.memory, self.disk, self.ports, self.sets, self.used

    def holds(self, kind: _Kind) -> int:
        """How many tasks of ``kind`` fit."""
        if kind.hosts is not None and self.host not in kind.hosts:
            return 0
        if not kind.fixed_ports.isdisjoint(self.fixed_ports):
            return 0
        room = (self.cpu, self.memory, self.disk, self.ports)
        fits = min((free // need for free, need in zip(room, kind.need, strict=True) if need), default=kind.left)
        return max(0, min(fits, kind.left, 1 if kind.fixed_ports else kind.left))

    def leftover(self, kind: _Kind) -> float:
        """What would be left if as many of ``kind`` as fit were put there: the sum of two shares of the room."""
        count = self.holds(kind)
        return (1 - kind.need[0] * count / self.cpu if self.cpu else 0.0) + (
            1 - kind.need[1] * count / self.memory if self.memory else 0.0
        )

    def take(self, kind: _Kind, count: int) -> None:
        cpu, memory, disk, ports = kind.need
        self.cpu -= cpu * count
        self.memory -= memory * count
        self.disk -= disk * count
        self.ports -= ports * count
        self.fixed_ports |= kind.fixed_ports


def pack(batch: Sequence[Wanted], candidates: Sequence[Candidate]) -> list[list[str]]:
    """The hosts of the tasks of each entry of ``batch``; fewer than asked for where no room was found for all.

    Hosts with tasks are filled first, those with least room before others; then empty ones, large ones first, except
    that the last one is the smallest that takes all that is left. That is done in several styles while the number of
    steps allows it, and the plan is taken that leaves the least out and puts the fewest empty hosts into use.
    """
    best: list[list[str]] = [[] for _ in batch]
    fewest: tuple[float, int] | None = None
    steps = 0
    for style in STYLES:
        filled = _fill(batch, candidates, style)
        if fewest is None or filled.result < fewest:
            best, fewest = filled.chosen, filled.result
        steps += filled.steps
        if steps > MORE_STEPS:
            break
    return best


@dataclass(frozen=True, slots=True)
class _Style:
    """``scarcity``: how much more the scarcer of memory and cpu counts: the ratio of what is asked of each, to this
    power. ``repeat``: of the hosts with equal room, which could all be filled alike, one in so many is. ``search``:
    otherwise kinds are placed one after the other, each where it leaves least: best fit decreasing."""

    scarcity: int = 4
    repeat: int = 2
    search: bool = True


STYLES = (_Style(), _Style(search=False), _Style(scarcity=1, repeat=4), _Style(scarcity=0, repeat=1000))


@dataclass(slots=True, eq=False)
class _Filled:
    """What came out, and the ``steps`` that it took."""

    chosen: list[list[str]]
    steps: int = 0
    result: tuple[float, int] = (0.0, 0)
    """The size of what found no room, and how many empty hosts were put into use: less is better."""


def _fill(batch: Sequence[Wanted], candidates: Sequence[Candidate], style: _Style) -> _Filled:
    kinds = _kinds_of(batch, candidates, style)
    rooms = _rooms_of(kinds, candidates)
    filled = _Filled([[] for _ in batch])
    if style.search:
        _search_all(kinds, rooms, style, filled)
    else:
        _best_fit(kinds, rooms, filled)
    _give_the_rest(kinds, rooms, filled)
    empty = {room.host for room in rooms if not room.used}
    filled.result = (
        sum(kind.left * kind.size for kind in kinds),
        len({host for hosts in filled.chosen for host in hosts if host in empty}),
    )
    return filled


def _search_all(kinds: Sequence[_Kind], rooms: Sequence[_Room], style: _Style, filled: _Filled) -> None:
    at = 0
    while at < len(rooms):
        room, times = rooms[at], 1
        alive = [kind for kind in kinds if kind.left and any(kind.need)]
        if not alive:
            return
        filling, took = _filling(room, alive, STEPS if filled.steps < ALL_STEPS else FEWEST_STEPS)
        filled.steps += took + len(alive)
        if filling and not room.used and len(filling) == len(alive) and all(kind.left == n for kind, n in filling):
            room = next(other for other in reversed(rooms[at:]) if not other.used and _takes(other, filling))
            some = [room]
        else:
            times = _times(rooms, at, filling, style.repeat) if filling else 1
            some = list(rooms[at : at + times])
        for each in some:
            for kind, count in filling:
                _give(each, kind, count, filled.chosen)
        at += times


def _best_fit(kinds: Sequence[_Kind], rooms: Sequence[_Room], filled: _Filled) -> None:
    for kind in kinds:
        if any(kind.need):
            fitting = [(not room.used, room.leftover(kind), n) for n, room in enumerate(rooms) if room.holds(kind)]
            filled.steps += len(rooms)
            for _, _, n in sorted(fitting):
                _give(rooms[n], kind, rooms[n].holds(kind), filled.chosen)


def _kinds_of(batch: Sequence[Wanted], candidates: Sequence[Candidate], style: _Style) -> list[_Kind]:
    """Kinds from the largest to the smallest: in the end by what they are of, so that the batch's order is nothing."""
    kinds: dict[tuple[object, ...], _Kind] = {}
    order = sorted(range(len(batch)), key=lambda n: (batch[n].demand.cluster, batch[n].demand.service, n))
    for n in order:
        demand, count, hosts = batch[n].demand, batch[n].count, batch[n].hosts
        need = (demand.cpu_units, demand.memory, demand.disk, int(demand.provide_port))
        key = (need, demand.fixed_ports, hosts)
        if key not in kinds:
            kinds[key] = _Kind(need, demand.fixed_ports, hosts)
        if count > 0:
            kinds[key].takers.append((n, count))
            kinds[key].left += count
    most_cpu = max((candidate.free_cpu_units for candidate in candidates), default=0) or 1
    most_memory = max((candidate.free_memory for candidate in candidates), default=0) or 1
    values = _values(kinds.values(), candidates, style)
    for kind in kinds.values():
        kind.value = values[0] * kind.need[0] + values[1] * kind.need[1] or min(values) / 2
        kind.size = max(kind.need[0] / most_cpu, kind.need[1] / most_memory) or 1e-9
    return sorted(
        kinds.values(),
        key=lambda kind: (
            -kind.size,
            tuple(-need for need in kind.need),
            sorted(kind.fixed_ports),
            kind.hosts is None,
            len(kind.hosts or ()),
            sorted(kind.hosts or ()),
        ),
    )


def _values(kinds: Iterable[_Kind], candidates: Sequence[Candidate], style: _Style) -> tuple[float, float]:
    """What a unit of cpu and an MB of memory in use is worth: all the more, the scarcer it is."""
    rooms = (
        sum(max(0, candidate.free_cpu_units) for candidate in candidates) or 1,
        sum(max(0, candidate.free_memory) for candidate in candidates) or 1,
    )
    loads = [sum(kind.need[what] * kind.left for kind in kinds) / room for what, room in enumerate(rooms)]
    most = max(loads) or 1.0
    cpu, memory = (max(load / most, 0.1) ** style.scarcity / room for load, room in zip(loads, rooms, strict=True))
    return cpu, memory


def _rooms_of(kinds: Sequence[_Kind], candidates: Sequence[Candidate]) -> list[_Room]:
    """Rooms in the order in which they are filled."""
    sets = list(dict.fromkeys(kind.hosts for kind in kinds if kind.hosts is not None))
    rooms = [
        _Room(
            host=candidate.host,
            used=candidate.tasks > 0,
            cpu=candidate.free_cpu_units,
            memory=candidate.free_memory,
            disk=candidate.free_disk,
            ports=candidate.free_ports,
            sets=tuple(candidate.host in hosts for hosts in sets),
        )
        for candidate in candidates
    ]
    most_cpu = max((room.cpu for room in rooms), default=0) or 1
    most_memory = max((room.memory for room in rooms), default=0) or 1

    def order(room: _Room) -> tuple[object, ...]:
        size = room.cpu / most_cpu + room.memory / most_memory
        return not room.used, size if room.used else -size, room.shape(), room.host

    return sorted(rooms, key=order)


def _filling(room: _Room, alive: Sequence[_Kind], steps: int) -> tuple[Filling, int]:
    """The tasks that had best be put onto the host, with the largest that fits among them, and the steps taken."""
    fitting: list[_Kind] = []
    taken: set[int] = set(room.fixed_ports)
    most: list[int] = []
    for kind in alive:
        count = room.holds(kind)
        # Of several kinds with one fixed port the largest is looked at: at most one of them fits.
        if count and kind.fixed_ports.isdisjoint(taken):
            taken |= kind.fixed_ports
            fitting.append(kind)
            most.append(count)
    if len(fitting) > WIDTH:
        stride = -(-len(fitting) // WIDTH)
        fitting, most = fitting[::stride], most[::stride]
    return _search(room, fitting, most, steps) if fitting else ([], 0)


def _search(room: _Room, kinds: Sequence[_Kind], most: Sequence[int], steps: int) -> tuple[Filling, int]:
    """Depth first: as many of the largest as fit, then of the next; then one less of the last, and so on. A branch is
    left where neither the cpu nor the memory that remains could make it better than the best one so far."""
    size, allowed = len(kinds), steps
    needs, values = [kind.need for kind in kinds], [kind.value for kind in kinds]
    # The most value that a unit of cpu, or an MB of memory, can bring from this kind on; and the least that is needed.
    per_cpu, per_memory = [0.0] * (size + 1), [0.0] * (size + 1)
    least_cpu, least_memory = [1 << 62] * (size + 1), [1 << 62] * (size + 1)
    for n in range(size - 1, -1, -1):
        cpu, memory = needs[n][:2]
        per_cpu[n] = max(per_cpu[n + 1], values[n] / cpu if cpu else NO_BOUND)
        per_memory[n] = max(per_memory[n + 1], values[n] / memory if memory else NO_BOUND)
        least_cpu[n], least_memory[n] = min(least_cpu[n + 1], cpu), min(least_memory[n + 1], memory)

    def bound(n: int) -> float:
        by_cpu = free_cpu * per_cpu[n] if per_cpu[n] < NO_BOUND else NO_BOUND
        by_memory = free_memory * per_memory[n] if per_memory[n] < NO_BOUND else NO_BOUND
        return by_cpu if by_cpu < by_memory else by_memory

    free_cpu, free_memory, free_disk, free_ports = room.cpu, room.memory, room.disk, room.ports
    enough = bound(0) * (1 - 1e-6)
    margin = values[0] * 1e-9
    best, value, n = 0.0, 0.0, 0
    filling: list[tuple[int, int]] = []
    path: list[list[int]] = []
    while True:
        while n < size and free_cpu >= least_cpu[n] and free_memory >= least_memory[n]:
            if value + bound(n) <= best + margin:
                break
            cpu, memory, disk, ports = needs[n]
            count = most[n]
            if cpu and free_cpu < cpu * count:
                count = free_cpu // cpu
            if memory and free_memory < memory * count:
                count = free_memory // memory
            if disk and free_disk < disk * count:
                count = free_disk // disk
            if ports and free_ports < count:
                count = free_ports
            if count > 0:
                path.append([n, count])
                free_cpu -= cpu * count
                free_memory -= memory * count
                free_disk -= disk * count
                free_ports -= ports * count
                value += values[n] * count
            n += 1
            steps -= 1
        if value > best + margin:
            best, filling = value, [(n, count) for n, count in path]
            if best >= enough:
                break
        if steps <= 0:
            break
        while path:
            last = path[-1]
            n = last[0]
            if last[1] == 1 and len(path) == 1:
                path.clear()
                break
            last[1] -= 1
            cpu, memory, disk, ports = needs[n]
            free_cpu += cpu
            free_memory += memory
            free_disk += disk
            free_ports += ports
            value -= values[n]
            steps -= 1
            if not last[1]:
                path.pop()
            n += 1
            if value + bound(n) > best + margin:
                break
        if not path:
            break
    return [(kinds[n], count) for n, count in filling], allowed - steps


def _takes(room: _Room, filling: Filling) -> bool:
    """Whether all of ``filling`` fits on the host."""
    for what, free in enumerate((room.cpu, room.memory, room.disk, room.ports)):
        need = sum(kind.need[what] * count for kind, count in filling)
        if need and need > free:
            return False
    return all(room.holds(kind) for kind, _ in filling)


def _times(rooms: Sequence[_Room], at: int, filling: Filling, repeat: int) -> int:
    """How many hosts, from ``at`` on, to fill alike: not as many as could be, since the small tasks that make a good
    filling will be wanted for other ones too."""
    most = max(1, min(kind.left // count for kind, count in filling) // repeat)
    shape, times = rooms[at].shape(), 1
    while times < most and at + times < len(rooms) and rooms[at + times].shape() == shape:
        times += 1
    return times


def _give(room: _Room, kind: _Kind, count: int, chosen: list[list[str]]) -> None:
    room.take(kind, count)
    kind.left -= count
    while count:
        entry, wanted = kind.takers[-1]
        some = min(count, wanted)
        chosen[entry] += [room.host] * some
        count -= some
        kind.takers.pop()
        if wanted > some:
            kind.takers.append((entry, wanted - some))


def _give_the_rest(kinds: Sequence[_Kind], rooms: Sequence[_Room], filled: _Filled) -> None:
    """What no search has taken goes wherever it fits, to hosts with tasks first: tasks that ask for neither memory nor
    cpu, and those that a search given up early, or one that looked at every second kind, has left out."""
    busy: defaultdict[bool, list[_Room]] = defaultdict(list)
    given = {host for hosts in filled.chosen for host in hosts}
    for room in rooms:
        busy[room.used or room.host in given].append(room)
    for kind in kinds:
        for room in busy[True] + busy[False]:
            if not kind.left:
                break
            count = room.holds(kind)
            if count:
                _give(room, kind, count, filled.chosen)
