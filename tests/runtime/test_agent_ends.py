"""The order in which a task ends: taken out of service discovery, run on for its delay, stopped, its keys removed."""

from __future__ import annotations

import pytest

from runtime.solo import HOST, Solo
from sked_core.interfaces.store import Delete, Put
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Task
from sked_core.testing.builders import a_container, a_definition, a_task

DELAYED = a_definition(shutdown_delay="20s")


def a_running_task(solo: Solo, **fields: object) -> Task:
    task = a_task(HOST, 0, a_definition(**{"shutdown_delay": "20s", **fields}))
    solo.issue(task)
    solo.pass_time(2)
    assert (solo.engine.running(), set(solo.health.tasks)) == ([task.id], {task.id})
    return task


def end(solo: Solo, task: Task, how: str) -> None:
    match how:
        case "withdrawn":
            solo.withdraw(task)
        case "removed":
            solo.forget(task)
        case "changed":
            solo.issue(a_task(HOST, 0, a_definition(containers=[a_container(executor={"start": "another"})])))


class TestDelay:
    @pytest.mark.parametrize("how", ["withdrawn", "removed", "changed"])
    def test_it_is_deregistered_at_once_runs_on_and_is_then_stopped(self, solo: Solo, how: str) -> None:
        task = a_running_task(solo)
        end(solo, task, how)
        solo.pass_time(1)
        assert (solo.engine.running(), set(solo.health.tasks)) == ([task.id], set())
        solo.pass_time(18)  # over a round of registrations as well
        assert (solo.engine.stops, set(solo.health.tasks)) == ([], set())
        if how == "withdrawn":
            assert solo.mine(task) is not None, "ids and ports stay taken"
        solo.pass_time(3)
        assert solo.engine.stops == [task.id]
        assert (solo.mine(task) is None) == (how != "changed")
        assert solo.engine.running() == ([task.id] if how == "changed" else [])

    def test_without_a_delay_it_is_stopped_at_once(self, solo: Solo) -> None:
        task = a_running_task(solo, shutdown_delay=0)
        solo.withdraw(task)
        solo.pass_time(1)
        assert (solo.engine.stops, solo.mine(task)) == ([task.id], None)

    def test_many_that_leave_wait_together_and_keep_nobody_from_being_started(self, solo: Solo) -> None:
        tasks = [a_task(HOST, number, DELAYED) for number in range(30)]
        solo.issue(*tasks)
        solo.pass_time(2)
        for task in tasks:
            solo.withdraw(task)
        fresh = a_task(HOST, 0, service="other")
        solo.issue(fresh)
        solo.pass_time(2)
        assert fresh.id in solo.engine.running()
        assert (solo.engine.stops, set(solo.health.tasks)) == ([], {fresh.id})
        solo.pass_time(20)
        assert solo.engine.running() == [fresh.id]

    def test_one_that_dies_meanwhile_is_done_with_at_once(self, solo: Solo) -> None:
        task = a_running_task(solo)
        solo.withdraw(task)
        solo.pass_time(3)
        solo.engine.kill(task.id)
        solo.pass_time(1)
        assert (solo.mine(task), solo.engine.containers) == (None, {})
        assert solo.engine.starts == [task.id]

    def test_one_that_is_wanted_again_stays_and_is_registered_again(self, solo: Solo) -> None:
        task = a_running_task(solo)
        solo.withdraw(task)
        solo.pass_time(10)
        assert set(solo.health.tasks) == set()
        solo.issue(task)
        solo.pass_time(1)
        assert set(solo.health.tasks) == {task.id}
        solo.pass_time(60)
        assert (solo.engine.stops, set(solo.health.tasks)) == ([], {task.id})
        solo.withdraw(task)
        solo.pass_time(19)
        assert solo.engine.running() == [task.id], "the delay begins anew"

    def test_while_the_store_is_a_strangers_nothing_of_it_begins(self, solo: Solo) -> None:
        task = a_running_task(solo)
        uid = solo.memory.read(keys.STORE_UID).entries[keys.STORE_UID].value
        solo.withdraw(task)
        solo.memory.commit([Put(keys.STORE_UID, b"another")])
        solo.pass_time(60)
        assert (solo.engine.running(), set(solo.health.tasks)) == ([task.id], {task.id})
        solo.memory.commit([Put(keys.STORE_UID, uid)])
        solo.pass_time(1)
        assert set(solo.health.tasks) == set()
        solo.memory.commit([Delete(keys.STORE_UID)])
        solo.pass_time(60)
        assert solo.engine.running() == [task.id]
        solo.memory.commit([Put(keys.STORE_UID, uid)])
        solo.pass_time(1)
        assert solo.engine.running() == []

    def test_an_agent_that_is_killed_meanwhile_leaves_it_to_the_next_one_which_begins_the_delay_anew(
        self, solo: Solo
    ) -> None:
        task = a_running_task(solo)
        solo.withdraw(task)
        solo.pass_time(15)
        solo.crash()
        solo.pass_time(15)
        assert (solo.engine.running(), set(solo.health.tasks)) == ([task.id], set())
        solo.pass_time(10)
        assert (solo.engine.running(), solo.mine(task)) == ([], None)

    def test_a_provider_that_does_not_answer_holds_up_no_end(self, solo: Solo) -> None:
        task = a_running_task(solo)
        solo.health.down = "no answer"
        solo.withdraw(task)
        solo.pass_time(19)
        assert solo.engine.running() == [task.id]
        solo.pass_time(3)
        assert (solo.engine.running(), solo.mine(task)) == ([], None)
        solo.health.down = ""
        solo.pass_time(16)
        assert set(solo.health.tasks) == set()

    def test_a_delay_that_is_none_is_told_and_nothing_is_done_about_the_task(self, solo: Solo, caplog) -> None:
        task = a_task(HOST, 0)
        record = encode(task).replace(b'"max_attempts"', b'"shutdown_delay":"soon","max_attempts"')
        solo.memory.commit([Put(keys.host_task(HOST, task.id), record)])
        solo.pass_time(5)
        assert solo.engine.starts == []
        assert 'its record is no valid task: expected a duration such as "10s"' in caplog.text


