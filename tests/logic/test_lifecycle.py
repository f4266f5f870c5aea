"""What an agent decides about one task, and how the world answers changes that."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sked_core.logic.lifecycle import BRAKE_SECONDS, Decision, Local, Step, decide, failed, held_back, observe_health
from sked_core.model.types import Task, TaskId
from sked_core.testing.builders import a_definition, a_task

ID = TaskId("default-web-1-0")


def step(local: Local, issued: Task | None, now: float = 1000.0, digest: str = "d", grace: float = 60.0) -> Step:
    return decide(local, issued, digest=digest, grace=grace, now=now).step


def up(**fields: object) -> Local:
    return Local(ID, running=1, digest="d", started_at=900.0, attempts=1, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("local", "issued", "expected"),
    [
        (Local(ID), a_task(), Step.START),
        (up(), a_task(), Step.NONE),
        (up(unknown=True), None, Step.NONE),
        (Local(ID, unknown=True), a_task(), Step.NONE),
        (up(), None, Step.STOP),
        (Local(ID), None, Step.FORGET),
        (up(), a_task(scheduled=False), Step.STOP),
        (Local(ID, dead=1), a_task(scheduled=False), Step.STOP),
        (Local(ID), a_task(scheduled=False), Step.RETIRE),
        (up(), a_task(rejected=True), Step.STOP),
        (Local(ID), a_task(rejected=True), Step.NONE),
        (Local(ID, verdict="no"), a_task(), Step.REJECT),
        (Local(ID, running=1, digest="other"), a_task(), Step.STOP),
        (Local(ID, dead=1, digest="d"), a_task(), Step.START),
        (Local(ID, dead=1, digest="d", attempts=10), a_task(), Step.REJECT),
        (Local(ID, running=1, dead=1, digest="d"), a_task(), Step.START),
        (Local(ID, dead=1, digest="d", next_try=1001.0), a_task(), Step.NONE),
    ],
)
def test_steps(local: Local, issued: Task | None, expected: Step) -> None:
    assert step(local, issued) is expected


def test_a_task_of_two_containers_runs_only_when_both_do() -> None:
    both = a_task(definition=a_definition(containers=[*a_definition().containers] * 2))
    assert step(Local(ID, running=1, digest="d"), both) is Step.START
    assert step(Local(ID, running=2, digest="d"), both) is Step.NONE


def test_an_unhealthy_task_is_restarted_after_its_grace_and_not_before() -> None:
    local = up()
    observe_health(local, False, 1000.0, "connection refused")
    waiting = decide(local, a_task(), digest="d", grace=60.0, now=1059.0)
    assert (waiting.step, waiting.due) == (Step.NONE, 1060.0)
    unknown = decide(local, a_task(), digest="d", grace=60.0, now=5000.0)
    assert unknown.step is Step.NONE, "nobody has seen it unhealthy for that long"
    for second in (1010.0, 1020.0, 1030.0, 1045.0, 1060.0):
        observe_health(local, False, second, "connection refused")
    due = decide(local, a_task(), digest="d", grace=60.0, now=1060.0)
    assert due.step is Step.RESTART
    assert "connection refused" in due.reason
    observe_health(local, True, 1060.0)
    assert step(local, a_task(), now=5000.0) is Step.NONE


def test_a_steady_task_that_dies_is_restarted_at_once_a_crash_loop_is_not() -> None:
    local = up()
    local.running, local.dead = 0, 1
    failed(local, "exit 1", 1000.0)
    assert step(local, a_task(), now=1000.0) is Step.START
    waits = []
    for attempt in range(1, 9):
        local.attempts, local.started_at = attempt, 2000.0
        failed(local, "exit 1", 2000.1)
        waits.append(local.next_try - 2000.1)
    assert 0.7 <= waits[0] <= 1.3
    assert all(later > earlier * 1.2 for earlier, later in pairwise(waits))


def test_it_gives_up_with_the_last_error() -> None:
    local = Local(ID, attempts=10, last_error="web: exit 3")
    decision = decide(local, a_task(), digest="d", grace=60.0, now=0.0)
    assert decision.step is Step.REJECT
    assert decision.reason == "gave up after 10 starts: web: exit 3"


def test_a_long_good_run_is_forgiven() -> None:
    local = up()
    local.attempts = 9
    failed(local, "exit 1", 900.0 + 61)
    assert local.attempts == 0


class TestShutdownDelay:
    GOING = pytest.mark.parametrize(
        "issued",
        [None, a_task(scheduled=False), a_task(definition=a_definition(tags=["x"]))],
        ids=["gone", "off", "new"],
    )

    def decide(self, local: Local, issued: Task | None, now: float) -> Decision:
        return decide(local, issued, digest="other", grace=60.0, delay=20.0, now=now)

    @GOING
    def test_what_runs_leaves_first_and_is_stopped_when_the_delay_is_over(self, issued: Task | None) -> None:
        local = up(registered=True)
        assert self.decide(local, issued, 1000.0).step is Step.LEAVE
        local.registered, local.left_at = False, 1001.0
        waiting = self.decide(local, issued, 1002.0)
        assert (waiting.step, waiting.due) == (Step.NONE, 1021.0)
        assert self.decide(local, issued, 1021.0).step is Step.STOP

    @GOING
    def test_what_has_ended_is_stopped_at_once(self, issued: Task | None) -> None:
        local = Local(ID, dead=1, digest="d", registered=True)
        assert self.decide(local, issued, 1000.0).step is Step.STOP
        local = Local(ID, running=1, dead=1, digest="d", left_at=999.0)
        assert self.decide(local, issued, 1000.0).step is Step.STOP

    def test_without_a_delay_it_is_stopped_at_once(self) -> None:
        assert step(up(registered=True), None) is Step.STOP


def test_what_ended_is_examined_before_anything_else_is_done_about_it() -> None:
    local = Local(ID, dead=1, digest="d", registered=True, next_try=2000.0, attempts=10)
    assert step(local, a_task()) is Step.EXAMINE
    local.registered = False
    assert step(local, a_task()) is Step.REJECT


class TestUnhealthy:
    def again(self) -> Local:
        local = up(registered=True, unhealthy_restarts=1)
        observe_health(local, False, 1000.0, "refused")
        return local

    def test_a_second_time_in_a_row_it_is_examined_and_rejected(self) -> None:
        local = self.again()
        assert step(local, a_task(), now=1059.0) is Step.NONE
        for second in (1015.0, 1030.0, 1045.0, 1060.0):
            observe_health(local, False, second, "refused")
        assert step(local, a_task(), now=1060.0) is Step.EXAMINE
        local.registered = False
        decision = decide(local, a_task(), digest="d", grace=60.0, now=1060.0)
        assert (decision.step, decision.reason) == (Step.REJECT, "unhealthy again after a restart: refused")

    def test_a_minute_of_health_in_between_begins_a_new_row(self) -> None:
        local = self.again()
        for second in (1010.0, 1025.0, 1040.0, 1055.0, 1069.0):
            observe_health(local, True, second)
        assert local.unhealthy_restarts == 1
        observe_health(local, True, 1070.0)
        assert (local.unhealthy_restarts, local.attempts) == (0, 1)

    def test_what_nobody_saw_counts_neither_way(self) -> None:
        local = self.again()
        observe_health(local, False, 1100.0, "refused")
        assert step(local, a_task(), now=1159.0) is Step.NONE
        observe_health(local, True, 1110.0)
        observe_health(local, True, 1180.0)
        assert local.unhealthy_restarts == 1

    def test_health_that_flaps_is_no_minute_of_health(self) -> None:
        local = self.again()
        for second in range(1000, 1200, 20):
            observe_health(local, True, float(second))
            observe_health(local, False, second + 10.0)
        assert local.unhealthy_restarts == 1
        local.healthy = True
        local.healthy_since = 1195.0
        local.attempts = 4
        failed(local, "exit 1", 1200.0)
        assert local.attempts == 4


def test_a_stop_that_failed_is_not_tried_in_a_tight_loop() -> None:
    local = up(next_stop=1005.0)
    waiting = decide(local, None, digest="", grace=0.0, now=1000.0)
    assert (waiting.step, waiting.due) == (Step.NONE, 1005.0)
    assert step(local, None, now=1005.0) is Step.STOP


class TestBrake:
    def test_a_few_are_stopped_at_once(self) -> None:
        assert held_back({TaskId(str(i)): 0.0 for i in range(3)}, 10, now=0.0) == frozenset()

    def test_many_must_stay_away(self) -> None:
        absent = {TaskId(str(i)): 100.0 for i in range(4)}
        assert held_back(absent, 10, now=101.0) == frozenset(absent)
        assert held_back(absent, 10, now=100.0 + BRAKE_SECONDS) == frozenset()

    def test_a_third_of_a_large_host_is_many(self) -> None:
        absent = {TaskId(str(i)): 0.0 for i in range(60)}
        assert held_back(absent, 200, now=0.0) == frozenset()
        assert held_back(absent, 199, now=0.0) == frozenset(absent)

    def test_those_held_stay_held_while_others_come_back_and_new_ones_are_not_held_with_them(self) -> None:
        absent = {TaskId(str(i)): 100.0 for i in range(4)}
        held = held_back(absent, 10, now=101.0)
        fewer = {TaskId("3"): 100.0, TaskId("new"): 102.0}
        assert held_back(fewer, 10, now=102.0, held=held) == {TaskId("3")}
        assert held_back(fewer, 10, now=100.0 + BRAKE_SECONDS, held=held) == frozenset()


@given(
    st.builds(
        Local,
        st.just(ID),
        running=st.integers(0, 2),
        dead=st.integers(0, 2),
        unknown=st.booleans(),
        digest=st.sampled_from(["", "d", "e"]),
        attempts=st.integers(0, 12),
        next_try=st.sampled_from([0.0, 2000.0]),
        next_stop=st.sampled_from([0.0, 2000.0]),
        verdict=st.sampled_from(["", "no"]),
        registered=st.booleans(),
        left_at=st.sampled_from([None, 995.0]),
    ),
    st.sampled_from([None, a_task(), a_task(scheduled=False), a_task(rejected=True)]),
    st.sampled_from([0.0, 10.0]),
)
def test_no_decision_stops_what_should_run_or_starts_what_should_not(
    local: Local, issued: Task | None, delay: float
) -> None:
    taken = decide(local, issued, digest="d", grace=60.0, delay=delay, now=1000.0).step
    wanted = issued is not None and issued.scheduled and not issued.rejected
    if taken is Step.START:
        assert wanted
        assert local.attempts < 10
        assert not local.unknown
    if taken in (Step.STOP, Step.LEAVE) and wanted:
        assert local.digest != "d"
    if taken in (Step.RETIRE, Step.FORGET):
        assert not local.exists
