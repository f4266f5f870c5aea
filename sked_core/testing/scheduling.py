"""What the contract of schedulers asks: demands and hosts, drawn by a dice, and what is left once tasks are placed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from sked_core.interfaces.scheduler import Candidate, Demand, Wanted

T = TypeVar("T")
HOSTS = ("h1", "h2", "h10", "a", "b-1", "web.example.org", "Z", "h-2", "0")
"""Of which none sorts as a number would."""
PORTS = (frozenset({80}), frozenset({80, 443}), frozenset({443}), frozenset({65536 + 53}))
NONE: frozenset[int] = frozenset()


class Dice(Protocol):
    """What draws: a ``random.Random``, or Hypothesis, which makes what fails smaller."""

    def choice(self, of: Sequence[T]) -> T: ...

    def randint(self, a: int, b: int) -> int: ...

    def sample(self, of: Sequence[T], k: int) -> list[T]: ...


@dataclass(frozen=True)
class Placing:
    """One question: so many tasks of ``demand``, and the candidates, of which each has room for one at least."""

    demand: Demand
    count: int
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Batch:
    """Many demands at once. Candidates may have no room for some of them."""

    wanted: tuple[Wanted, ...]
    candidates: tuple[Candidate, ...]


def a_demand(dice: Dice, service: str) -> Demand:
    """Tasks of all shapes; many ask for nothing."""
    return Demand(
        cluster=dice.choice(("default", "two")),
        service=service,
        memory=dice.choice((0, 1, 30, 100, 333, 500)),
        cpu_units=dice.choice((0, 1, 30, 100, 333, 500)),
        disk=dice.choice((0, 0, 0, 200)),
        provide_port=dice.choice((False, False, True)),
        fixed_ports=dice.choice((NONE, NONE, NONE, NONE, NONE, NONE, *PORTS)),
        executors=frozenset({"bash"}),
        desired=dice.choice((0, 1, 5)),
    )


def a_candidate(dice: Dice, host: str, demand: Demand) -> Candidate:
    """A host that ``demand`` just fits, once or several times, or that is over-full of what it does not ask for; some
    declare no memory or no cpu."""

    def room(need: int) -> tuple[int, int]:
        if not need:
            return dice.choice(((0, 0), (1000, 1000), (1000, 500), (1000, 0), (1000, -50), (1 << 40, 1 << 40)))
        free = need * dice.choice((1, 1, 2, 3, 7)) + dice.choice((0, 0, 1, need // 2))
        return free + dice.choice((0, 100, 1000)), free

    (memory, free_memory), (cpu_units, free_cpu), (disk, free_disk) = (
        room(need) for need in (demand.memory, demand.cpu_units, demand.disk)
    )
    tasks = dice.choice((0, 0, 1, 5, 40))
    return Candidate(
        host=host,
        memory=memory,
        cpu_units=cpu_units,
        disk=disk,
        free_memory=free_memory,
        free_cpu_units=free_cpu,
        free_disk=free_disk,
        free_ports=dice.choice((1, 2, 3, 100)) if demand.provide_port else dice.choice((0, 100)),
        tasks=tasks,
        tasks_of_service=dice.choice((0, 0, min(1, tasks), tasks)),
    )


def a_placing(dice: Dice) -> Placing:
    demand = a_demand(dice, "web")
    names = _some(dice, HOSTS, 7)
    count = dice.choice((0, 1, 2, 3, 5, 30))
    return Placing(demand, count, tuple(a_candidate(dice, name, demand) for name in names))


def a_batch(dice: Dice) -> Batch:
    names = _some(dice, HOSTS, 6)
    demands = [a_demand(dice, f"s{number}") for number in range(dice.randint(0, 6))]
    hosts = [
        replace(a_candidate(dice, name, dice.choice(demands) if demands else Demand("c", "s")), tasks_of_service=0)
        for name in names
    ]
    wanted = [
        Wanted(
            demand,
            dice.choice((0, 1, 2, 3, 9)),
            dice.choice((None, None, frozenset(_some(dice, HOSTS, 4)))),
        )
        for demand in demands
    ]
    return Batch(tuple(wanted), tuple(hosts))


def many_hosts(number: int, *, room: int) -> list[Candidate]:
    """Hosts of which no two have equally much left, each with room for as many tasks as are asked for, about."""
    return [
        Candidate(
            host=f"h{each:05}",
            memory=20 * room + number,
            cpu_units=20 * room + number,
            disk=1000,
            free_memory=10 * room + each,
            free_cpu_units=10 * room + number - each,
            free_disk=1000,
            free_ports=100,
            tasks=each % 3,
            tasks_of_service=0,
        )
        for each in range(number)
    ]


def many_demands(number: int, hosts: Sequence[Candidate]) -> Batch:
    """Services of which no two have tasks of one size."""
    demands = [
        Demand("default", f"s{each:05}", memory=1 + each % 40, cpu_units=1 + each * 7 % 41) for each in range(number)
    ]
    return Batch(tuple(Wanted(demand, 2) for demand in demands), tuple(hosts))


def what_fits(case: Placing) -> int:
    """How many tasks have room on all candidates together, ``count`` on each at most."""
    found = 0
    for candidate in case.candidates:
        for _ in range(case.count):
            if not candidate.fits(case.demand):
                break
            candidate, found = candidate.after(case.demand), found + 1
    return found


def left_over(
    case: Batch, chosen: Sequence[Sequence[str]]
) -> tuple[Mapping[str, Candidate], Mapping[str, frozenset[int]]]:
    """What is left of each host, and the fixed ports that are taken there."""
    left = {candidate.host: candidate for candidate in case.candidates}
    ports: defaultdict[str, frozenset[int]] = defaultdict(frozenset)
    for wanted, hosts in zip(case.wanted, chosen, strict=True):
        for host in hosts:
            left[host] = replace(left[host].after(wanted.demand), exclusive=False)
            ports[host] |= wanted.demand.fixed_ports
    return left, ports


def _some(dice: Dice, of: Sequence[str], most: int) -> list[str]:
    """Between none and ``most``, in any order, each once."""
    return dice.sample(of, dice.randint(0, most))
