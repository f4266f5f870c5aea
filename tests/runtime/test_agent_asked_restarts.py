"""Restarts that people ask for in the record of a task: made once, at once, whatever happened before."""

from __future__ import annotations

from msgspec.structs import replace

from runtime.solo import HOST, Solo
from sked_core.client.acting.restarting import restart_in_place, stop_in_place
from sked_core.model.types import Task
from sked_core.runtime.journal import Journal
from sked_core.testing.builders import a_definition, a_task


def asked(solo: Solo, task: Task) -> None:
    restart_in_place(solo.memory, Journal(solo.memory, solo.clock, "alice"), task.id, "new certificates")


def starts(solo: Solo, task: Task) -> int:
    return sum(event.subject == f"task/{task.id}" for event in solo.told("task.started"))


def test_each_order_restarts_the_task_once_with_its_port_and_no_other_task(solo: Solo) -> None:
    task, other = a_task(HOST, 0, port=20000), a_task(HOST, 1, port=20001)
    solo.issue(task, other)
    solo.pass_time(2)
    for number in (1, 2, 3):
        asked(solo, task)
        solo.pass_time(5)
        assert (starts(solo, task), starts(solo, other)) == (1 + number, 1)
        assert sorted(solo.engine.running()) == [task.id, other.id]
        stored = solo.raw(f"state/tasks/{task.id}")
        assert stored is not None and (stored["restarts"], stored["port"]) == (number, 20000)


def test_an_agent_that_is_killed_before_during_or_after_it_makes_it_once(solo: Solo) -> None:
    task = a_task(HOST, 0)
    solo.issue(task)
    solo.pass_time(2)
    asked(solo, task)
    solo.crash()  # before it has heard of it
    solo.agent.feed.read_and_deliver()
    solo.pass_time(3)
    assert starts(solo, task) == 2
    for _ in range(3):
        solo.crash()
        solo.pass_time(3)
    assert starts(solo, task) == 2 and solo.engine.running() == [task.id]


def test_a_task_that_keeps_failing_is_tried_at_once_and_has_all_its_attempts_again(solo: Solo) -> None:
    task = a_task(HOST, 0, a_definition(max_attempts=3))
    solo.issue(task)
    for _ in range(2):
        while solo.engine.running() != [task.id]:
            solo.pass_time(1)
        solo.engine.kill(task.id, "exit 3")
        solo.settle()
    assert solo.engine.running() == [], "it waits for its next try"
    asked(solo, task)
    solo.settle()
    assert solo.engine.running() == [task.id]
    assert solo.agent._tasks.slots[task.id].local.attempts == 1


def test_its_shutdown_delay_is_kept(solo: Solo) -> None:
    task = a_task(HOST, 0, a_definition(shutdown_delay="5s"))
    solo.issue(task)
    solo.pass_time(2)
    asked(solo, task)
    solo.pass_time(3)
    assert starts(solo, task) == 1 and solo.engine.running() == [task.id], "clients are given time to leave"
    solo.pass_time(5)
    assert starts(solo, task) == 2 and solo.engine.running() == [task.id]


def test_a_task_that_is_stopped_by_hand_leaves_no_keys(solo: Solo) -> None:
    task = replace(a_task(HOST, 0))
    solo.issue(task)
    solo.pass_time(2)
    stop_in_place(solo.memory, Journal(solo.memory, solo.clock, "alice"), task.id, "enough")
    solo.pass_time(3)
    assert solo.engine.running() == [] and solo.raw(f"state/tasks/{task.id}") is None and solo.mine(task) is None