class TestRoom:
    def test_the_port_of_one_that_leaves_is_not_given_to_another_before_it_is_gone(self, solo: Solo) -> None:
        former = a_task(HOST, 0, a_definition(port=20007, shutdown_delay="20s"), port=20007)
        later = a_task(HOST, 0, a_definition("other", port=20007), service="other", port=20007)
        solo.issue(former)
        solo.pass_time(2)
        solo.withdraw(former)
        solo.issue(later)
        solo.pass_time(19)
        assert solo.engine.starts == [former.id]
        assert not (solo.mine(later) or {})["rejected"]
        (waiting,) = solo.told("task.waiting")
        held = f"port 20007 is held by task {former.id}, which is about to go"
        assert (waiting.subject, waiting.why) == (f"task/{later.id}", held)
        solo.pass_time(3)
        assert solo.engine.running() == [later.id]

    @pytest.mark.parametrize("what", ["memory", "cpu_units"])
    def test_nor_is_its_room(self, solo: Solo, what: str) -> None:
        former = a_task(HOST, 0, a_definition(shutdown_delay="20s", **{what: 3000}))
        later = a_task(HOST, 0, a_definition("other", **{what: 3000}), service="other")
        solo.machine.memory = 4096
        solo.issue(former)
        solo.pass_time(2)
        solo.forget(former)
        solo.issue(later)
        solo.pass_time(19)
        assert (solo.engine.starts, (solo.mine(later) or {})["rejected"]) == ([former.id], False)
        (waiting,) = solo.told("task.waiting")
        assert waiting.why == f"{what.partition('_')[0]}: needs 3000, free 1096 of 4096, until others have gone"
        solo.pass_time(3)
        assert solo.engine.running() == [later.id]


