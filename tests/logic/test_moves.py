"""How a task is moved to another host: beside the old one where max allows, in its place where it does not."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sked_core.interfaces.store import Revision
from sked_core.logic.fleet import Fleet, HostView
from sked_core.logic.moves import comes_first, superseded
from sked_core.logic.placement import scored, spread
from sked_core.logic.plan import Goal, Issued, Plan
from sked_core.logic.reconcile import reconcile
from sked_core.logic.recording import Keep, sealed
from sked_core.logic.replay import replay
from sked_core.model.types import Moves, Service, Task, TaskDefinition, TaskMove
from sked_core.testing.builders import a_definition, a_goal, a_host, a_service, a_task, healthy, issued

HOSTS = (a_host("h1"), a_host("h2"), a_host("h3"))


def a_move(number: int = 0, source: str = "h1", to: str = "h3", **fields: object) -> TaskMove:
    names = {"task": f"default-web-1-{number}", "cluster": "default", "turn": number}
    return TaskMove(**{**names, "source": source, "to": to, **fields})  # type: ignore[arg-type]


class Cluster:
    """A service whose tasks reconcile moves; ``step`` carries out one plan."""

    def __init__(
        self,
        tasks: Sequence[Task],
        *moves: TaskMove,
        service: Service | None = None,
        hosts: Sequence[HostView] = HOSTS,
        definition: TaskDefinition | None = None,
        elsewhere: Sequence[TaskMove] = (),
    ) -> None:
        self.service = service or a_service(desired=len(tasks))
        self.tasks = {task.id: task for task in tasks}
        self.well = set(self.tasks)
        self.moves, self.elsewhere = moves, tuple(elsewhere)
        self.hosts, self.definition = list(hosts), definition or a_definition()

    def goal(self) -> Goal:
        return a_goal(self.service, definition=self.definition, moves=self.moves, elsewhere=self.elsewhere)

    def step(self) -> Plan:
        tasks = [Issued(task, Revision(1)) for task in self.tasks.values()]
        plan = reconcile(
            self.goal(),
            tasks,
            fleet=Fleet(self.hosts, self.tasks.values()),
            health=healthy(*self.well),
            scheduler=spread(),
            avoid={},
            keep=Keep(),
        )
        for change in plan.changes:
            if change.before is not None:
                del self.tasks[change.before.id]
            if change.after is not None:
                self.tasks[change.after.id] = change.after
        self.moves = plan.moves
        return plan

    def stopped(self) -> None:
        """Agents have stopped what they were asked to stop."""
        self.tasks = {name: task for name, task in self.tasks.items() if task.scheduled}

    def started(self) -> None:
        """All that runs is healthy."""
        self.well |= {name for name, task in self.tasks.items() if task.scheduled}

    def on(self, host: str) -> list[str]:
        return sorted(name for name, task in self.tasks.items() if task.host == host and task.scheduled)


def told(plan: Plan) -> list[str]:
    return [f"{step.what} {step.move.task}" + (f": {step.why}" if step.why else "") for step in plan.steps]


def said(plan: Plan) -> list[str]:
    return [str(change) for change in plan.changes]


def test_a_move_starts_the_replacement_and_stops_the_task_once_that_is_healthy() -> None:
    web = Cluster([a_task("h1", 0), a_task("h2", 1)], a_move(0))
    plan = web.step()
    assert said(plan) == ["issue default-web-1-2 to h3"] and told(plan) == ["started default-web-1-0"]
    assert web.moves == (a_move(0, state="starting", replacement="default-web-1-2"),)
    plan = web.step()
    assert not plan.changes and web.moves, "the replacement is not healthy yet"
    assert plan.blocked.startswith("waiting for default-web-1-2 to become healthy") and "1 move left" in plan.blocked
    web.started()
    plan = web.step()
    assert said(plan) == ["withdraw default-web-1-0 from h1"]
    assert plan.changes[0].why == "moves to h3, where default-web-1-2 is healthy"
    assert web.moves[0].state == "stopping"
    assert not web.step().changes
    web.stopped()
    plan = web.step()
    assert told(plan) == ["done default-web-1-0"] and web.moves == () and plan.blocked == "" and not plan.changes


def test_where_max_leaves_no_room_the_task_goes_first_and_its_replacement_goes_where_it_was_to() -> None:
    service = a_service(desired=2, min=1, max=2)
    web = Cluster([a_task("h1", 0), a_task("h2", 1)], a_move(0), a_move(1, source="h2"), service=service)
    plan = web.step()
    assert said(plan) == ["withdraw default-web-1-0 from h1"] and told(plan) == ["started default-web-1-0"]
    assert said(web.step()) == []
    web.stopped()
    plan = web.step()
    assert said(plan) == ["issue default-web-1-0 to h3"] and told(plan) == ["done default-web-1-0"]
    web.well.discard("default-web-1-0")
    assert said(web.step()) == [], "one at a time"
    web.started()
    assert said(web.step()) == ["withdraw default-web-1-1 from h2"]


def test_where_min_and_max_leave_no_room_the_move_is_given_up_with_the_remedy() -> None:
    service = a_service(desired=2, min=2, max=2)
    web = Cluster([a_task("h1", 0), a_task("h2", 1)], a_move(0), service=service)
    plan = web.step()
    (line,) = told(plan)
    assert line.startswith("cancelled default-web-1-0: min 2 and max 2 leave no room") and "raise max to 3" in line
    assert web.moves == () and not plan.changes and plan.blocked == ""


def test_a_host_that_cannot_take_it_any_more_ends_the_move_and_the_task_stays() -> None:
    small = a_host("h3", memory=100)
    definition = a_definition(memory=200)
    tasks = [a_task("h1", 0, definition), a_task("h2", 1, definition)]
    web = Cluster(tasks, a_move(0), a_move(1, source="h2", to="h1"), hosts=(*HOSTS[:2], small), definition=definition)
    plan = web.step()
    assert told(plan) == [
        "cancelled default-web-1-0: h3 can't take it: memory: free 100 MB < 200 MB",
        "started default-web-1-1",
    ]
    assert said(plan) == ["issue default-web-1-2 to h1"]


def test_a_task_that_made_room_for_nothing_is_placed_by_the_scheduler() -> None:
    service = a_service(desired=2, min=1, max=2)
    web = Cluster([a_task("h1", 0), a_task("h2", 1)], a_move(0), service=service)
    web.step()
    web.stopped()
    web.hosts[2] = a_host("h3", mark="cordoned")
    plan = web.step()
    assert told(plan) == ["cancelled default-web-1-0: h3 can't take it any more: cordoned"]
    assert said(plan) == ["issue default-web-1-0 to h1"] and plan.waiting == 0


def test_a_rejected_replacement_ends_the_move_and_leaves_the_service_as_it_was() -> None:
    web = Cluster([a_task("h1", 0), a_task("h2", 1)], a_move(0))
    web.step()
    new = web.tasks["default-web-1-2"]
    web.tasks[new.id] = msgspec.structs.replace(new, rejected=True, reject_reason="no such image")
    plan = web.step()
    assert told(plan) == ["cancelled default-web-1-0: h3 rejected default-web-1-2: no such image"]
    assert said(plan) == ["remove default-web-1-2"]
    assert web.on("h1") == ["default-web-1-0"] and web.moves == ()


def test_what_is_moved_by_something_else_is_not_moved_again() -> None:
    web = Cluster([a_task("h1", 0), a_task("h2", 1)], a_move(0), a_move(1, source="h3"))
    web.hosts[0] = a_host("h1", mark="draining")
    plan = web.step()
    assert [line.partition(":")[0] for line in told(plan)] == ["cancelled default-web-1-0", "cancelled default-web-1-1"]
    assert web.moves == () and said(plan) == ["issue default-web-1-2 to h3"], "that is the drain's"


def test_a_task_that_is_one_too_many_is_not_moved() -> None:
    web = Cluster([a_task("h1", 0), a_task("h2", 1)], a_move(1, source="h2"), service=a_service(desired=1))
    plan = web.step()
    assert said(plan) == ["withdraw default-web-1-1 from h2"] and web.moves == ()
    assert told(plan) == ["cancelled default-web-1-1: it is withdrawn: it is one too many"]


def test_no_move_begins_while_a_task_of_the_service_is_unwell() -> None:
    web = Cluster([a_task("h1", 0), a_task("h2", 1)], a_move(0))
    web.well.discard("default-web-1-1")
    plan = web.step()
    assert not plan.changes and web.moves == (a_move(0),)
    assert plan.blocked == "waiting for default-web-1-1 to become healthy before the next task is moved (1 move left)"


def test_as_many_begin_at_once_as_max_allows_and_the_rest_after_them() -> None:
    tasks = [a_task("h1", number) for number in range(4)]
    web = Cluster(tasks, *(a_move(number) for number in range(3)), service=a_service(desired=4, min=4, max=6))
    assert len(said(web.step())) == 2
    for _ in range(6):
        web.started()
        web.step()
        web.stopped()
    assert web.moves == () and len(web.on("h3")) == 3 and len(web.tasks) == 4


def test_moves_of_other_services_to_and_from_the_same_host_come_in_their_turn() -> None:
    other = TaskMove(task="default-api-1-0", cluster="default", source="h3", to="h2", turn=3)
    web = Cluster([a_task("h1", 0), a_task("h1", 4)], a_move(4), elsewhere=[other])
    plan = web.step()
    assert not plan.changes
    assert plan.blocked.startswith("waiting for the move of default-api-1-0, which comes before")
    web.elsewhere = ()
    assert said(web.step()) == ["issue default-web-1-1 to h3"]


def test_a_host_that_can_take_it_only_after_earlier_moves_is_waited_for() -> None:
    other = TaskMove(task="default-api-1-0", cluster="default", source="h2", to="h1", turn=1)
    small = a_host("h3", memory=100)
    definition = a_definition(memory=200)
    tasks = [a_task("h1", 0, definition), a_task("h1", 4, definition)]
    web = Cluster(tasks, a_move(4), hosts=(*HOSTS[:2], small), definition=definition, elsewhere=[other])
    assert "waiting for the move of default-api-1-0: until then h3 can't take" in web.step().blocked and web.moves
    web.elsewhere = ()
    assert told(web.step())[0].startswith("cancelled default-web-1-4: h3 can't take it: memory")


@given(st.permutations(range(5)), st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=5, max_size=5))
def test_moves_never_wait_for_one_another_in_a_circle(turns: list[int], ways: list[tuple[int, int]]) -> None:
    moves = [
        a_move(n, f"h{source}", f"h{to}", turn=turn)
        for n, (turn, (source, to)) in enumerate(zip(turns, ways, strict=True))
    ]
    for _ in range(len(moves)):
        free = [move for move in moves if comes_first(move, moves) is None]
        assert free
        moves.remove(free[-1])


def test_a_move_whose_record_is_gone_leaves_as_many_tasks_as_are_desired() -> None:
    web = Cluster([a_task("h1", 0), a_task("h2", 1)], a_move(0))
    web.step()
    web.moves = ()  # somebody has removed it
    assert said(web.step()) == ["withdraw default-web-1-2 from h3"], "of the two the one that is not healthy yet"


def test_scaling_another_version_and_deletion_end_all_moves() -> None:
    moves = Moves(moves=[a_move(0)], desired=3)
    assert superseded(moves, a_service(desired=3), rolling=False) == ""
    assert superseded(moves, a_service(desired=4), rolling=False) == "the service was scaled from 3 to 4"
    assert superseded(moves, None, rolling=False) and superseded(moves, a_service(desired=3), rolling=True)


def test_a_plan_without_moves_says_nothing_of_them() -> None:
    plan = Cluster(tuple(one.task for one in issued(a_task("h1", 0)))).step()
    assert plan == Plan()


def test_where_a_move_puts_a_task_is_recorded_and_comes_to_the_same_by_any_scheduler() -> None:
    tight = a_service(desired=2, min=1, max=2)
    for service, name in ((None, 2), (tight, 0)):
        web = Cluster([a_task("h1", 0), a_task("h2", 1)], a_move(0), service=service)
        found = list(web.step().batches)
        web.stopped()
        found += web.step().batches
        (batch,) = found
        assert (batch.instances, batch.hosts, batch.waiting, len(batch.terms)) == ([name], ["h3"], 0, 1)
        assert batch.seen is not None
        assert batch.seen.avoid == dict.fromkeys(("h1", "h2"), "default-web-1-0 moves from h1 to h3")
        for scheduler in (spread(), scored(lambda demand, candidate: candidate.tasks)):
            assert replay(sealed(batch, "web"), "web", scheduler, "default").same
