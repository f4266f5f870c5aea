"""How well hosts are filled: real task lists onto identical hosts, and onto the hosts that they came from.

``python benchmarks/packing.py FOLDER`` reads three files: ``tasks-default.csv`` and ``tasks-cpu250.csv``, with columns
task, cpu_milli and memory_mib, and ``hosts.csv``, with host, cpu_milli and memory_mib. They are names, cpu and memory
out of the public trace cluster-trace-gpu-v2023 of github.com/alibaba/clusterdata ("Beware of Fragmentation", USENIX ATC
2023): its task lists ``default`` and ``cpu250``, and its list of hosts.

* **Hosts used**: identical hosts, tasks one by one in the file's order and in shuffled ones, and all as one batch.
  A host is bought when the last empty one was taken, or (``when nothing fits``) not before a task fits nowhere.
  Bounds are of linear programming: no plan can do with fewer.
* **Share placed**: the hosts of the file; tasks drawn with replacement until 130 % of all cpu was asked for. The share
  asked for at the first refusal, and the share of cpu that is taken once 100 % and 130 % were asked for.
* **Come and go**: a thousand tasks on identical hosts, of which again and again one ends, at random, and another one
  comes: how many hosts are in use on average.

All of it goes through Sked's own books (``Fleet``) and its engine; first fit and best fit are scores beside Sked's.
"""

from __future__ import annotations

import argparse
import csv
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean

from sked_binpack.plugin import sked_schedulers
from sked_core.interfaces.scheduler import Candidate, Demand, Scheduler, Wanted
from sked_core.logic.batch import place_all
from sked_core.logic.fleet import Fleet, HostView
from sked_core.logic.placement import scored, spread
from sked_core.model.types import Cluster, Host, Task, TaskDefinition

Size = tuple[int, int]
"""Thousandths of a core, and MB. Only shares matter to schedulers, so that thousandths serve as cpu units."""
CORE, GB = 1000, 1024
INSTANCES = (
    ("default", 128, 768, 668, 1.010, 1.0075),
    ("default", 96, 384, 884, 1.018, 1.010),
    ("default", 104, 384, 816, 1.031, 1.015),
    ("cpu250", 128, 768, 840, None, None),
)
"""List, cores and GB of a host, bound, goals one by one and as a batch."""
CLUSTER = Cluster(name="c")
SEEDS = range(42, 47)
ACTIVE = 1_000


def _fullness(demand: Demand, candidate: Candidate) -> float:
    return -candidate.free_cpu_units / candidate.cpu_units - candidate.free_memory / candidate.memory


SCHEDULERS: dict[str, Callable[[], Scheduler]] = {
    "first fit": lambda: scored(lambda demand, candidate: 0.0, scope="host"),
    "best fit": lambda: scored(_fullness, scope="host"),
    "default": spread,
    "binpack": sked_schedulers()["binpack"],
}


def sizes_of(path: Path) -> list[Size]:
    with path.open(newline="") as file:
        return [(int(row["cpu_milli"]), int(row["memory_mib"])) for row in csv.DictReader(file)]


class Bed:
    """A fleet, and a definition for each size of task, as a service of its own."""

    def __init__(self, scheduler: Scheduler, hosts: list[Size]) -> None:
        self._scheduler = scheduler
        self.fleet = Fleet([], ())
        self.hosts = 0
        self._kinds: dict[Size, tuple[TaskDefinition, Demand]] = {}
        self._number = 0
        for size in hosts:
            self.buy(size)

    def buy(self, size: Size) -> None:
        name = f"host-{self.hosts:05d}"
        self.fleet.update({name: HostView(Host(name=name, cpu_units=size[0], memory=size[1]))})
        self.hosts += 1

    def place(self, size: Size) -> Task | None:
        """Place one task; None where it fits nowhere."""
        if size not in self._kinds:
            name = f"{size[0]}-{size[1]}"
            definition = TaskDefinition(name=name, version=1, cpu_units=size[0], memory=size[1], containers=[])
            self._kinds[size] = definition, Demand(CLUSTER.name, name, cpu_units=size[0], memory=size[1])
        definition, demand = self._kinds[size]
        for host in self.fleet.place(self._scheduler, "benchmark", demand, 1, None, {}):
            self._number += 1
            task = Task(
                cluster=CLUSTER,
                task_definition=definition,
                service=definition.name,
                instance=self._number,
                port=None,
                host=host,
            )
            self.fleet.reserve(task)
            return task
        return None


