"""Whether the cluster survives the loss of any one host, checked against a projection of the same loss."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from logic.test_projection import a_world
from sked_core.logic.projection import project
from sked_core.logic.survival import Survival
from sked_core.logic.world import World
from sked_core.model.types import Neighbour, Placement
from sked_core.runtime.plugins.registry import Plugins
from sked_core.testing.builders import a_definition, a_host, a_service

BOTH = {name: Plugins.load().scheduler(name)() for name in ("default", "binpack")}
SCHEDULERS = {"default": Plugins([]).scheduler("default")()}


def placed(*services: tuple[str, int, int, int], hosts: list[int]) -> World:
    """Services of so many tasks of so much memory and such a priority, placed on hosts of so much memory."""
    world = a_world(
        *(a_service(name, desired=count, placement=Placement(priority=rank)) for name, count, _, rank in services),
        definitions=[a_definition(name, memory=memory) for name, _, memory, _ in services],
        hosts=[a_host(f"h{number}", memory=memory) for number, memory in enumerate(hosts, 1)],
    )
    return project(world, SCHEDULERS).after


def test_where_there_is_room_every_loss_is_survived() -> None:
    survival = Survival(placed(("web", 4, 100, 50), hosts=[500, 500, 500]), SCHEDULERS)
    assert [survival.loss(host).severity for host in survival.hosts] == [(0, 2), (0, 1), (0, 1)]


def test_what_would_not_fit_is_told_with_every_other_hosts_reasons() -> None:
    survival = Survival(placed(("web", 3, 400, 50), hosts=[900, 600, 600]), SCHEDULERS)
    loss = survival.loss("h2", explain=True)
    assert loss.unplaced == {}
    loss = survival.loss("h1", explain=True)
    assert (loss.tasks, loss.unplaced) == (1, {("default", "web"): 1})
    reason = ("memory: free 200 MB < 400 MB",)
    assert loss.refusals == {("default", "web"): {"h2": reason, "h3": reason}}


def test_an_answer_leaves_no_trace() -> None:
    survival = Survival(placed(("web", 6, 100, 50), ("api", 3, 300, 50), hosts=[900, 600, 600]), SCHEDULERS)
    first = [survival.loss(host, explain=True) for host in survival.hosts]
    assert [survival.loss(host, explain=True) for host in survival.hosts] == first


def test_the_service_of_higher_priority_gets_the_last_room() -> None:
    survival = Survival(placed(("a", 2, 400, 10), ("b", 2, 400, 90), hosts=[800, 1200]), SCHEDULERS)
    assert survival.loss("h1").unplaced == {("default", "a"): 1}


def test_what_is_placed_by_a_scheduler_that_is_not_here_is_left_out() -> None:
    world = placed(("web", 3, 100, 50), hosts=[900, 600])
    elsewhere = a_service("web", desired=3, scheduler="packing")
    assert Survival(replace(world, services={"web": elsewhere}), SCHEDULERS).hosts == []


def test_where_there_is_plenty_nothing_has_to_be_placed_to_know() -> None:
    survival = Survival(placed(("web", 6, 100, 50), ("api", 3, 300, 50), hosts=[9000] * 6), SCHEDULERS)
    assert survival.work == 0 and len(survival.hosts) == 6
    assert [survival.loss(host).unplaced for host in survival.hosts] == [{}] * 6


some = st.tuples(st.integers(1, 5), st.sampled_from([0, 200, 300]), st.integers(0, 2))


@settings(max_examples=80, deadline=None)
@given(st.lists(some, min_size=1, max_size=3), st.lists(st.sampled_from([500, 900, 3000]), min_size=2, max_size=5))
def test_a_loss_leaves_as_many_without_a_place_as_a_projection_of_it(services, hosts) -> None:
    world = placed(*((f"s{number}", *one) for number, one in enumerate(services)), hosts=hosts)
    survival = Survival(world, SCHEDULERS)
    waiting = sum(course.waiting for course in project(world, SCHEDULERS).courses.values())
    if waiting:  # what waits already would compete
        return
    for host in survival.hosts:
        lost = replace(world.hosts[host], alive=False, lost=True)
        projection = project(replace(world, hosts={**world.hosts, host: lost}), SCHEDULERS)
        unplaced = {pair: course.waiting for pair, course in projection.courses.items() if course.waiting}
        assert survival.loss(host).unplaced == unplaced


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from([0, 100, 300]), st.integers(0, 2)), min_size=1, max_size=3),
    st.lists(st.sampled_from([500, 900, 3000]), min_size=2, max_size=7),
    st.sampled_from(["default", "binpack"]),
    st.sampled_from([{}, {"require": ["zone = a"]}, {"distinct_hosts": True}, {"apart": [Neighbour(service="s0")]}]),
)
def test_what_sizes_alone_show_is_what_placing_would_show(services, hosts, scheduler, rules) -> None:
    first, others = Placement(), Placement(**rules)
    world = a_world(
        *(
            a_service(f"s{number}", desired=count, scheduler=scheduler, placement=others if number else first)
            for number, (count, _, _) in enumerate(services)
        ),
        definitions=[
            a_definition(f"s{number}", memory=size, cpu_units=size, provide_port=bool(ports))
            for number, (_, size, ports) in enumerate(services)
        ],
        hosts=[a_host(f"h{n}", memory=memory, tags={"zone": "ab"[n % 2]}) for n, memory in enumerate(hosts)],
    )
    after = project(world, BOTH).after
    quick, thorough = Survival(after, BOTH), Survival(after, BOTH)
    thorough._sure.clear()
    assert [quick.loss(host) for host in quick.hosts] == [thorough.loss(host) for host in thorough.hosts]
