"""How well a task would fit onto a host: the score of ``binpack``.

Best fit asks how little is left once a task is on a host. That says little while more is to come: of 30 cores, tasks of
10 leave none, and of 28 they leave 8. So this score asks first what would be left if the host were filled up with such
tasks, and then how full it is. The weights were found by search on the task lists of a production cluster in several
orders, on hosts of several shapes, and in clusters whose tasks come and go: see docs/decisions/0019-packing.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from sked_core.plugin import Candidate, Demand

LARGER, SMALLER, CPU = 1.0, -0.3, 1.5
"""What is left of memory and of cpu, as shares of the host: weights of the larger and of the smaller of the two, and
one more of cpu."""
ROOM = 0.1
"""Weight of the shares that are free once the task runs."""
UNTOUCHED = 0.3
"""Weight of the 16th power of these shares: nothing but for hosts that are nearly empty, which are kept for tasks that
fit nowhere else."""
NEARLY = 0.7
"""From which share on that is asked for: below, it is less than a thousandth."""
EMPTY = 0.02
"""For hosts without tasks."""
CORE, GB_PER_CORE = 2 * 1024, 2 * 4096


def tightness(demand: Demand, candidate: Candidate) -> float:
    """How well a task of ``demand`` fits: the less is wasted, the higher; 0 for a host that it fills to the brim.

    In cores (one counts as much as 4 GB of memory), since a tenth of a large host is more than a tenth of a small one.
    What the host does not declare, memory or cpu, does not count.
    """
    cpu_units, memory = candidate.cpu_units, candidate.memory
    need_cpu, need_memory = demand.cpu_units, demand.memory
    if not (cpu_units and memory and need_cpu and need_memory):
        return sum(terms(demand, candidate).values())
    # The same as what ``terms`` adds up to, in as few steps as possible: this is asked for every placement.
    free_cpu, free_memory = candidate.free_cpu_units, candidate.free_memory
    count, other = free_cpu // need_cpu, free_memory // need_memory
    if other < count:
        count = other
    cpu_left, memory_left = (free_cpu - count * need_cpu) / cpu_units, (free_memory - count * need_memory) / memory
    cpu_room, memory_room = (free_cpu - need_cpu) / cpu_units, (free_memory - need_memory) / memory
    if cpu_left > memory_left:
        waste = (CPU + LARGER) * cpu_left + SMALLER * memory_left
    else:
        waste = (CPU + SMALLER) * cpu_left + LARGER * memory_left
    waste += ROOM * (cpu_room + memory_room)
    if cpu_room > NEARLY or memory_room > NEARLY:
        waste += UNTOUCHED * (cpu_room**16 + memory_room**16)
    if not candidate.tasks:
        waste += EMPTY
    return -waste * (cpu_units / CORE + memory / GB_PER_CORE)


def terms(demand: Demand, candidate: Candidate) -> Mapping[str, float]:
    """What ``tightness`` is the sum of, by name."""
    count = _how_many(demand, candidate)
    cpu_left, cpu_room = _shares(candidate.cpu_units, candidate.free_cpu_units, demand.cpu_units, count)
    memory_left, memory_room = _shares(candidate.memory, candidate.free_memory, demand.memory, count)
    nearly = cpu_room > NEARLY or memory_room > NEARLY
    size = candidate.cpu_units / CORE + candidate.memory / GB_PER_CORE
    left = CPU * cpu_left + LARGER * max(cpu_left, memory_left) + SMALLER * min(cpu_left, memory_left)
    return {
        "left over if filled with such tasks": -left * size,
        "room": -ROOM * (cpu_room + memory_room) * size,
        "nearly empty": -UNTOUCHED * (cpu_room**16 + memory_room**16) * size if nearly else 0.0,
        "no tasks yet": 0.0 if candidate.tasks else -EMPTY * size,
    }


def _how_many(demand: Demand, candidate: Candidate) -> int:
    """How many such tasks the memory and cpu of the host are enough for; none, if they ask for neither."""
    pairs = ((candidate.free_cpu_units, demand.cpu_units), (candidate.free_memory, demand.memory))
    return min((free // need for free, need in pairs if need), default=0)


def _shares(total: int, free: int, need: int, count: int) -> tuple[float, float]:
    """The shares that are left over after ``count`` tasks, and free after one; of what is not declared, none."""
    return ((free - count * need) / total, (free - need) / total) if total else (0.0, 0.0)
