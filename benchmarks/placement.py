"""How fast hosts are chosen: a million tasks onto five thousand hosts, in one process and on one core.

``python benchmarks/placement.py`` measures, each in a process of its own:

* the engine: choosing hosts and ports and reserving, task by task, with ``default`` and with ``binpack``;
* the same through ``reconcile``, which also makes the tasks and the changes;
* many services of one task, a lost host, and steady change on the full cluster;
* how a placement grows with hosts and tasks.

Beside each stands a plain heap loop over as many hosts in the same process: what the policy alone costs in Python,
without sizes, ports or books. Figures of a busy machine are noise; their ratio to this one is less so.
What was placed is checked afterwards: no host has more than it has, and no port is given twice.
"""

from __future__ import annotations

import argparse
import heapq
import multiprocessing
import random
import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sked_binpack.plugin import sked_schedulers
from sked_core.interfaces.scheduler import Scheduler
from sked_core.logic.fleet import Fleet, HostView
from sked_core.logic.placement import spread
from sked_core.logic.plan import Goal, demand_of
from sked_core.logic.reconcile import reconcile
from sked_core.model.types import Cluster, Container, Host, Service, Task, TaskDefinition, TaskId
from sked_core.runtime.loop import collect_seldom

SCHEDULERS: dict[str, Callable[[], Scheduler]] = {"default": spread, **sked_schedulers()}
SHAPES = ((65536, 16384), (131072, 32768), (131072, 65536), (262144, 65536), (524288, 131072))
"""Memory in MB and cpu units of the kinds of host: 16 to 128 cores."""
KINDS = 24
FULL, TASKS_PER_HOST = 0.75, 200
"""Tasks are of such sizes that so many on each host, in the mean, take this share of all memory and cpu."""


@dataclass(frozen=True, slots=True)
class Setting:
    """So many services of so many tasks each, on so many hosts."""

    hosts: int
    services: int
    tasks: int

    @property
    def all_tasks(self) -> int:
        return self.services * self.tasks

    def __str__(self) -> str:
        return f"{self.services:,} services of {self.tasks:,} on {self.hosts:,} hosts"


CLUSTER = Cluster(name="c")


def hosts_of(setting: Setting) -> list[HostView]:
    """Hosts of all shapes, mixed."""
    return [
        HostView(Host(name=f"host-{n:05d}", memory=memory, cpu_units=cpu, executors=["docker"]))
        for n in range(setting.hosts)
        for memory, cpu in (SHAPES[n * 7 % len(SHAPES)],)
    ]


def definitions_of(setting: Setting, views: Iterable[HostView]) -> list[TaskDefinition]:
    """The definition of each service: of a few kinds of sizes, which together fill the hosts to ``FULL``."""
    dice = random.Random(1)
    kinds = [(dice.choice((1, 2, 3, 4, 8, 16)), dice.choice((1, 2, 3, 4, 8))) for _ in range(KINDS)]
    chosen = [dice.choice(kinds) for _ in range(setting.services)]
    room = [sum(view.host.memory for view in views), sum(view.host.cpu_units for view in views)]
    mean = [sum(kind[what] for kind in chosen) / len(chosen) for what in (0, 1)]
    unit = [FULL * room[what] / (TASKS_PER_HOST * setting.hosts * mean[what]) for what in (0, 1)]
    return [
        TaskDefinition(
            name=f"task-{n:05d}",
            version=1,
            provide_port=True,
            memory=max(1, int(memory * unit[0])),
            cpu_units=max(1, int(cpu * unit[1])),
            containers=[Container(name="main", type="docker", executor={"image": "busybox"})],
        )
        for n, (memory, cpu) in enumerate(chosen)
    ]


def checked(views: Iterable[HostView], tasks: Iterable[Task]) -> None:
    """Stop unless every task has a port of its own and every host has what its tasks take."""
    left = {view.host.name: [view.host.memory, view.host.cpu_units] for view in views}
    ports = set()
    for task in tasks:
        left[task.host][0] -= task.task_definition.memory
        left[task.host][1] -= task.task_definition.cpu_units
        assert (task.host, task.port) not in ports, f"two tasks with port {task.port} on {task.host}"
        ports.add((task.host, task.port))
    assert all(memory >= 0 and cpu_units >= 0 for memory, cpu_units in left.values()), "a host is overcommitted"


def goal_of(definition: TaskDefinition, tasks: int) -> Goal:
    name = definition.name
    service = Service(name=name, task_name=name, task_version=1, desired=tasks, max=tasks)
    return Goal(CLUSTER, service, definition)


def place(fleet: Fleet, scheduler: Scheduler, name: str, definition: TaskDefinition, count: int) -> list[Task]:
    """As a scheduler does: choose, give a port, reserve."""
    placed: list[Task] = []
    service = definition.name
    task_ids = f"{CLUSTER.name}-{service}-1-"
    demand = demand_of(goal_of(definition, count), definition, frozenset())
    for host in fleet.place(scheduler, name, demand, count, None, {}):
        number = len(placed)
        port = fleet.pick_port(host, TaskId(f"{task_ids}{number}"))
        task = Task(cluster=CLUSTER, task_definition=definition, service=service, instance=number, port=port, host=host)
        fleet.reserve(task)
        placed.append(task)
    return placed


