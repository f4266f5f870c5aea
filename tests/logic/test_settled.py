"""What is told of a pair before it is planned for is true of the plan."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sked_core.logic.fleet import Fleet
from sked_core.logic.placement import spread
from sked_core.logic.plan import Plan
from sked_core.logic.reconcile import reconcile
from sked_core.logic.settled import asks_for_health, settled
from sked_core.testing.builders import a_definition, a_goal, a_host, a_service, a_task, healthy, issued

HOSTS = (a_host("h1"), a_host("h2"), a_host("lost", lost=True, alive=False), a_host("left", mark="draining"))
states = st.fixed_dictionaries(
    {
        "host": st.sampled_from(["h1", "h2", "h2", "lost", "left", "unknown"]),
        "definition": st.sampled_from([a_definition(version=version) for version in (1, 2, 2, 2)]),
        "scheduled": st.sampled_from([True, True, True, False]),
        "rejected": st.sampled_from([False, False, False, True]),
    }
)


@given(
    st.lists(states, max_size=5),
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(0, 7),
    st.booleans(),
    st.sets(st.integers(0, 4)),
)
def test_health_is_asked_for_where_it_counts_and_settled_pairs_need_no_plan(
    found, desired, least, most, wanted, well
) -> None:
    tasks = issued(*(a_task(instance=number, **state) for number, state in enumerate(found)))
    goal = a_goal(a_service(version=2, desired=desired, min=least, max=most))
    goal = goal if wanted else replace(goal, cluster=None)

    def planned(health: dict) -> Plan:
        fleet = Fleet(HOSTS, (one.task for one in tasks))
        return reconcile(goal, tasks, fleet=fleet, health=health, scheduler=spread(), avoid={})

    fleet = Fleet(HOSTS, (one.task for one in tasks))
    some, none = healthy(*(one.id for one in tasks if one.task.instance in well)), healthy()
    if not asks_for_health(goal, tasks, fleet):
        assert planned(some) == planned(none)
    if settled(goal, tasks, fleet):
        assert not asks_for_health(goal, tasks, fleet)
        assert planned(some) == Plan()