class TestDeath:
    def test_what_ended_is_deregistered_at_once_and_registered_when_it_runs_again(self, solo: Solo) -> None:
        task = a_running_task(solo)
        solo.engine.kill(task.id)
        solo.settle()  # it is seen, deregistered, and waits for its back-off
        solo.settle()
        assert (solo.engine.running(), set(solo.health.tasks)) == ([], set())
        solo.pass_time(3)
        assert (solo.engine.running(), set(solo.health.tasks)) == ([task.id], {task.id})

    def test_so_is_what_is_gone_without_a_trace_even_if_it_is_restarted_at_once(self, solo: Solo) -> None:
        task = a_running_task(solo)
        solo.pass_time(10)
        calls: list[str] = []
        register, deregister = solo.health.register, solo.health.deregister
        solo.health.register = lambda task: (calls.append("register"), register(task))[1]  # type: ignore[method-assign]
        solo.health.deregister = lambda task: (calls.append("deregister"), deregister(task))[1]  # type: ignore[method-assign]
        solo.engine.containers.clear()
        solo.pass_time(5)
        assert (solo.engine.running(), solo.engine.starts) == ([task.id], [task.id] * 2)
        assert calls[-2:] == ["deregister", "register"]

    def test_a_dead_task_is_restarted_without_a_delay(self, solo: Solo) -> None:
        task = a_running_task(solo)
        solo.pass_time(10)
        solo.engine.kill(task.id)
        solo.pass_time(1)
        assert (solo.engine.running(), solo.engine.starts) == ([task.id], [task.id] * 2)


@pytest.mark.parametrize("late", ["killed", "no answer"])
def test_what_is_left_of_a_task_that_was_removed_by_hand_is_tidied_up_whatever_comes_in_between(
    solo: Solo, late: str
) -> None:
    task = a_running_task(solo, shutdown_delay=0)
    solo.memory.commit([Delete(keys.host_task(HOST, task.id))])
    solo.jobs.hung = {"store"}
    solo.pass_time(1)
    assert (solo.engine.running(), solo.raw(keys.task(task.id)) is None) == ([], False)
    if late == "killed":
        solo.crash()
    else:
        solo.store.down = "no answer"
        solo.jobs.hung = set()
        solo.pass_time(20)
        solo.store.down = ""
    solo.pass_time(31)
    assert solo.raw(keys.task(task.id)) is None
    assert list((solo.folder / "state" / "notes").iterdir()) == []


def test_many_that_vanished_while_the_agent_was_away_are_held_back_as_well(solo: Solo) -> None:
    tasks = [a_task(HOST, number) for number in range(5)]
    solo.issue(*tasks)
    solo.pass_time(2)
    solo.jobs.waiting.clear()
    solo.forget(*tasks)
    solo.crash()
    solo.pass_time(9)
    assert solo.engine.stops == []
    solo.pass_time(5)
    assert solo.engine.running() == []


def test_what_was_stopped_for_good_is_not_written_into_a_store_that_is_accepted(solo: Solo) -> None:
    task, kept = a_running_task(solo, shutdown_delay=0), a_task(HOST, 1)
    solo.issue(kept)
    solo.pass_time(1)
    solo.jobs.hung = {"store"}
    solo.withdraw(task)
    solo.pass_time(1)
    solo.jobs.hung = set()
    solo.jobs.run()
    assert solo.mine(task) is None  # and the agent has not seen that yet
    solo.jobs.waiting.clear()
    solo.agent.disk.unlock()
    solo.memory.commit([Delete(key) for key in solo.memory.read("").entries])
    solo.settings = {"accept_store": True}
    solo.boot()
    solo.pass_time(20)
    assert set(solo.memory.read(keys.TASKS).entries) == {keys.task(kept.id)}
    assert solo.engine.running() == [kept.id]
