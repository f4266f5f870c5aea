"""Rules and wishes of placement: that the quick way chooses what the plain one does, and what is said of refusals."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sked_core.errors import PluginError
from sked_core.interfaces.scheduler import Candidate, Demand, Scheduler
from sked_core.logic.constrained import depends_on_others
from sked_core.logic.fleet import Fleet, HostView
from sked_core.logic.placement import Scored, scored, spread
from sked_core.model.constraint import parse, value_of
from sked_core.model.types import (
    ANYWHERE,
    AtMost,
    Host,
    Neighbour,
    Placement,
    Preference,
    Spread,
    Task,
)
from sked_core.testing.builders import a_cluster, a_definition, a_host, a_task

SIZE = 1000


def emptiest(demand: Demand, candidate: Candidate) -> float:
    """A score that placing a task changes, so that later choices depend on earlier ones."""
    return candidate.free_memory // 2000 - 3 * candidate.tasks_of_service


SCORED = scored(emptiest)
SCHEDULERS = {
    "service": SCORED,
    "size": scored(lambda demand, candidate: -candidate.free_memory // 3000, scope="size"),
    "host": spread(),
}
"""By how much they look at: the orders of hosts that a fleet keeps for them differ."""


def where(task: Task) -> tuple[str, str]:
    return task.cluster.name, task.service


def another(service: str, host: str, number: int, cluster: str = "default", **fields: Any) -> Task:
    definition = a_definition(service, memory=SIZE)
    return a_task(host, number, definition, service=service, cluster=a_cluster(cluster, (service,)), **fields)


def demand_for(placement: Placement = ANYWHERE, desired: int = 4, **fields: Any) -> Demand:
    asked = {"memory": SIZE, "executors": frozenset({"bash"}), "desired": desired, "placement": placement, **fields}
    return Demand("default", "web", **asked)


def placed(
    views: Sequence[HostView],
    tasks: Sequence[Task],
    demand: Demand,
    count: int,
    allowed: list[str] | None = None,
    scheduler: Scheduler = SCORED,
) -> list[str]:
    """Where a fleet places ``count`` tasks, each of them reserved before the next is asked for."""
    fleet, hosts = Fleet(views, tasks), []
    for host in fleet.place(scheduler, "test", demand, count, allowed, {}):
        fleet.reserve(another("web", host, 1000 + len(hosts)))
        hosts.append(host)
    return hosts


# --- the plain way: look at all hosts for each task, from what the documentation says ------------------------------


class Plain:
    """Every host looked at anew. ``tasks`` are those that stand, also what was placed meanwhile."""

    def __init__(self, views: Sequence[HostView], tasks: Sequence[Task], demand: Demand, allowed: list[str] | None):
        self.views, self.demand, self.allowed = {view.host.name: view for view in views}, demand, allowed
        self.tasks = [task for task in tasks if not task.rejected]
        self.hosts = {name: view.host for name, view in self.views.items() if not view.lost}

    def count(self, service: str, tag: str, value: str | None, cluster: str | None = None) -> int:
        return sum(
            task.service == service
            and cluster in (None, task.cluster.name)
            and task.host in self.hosts
            and value is not None
            and value_of(self.hosts[task.host], tag) == value
            for task in self.tasks
        )

    def own(self, tag: str, value: str | None) -> int:
        return self.count("web", tag, value, "default")

    def by_itself(self, name: str) -> bool:
        """Whether the host could take one if nothing were said of placement."""
        fleet = Fleet(self.views.values(), self.tasks)
        bare = replace(self.demand, placement=ANYWHERE, shunned_by=())
        return name not in fleet.refusals(bare, self.allowed, {})

    def allows(self, name: str) -> bool:
        host, rules = self.views[name].host, self.demand.placement
        limits = [(one.count, one.per) for one in rules.at_most] + ([(1, "host")] if rules.distinct_hosts else [])
        apart = [(one.service, one.per) for one in rules.apart] + list(self.demand.shunned_by)
        free = Fleet(self.views.values(), self.tasks).candidate(name, self.demand)
        return (
            all(parse(text).holds(host) for text in rules.require)
            and all(
                value_of(host, per) is not None and self.own(per, value_of(host, per)) < count for count, per in limits
            )
            and all(self.count(one.service, one.per, value_of(host, one.per)) for one in rules.near)
            and not any(self.count(service, per, value_of(host, per)) for service, per in apart)
            and (free.free_memory - self.demand.memory) * 100 >= rules.leave_free * free.memory
            and (free.free_cpu_units - self.demand.cpu_units) * 100 >= rules.leave_free * free.cpu_units
        )

    def wished(self, name: str) -> int:
        """In thousand millionths, rounded down term by term."""
        host, rules, unit = self.views[name].host, self.demand.placement, 10**9
        total = 0
        for one in rules.prefer:
            value, cluster = value_of(host, one.per), "default" if one.service == "web" else None
            holds = parse(one.host).holds(host) if one.host else self.count(one.service, one.per, value, cluster) > 0
            total += one.weight * unit if holds else 0
        for one in rules.spread:
            among = [h for n, h in self.hosts.items() if self.allowed is None or n in self.allowed]
            among = [h for h in among if all(parse(text).holds(h) for text in rules.require)]
            shares = one.shares or {v: 1 for h in among if (v := value_of(h, one.over)) is not None}
            value, most = value_of(host, one.over), one.weight * unit
            share = shares.get(value or "", 0)
            have = 2 * self.own(one.over, value) + 1
            total += (
                max(-most, most - most * have * sum(shares.values()) // (2 * self.demand.desired * share))
                if share
                else -most
            )
        return total

    def best(self, scheduler: Scored) -> str | None:
        fleet = Fleet(self.views.values(), self.tasks)
        able = [name for name in self.views if self.by_itself(name) and self.allows(name)]
        rank = {n: (-self.wished(n), scheduler.rank(self.demand, fleet.candidate(n, self.demand)), n) for n in able}
        return min(able, key=lambda name: rank[name], default=None)

    def place(self, count: int, scheduler: Scored) -> Iterator[str]:
        for number in range(count):
            host = self.best(scheduler)
            if host is None:
                return
            yield host
            self.tasks.append(another("web", host, 1000 + number))


# --- fleets, tasks and rules at random -----------------------------------------------------------------------------

NAMES = [f"h{number}" for number in range(7)]
TAGS = st.sampled_from(["zone", "rack", "host", "host.arch"])
SERVICES = st.sampled_from(["batch", "cache"])
CONSTRAINTS = st.sampled_from(
    ["zone = a", "zone in a, b", "zone != c", "rack exists", "rack not exists", "rack >= 2", "rack matches [12]",
     "host.arch = arm", "host.name not in h0, h3"]
)  # fmt: skip


@st.composite
def fleets(draw: st.DrawFn) -> list[HostView]:
    views = []
    for name in NAMES[: draw(st.integers(1, len(NAMES)))]:
        tags = {
            "zone": draw(st.sampled_from(["a", "b", "c", None])),
            "rack": draw(st.sampled_from(["1", "2", "3", None])),
        }
        views.append(
            a_host(
                name,
                memory=draw(st.sampled_from([1000, 3000, 8000])),
                tags={tag: value for tag, value in tags.items() if value is not None},
                attributes=draw(st.sampled_from([{}, {"arch": "arm"}, {"arch": "x86_64"}])),
                alive=draw(st.sampled_from([True] * 5 + [False])),
                lost=draw(st.sampled_from([False] * 5 + [True])),
                mark=draw(st.sampled_from([""] * 5 + ["cordoned"])),
            )
        )
    return views


PLACEMENTS = st.builds(
    Placement,
    require=st.lists(CONSTRAINTS, max_size=1),
    distinct_hosts=st.sampled_from([False, False, False, True]),
    at_most=st.lists(st.builds(AtMost, count=st.integers(1, 3), per=TAGS), max_size=2),
    near=st.lists(st.builds(Neighbour, service=SERVICES, per=TAGS), max_size=1),
    apart=st.lists(st.builds(Neighbour, service=SERVICES, per=TAGS), max_size=1),
    leave_free=st.sampled_from([0, 0, 0, 30]),
    prefer=st.lists(
        st.one_of(
            st.builds(Preference, host=CONSTRAINTS, weight=st.integers(-100, 100)),
            st.builds(
                Preference, service=st.sampled_from(["batch", "cache", "web"]), per=TAGS, weight=st.integers(-100, 100)
            ),
        ),
        max_size=2,
    ),
    spread=st.lists(
        st.builds(
            Spread,
            over=TAGS,
            shares=st.dictionaries(st.sampled_from(["a", "b", "1", "h1"]), st.integers(0, 3), max_size=2).filter(
                lambda shares: not shares or any(shares.values())
            ),
            weight=st.integers(1, 100),
        ),
        max_size=2,
    ),
)
DEMANDS = st.builds(
    demand_for,
    PLACEMENTS,
    desired=st.integers(1, 8),
    shunned_by=st.lists(st.tuples(SERVICES, TAGS), max_size=1).map(tuple),
)


@st.composite
def tasks_on(draw: st.DrawFn) -> list[Task]:
    return [
        another(
            draw(st.sampled_from(["web", "batch", "cache"])),
            draw(st.sampled_from([*NAMES, "unknown"])),
            number,
            draw(st.sampled_from(["default", "default", "other"])),
            scheduled=draw(st.sampled_from([True, True, False])),
            rejected=draw(st.sampled_from([False, False, False, True])),
        )
        for number in range(draw(st.integers(0, 6)))
    ]


ALLOWED = st.one_of(st.none(), st.none(), st.lists(st.sampled_from(NAMES), unique=True))


@settings(max_examples=300, deadline=None)
@given(fleets(), tasks_on(), DEMANDS, st.integers(1, 8), ALLOWED, st.sampled_from(sorted(SCHEDULERS)))
def test_what_is_chosen_is_what_looking_at_every_host_for_every_task_would_choose(
    views, tasks, demand, count, allowed, looking_at
):
    scheduler = SCHEDULERS[looking_at]
    expected = list(Plain(views, tasks, demand, allowed).place(count, scheduler))
    assert placed(views, tasks, demand, count, allowed, scheduler) == expected


@settings(max_examples=100, deadline=None)
@given(fleets(), tasks_on(), st.lists(st.tuples(DEMANDS, st.integers(1, 4)), min_size=2, max_size=4), st.data())
def test_one_batch_after_another_finds_what_is_kept_from_the_last_as_it_should_be(views, tasks, batches, data):
    """Hosts change between batches as well."""
    fleet, there = Fleet(views, tasks), list(tasks)
    for number, (demand, count) in enumerate(batches):
        looking_at = data.draw(st.sampled_from(sorted(SCHEDULERS)))
        expected = list(Plain(views, there, demand, None).place(count, SCHEDULERS[looking_at]))
        hosts = []
        for host in fleet.place(SCHEDULERS[looking_at], "test", demand, count, None, {}):
            there.append(another("web", host, 2000 + 10 * number + len(hosts)))
            fleet.reserve(there[-1])
            hosts.append(host)
        assert hosts == expected
        if gone := data.draw(st.sampled_from([None, *there])):
            there.remove(gone)
            fleet.release(gone)
        views = [data.draw(st.sampled_from([view, replace(view, host=moved(view.host))])) for view in views]
        fleet.update({view.host.name: view for view in views})


def moved(host: Host) -> Host:
    """The host with other tags."""
    return msgspec.structs.replace(host, tags={"zone": "c", "rack": "1"})


@settings(max_examples=300, deadline=None)
@given(fleets(), tasks_on(), DEMANDS, ALLOWED)
def test_a_host_is_refused_exactly_where_a_rule_is_broken(views, tasks, demand, allowed):
    plain = Plain(views, tasks, demand, allowed)
    refused = Fleet(views, tasks).refusals(demand, allowed, {})
    assert set(refused) == {name for name in plain.views if not (plain.by_itself(name) and plain.allows(name))}
    assert all(reasons and all(reasons) for reasons in refused.values())


@settings(max_examples=100, deadline=None)
@given(fleets(), tasks_on(), DEMANDS, st.integers(1, 8), st.randoms(use_true_random=False))
def test_the_order_of_hosts_tasks_and_rules_does_not_matter(views, tasks, demand, count, chance: random.Random):
    other = msgspec.structs.asdict(demand.placement)
    for name, value in other.items():
        if isinstance(value, list):
            other[name] = chance.sample(value, len(value))
    turned = replace(demand, placement=Placement(**other), shunned_by=demand.shunned_by[::-1])
    shuffled = (chance.sample(views, len(views)), chance.sample(tasks, len(tasks)))
    assert placed(*shuffled, turned, count) == placed(views, tasks, demand, count)


@settings(max_examples=100, deadline=None)
@given(fleets(), tasks_on(), DEMANDS, st.integers(1, 8))
def test_hard_rules_hold_wherever_something_was_placed(views, tasks, demand, count):
    hosts = placed(views, tasks, demand, count)
    there = [*tasks, *(another("web", host, 1000 + number) for number, host in enumerate(hosts))]
    before, after = Plain(views, tasks, demand, None), Plain(views, there, demand, None)
    rules = demand.placement
    limits = [(one.count, one.per) for one in rules.at_most] + ([(1, "host")] if rules.distinct_hosts else [])
    for name in hosts:
        host = before.hosts[name]
        assert all(parse(text).holds(host) for text in rules.require)
        for most, per in limits:
            value = value_of(host, per)
            assert value is not None
            assert after.own(per, value) <= max(most, before.own(per, value))
        assert all(before.count(one.service, one.per, value_of(host, one.per)) for one in rules.near)
        apart = [(one.service, one.per) for one in rules.apart] + list(demand.shunned_by)
        assert not any(before.count(service, per, value_of(host, per)) for service, per in apart)
        free = Fleet(views, there).candidate(name, demand)
        assert free.free_memory * 100 >= rules.leave_free * free.memory


class FirstByName:
    """A scheduler that is more than a score."""

    def place(self, demand: Demand, count: int, candidates: Sequence[Candidate]) -> Iterator[str]:
        return iter([min(one.host for one in candidates)] * min(1, count))


@settings(max_examples=100, deadline=None)
@given(fleets(), tasks_on(), DEMANDS.filter(depends_on_others), st.integers(1, 6))
def test_a_scheduler_that_is_no_score_is_held_to_the_same_rules_and_wishes(views, tasks, demand, count):
    plain, expected = Plain(views, tasks, demand, None), []
    for number in range(count):
        able = [name for name in plain.views if plain.by_itself(name) and plain.allows(name)]
        if not able:
            break
        expected.append(min(able, key=lambda name: (-plain.wished(name), name)))
        plain.tasks.append(another("web", expected[-1], 1000 + number))
    assert placed(views, tasks, demand, count, scheduler=FirstByName()) == expected


# --- by example ----------------------------------------------------------------------------------------------------


def zones(*names: str, **fields: Any) -> list[HostView]:
    """Hosts h1, h2, … in these zones (empty: in none)."""
    return [a_host(f"h{n}", tags={"zone": zone} if zone else {}, **fields) for n, zone in enumerate(names, 1)]


def share_out(shares: dict[str, int], desired: int, *zones_of_hosts: str) -> Counter[str]:
    views = zones(*zones_of_hosts)
    zone = {view.host.name: view.host.tags.get("zone", "") for view in views}
    demand = demand_for(Placement(spread=[Spread(over="zone", shares=shares)]), desired, memory=0)
    return Counter(zone[host] for host in placed(views, [], demand, desired))


@pytest.mark.parametrize(
    ("shares", "desired", "expected"),
    [
        ({}, 6, {"a": 3, "b": 3}),
        ({"a": 2, "b": 1}, 6, {"a": 4, "b": 2}),
        ({"a": 9, "b": 1}, 10, {"a": 9, "b": 1}),
        ({"a": 9, "b": 1}, 2, {"a": 2}),
        ({"a": 1, "b": 1, "c": 2}, 8, {"a": 3, "b": 3, "": 2}),
    ],
)
def test_tasks_are_spread_by_shares_whatever_number_of_hosts_a_zone_has(shares, desired, expected):
    spread_out = share_out(shares, desired, "a", "a", "a", "a", "b", "")
    if "c" in shares:  # nobody has that one: its share goes where there is least of what is wished for
        assert spread_out["a"] + spread_out["b"] == sum(spread_out.values())
    else:
        assert spread_out == expected


def said(placement: Placement, tasks: Sequence[Task] = (), views: Sequence[HostView] = (), **fields: Any) -> dict:
    fleet = Fleet(views or zones("a", "b", ""), tasks)
    return fleet.refusals(demand_for(placement, **fields), None, {})


def test_each_rule_says_what_there_is_instead():
    web, batch = [another("web", "h1", 0), another("web", "h1", 1)], [another("batch", "h1", 0, cluster="other")]
    assert said(Placement(require=["zone in b, c"]), web) == {
        "h1": ("needs zone in b, c; has zone a",),
        "h3": ("needs zone in b, c; has no zone",),
    }
    assert said(Placement(distinct_hosts=True), web) == {"h1": ("distinct hosts: 2 of web on this host",)}
    assert said(Placement(at_most=[AtMost(count=2)]), web) == {"h1": ("at most 2 per host: 2 of web on this host",)}
    assert said(Placement(at_most=[AtMost(count=1, per="zone")]), web) == {
        "h1": ("at most 1 per zone: 2 of web in zone a",),
        "h3": ("at most 1 per zone: has no zone",),
    }
    assert said(Placement(near=[Neighbour(service="batch")]), batch) == {
        "h2": ("near batch: none on this host",),
        "h3": ("near batch: none on this host",),
    }
    assert said(Placement(near=[Neighbour(service="batch", per="zone")]), batch) == {
        "h2": ("near batch per zone: none in zone b",),
        "h3": ("near batch per zone: has no zone",),
    }
    assert said(Placement(apart=[Neighbour(service="batch", per="zone")]), batch) == {
        "h1": ("apart from batch per zone: 1 in zone a",)
    }
    assert said(ANYWHERE, batch, shunned_by=(("batch", "host"),)) == {
        "h1": ("batch wants to be apart from web: 1 on this host",)
    }
    assert said(Placement(leave_free=80), batch, zones("a", memory=8000)) == {
        "h1": ("memory: free 7000 MB < 1000 MB + 6400 MB to leave free (80 % of 8000)",)
    }
    assert said(Placement(leave_free=80), batch, zones("a", memory=1500)) == {"h1": ("memory: free 500 MB < 1000 MB",)}


def test_wishes_are_told_one_by_one():
    wishes = Placement(
        prefer=[Preference(host="zone = a", weight=30), Preference(service="batch", weight=-20)],
        spread=[Spread(over="zone", shares={"a": 1, "b": 3}, weight=10)],
    )
    rules = Fleet(zones("a", "b"), [another("batch", "h1", 0)]).rules(demand_for(wishes), None)
    assert [rules.terms(Host(name=name, tags={"zone": zone})) for name, zone in (("h1", "a"), ("h2", "b"))] == [
        {"prefer zone = a": 30.0, "prefer batch": -20.0, "spread zone": 5.0},
        {"prefer zone = a": 0.0, "prefer batch": 0.0, "spread zone": pytest.approx(10 - 10 / 6)},
    ]


def test_wishes_come_before_the_score_and_never_keep_a_task_from_running():
    views = [a_host("h1", memory=1000, tags={"disk": "ssd"}), a_host("h2", memory=8000)]
    wish = Placement(prefer=[Preference(host="disk = ssd", weight=1)])
    assert placed(views, [], demand_for(wish), 3) == ["h1", "h2", "h2"]
    avoid = Placement(prefer=[Preference(host="disk = ssd", weight=-1)])
    assert placed(views, [], demand_for(avoid), 9) == ["h2"] * 8 + ["h1"]


def test_what_was_on_a_lost_host_counts_for_nothing_since_it_is_replaced():
    views = [*zones("a", "a"), a_host("h3", tags={"zone": "a"}, lost=True, alive=False)]
    rule = Placement(at_most=[AtMost(count=1, per="zone")])
    assert placed(views, [another("web", "h3", 0)], demand_for(rule), 2) == ["h1"]


def test_what_can_not_be_understood_admits_no_host_and_is_no_wish():
    (reason,) = said(Placement(require=["zone ~ a"]))["h1"]
    assert reason == 'needs what can\'t be understood: "zone ~ a"'
    assert placed(zones("a"), [], demand_for(Placement(prefer=[Preference(host="zone ~ a")])), 1) == ["h1"]


def test_a_score_that_fails_is_the_scheduler_s_mistake():
    broken = scored(lambda demand, candidate: 1 // 0)
    with pytest.raises(PluginError, match="scheduler test failed: ZeroDivisionError"):
        placed(zones("a"), [], demand_for(Placement(distinct_hosts=True)), 1, scheduler=broken)
