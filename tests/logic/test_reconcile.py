"""What a scheduler decides for one service, as data; and that it stays within its bounds whatever happens."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sked_core.errors import PluginError
from sked_core.interfaces.store import Revision
from sked_core.logic.fleet import Fleet, HostView
from sked_core.logic.placement import spread
from sked_core.logic.plan import Change, Goal, Issued, Plan
from sked_core.logic.reconcile import reconcile
from sked_core.logic.settled import settled
from sked_core.model.types import Health, Task, TaskId, TaskMove
from sked_core.testing.builders import a_cluster, a_definition, a_goal, a_host, a_service, a_task, healthy, issued

SPREAD = spread()


def plan(
    goal: Goal,
    tasks: Sequence[Issued],
    hosts: Sequence[HostView] = (a_host("h1"), a_host("h2"), a_host("h3")),
    health: dict[TaskId, Health] | None = None,
    **more: object,
) -> Plan:
    fleet = Fleet(hosts, (one.task for one in tasks))
    well = healthy(*(one.id for one in tasks)) if health is None else health
    return reconcile(goal, tasks, fleet=fleet, health=well, scheduler=SPREAD, **{"avoid": {}, **more})  # type: ignore[arg-type]


def said(result: Plan) -> list[str]:
    return sorted(str(change) for change in result.changes)


def test_missing_tasks_are_issued_and_spread() -> None:
    assert said(plan(a_goal(a_service(desired=3)), [])) == [
        "issue default-web-1-0 to h1",
        "issue default-web-1-1 to h2",
        "issue default-web-1-2 to h3",
    ]


def test_a_settled_service_needs_nothing() -> None:
    tasks = issued(*(a_task(f"h{i + 1}", i) for i in range(3)))
    goal = a_goal(a_service(desired=3))
    assert plan(goal, tasks) == Plan()
    assert settled(goal, tasks, Fleet([a_host("h1"), a_host("h2"), a_host("h3")], ()))


def test_the_same_input_gives_the_same_plan_in_any_order() -> None:
    tasks = issued(*(a_task(f"h{i % 3 + 1}", i) for i in range(5)))
    goal = a_goal(a_service(version=2, desired=5))
    assert said(plan(goal, tasks)) == said(plan(goal, tasks[::-1], [a_host("h3"), a_host("h1"), a_host("h2")]))


def test_scaling_down_withdraws_the_unhealthy_first_then_the_highest() -> None:
    tasks = issued(*(a_task("h1", i) for i in range(4)))
    well = healthy(*(one.id for one in tasks if one.task.instance != 1))
    assert said(plan(a_goal(a_service(desired=2)), tasks, health=well)) == [
        "withdraw default-web-1-1 from h1",
        "withdraw default-web-1-3 from h1",
    ]


def test_a_withdrawn_task_keeps_its_id_until_its_agent_has_removed_it() -> None:
    stopping = a_task("h1", 0, scheduled=False)
    result = plan(a_goal(a_service(desired=1, max=2)), issued(stopping))
    assert said(result) == ["issue default-web-1-1 to h2"]
    # ... and counts against max.
    assert plan(a_goal(a_service(desired=1, max=1)), issued(stopping)).changes == ()


def test_a_service_taken_out_of_its_cluster_is_withdrawn_whole() -> None:
    tasks = issued(a_task("h1", 0), a_task("h2", 1, rejected=True))
    assert said(plan(a_goal(cluster=None), tasks)) == ["remove default-web-1-1", "withdraw default-web-1-0 from h1"]


class TestReplacement:
    old = a_definition(version=1)

    def tasks(self, count: int, **fields: object) -> list[Issued]:
        return issued(*(a_task(f"h{i % 3 + 1}", i, self.old, **fields) for i in range(count)))

    def test_new_ones_come_first_within_max(self) -> None:
        goal = a_goal(a_service(version=2, desired=4, min=4, max=5))
        assert said(plan(goal, self.tasks(4))) == ["issue default-web-2-0 to h2"]

    def test_the_next_old_one_is_touched_only_when_every_new_one_is_healthy(self) -> None:
        new = a_task("h2", 0, a_definition(version=2))
        tasks = [*self.tasks(4), *issued(new)]
        goal = a_goal(a_service(version=2, desired=4, min=3, max=5))
        sick = healthy(*(one.id for one in self.tasks(4)))
        waiting = plan(goal, tasks, health=sick)
        assert waiting.changes == ()
        assert "waiting for default-web-2-0 to become healthy" in waiting.blocked
        assert said(plan(goal, tasks)) == ["withdraw default-web-1-3 from h1"]

    def test_without_room_above_desired_an_old_one_goes_first_as_far_as_min_allows(self) -> None:
        goal = a_goal(a_service(version=2, desired=4, min=3, max=4))
        assert said(plan(goal, self.tasks(4))) == ["withdraw default-web-1-3 from h1"]

    def test_min_equal_to_max_is_blocked_with_the_remedy(self) -> None:
        result = plan(a_goal(a_service(version=2, desired=4, min=4, max=4)), self.tasks(4))
        assert result.changes == ()
        assert "leave no room to replace a task: raise max to 5 or lower min" in result.blocked

    def test_a_broken_old_one_may_go_even_then(self) -> None:
        tasks = self.tasks(4)
        well = healthy(*(one.id for one in tasks[1:]))
        result = plan(a_goal(a_service(version=2, desired=4, min=4, max=4)), tasks, health=well)
        assert said(result) == ["withdraw default-web-1-0 from h1"]

    def test_a_draining_host_is_emptied_the_same_way(self) -> None:
        tasks = issued(a_task("h1", 0), a_task("h2", 1))
        hosts = [a_host("h1", mark="draining"), a_host("h2"), a_host("h3")]
        assert said(plan(a_goal(a_service(desired=2)), tasks, hosts)) == ["issue default-web-1-2 to h3"]
        moved = [*tasks, *issued(a_task("h3", 2))]
        assert said(plan(a_goal(a_service(desired=2)), moved, hosts)) == ["withdraw default-web-1-0 from h1"]

    def test_a_cordoned_host_keeps_what_it_has(self) -> None:
        tasks = issued(a_task("h1", 0))
        hosts = [a_host("h1", mark="cordoned"), a_host("h2")]
        assert plan(a_goal(a_service(desired=1)), tasks, hosts).changes == ()
        assert said(plan(a_goal(a_service(desired=2)), tasks, hosts)) == ["issue default-web-1-1 to h2"]

    def test_a_missing_definition_touches_nothing(self) -> None:
        result = plan(a_goal(a_service(version=9), definition=None), self.tasks(3))
        assert result.changes == ()
        assert "no task definition web version 9" in result.blocked


class TestHoles:
    def test_a_rejected_task_moves_in_one_step(self) -> None:
        tasks = issued(a_task("h1", 0, rejected=True, reject_reason="port taken"))
        (change,) = plan(a_goal(a_service(desired=1)), tasks, avoid={"h1": "rejected"}).changes
        assert change.before is tasks[0]
        assert change.after is not None
        assert (change.after.id, change.after.host) == ("default-web-1-0", "h2")

    def test_it_stands_for_people_to_read_while_no_other_host_will_do(self) -> None:
        tasks = issued(a_task("h1", 0, rejected=True))
        result = plan(a_goal(a_service(desired=1)), tasks, [a_host("h1")], avoid={"h1": "rejected this: port taken"})
        assert result.changes == ()
        assert result.waiting == 1
        assert result.refusals == {"h1": ("rejected this: port taken",)}

    def test_a_lost_host_is_replaced_and_a_stop_it_was_asked_for_is_taken_as_done(self) -> None:
        tasks = issued(a_task("h1", 0), a_task("h1", 1, scheduled=False), a_task("h2", 2))
        hosts = [a_host("h1", alive=False, lost=True), a_host("h2"), a_host("h3")]
        assert said(plan(a_goal(a_service(desired=2)), tasks, hosts)) == [
            "issue default-web-1-0 to h3",
            "remove default-web-1-1",
        ]

    def test_a_host_that_is_merely_silent_keeps_its_tasks(self) -> None:
        tasks = issued(a_task("h1", 0))
        assert plan(a_goal(a_service(desired=1)), tasks, [a_host("h1", alive=False), a_host("h2")]).changes == ()

    def test_each_hole_keeps_its_own_id_though_a_lower_one_is_free(self) -> None:
        tasks = issued(a_task("h1", 1), a_task("h1", 2))
        hosts = [a_host("h1", alive=False, lost=True), a_host("h2")]
        changes = plan(a_goal(a_service(desired=2)), tasks, hosts).changes
        assert [(c.before and c.before.id, c.after and c.after.id) for c in changes] == [
            ("default-web-1-1", "default-web-1-1"),
            ("default-web-1-2", "default-web-1-2"),
        ]

    def test_holes_that_nobody_needs_are_removed(self) -> None:
        tasks = issued(a_task("h1", 0), a_task("h2", 1, rejected=True))
        assert said(plan(a_goal(a_service(desired=1)), tasks)) == ["remove default-web-1-1"]


class TestRefusals:
    def test_every_host_gives_every_reason_with_numbers(self) -> None:
        goal = a_goal(a_service(desired=1), definition=a_definition(memory=2048, cpu_units=5000))
        hosts = [
            a_host("db", executors=["docker"], alive=False, lost=True),
            a_host("web", memory=1126, mark="draining"),
            a_host("zoo"),
        ]
        result = plan(goal, [], hosts)
        assert result.waiting == 1
        assert result.refusals == {
            "db": (
                "lost: its agent has not been heard of for too long",
                "executor bash not available (not installed, or not in its policy)",
                "cpu: free 4096 units < 5000 units",
            ),
            "web": ("draining", "memory: free 1126 MB < 2048 MB", "cpu: free 4096 units < 5000 units"),
            "zoo": ("cpu: free 4096 units < 5000 units",),
        }

    def test_other_services_count_against_a_host(self) -> None:
        big = a_task("h1", 0, a_definition("db", memory=8000), service="db")
        fleet = Fleet([a_host("h1")], [big])
        goal = a_goal(a_service(desired=1), definition=a_definition(memory=500))
        result = reconcile(goal, [], fleet=fleet, health={}, scheduler=SPREAD, avoid={})
        assert result.refusals == {"h1": ("memory: free 192 MB < 500 MB",)}

    def test_a_fixed_port_goes_once_to_each_host(self) -> None:
        goal = a_goal(a_service(desired=3), definition=a_definition(port=8080))
        result = plan(goal, [], [a_host("h1"), a_host("h2"), a_host("h3", ports=[8080])])
        assert said(result) == ["issue default-web-1-0 to h1", "issue default-web-1-1 to h2"]
        assert result.waiting == 1
        assert result.refusals["h3"] == ("port 8080 is in use on the host",)

    def test_provided_ports_differ_and_avoid_what_is_taken(self) -> None:
        goal = a_goal(a_service(desired=3, max=9), definition=a_definition(provide_port=True))
        host = a_host("h1", port_range=(20000, 20003), ports=[20001])
        result = plan(goal, [], [host])
        ports = [change.after.port for change in result.changes if change.after]
        assert sorted(ports) == [20000, 20002, 20003]
        assert (
            plan(a_goal(a_service(desired=4, max=9), definition=a_definition(provide_port=True)), [], [host]).waiting
            == 1
        )

    def test_the_clusters_hosts_limit_it(self) -> None:
        result = plan(a_goal(a_service(desired=1), cluster=a_cluster(hosts=["h2"])), [])
        assert said(result) == ["issue default-web-1-0 to h2"]

    def test_an_unreadable_record_is_neither_replaced_nor_overwritten(self) -> None:
        result = plan(a_goal(a_service(desired=1)), [], unreadable={"default-web-1-0"})
        assert said(result) == ["issue default-web-1-1 to h1"]

    def test_another_definition_of_the_same_version_holds_its_id(self) -> None:
        old = a_task("h1", 0, a_definition("older", version=1))
        goal = a_goal(a_service(desired=1, max=2))
        assert said(plan(goal, issued(old))) == ["issue default-web-1-1 to h2"]


def test_a_scheduler_that_overloads_a_host_is_named() -> None:
    class Careless:
        def place(self, demand: object, count: int, candidates: object) -> list[str]:
            return ["h1"] * count

    goal = a_goal(a_service(desired=2), definition=a_definition(memory=8000))
    with pytest.raises(PluginError, match="scheduler default placed a task of web on 'h1', where none fits"):
        reconcile(goal, [], fleet=Fleet([a_host("h1")], ()), health={}, scheduler=Careless(), avoid={})  # type: ignore[arg-type]


# --- whatever happens ------------------------------------------------------------------------------------------

HOSTS = ("h1", "h2", "h3")


class World:
    """A service whose tasks live, die, get rejected and are stopped, with reconcile steering."""

    def __init__(self, desired: int, low: int, high: int) -> None:
        self.service = a_service(desired=desired, min=low, max=high)
        self.tasks: dict[TaskId, Task] = {}
        self.well: set[TaskId] = set()
        self.lost: set[str] = set()
        self.draining: set[str] = set()
        self.moves: tuple[TaskMove, ...] = ()

    def step(self) -> Plan:
        tasks = [Issued(task, Revision(1)) for task in self.tasks.values()]
        hosts = [
            a_host(name, lost=name in self.lost, alive=name not in self.lost, mark="draining" * (name in self.draining))
            for name in HOSTS
        ]
        fleet = Fleet(hosts, self.tasks.values())
        before = self.healthy(), self.live()
        definition = a_definition(version=self.service.task_version, provide_port=True)
        goal = a_goal(self.service, definition=definition, moves=self.moves)
        result = reconcile(goal, tasks, fleet=fleet, health=healthy(*self.well), scheduler=SPREAD, avoid={})
        touched = [i for c in result.changes for i in {one.id for one in (c.before, c.after) if one is not None}]
        assert len(touched) == len(set(touched)), "one id in two changes: they can't be committed together"
        for change in result.changes:
            self.carry_out(change)
        self.moves = result.moves
        self.check(*before)
        return result

    def carry_out(self, change: Change) -> None:
        if change.before is not None:
            del self.tasks[change.before.id]
        if change.after is not None:
            assert change.after.id not in self.tasks, "an id was issued twice"
            self.tasks[change.after.id] = change.after
            if change.before is None or change.before.task.host != change.after.host:
                self.well.discard(change.after.id)

    def healthy(self) -> int:
        return sum(task.scheduled and task.id in self.well for task in self.tasks.values())

    def live(self) -> int:
        """How many are issued, those not counted that somebody else will have to take."""
        return sum(t.scheduled and not t.rejected and t.host not in self.lost for t in self.tasks.values())

    def check(self, healthy_before: int, live_before: int) -> None:
        assert self.live() <= max(self.service.max, live_before), "more than max issued"
        assert self.healthy() >= min(self.service.min, healthy_before), "fewer than min healthy by its own doing"
        ports = [(task.host, task.port) for task in self.tasks.values() if not task.rejected]
        assert len(ports) == len(set(ports)), "two tasks share a port"

    def settle(self) -> None:
        """Everything works from now on: agents confirm stops, tasks come up healthy."""
        self.lost.clear()
        self.draining.clear()
        for _ in range(200):
            self.step()
            self.tasks = {i: t for i, t in self.tasks.items() if t.scheduled}
            self.well = {i for i, t in self.tasks.items() if not t.rejected}
            wanted = [t for t in self.tasks.values() if t.task_definition.version == self.service.task_version]
            if len(wanted) == len(self.tasks) == self.service.desired and not self.moves:
                return
        raise AssertionError(f"never settled: {sorted(self.tasks)}")


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["die", "reject", "gone", "well", "lose", "return", "drain", "deploy", "scale", "move"]),
        st.integers(0, 7),
    ),
    max_size=40,
)


@given(st.integers(0, 5), st.integers(0, 2), st.integers(1, 3), EVENTS)
@settings(max_examples=300, deadline=None)
def test_bounds_hold_and_it_always_settles(desired: int, slack: int, surge: int, events: list[tuple[str, int]]) -> None:
    world = World(desired, max(0, desired - slack), desired + surge)
    for what, number in events:
        ids = sorted(world.tasks)
        chosen = ids[number % len(ids)] if ids else None
        host = HOSTS[number % 3]
        match what:
            case "well":
                world.well |= {i for i, t in world.tasks.items() if not t.rejected and t.host not in world.lost}
            case "die" if chosen:
                world.well.discard(chosen)
            case "reject" if chosen and world.tasks[chosen].host not in world.lost:
                world.tasks[chosen] = msgspec.structs.replace(world.tasks[chosen], rejected=True)
                world.well.discard(chosen)
            case "gone":
                gone = [i for i, t in world.tasks.items() if not t.scheduled and t.host not in world.lost]
                for task in gone:
                    del world.tasks[task]
            case "lose":
                world.lost.add(host)
                world.well -= {i for i, task in world.tasks.items() if task.host == host}
            case "return":
                world.lost.discard(host)
            case "drain":
                world.draining ^= {host}
            case "move" if chosen and chosen not in {move.task for move in world.moves}:
                move = TaskMove(task=chosen, cluster="default", source=world.tasks[chosen].host, to=host, turn=number)
                world.moves += (move,)
            case "deploy":
                world.service = msgspec.structs.replace(world.service, task_version=world.service.task_version + 1)
            case "scale":
                wanted = number
                world.service = msgspec.structs.replace(
                    world.service, desired=wanted, min=max(0, wanted - slack), max=wanted + surge
                )
        world.step()
    world.settle()
