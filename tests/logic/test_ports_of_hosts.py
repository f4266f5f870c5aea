"""What a fleet makes of the ports that definitions take: protocols, addresses, plans that come to nothing."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from sked_core.interfaces.scheduler import Demand
from sked_core.logic.fleet import Fleet
from sked_core.model.ports import PROTOCOLS, Binding, port_name
from sked_core.model.types import TaskDefinition, task_id
from sked_core.testing.builders import a_definition, a_host, a_task

bindings = st.frozensets(
    st.builds(Binding, st.integers(1, 4), st.sampled_from(["", "127.0.0.1", "::1"]), st.sampled_from(PROTOCOLS)),
    max_size=3,
)


def numbers(some: Iterable[Binding]) -> frozenset[int]:
    return frozenset(one.number for one in some)


@given(bindings, bindings, st.sets(st.integers(1, 4)))
def test_a_host_is_refused_just_for_ports_that_another_task_or_a_stranger_has(
    theirs: frozenset[Binding], ours: frozenset[Binding], strangers: set[int]
) -> None:
    def ports_of(definition: TaskDefinition) -> frozenset[int]:
        return numbers(theirs)

    fleet = Fleet([a_host("h1", ports=sorted(strangers))], [a_task("h1", 0)], ports_of)
    taken = {(one.port, one.protocol) for one in theirs}
    expected = set()
    for one in ours:
        if (one.port, one.protocol) in taken:
            expected.add(f"port {port_name(one.number)} is held by another task")
        elif one.port in strangers and one.protocol == "tcp" and not one.address:
            expected.add(f"port {one.port} is in use on the host")
    reasons = fleet.refusals(Demand("default", "web", fixed_ports=numbers(ours)), None, {}).get("h1", ())
    assert sorted(reasons) == sorted(expected)


def test_what_was_only_planned_leaves_no_port_to_rest() -> None:
    fleet = Fleet([a_host("h1")], [])
    task = a_task("h1", 0, a_definition(provide_port=True), port=fleet.pick_port("h1", a_task("h1", 0).id))
    with fleet.trial():
        fleet.reserve(task)
    fleet.reserve(task)
    fleet.free(task)
    assert fleet.pick_port("h1", task.id) == task.port
    fleet.reserve(task)
    with fleet.trial():
        fleet.release(task)
        assert fleet.pick_port("h1", task.id) != task.port
    fleet.release(task)
    assert fleet.pick_port("h1", task.id) != task.port


def test_where_the_search_begins_differs_by_host_version_and_instance() -> None:
    fleet = Fleet([a_host("h1"), a_host("h2")], [])
    ids = [task_id("default", "web", version, instance) for version in range(5) for instance in range(5)]
    assert len({fleet.pick_port(host, one) for host in ("h1", "h2") for one in ids}) == 50
