"""Hosts that are found in heaps are those that asking every host anew for each task would give, whatever happens
between; and no host is ever given more than it has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from sked_core.errors import PluginError
from sked_core.interfaces.scheduler import Candidate, Demand, Scheduler
from sked_core.logic import ranking
from sked_core.logic.fleet import Fleet, HostView
from sked_core.logic.placement import emptiness, scored, spread
from sked_core.logic.plan import Goal, demand_of
from sked_core.model.types import Placement
from sked_core.testing.builders import a_cluster, a_container, a_definition, a_host, a_service, a_task

NAMES = tuple(f"h{number}" for number in range(9))
SERVICES = ("a", "b", "c")


def tight(demand: Demand, candidate: Candidate) -> float:
    return demand.memory * 2 - candidate.free_memory // 100 + (candidate.free_cpu_units - demand.cpu_units) // 1000


def whimsical(demand: Demand, candidate: Candidate) -> float:
    return len(demand.service + candidate.host) % 3 + candidate.tasks_of_service % 2 - candidate.tasks % 3


def steady(demand: Demand, candidate: Candidate) -> float:
    return -(candidate.memory // 400)


class InTurn:
    """A scheduler that is more than a score."""

    def place(self, demand: Demand, count: int, candidates: list[Candidate]) -> Iterator[str]:
        for _ in range(count):
            best = min(candidates, key=lambda one: (one.tasks, one.host), default=None)
            if best is None:
                return
            yield best.host
            left = [one.after(demand) if one is best else one for one in candidates]
            candidates = [one for one in left if one.fits(demand)]


SCHEDULERS: dict[str, tuple[Scheduler, Any]] = {
    "default": (spread(), lambda demand, one: (one.tasks_of_service, -emptiness(demand, one))),
    "tight": (scored(tight, scope="size"), lambda demand, one: -tight(demand, one)),
    "whimsical": (scored(whimsical), lambda demand, one: -whimsical(demand, one)),
    "steady": (scored(steady, scope="host"), lambda demand, one: -steady(demand, one)),
    "fewest, tight": (
        scored(tight, scope="size", fewest_first=True),
        lambda demand, one: (one.tasks_of_service, -tight(demand, one)),
    ),
    "in turn": (InTurn(), lambda demand, one: one.tasks),
}
DEFINITIONS = [
    a_definition(memory=memory, cpu_units=cpu, provide_port=provided, port=port, containers=[a_container(type=kind)])
    for memory, cpu, provided, port, kind in (
        (100, 100, True, 0, "bash"),
        (300, 0, False, 0, "bash"),
        (200, 500, False, 21, "docker"),
        (0, 0, True, 0, "bash"),
        (700, 100, False, 0, "docker"),
    )
]


def some_host(dice: Random, name: str) -> HostView:
    return a_host(
        name,
        memory=dice.choice((0, 500, 1000, 1000, 2000)),
        cpu_units=dice.choice((0, 1000, 1000, 4000)),
        executors=dice.choice((["bash"], ["bash", "docker"], ["bash", "docker"])),
        port_range=(20, 20 + dice.randrange(7)),
        ports=dice.choice(((), (21, 22))),
        tags={"zone": dice.choice("xy")},
        mark=dice.choice(("", "", "", "cordoned", "draining")),
        alive=dice.random() < 0.8,
    )


class Story:
    """A fleet to which things happen as the dice say; ``tasks`` is what is reserved."""

    def __init__(self, seed: int) -> None:
        self.dice = Random(seed)
        self.fleet = Fleet([some_host(self.dice, name) for name in NAMES], ())
        self.tasks: list[Any] = []
        self.number = 0

    def place(self) -> None:
        scheduler, rank = SCHEDULERS[name := self.dice.choice(sorted(SCHEDULERS))]
        service, definition = self.dice.choice(SERVICES), self.dice.choice(DEFINITIONS)
        rules = Placement(require=self.dice.choice(([], [], [], ["zone = x"], ["zone ~ x"])))
        goal = Goal(a_cluster(), a_service(service, placement=rules), definition)
        demand = demand_of(goal, definition, frozenset())
        allowed = self.dice.choice((None, self.dice.sample((*NAMES, "unknown"), 6)))
        avoid = dict.fromkeys(self.dice.sample(NAMES, self.dice.randrange(3)), "rejected one lately")
        count = self.dice.randint(1, 12)
        placed = 0
        for host in self.fleet.place(scheduler, name, demand, count, allowed, avoid):
            assert host == self.best(rank, demand, allowed, avoid)
            self.put(host, service, definition)
            placed += 1
            if placed < count and name != "in turn" and self.dice.random() < 0.1:
                if self.dice.random() < 0.5:
                    self.release()
                else:
                    return
        assert placed == count or self.best(rank, demand, allowed, avoid) is None

    def best(self, rank: Any, demand: Demand, allowed: Any, avoid: Any) -> str | None:
        refused = self.fleet.refusals(demand, allowed, avoid)
        open_ones = [self.fleet.candidate(name, demand) for name in self.fleet.hosts if name not in refused]
        return min(open_ones, key=lambda one: (rank(demand, one), one.host)).host if open_ones else None

    def put(self, host: str, service: str, definition: Any) -> None:
        self.number += 1
        port = definition.port
        if definition.provide_port:
            port = self.fleet.pick_port(host, f"{service}-{self.number}")
        task = a_task(host, self.number, definition, service=service, port=port)
        self.fleet.reserve(task)
        self.tasks.append(task)

    def release(self) -> None:
        if self.tasks:
            task = self.tasks.pop(self.dice.randrange(len(self.tasks)))
            self.fleet.release(task)

    def change_host(self) -> None:
        name = self.dice.choice(NAMES)
        self.fleet.update({name: some_host(self.dice, name) if self.dice.random() < 0.8 else None})

    def by_hand(self) -> None:
        """Somebody issues a task where there may be no room for it."""
        self.number += 1
        host, definition = self.dice.choice((*NAMES, "unknown")), self.dice.choice(DEFINITIONS)
        task = a_task(host, self.number, definition, service="a", port=20)
        self.fleet.reserve(task)
        self.tasks.append(task)

    def steps(self) -> None:
        kinds = [self.place, self.place, self.place, self.release, self.change_host, self.by_hand, self.try_out]
        for _ in range(self.dice.randint(1, 6)):
            self.dice.choice(kinds)()

    def try_out(self) -> None:
        before = list(self.tasks)
        with self.fleet.trial():
            self.steps()
        self.tasks = before
        assert self.books() == Story.books_of(self.fleet.hosts, before)

    def books(self) -> dict[str, Any]:
        found = {}
        for name in self.fleet.hosts:
            one = self.fleet.candidate(name, Demand("default", "a"))
            free = (one.free_memory, one.free_cpu_units, one.free_disk, one.free_ports)
            found[name] = (*free, one.tasks, one.tasks_of_service)
        return found

    @staticmethod
    def books_of(hosts: Any, tasks: Any) -> dict[str, Any]:
        """The same, counted from nothing."""
        found = {}
        for name, view in hosts.items():
            there = [task for task in tasks if task.host == name]
            first, last = view.host.port_range
            held = {task.port for task in there} | set(view.host.ports)
            found[name] = (
                view.host.memory - sum(task.task_definition.memory for task in there),
                view.host.cpu_units - sum(task.task_definition.cpu_units for task in there),
                view.host.disk,
                len(set(range(first, last + 1)) - held),
                len(there),
                sum(task.service == "a" for task in there),
            )
        return found


@given(st.integers(), st.sampled_from((1, 64)), st.sampled_from((0, 2, 64)), st.sampled_from((0, 16)))
@settings(max_examples=200, deadline=None)
def test_each_task_goes_where_asking_all_hosts_anew_would_send_it(seed, heaps, passed_over, changes):
    with ExitStack() as patches:
        patch = patches.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(ranking, "HEAPS", heaps)
        patch.setattr(ranking, "PASSED_OVER", passed_over)
        patch.setattr(ranking, "CHANGES_PER_HOST", changes)
        story = Story(seed)
        for _ in range(3):
            story.steps()
        assert story.books() == Story.books_of(story.fleet.hosts, story.tasks)


@given(st.integers())
@settings(deadline=None)
def test_no_host_is_given_more_than_it_has_and_no_port_twice(seed):
    story = Story(seed)
    for _ in range(8):
        story.dice.choice([story.place, story.place, story.release])()
    taken = [(task.host, task.port) for task in story.tasks if task.port]
    assert len(taken) == len(set(taken))
    for view in story.fleet.hosts.values():
        there = [task.task_definition for task in story.tasks if task.host == view.host.name]
        assert sum(one.memory for one in there) <= view.host.memory or not any(one.memory for one in there)
        assert sum(one.cpu_units for one in there) <= view.host.cpu_units or not any(one.cpu_units for one in there)


@given(st.randoms(), st.integers(1, 30), st.sampled_from(sorted(SCHEDULERS)))
def test_the_order_in_which_hosts_and_tasks_became_known_does_not_matter(random, count, name):
    views = [a_host(one, memory=500 * (1 + number % 3)) for number, one in enumerate(NAMES)]
    tasks = [a_task(one, number, DEFINITIONS[1]) for number, one in enumerate(NAMES[:4])]
    goal = Goal(a_cluster(), a_service(), DEFINITIONS[0])
    demand = demand_of(goal, DEFINITIONS[0], frozenset())

    def placed(views: list[HostView], tasks: list[Any]) -> list[str]:
        fleet, hosts = Fleet(views, tasks), []
        for host in fleet.place(SCHEDULERS[name][0], name, demand, count, None, {}):
            fleet.reserve(a_task(host, 100 + len(hosts), DEFINITIONS[0], port=20000 + len(hosts)))
            hosts.append(host)
        return hosts

    shuffled = placed(random.sample(views, len(views)), random.sample(tasks, len(tasks)))
    assert placed(views, tasks) == shuffled


def test_a_score_sees_no_more_than_its_scope() -> None:
    seen: list[tuple[Demand, int]] = []

    def score(demand: Demand, candidate: Candidate) -> float:
        seen.append((demand, candidate.tasks_of_service))
        return 0.0

    fleet = Fleet([a_host("h1")], [a_task("h1")])
    goal = Goal(a_cluster(), a_service(desired=7), DEFINITIONS[0])
    demand = demand_of(goal, DEFINITIONS[0], frozenset())
    for scope in ("service", "size", "host"):
        assert list(fleet.place(scored(score, scope=scope), "x", demand, 1, None, {})) == ["h1"]  # type: ignore[arg-type]
    (all_of_it, tasks), (size, no_tasks), (nothing, none) = seen
    assert (all_of_it, tasks) == (demand, 1)
    assert (size, no_tasks) == (Demand("", "", 100, 100, provide_port=True, executors=demand.executors), 0)
    assert (nothing, none) == (Demand("", ""), 0)


@pytest.mark.parametrize("scope", ["service", "size", "host"])
@pytest.mark.parametrize("fewest_first", [True, False])
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda: 1 / 0, "scheduler x failed: ZeroDivisionError: division by zero"),
        (lambda: "high", "scheduler x failed: ValueError: could not convert string to float: 'high'"),
        (lambda: float("nan"), "scheduler x failed: ValueError: the score is no number"),
    ],
)
def test_a_score_that_fails_is_named_and_can_be_asked_again(scope, fewest_first, answer, said) -> None:
    broken = True
    scheduler = scored(lambda demand, candidate: answer() if broken else 1.0, scope=scope, fewest_first=fewest_first)
    fleet = Fleet([a_host("h1"), a_host("h2")], ())
    demand = demand_of(Goal(a_cluster(), a_service(), DEFINITIONS[1]), DEFINITIONS[1], frozenset())
    with pytest.raises(PluginError) as error:
        list(fleet.place(scheduler, "x", demand, 2, None, {}))
    assert str(error.value) == said
    broken = False
    assert next(iter(fleet.place(scheduler, "x", demand, 2, None, {}))) == "h1"


def test_what_a_batch_took_out_is_there_for_the_next_one_when_it_ends_early() -> None:
    fleet = Fleet([a_host(name) for name in NAMES], ())
    demand = demand_of(Goal(a_cluster(), a_service(), DEFINITIONS[1]), DEFINITIONS[1], frozenset())
    for name, (scheduler, _) in SCHEDULERS.items():
        avoid = {"h0": "rejected one lately"}
        batch = fleet.place(scheduler, name, demand, 5, None, avoid)
        assert next(batch) == "h1"
        del batch
        assert next(iter(fleet.place(scheduler, name, demand, 5, None, {}))) == "h0", name


def test_hosts_that_leave_and_come_back_keep_what_is_reserved_on_them() -> None:
    task = replace(a_task("h1", definition=DEFINITIONS[1]), port=20001)
    fleet = Fleet([a_host("h1", memory=1000)], [task])
    demand = Demand("default", "web", memory=800)
    assert list(fleet.refusals(demand, None, {})) == ["h1"]
    fleet.update({"h1": None})
    assert list(fleet.place(spread(), "default", demand, 1, None, {})) == []
    fleet.update({"h1": a_host("h1", memory=1000)})
    assert fleet.refusals(demand, None, {}) == {"h1": ("memory: free 700 MB < 800 MB",)}
    fleet.release(task)
    assert list(fleet.place(spread(), "default", demand, 1, None, {})) == ["h1"]
