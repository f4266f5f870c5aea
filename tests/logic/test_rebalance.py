"""Which moves are proposed: each of them gains something, fits when its turn comes, and a second look finds none."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from sked_binpack.plugin import sked_schedulers
from sked_core.interfaces.scheduler import Candidate, Demand
from sked_core.interfaces.store import Revision
from sked_core.logic.fleet import HostView
from sked_core.logic.movable import aim
from sked_core.logic.placement import scored, spread
from sked_core.logic.plan import Issued, demand_of
from sked_core.logic.projection import project
from sked_core.logic.rebalance import Proposal, rebalance
from sked_core.logic.world import World
from sked_core.model.types import (
    AtMost,
    Health,
    Moves,
    Neighbour,
    Placement,
    Preference,
    Rollout,
    Service,
    Spread,
    Task,
    TaskDefinition,
)
from sked_core.testing.builders import a_cluster, a_definition, a_host, a_service, a_task


def packing(demand: Demand, candidate: Candidate) -> float:
    return -float(candidate.free_memory + candidate.free_cpu_units)


SCHEDULERS = {"default": spread(), "pack": scored(packing)}


class Group:
    """Services, each with its definition and the hosts of its tasks."""

    def __init__(self, *hosts: HostView) -> None:
        self.hosts = hosts
        self.services: list[Service] = []
        self.definitions: list[TaskDefinition] = []
        self.tasks: list[Task] = []

    def add(self, name: str, *places: str, memory: int = 0, **fields: object) -> Group:
        """``places``: the host of each task."""
        more = {key: fields.pop(key) for key in ("provide_port", "port") if key in fields}
        definition = a_definition(name, memory=memory, **more)
        self.definitions.append(definition)
        self.services.append(a_service(name, desired=len(places), **fields))
        for instance, host in enumerate(places):
            self.tasks.append(a_task(host, instance, definition, service=name, port=20000 + len(self.tasks)))
        return self

    def world(self, **more: object) -> World:
        cluster = a_cluster(services=tuple(one.name for one in self.services))
        tasks = [msgspec.structs.replace(task, cluster=cluster) for task in self.tasks]
        return World(
            services={one.name: one for one in self.services},
            clusters={"default": cluster},
            definitions={(one.name, one.version): one for one in self.definitions},
            hosts={view.host.name: view for view in self.hosts},
            issued={task.id: Issued(task, Revision(1)) for task in tasks},
            **more,  # type: ignore[arg-type]
        )

    def proposal(self, **more: object) -> Proposal:
        return rebalance(self.world(), SCHEDULERS, **more)  # type: ignore[arg-type]


def hosts(count: int, **facts: object) -> list[HostView]:
    return [a_host(f"h{number}", **facts) for number in range(1, count + 1)]


def ways(proposal: Proposal) -> list[tuple[str, str, str]]:
    return [(move.task.id.removeprefix("default-"), move.task.host, move.to) for move in proposal.moves]


def carried_out(world: World, proposal: Proposal) -> World:
    """The world once schedulers have made the moves: with the records that a person would write."""
    moves = proposal.records(world, by="", why="", at="")
    result = project(replace(world, moves=moves, health=world.all_healthy()), SCHEDULERS)
    assert result.ended
    return replace(result.after, moves={})


def test_what_a_scheduler_is_out_for_shows_in_what_it_chooses() -> None:
    assert aim(SCHEDULERS["default"]) == "spread" and aim(SCHEDULERS["pack"]) == "pack"
    assert aim(scored(lambda demand, candidate: 0.0)) == ""

    class Broken:
        def place(self, *_: object) -> object:
            raise ValueError("no")

    assert aim(Broken()) == ""  # type: ignore[arg-type]


def test_a_host_is_emptied_where_only_tasks_placed_together_fit() -> None:
    # 500 + 300 + 200 and 400 + 400 + 200 fill two hosts of 1,000; the largest first leaves one without a place.
    views = [a_host(f"h{n}", memory=2100, cpu_units=8000) for n in (1, 2, 3)]
    group = Group(*views).add("large", "h2", "h3", memory=1100, scheduler="binpack")
    for number, memory in enumerate((500, 400, 400, 300, 200, 200)):
        group.add(f"s{number}", "h1", memory=memory, scheduler="binpack")
    asked_singly = scored(packing)
    assert not rebalance(group.world(), {"binpack": asked_singly}, most=20).moves
    together = rebalance(group.world(), {"binpack": sked_schedulers()["binpack"]()}, most=20)
    assert {move.task.host for move in together.moves} == {"h1"} and len(together.moves) == 6
    assert (together.before.used, together.after.used) == (3, 2)


def test_room_that_a_service_left_free_and_others_took_is_no_reason_to_move() -> None:
    group = Group(*hosts(2, memory=1000, cpu_units=8000))
    group.add("web", "h1", "h2", memory=500, placement=Placement(leave_free=40, distinct_hosts=True)).add(
        "fill", "h1", memory=300
    )
    proposal = group.proposal()
    assert not proposal.moves and proposal.before.broken == 0


def test_hosts_that_have_joined_are_given_their_share_and_nothing_more() -> None:
    group = Group(*hosts(5)).add("web", *["h1", "h2"] * 5)
    proposal = group.proposal()
    assert Counter(source for _, source, _ in ways(proposal)) == {"h1": 3, "h2": 3}
    assert Counter(to for _, _, to in ways(proposal)) == {"h3": 2, "h4": 2, "h5": 2}
    assert (proposal.before.difference, proposal.after.difference) == (5, 0)
    assert (proposal.before.tasks, proposal.after.tasks) == ((5, 0), (2, 2))
    assert proposal.moves[0].why == "5 tasks of web on h1, 0 on h3"
    effort = proposal.efforts["default", "web"]
    assert (effort.moves, effort.tasks, effort.steps, effort.seconds, effort.fewest) == (6, 10, 2, 65.0, 10)


def test_a_group_that_is_even_is_left_alone() -> None:
    proposal = Group(*hosts(3)).add("web", "h1", "h2", "h3", "h1").add("api", "h2").proposal()
    assert proposal.moves == () and proposal.before == proposal.after and not proposal.more


def test_the_budget_takes_the_greatest_differences_first() -> None:
    group = Group(*hosts(4)).add("few", "h1", "h1", "h2").add("many", *["h1"] * 8)
    proposal = group.proposal(most=2)
    assert {move.task.service for move in proposal.moves} == {"many"} and len(proposal.moves) == 2
    assert proposal.more
    assert not group.proposal(most=100).more


def test_services_of_single_tasks_are_spread_over_the_hosts_by_their_number() -> None:
    group = Group(*hosts(3))
    for number in range(6):
        group.add(f"s{number}", "h1")
    proposal = group.proposal()
    assert (proposal.before.tasks, proposal.after.tasks) == ((6, 0), (2, 2)) and len(proposal.moves) == 4
    assert proposal.moves[0].why == "6 tasks on h1, 0 on h2"


def test_full_hosts_give_tasks_away_and_small_differences_are_not_worth_it() -> None:
    group = Group(*hosts(2, memory=1000)).add("big", "h1", memory=400).add("small", "h1", memory=300)
    proposal = group.proposal()
    assert ways(proposal) in ([("small-1-0", "h1", "h2")], [("big-1-0", "h1", "h2")])
    assert (proposal.before.memory, proposal.after.memory) == (0.7, 0.4)
    assert proposal.moves[0].why == "70% of h1 is given away, 0% of h2"
    slight = Group(*hosts(2, memory=1000)).add("a", "h1", memory=300).add("b", "h1", memory=30)
    assert slight.add("c", "h2", memory=290).proposal().moves == ()


def test_a_packing_scheduler_empties_the_hosts_that_cost_fewest_moves() -> None:
    group = Group(*hosts(4, memory=1000))
    group.add("a", "h1", "h1", "h2", "h3", scheduler="pack", memory=200)
    group.add("b", "h2", "h4", "h4", scheduler="pack", memory=300)
    proposal = group.proposal()
    assert (proposal.before.used, proposal.after.used) == (4, 2)
    assert "empties h3" in {move.why for move in proposal.moves}
    assert ways(proposal)[0][1] == "h3", "one task is less than two"
    assert group.proposal(most=1).after.used == 3 and group.proposal(most=1).more


def test_a_host_with_tasks_that_may_not_be_moved_is_not_emptied_in_vain() -> None:
    group = Group(*hosts(2, memory=1000))
    group.add("a", "h1", scheduler="pack", memory=200).add("b", "h2", scheduler="pack", memory=200)
    assert len(group.proposal().moves) == 1
    assert group.add("fixed", "h1", "h2", min=2, max=2).proposal().moves == ()


def test_tasks_on_a_host_that_has_given_away_more_than_it_has_are_moved() -> None:
    group = Group(*hosts(2, memory=1000)).add("a", "h1", "h1", "h1", memory=400, scheduler="pack")
    proposal = group.proposal()
    assert len(proposal.moves) == 1 and proposal.moves[0].why == "h1: memory: free 200 MB < 400 MB"
    assert (proposal.before.broken, proposal.after.broken) == (3, 0)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"rollouts": {"web": Rollout(number=3, task_name="web", task_version=1)}}, "roll-out 3 is under way"),
        ({"moves": {"web": Moves()}}, "moves are under way"),
        ({"health": {"default-web-1-2": Health(False)}}, "default-web-1-2 is not healthy"),
        ({"issued": {}}, "it has not all tasks"),
    ],
)
def test_services_that_are_not_at_rest_are_left_out_with_the_reason(more, why) -> None:
    world = replace(Group(*hosts(3)).add("web", *["h1"] * 4).world(), **more)
    proposal = rebalance(world, SCHEDULERS)
    assert proposal.moves == () and proposal.left_out["default", "web"].startswith(why)


def test_where_nothing_can_be_replaced_the_remedy_is_said() -> None:
    proposal = Group(*hosts(3)).add("web", *["h1"] * 4, min=4, max=4).proposal()
    assert proposal.moves == ()
    assert "raise max to 5 or lower min" in proposal.left_out["default", "web"]
    assert Group(*hosts(3)).add("web", *["h1"] * 4, min=3, max=4).proposal().moves


def test_only_the_services_and_hosts_that_were_asked_for_are_looked_at() -> None:
    group = Group(*hosts(4)).add("web", *["h1"] * 4).add("api", *["h2"] * 4)
    assert {move.task.service for move in group.proposal(services=["api"]).moves} == {"api"}
    to_h3 = group.proposal(hosts=["h3"])
    assert to_h3.moves and all("h3" in (source, to) for _, source, to in ways(to_h3))


def test_cordoned_draining_and_dead_hosts_get_nothing() -> None:
    away = [a_host("h2", mark="cordoned"), a_host("h3", alive=False), a_host("h4", mark="draining")]
    assert Group(a_host("h1"), *away).add("web", *["h1"] * 4).proposal().moves == ()


def zones(*names: str) -> list[HostView]:
    return [a_host(f"h{number}", tags={"zone": zone}) for number, zone in enumerate(names, 1)]


def test_tasks_that_break_a_rule_move_before_anything_else() -> None:
    rules = Placement(at_most=[AtMost(count=1)])
    group = Group(*hosts(3)).add("pair", "h1", "h1", placement=rules).add("many", *["h2"] * 6)
    (move,) = group.proposal(most=1).moves
    assert (move.task.service, move.why) == ("pair", "h1: distinct hosts: 1 of pair on this host")
    apart = Placement(apart=[Neighbour(service="loud")])
    proposal = Group(*hosts(2)).add("loud", "h1").add("quiet", "h1", placement=apart).proposal()
    assert (proposal.before.broken, proposal.after.broken) == (2, 0) and len(proposal.moves) == 1


def test_wishes_come_before_evenness_and_their_gain_is_told() -> None:
    liking = Placement(prefer=[Preference(host="zone = a", weight=50)])
    proposal = Group(*zones("a", "b", "b")).add("web", "h2", "h3", placement=liking).proposal()
    assert ways(proposal) == [("web-1-0", "h2", "h1"), ("web-1-1", "h3", "h1")]
    assert (proposal.before.wishes, proposal.after.wishes) == (0, 100)
    assert proposal.moves[0].why == "prefer zone = a: 50 on h1, 0 on h2"
    shares = Placement(spread=[Spread(over="zone", shares={"a": 3, "b": 1})])
    proposal = Group(*zones("a", "b", "b")).add("web", *["h2", "h3"] * 2, placement=shares).proposal()
    assert Counter(to for _, _, to in ways(proposal)) == {"h1": 3}


def test_no_service_follows_another_one_that_runs_away_from_it() -> None:
    chasing = Placement(prefer=[Preference(service="shy", weight=40)])
    fleeing = Placement(prefer=[Preference(service="chaser", weight=-50)])
    group = Group(*hosts(3)).add("shy", "h1", placement=fleeing).add("chaser", "h1", placement=chasing)
    proposal = group.proposal()
    assert len(proposal.moves) == 1 and proposal.after.wishes > proposal.before.wishes
    assert rebalance(carried_out(group.world(), proposal), SCHEDULERS).moves == ()


def test_a_task_that_others_have_to_be_near_to_stays() -> None:
    near = Placement(near=[Neighbour(service="cache")])
    group = Group(*hosts(2)).add("cache", "h1", "h1").add("web", "h1", placement=near)
    for move in group.proposal().moves:
        assert (move.task.service, move.task.instance) == ("cache", 1)
    alone = Group(*hosts(2)).add("cache", "h1").add("web", "h1", placement=near)
    for number in range(4):
        alone.add(f"s{number}", "h1")
    assert "cache" not in {move.task.service for move in alone.proposal().moves}


# --- whatever there is -------------------------------------------------------------------------------------------

PLACES = st.lists(st.integers(1, 5), min_size=1, max_size=7)
RULES = st.sampled_from(
    [
        *[UNSET] * 4,
        Placement(spread=[Spread(over="zone")]),
        Placement(prefer=[Preference(host="zone = a")]),
        Placement(prefer=[Preference(service="s0", weight=30), Preference(host="zone = b", weight=20)]),
        Placement(prefer=[Preference(service="s1", weight=-40)]),
        Placement(at_most=[AtMost(count=2)]),
        Placement(apart=[Neighbour(service="s0", per="zone")]),
        Placement(near=[Neighbour(service="s1")]),
        Placement(leave_free=20),
    ]
)
SERVICES = st.lists(
    st.tuples(
        PLACES, st.sampled_from([0, 100, 250, 400]), st.sampled_from(["default", "pack"]), st.integers(0, 2), RULES
    ),
    min_size=1,
    max_size=5,
)
MEMORIES = st.lists(st.sampled_from([800, 1000, 2000]), min_size=2, max_size=5)


def a_group(memories: list[int], services: list[tuple[list[int], int, str, int, object]], surge: int = 1) -> Group:
    """Whatever does not fit on its host is left out, so that nothing is overcommitted from the start."""
    tags = [{"zone": "ab"[number % 2]} for number in range(len(memories))]
    group = Group(*(a_host(f"h{n}", memory=memory, tags=tags[n - 1]) for n, memory in enumerate(memories, 1)))
    free = {f"h{number}": memory for number, memory in enumerate(memories, 1)}
    for number, (places, memory, scheduler, slack, rules) in enumerate(services):
        kept = []
        for place in places:
            host = f"h{(place - 1) % len(memories) + 1}"
            if free[host] >= memory:
                free[host] -= memory
                kept.append(host)
        if kept:
            low = max(0, len(kept) - slack)
            bounds = {"min": low, "max": len(kept) + surge, "scheduler": scheduler}
            group.add(f"s{number}", *kept, memory=memory, placement=rules, **bounds)
    return group


@given(MEMORIES, SERVICES, st.integers(0, 1), st.integers(1, 30))
@settings(max_examples=80, deadline=None)
def test_every_move_fits_when_its_turn_comes_and_min_and_max_hold(memories, services, surge, most) -> None:
    world = a_group(memories, services, surge).world()
    proposal = rebalance(world, SCHEDULERS, most=most)
    assert len(proposal.moves) <= most
    fleet, goals = world.fleet(), world.goals()
    for move in proposal.moves:
        goal = goals[move.task.cluster.name, move.task.service]
        service, demand = goal.service, demand_of(goal, goal.definition, goal.fixed_ports)
        moved = msgspec.structs.replace(move.task, host=move.to)
        beside = service.max > service.desired and not fleet.refusal(move.to, demand, None, {})
        assert beside or service.min < service.desired
        fleet.release(move.task)
        assert not fleet.refusal(move.to, demand, None, {}), "it has to fit where it goes"
        fleet.reserve(moved)
    end = carried_out(world, proposal)
    assert Counter(one.task.service for one in end.issued.values()) == Counter(
        one.task.service for one in world.issued.values()
    )
    wanted = Counter(move.to for move in proposal.moves)
    left = Counter(move.task.host for move in proposal.moves)
    before, after = (Counter(one.task.host for one in some.issued.values()) for some in (world, end))
    assert {host: after[host] - before[host] for host in world.hosts} == {
        host: wanted[host] - left[host] for host in world.hosts
    }, "schedulers carry out exactly what was proposed"


@given(MEMORIES, SERVICES)
@settings(max_examples=80, deadline=None)
def test_no_figure_becomes_worse_and_moves_are_proposed_only_for_a_gain(memories, services) -> None:
    proposal = rebalance(a_group(memories, services).world(), SCHEDULERS, most=30)
    before, after = proposal.before, proposal.after
    assert after.broken <= before.broken
    assert after.wishes >= before.wishes or after.broken < before.broken
    assert after.difference <= before.difference or after.wishes > before.wishes or after.broken < before.broken
    if proposal.moves:
        assert all(move.task.host != move.to for move in proposal.moves)
        assert len({move.task.id for move in proposal.moves}) == len(proposal.moves)
    else:
        assert before == after


def test_a_number_stands_for_what_was_proposed_and_nothing_else() -> None:
    group = Group(*hosts(3)).add("web", *["h1"] * 4)
    proposal, later = group.proposal(), group.proposal()
    number = proposal.number(Revision(7))
    assert later.same(number) and later.number(Revision(9)) != number
    assert not group.proposal(most=1).same(number)
    assert not group.add("api", "h2", "h2", "h2").proposal().same(number)


@given(MEMORIES, SERVICES)
@settings(max_examples=80, deadline=None)
def test_it_comes_to_rest_and_never_swings(memories, services) -> None:
    """A second look may find one more move that the first did not see, but nothing ever goes back to where it was."""
    world = a_group(memories, services).world()
    layouts = []
    for _ in range(6):
        layouts.append(sorted((one.task.service, one.task.host) for one in world.issued.values()))
        proposal = rebalance(world, SCHEDULERS, most=100)
        if not proposal.moves:
            break
        world = carried_out(world, proposal)
    assert not proposal.moves, f"still moving after {len(layouts)} proposals"
    assert all(layouts.count(layout) == 1 for layout in layouts)


@given(MEMORIES, SERVICES, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_order_in_which_things_are_read_does_not_matter(memories, services, dice) -> None:
    world = a_group(memories, services).world()

    def shuffled(mapping):
        items = list(mapping.items())
        dice.shuffle(items)
        return dict(items)

    other = replace(
        world, services=shuffled(world.services), hosts=shuffled(world.hosts), issued=shuffled(world.issued)
    )
    assert rebalance(world, SCHEDULERS, most=8) == rebalance(other, SCHEDULERS, most=8)