def plain_loop(setting: Setting) -> float:
    """Placements per second of a heap of hosts by their number of tasks."""
    count = min(setting.all_tasks, 500_000)
    heap = [(0, f"host-{n:05d}") for n in range(setting.hosts)]
    begun = time.process_time()
    for _ in range(count):
        tasks, host = heap[0]
        heapq.heapreplace(heap, (tasks + 1, host))
    return count / (time.process_time() - begun)


def engine(setting: Setting, name: str) -> dict[str, float]:
    views = hosts_of(setting)
    definitions = definitions_of(setting, views)
    scheduler = SCHEDULERS[name]()
    fleet, tasks = Fleet(views, ()), list[Task]()
    begun = time.process_time()
    for definition in definitions:
        tasks.extend(place(fleet, scheduler, name, definition, setting.tasks))
    took = time.process_time() - begun
    assert len(tasks) == setting.all_tasks, f"only {len(tasks)} of {setting.all_tasks} were placed"
    checked(views, tasks)
    return {"placements/s": len(tasks) / took, **after(fleet, scheduler, name, tasks)}


def after(fleet: Fleet, scheduler: Scheduler, name: str, tasks: list[Task]) -> dict[str, float]:
    """On the full cluster: lose a host, whose tasks are placed anew; then change one task after the other."""
    lost = tasks[len(tasks) // 2].host
    gone = [task for task in tasks if task.host == lost]
    view = fleet.hosts[lost]
    begun = time.process_time()
    fleet.update({lost: HostView(view.host, alive=False, lost=True)})
    for task in gone:
        fleet.release(task)
        assert len(place(fleet, scheduler, name, task.task_definition, 1)) == 1
    took_lost = time.process_time() - begun
    dice = random.Random(2)
    leaving = dice.sample([task for task in tasks if task.host != lost], min(len(tasks) // 2, 20_000))
    begun = time.process_time()
    for task in leaving:
        fleet.release(task)
        assert len(place(fleet, scheduler, name, task.task_definition, 1)) == 1
    took = time.process_time() - begun
    return {
        "tasks of the lost host": len(gone),
        "ms to place them anew": took_lost * 1000,
        "changes/s": len(leaving) / took,
    }


def whole(setting: Setting, name: str) -> dict[str, float]:
    views = hosts_of(setting)
    definitions = definitions_of(setting, views)
    scheduler = SCHEDULERS[name]()
    fleet, changes = Fleet(views, ()), []
    begun = time.process_time()
    for definition in definitions:
        goal = goal_of(definition, setting.tasks)
        changes.append(reconcile(goal, [], fleet=fleet, health={}, scheduler=scheduler, avoid={}).changes)
    took = time.process_time() - begun
    tasks = [change.after for some in changes for change in some if change.after is not None]
    assert len(tasks) == setting.all_tasks, f"only {len(tasks)} of {setting.all_tasks} were placed"
    checked(views, tasks)
    return {"placements/s": len(tasks) / took}


def measured(what: Callable[[Setting, str], dict[str, float]], setting: Setting, name: str) -> dict[str, float]:
    """In a fresh process, with the plain loop and the most memory that the process had."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (what, setting, name))


def _measure(what: Callable[[Setting, str], dict[str, float]], setting: Setting, name: str) -> dict[str, float]:
    collect_seldom()  # as `sked run scheduler` does
    plain = plain_loop(setting)
    figures = what(setting, name)
    plain = (plain + plain_loop(setting)) / 2
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**figures, "of the plain loop's %": 100 * figures["placements/s"] / plain, "plain/s": plain, "MB": memory}


def say(what: str, figures: dict[str, float]) -> None:
    print(f"{what}: " + ", ".join(f"{value:,.0f} {name}" for name, value in figures.items()), flush=True)


def growth(setting: Setting, name: str) -> None:
    """What a placement costs with twice the hosts, and with twice the tasks, against the setting."""
    wider = Setting(setting.hosts * 2, setting.services, setting.tasks)
    longer = Setting(setting.hosts, setting.services * 2, setting.tasks)
    rates: dict[Setting, list[float]] = {one: [] for one in (setting, wider, longer)}
    for _ in range(3):
        for one in rates:
            rates[one].append(measured(engine, one, name)["placements/s"])
    best = {one: max(rates[one]) for one in rates}
    print(
        f"{name}, growth from {setting}: twice the hosts costs {best[setting] / best[wider]:.2f} times as much "
        f"for each placement (goal: at most 1.2), twice the tasks {best[setting] / best[longer]:.2f} times "
        "(goal: at most 1.1)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=5_000)
    parser.add_argument("--services", type=int, default=10_000)
    parser.add_argument("--tasks", type=int, default=100, help="of each service")
    parser.add_argument("--only", choices=SCHEDULERS, help="one scheduler")
    parser.add_argument("--no-growth", action="store_true")
    options = parser.parse_args()
    setting = Setting(options.hosts, options.services, options.tasks)
    single = Setting(options.hosts, 1_000, 1)
    for name in [options.only] if options.only else SCHEDULERS:
        say(f"{name}, engine, {setting}", measured(engine, setting, name))
        say(f"{name}, reconcile, {setting}", measured(whole, setting, name))
        say(f"{name}, reconcile, {single}", measured(whole, single, name))
        if not options.no_growth:
            growth(Setting(options.hosts, max(1, options.services // 4), options.tasks), name)


if __name__ == "__main__":
    main()
