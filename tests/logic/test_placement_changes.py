"""What a changed placement does to tasks that run: those on hosts that are not asked for move, the rest stays."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from sked_core.logic.fleet import Fleet, HostView
from sked_core.logic.placement import scored
from sked_core.logic.plan import Goal, Issued, Plan
from sked_core.logic.reconcile import reconcile
from sked_core.logic.settled import settled
from sked_core.logic.world import World, shunned
from sked_core.model.types import AtMost, Neighbour, Placement, Service, Task
from sked_core.testing.builders import a_cluster, a_definition, a_goal, a_host, a_service, a_task, healthy, issued

HOSTS = [a_host(name, tags={"zone": zone}) for name, zone in (("h1", "a"), ("h2", "a"), ("h3", "b"), ("h4", "b"))]
FEWEST = scored(lambda demand, candidate: -candidate.tasks_of_service)


def goal_of(placement: Placement, desired: int = 2, **fields: object) -> Goal:
    return a_goal(a_service(desired=desired, placement=placement, **fields))


def plan(goal: Goal, tasks: Sequence[Issued], hosts: Sequence[HostView] = tuple(HOSTS)) -> Plan:
    fleet = Fleet(hosts, (one.task for one in tasks))
    well = healthy(*(one.id for one in tasks))
    return reconcile(goal, tasks, fleet=fleet, health=well, scheduler=FEWEST, avoid={})


def said(result: Plan) -> list[str]:
    return sorted(str(change) for change in result.changes)


def carried_out(tasks: Sequence[Issued], result: Plan) -> list[Issued]:
    """The tasks once what the plan issues is healthy and what it withdraws has stopped."""
    gone = {change.before.id for change in result.changes if change.before is not None}
    new = [change.after for change in result.changes if change.after is not None and change.after.scheduled]
    return issued(*(one.task for one in tasks if one.id not in gone), *new)


def test_tasks_on_hosts_that_are_not_asked_for_are_replaced_within_min_one_after_the_other() -> None:
    goal, tasks = goal_of(Placement(require=["zone = b"])), issued(a_task("h1", 0), a_task("h2", 1))
    fleet = Fleet(HOSTS, (one.task for one in tasks))
    assert not settled(goal, tasks, fleet)
    first = plan(goal, tasks)
    assert said(first) == ["issue default-web-1-2 to h3"]  # max is 3: the new one comes before an old one goes
    tasks = carried_out(tasks, first)
    second = plan(goal, tasks)
    assert said(second) == ["withdraw default-web-1-1 from h2"]
    assert second.changes[0].why == "h2: needs zone = b; has zone a"
    tasks = carried_out(tasks, second)
    tasks = carried_out(tasks, third := plan(goal, tasks))
    assert said(third) == ["issue default-web-1-1 to h4"]
    tasks = carried_out(tasks, plan(goal, tasks))
    assert sorted(one.task.host for one in tasks) == ["h3", "h4"]
    assert plan(goal, tasks) == Plan()


def test_they_stay_where_no_other_host_takes_them() -> None:
    tasks = issued(a_task("h1", 0), a_task("h2", 1))
    result = plan(goal_of(Placement(require=["zone = c"]), min=0), tasks)
    assert result.changes == ()
    assert result.waiting == 1
    assert result.refusals["h3"] == ("needs zone = c; has zone b",)


def test_rules_about_other_tasks_move_nothing_that_runs() -> None:
    """Both are on one host: that is for a rebalance to mend."""
    tasks = issued(a_task("h1", 0), a_task("h1", 1))
    for rule in (
        Placement(distinct_hosts=True),
        Placement(at_most=[AtMost(count=1, per="zone")]),
        Placement(near=[Neighbour(service="cache")]),
    ):
        assert plan(goal_of(rule), tasks) == Plan()
        assert settled(goal_of(rule), tasks, Fleet(HOSTS, (one.task for one in tasks)))


def test_a_task_on_a_host_that_nobody_knows_stays() -> None:
    tasks = issued(a_task("by-hand", 0), a_task("h3", 1))
    assert plan(goal_of(Placement(require=["zone = b"])), tasks) == Plan()


def test_where_what_is_required_can_not_be_understood_nothing_moves_and_nothing_is_placed() -> None:
    tasks = issued(a_task("h1", 0))
    result = plan(goal_of(Placement(require=["zone ~ a"])), tasks)
    assert result.changes == ()
    assert set(result.refusals.values()) == {('needs what can\'t be understood: "zone ~ a"',)}


def test_a_version_of_a_service_with_distinct_hosts_rolls_out_where_min_leaves_room() -> None:
    """Old tasks count for the rule as well: with one on every host the new one needs a place that is free."""
    rule, hosts = Placement(distinct_hosts=True), HOSTS[:2]
    tasks = issued(a_task("h1", 0), a_task("h2", 1))
    blocked = plan(goal_of(rule, version=2), tasks, hosts)
    assert (blocked.changes, blocked.waiting) == ((), 1)
    assert blocked.refusals["h1"] == ("distinct hosts: 1 of web on this host",)
    assert said(plan(goal_of(rule, version=2, min=1), tasks, hosts)) == ["withdraw default-web-1-1 from h2"]


def test_whoever_comes_second_keeps_away_whichever_of_the_two_said_so() -> None:
    batch = Service(
        name="batch", task_name="web", task_version=1, placement=Placement(apart=[Neighbour(service="web", per="zone")])
    )
    web = Service(name="web", task_name="web", task_version=1, desired=1, min=1, max=2)
    assert shunned([batch, web]) == {"web": (("batch", "zone"),)}
    there: Task = replace(a_task("h1", 0), service="batch")
    world = World(
        services={"batch": batch, "web": web},
        clusters={"default": a_cluster("default", ("web",))},
        definitions={("web", 1): a_definition()},
        hosts={view.host.name: view for view in HOSTS},
        issued={there.id: Issued(there, issued(there)[0].revision)},
    )
    goal = world.goals()["default", "web"]
    result = reconcile(goal, [], fleet=world.fleet(), health={}, scheduler=FEWEST, avoid={})
    assert said(result) == ["issue default-web-1-0 to h3"]