def one_by_one(name: str, tasks: list[Size], host: Size, *, spare: bool) -> int:
    """How many hosts were used."""
    bed, used = Bed(SCHEDULERS[name](), [host]), set()
    for task in tasks:
        chosen = bed.place(task)
        if chosen is None:
            bed.buy(host)
            chosen = bed.place(task)
            assert chosen is not None
        used.add(chosen.host)
        if spare and len(used) == bed.hosts:
            bed.buy(host)
    return len(used)


def as_batch(name: str, tasks: list[Size], host: Size) -> tuple[int, float]:
    """How many hosts were used, and in how many seconds that was planned."""
    batch = [
        Wanted(Demand(CLUSTER.name, f"{cpu}-{memory}", cpu_units=cpu, memory=memory), count)
        for (cpu, memory), count in Counter(tasks).items()
    ]
    candidates = [
        Candidate(f"host-{n:05d}", host[1], host[0], 0, host[1], host[0], 0, 0, 0, 0)
        for n in range(2 * sum(cpu for cpu, _ in tasks) // host[0])
    ]
    begun = time.perf_counter()
    chosen = place_all(SCHEDULERS[name](), name, batch, candidates)
    took = time.perf_counter() - begun
    assert sum(map(len, chosen)) == len(tasks), "some tasks found no place"
    return len({host for hosts in chosen for host in hosts}), took


def drawn(tasks: list[Size], seed: int, cpu: float) -> Iterator[Size]:
    dice = random.Random(seed)
    while cpu > 0:
        task = dice.choice(tasks)
        cpu -= task[0]
        yield task


def shares(name: str, tasks: list[Size], hosts: list[Size], seed: int) -> tuple[float, float, float]:
    """The share asked for at the first refusal, and those taken when 100 % and 130 % were asked for."""
    bed = Bed(SCHEDULERS[name](), hosts)
    cpu = sum(each for each, _ in hosts)
    asked = taken = 0
    first = at_all = None
    for task in drawn(tasks, seed, 1.3 * cpu):
        asked += task[0]
        if bed.place(task) is not None:
            taken += task[0]
        elif first is None:
            first = asked / cpu
        if at_all is None and asked >= cpu:
            at_all = taken / cpu
    return first or asked / cpu, at_all or taken / cpu, taken / cpu


def hosts_used(folder: Path, names: list[str], shuffles: int) -> None:
    for kind, cores, memory, bound, goal, goal_of_batch in INSTANCES:
        host = (cores * CORE, memory * GB)
        tasks = [size for size in sizes_of(folder / f"tasks-{kind}.csv") if size[0] <= host[0] and size[1] <= host[1]]
        print(
            f"\n{kind}, {len(tasks):,} tasks, hosts of {cores} cores and {memory} GB; no plan with fewer than {bound}"
        )
        orders = [random.Random(seed).sample(tasks, len(tasks)) for seed in range(1, shuffles + 1)]

        def said(hosts: float, goal: float | None, bound: int = bound) -> str:
            ratio = hosts / bound
            against = "" if goal is None else f", goal {goal}: {'met' if ratio <= goal else 'missed'}"
            return f"{hosts:.4g} ({ratio:.4f}{against})"

        for name in names:
            # What spreads takes every host there is: only buying when nothing fits says something of it.
            for spare in (True, False) if name == "binpack" else (False,):
                count = one_by_one(name, tasks, host, spare=spare)
                mixed = [one_by_one(name, order, host, spare=spare) for order in orders]
                print(
                    f"  {name + (', an empty host at hand' if spare else ', bought when nothing fits'):42}"
                    f" file's order {said(count, goal if name == 'binpack' else None)}"
                    + (
                        f"; shuffled {mixed}, mean {said(mean(mixed), goal if name == 'binpack' else None)}"
                        if mixed
                        else ""
                    ),
                    flush=True,
                )
        for name in names:
            if name == "default":
                continue
            count, took = as_batch(name, tasks, host)
            against = said(count, goal_of_batch if name == "binpack" else None)
            print(f"  {name + ', as one batch':42} {against}; {took:.1f} s", flush=True)


def in_use(name: str, tasks: list[Size], host: Size, seed: int) -> float:
    """The mean number of hosts with tasks, after each of a thousand was replaced about twice."""
    dice = random.Random(seed)
    bed, running, tasks_on = Bed(SCHEDULERS[name](), [host]), [], Counter[str]()
    counts = []
    for turn in range(7 * ACTIVE):
        if len(running) == ACTIVE:
            at = dice.randrange(ACTIVE)
            running[at], running[-1] = running[-1], running[at]
            gone = running.pop()
            bed.fleet.release(gone)
            tasks_on[gone.host] -= 1
        task = bed.place(dice.choice(tasks))
        assert task is not None
        running.append(task)
        tasks_on[task.host] += 1
        used = sum(count > 0 for count in tasks_on.values())
        if used == bed.hosts:
            bed.buy(host)
        if turn >= 3 * ACTIVE:
            counts.append(used)
    return mean(counts)


def come_and_go(folder: Path, names: list[str]) -> None:
    print(f"\n{ACTIVE:,} tasks of default that come and go: hosts in use on average")
    for cores, memory in ((128, 768), (96, 384), (104, 384)):
        host = (cores * CORE, memory * GB)
        tasks = [size for size in sizes_of(folder / "tasks-default.csv") if size[0] <= host[0] and size[1] <= host[1]]
        figures = (f"{name} {in_use(name, tasks, host, 1):.1f}" for name in names if name != "default")
        print(f"  {cores} cores and {memory} GB: {', '.join(figures)}", flush=True)


def share_placed(folder: Path, names: list[str], seeds: int) -> None:
    tasks, hosts = sizes_of(folder / "tasks-default.csv"), sizes_of(folder / "hosts.csv")
    print(f"\nTasks of default onto the {len(hosts):,} hosts of the file, means of seeds {list(SEEDS[:seeds])}, in %")
    for name in names:
        found = [shares(name, tasks, hosts, seed) for seed in SEEDS[:seeds]]
        first, at_all, in_the_end = (100 * mean(column) for column in zip(*found, strict=True))
        print(
            f"  {name:10} first refusal {first:.2f} (the earliest {100 * min(each[0] for each in found):.2f});"
            f" taken at 100: {at_all:.2f}, at 130: {in_the_end:.2f}"
            + (
                f" (goals 98.2 and 98.2: {'met' if min(first, at_all) >= 98.2 else 'missed'})"
                if name == "binpack"
                else ""
            ),
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with tasks-default.csv, tasks-cpu250.csv and hosts.csv")
    parser.add_argument("--shuffles", type=int, default=5, help="how many other orders of the tasks are tried")
    parser.add_argument("--seeds", type=int, default=5, choices=range(1, 6), help="how many draws")
    parser.add_argument("--only", choices=SCHEDULERS, help="one scheduler")
    options = parser.parse_args()
    names = [options.only] if options.only else list(SCHEDULERS)
    hosts_used(options.folder, names, options.shuffles)
    share_placed(options.folder, names, options.seeds)
    come_and_go(options.folder, names)


if __name__ == "__main__":
    main()
