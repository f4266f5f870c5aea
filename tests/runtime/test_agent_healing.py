"""What an agent does about what died, hangs or came to nothing: bounded, looked at first, and alone with it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from runtime.solo import HOST, Solo
from sked_core.errors import ExecutorError
from sked_core.interfaces.store import Put
from sked_core.model import keys
from sked_core.model.types import Task
from sked_core.testing.builders import a_check, a_container, a_definition, a_task
from sked_core.testing.fakes import FakeEngine


class TestAlone:
    def test_an_agent_runs_from_one_thread_on_a_clock_and_a_machine_of_the_tests_own(self, solo: Solo) -> None:
        task, taken = a_task(HOST, 0), a_task(HOST, 1, port=20001)
        solo.machine.taken = frozenset({20001})
        solo.issue(task, taken)
        assert solo.engine.starts == []
        solo.settle()
        solo.settle()
        assert solo.engine.running() == [task.id]
        solo.settle()
        assert (solo.mine(taken) or {})["reject_reason"] == "port 20001 is taken on this host (a stranger)"
        assert (solo.raw("config/hosts/h1") or {})["ports"] == [20001]
        solo.withdraw(task)
        solo.settle()
        solo.settle()
        assert (solo.engine.running(), solo.mine(task)) == ([], None)

    def test_a_killed_agent_lets_the_next_one_have_its_folder(self, solo: Solo) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        solo.settle()
        solo.settle()
        solo.crash()
        solo.pass_time(60)
        assert (solo.engine.running(), solo.engine.starts) == ([task.id], [task.id])


def crash_times(solo: Solo, task: Task, seconds: int) -> list[float]:
    """When it was started, if it dies within a second of each start; the agent is killed every now and then, if so."""
    begun: list[float] = []
    for _ in range(seconds):
        before = len(solo.engine.starts)
        solo.pass_time(1)
        if len(solo.engine.starts) > before:
            begun.append(solo.clock.monotonic())
            solo.engine.kill(task.id, "exit 1")
    return begun


class TestCrashLoop:
    def test_starts_come_ever_more_seldom_and_end(self, solo: Solo) -> None:
        task = a_task(HOST, 0, a_definition(max_attempts=6))
        solo.issue(task)
        begun = crash_times(solo, task, 120)
        waits = [later - earlier for earlier, later in pairwise(begun)]
        assert len(begun) == 6
        assert waits == sorted(waits)
        assert waits[-1] >= 12
        assert (solo.mine(task) or {})["reject_reason"] == "gave up after 6 starts: web: exit 1"
        crash_times(solo, task, 600)
        assert len(solo.engine.starts) == 6

    @pytest.mark.parametrize("way", ["dies", "does not start"])
    def test_an_agent_that_is_started_over_and_over_makes_it_no_faster(self, solo: Solo, way: str) -> None:
        task = a_task(HOST, 0, a_definition(max_attempts=8))
        tries: list[float] = []

        def fail(task: Task, container: Any) -> None:
            tries.append(solo.clock.monotonic())
            if way == "does not start":
                raise ExecutorError("no space left")

        solo.engine.before_start = fail
        solo.issue(task)
        for number in range(90):
            solo.pass_time(1)
            solo.engine.kill(task.id, "exit 1")
            if number % 7 == 3:
                solo.crash()
        assert 3 <= len(tries) <= 6

    def test_a_task_that_has_become_well_is_not_held_up_for_what_was_long_ago(self, solo: Solo) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        crash_times(solo, task, 60)
        solo.pass_time(200)
        assert solo.engine.running() == [task.id]
        solo.engine.containers.clear()  # the machine is started anew, its agent with it
        solo.crash()
        solo.pass_time(2)
        assert solo.engine.running() == [task.id]


class TestUnknownOutcomes:
    def test_a_start_that_came_about_though_it_failed_is_found_and_not_repeated(self, solo: Solo) -> None:
        def lose(task: Task, container: Any) -> None:
            raise ExecutorError("no answer in time")

        solo.engine.after_start = lose
        task = a_task(HOST, 0, a_definition(max_attempts=1))
        solo.issue(task)
        solo.pass_time(60)
        assert (solo.engine.running(), solo.engine.starts) == ([task.id], [task.id])
        assert (set(solo.health.tasks), solo.told("task.failed")) == ({task.id}, [])

    @pytest.mark.parametrize("then", ["retry", "withdraw", "forget", "crash"])
    def test_before_anything_else_is_done_the_engine_is_asked_what_came_of_it(self, solo: Solo, then: str) -> None:
        task = a_task(HOST, 0, a_definition(max_attempts=1), port=20100)
        other = a_task(HOST, 0, a_definition("other"), service="other", port=20100)

        def hang(task: Task, container: Any) -> None:
            solo.engine.down = "no answer in time"
            raise ExecutorError(solo.engine.down)

        solo.engine.after_start = hang
        solo.issue(task)
        solo.pass_time(30)
        solo.engine.after_start = lambda *_: None
        assert solo.engine.running() == [task.id]
        assert not (solo.mine(task) or {})["rejected"]
        if then == "crash":
            solo.crash()
        if then in ("withdraw", "forget"):
            getattr(solo, then)(task)
            solo.issue(other)
        solo.pass_time(30)
        assert solo.engine.starts == [task.id], "its port may be taken"
        assert (solo.mine(task) is None) == (then == "forget")
        solo.engine.down = ""
        solo.pass_time(20)
        gone = then in ("withdraw", "forget")
        assert solo.engine.running() == ([other.id] if gone else [task.id])
        assert solo.engine.starts == ([task.id, other.id] if gone else [task.id])
        assert set(solo.health.tasks) == set(solo.engine.running())
        if gone:
            assert solo.mine(task) is None

    def test_an_error_that_nobody_foresaw_is_looked_into_as_well(self, solo: Solo) -> None:
        def blunder(task: Task, container: Any) -> None:
            raise TypeError("a plugin's mistake")

        solo.engine.after_start = blunder
        task = a_task(HOST, 0)
        solo.issue(task)
        solo.pass_time(30)
        assert (solo.engine.running(), solo.engine.starts) == ([task.id], [task.id])
        solo.withdraw(task)
        solo.pass_time(5)
        assert (solo.engine.running(), solo.mine(task)) == ([], None)

    def test_of_two_containers_one_of_which_did_not_start_nothing_is_left_before_the_next_try(self, solo: Solo) -> None:
        def half(task: Task, container: Any) -> None:
            assert len(solo.engine.containers) < 2
            if container.name == "b" and len(solo.engine.starts) < 4:
                raise ExecutorError("no")

        solo.engine.before_start = half
        task = a_task(HOST, 0, a_definition(containers=[a_container("a"), a_container("b")]))
        solo.issue(task)
        solo.pass_time(30)
        assert solo.engine.running() == [task.id] * 2


class TestReturn:
    def test_a_host_that_returns_stops_what_is_no_longer_its_own_before_it_starts_what_needs_the_room(
        self, solo: Solo
    ) -> None:
        former = a_task(HOST, 0, a_definition(port=20007, memory=5000), port=20007)
        later = a_task(HOST, 0, a_definition("other", port=20007, memory=5000), service="other", port=20007)
        solo.issue(former)
        solo.pass_time(2)
        solo.store.down = "cut off"
        solo.pass_time(300)
        assert solo.engine.running() == [former.id]
        solo.forget(former)
        solo.issue(later)
        both: list[list[str]] = []
        solo.engine.before_start = lambda *_: both.append(solo.engine.running())
        solo.store.down = ""
        solo.pass_time(20)
        assert (solo.engine.running(), both) == ([later.id], [[]])
        assert solo.told("task.rejected") == []

    def test_so_does_one_whose_agent_was_started_anew_meanwhile(self, solo: Solo) -> None:
        former, later = a_task(HOST, 0, port=20007), a_task(HOST, 0, service="other", port=20007)
        solo.issue(former)
        solo.pass_time(2)
        solo.crash()
        solo.forget(former)
        solo.issue(later)
        both: list[list[str]] = []
        solo.engine.before_start = lambda *_: both.append(solo.engine.running())
        solo.pass_time(20)
        assert (solo.engine.running(), both) == ([later.id], [[]])
        assert solo.told("task.rejected") == []

    def test_what_runs_though_its_record_can_not_be_read_keeps_its_port(self, solo: Solo) -> None:
        former, later = a_task(HOST, 0, port=20007), a_task(HOST, 0, service="other", port=20007)
        solo.issue(former)
        solo.pass_time(2)
        solo.crash()
        solo.memory.commit([Put(keys.host_task(HOST, former.id), b"{"), Put(keys.task(former.id), b"{")])
        solo.issue(later)
        solo.pass_time(20)
        assert solo.engine.running() == [former.id]
        assert (solo.mine(later) or {})["rejected"]

    @pytest.mark.parametrize("down", [True, False])
    def test_while_the_stop_does_not_work_what_needs_the_room_waits(self, solo: Solo, down: bool) -> None:
        former, later = a_task(HOST, 0, port=20007), a_task(HOST, 0, service="other", port=20007)
        solo.issue(former)
        solo.pass_time(2)
        if down:
            solo.engine.down = "busy"
        else:
            solo.jobs.hung = {"bash stop"}
        solo.forget(former)
        solo.issue(later)
        solo.pass_time(60)
        assert solo.engine.starts == [former.id]
        solo.engine.down, solo.jobs.hung = "", set()
        solo.pass_time(40)
        assert solo.engine.running() == [later.id]


def test_a_task_is_not_unhealthy_because_nobody_can_tell(solo: Solo) -> None:
    task = a_task(HOST, 0, a_definition(grace_period="10s", containers=[a_container(checks=[a_check()])]))
    solo.issue(task)
    solo.health.say(task.id, healthy=False)
    solo.pass_time(5)
    solo.health.down = "no answer"
    solo.pass_time(600)
    assert solo.engine.stops == []
    solo.health.down = ""
    solo.pass_time(9)
    assert solo.engine.stops == []
    solo.pass_time(3)
    assert solo.engine.stops == [task.id]


class TestAloneWithIt:
    @pytest.mark.parametrize("step", ["start", "stop", "examine", "look"])
    def test_an_executor_that_hangs_delays_no_task_of_another(self, solo: Solo, step: str) -> None:
        other = FakeEngine()
        executors = {"bash": solo.engine.executor, "other": other.executor}
        solo.agent.disk.unlock()
        offering = solo.offering
        solo.offering = lambda **_: offering(sked_executors=executors)
        solo.boot()
        mine = a_task(HOST, 0)
        solo.issue(mine)
        solo.pass_time(5)
        solo.jobs.hung = {f"bash {step}"}
        solo.engine.kill(mine.id)
        theirs = a_task(HOST, 0, a_definition("b", containers=[a_container(type="other")]), service="b")
        solo.issue(theirs)
        solo.pass_time(2)
        assert other.running() == [theirs.id]
        other.kill(theirs.id)
        solo.pass_time(4)
        assert other.running() == [theirs.id]
        solo.withdraw(theirs)
        solo.pass_time(2)
        assert (other.running(), solo.mine(theirs)) == ([], None)


class TestFrozen:
    """With a store that is not the right one."""

    @pytest.mark.parametrize("lack", ["port", "room"])
    def test_what_can_not_be_restarted_now_is_tried_again_and_nothing_is_written(self, solo: Solo, lack: str) -> None:
        task = a_task(HOST, 0, a_definition(memory=1000), port=20001)
        solo.issue(task)
        solo.pass_time(10)
        uid = solo.memory.read(keys.STORE_UID).entries[keys.STORE_UID].value
        solo.memory.commit([Put(keys.STORE_UID, b"another")])
        solo.pass_time(2)
        if lack == "port":
            solo.machine.taken = frozenset({20001})
        else:
            solo.machine.memory = 999
        before = solo.memory.read(keys.STATE).revision
        solo.engine.kill(task.id)
        solo.pass_time(60)
        assert (solo.engine.running(), solo.memory.read(keys.STATE).revision) == ([], before)
        solo.machine.taken, solo.machine.memory = frozenset(), 8000
        solo.pass_time(60)
        assert (solo.engine.running(), solo.memory.read(keys.STATE).revision) == ([task.id], before)
        solo.memory.commit([Put(keys.STORE_UID, uid)])
        solo.pass_time(2)
        assert (solo.engine.running(), (solo.mine(task) or {})["rejected"]) == ([task.id], False)
