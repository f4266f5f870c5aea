"""How runs of tasks ended, as the agent keeps it: every kind of end, once, bounded, and whatever the store does."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from runtime.conftest import World
from runtime.issuing import Issuing
from runtime.solo import HOST, Solo
from runtime.test_agent_failures import a_crash, checked
from sked_bash.executor import BashExecutor
from sked_bash.rights import BashPolicy
from sked_core.errors import ExecutorError, Rejected
from sked_core.interfaces.store import Delete, Put
from sked_core.logic.keeping import MAX_BYTES
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.endings import Ending
from sked_core.model.policy import Policy
from sked_core.model.types import Task
from sked_core.runtime.agent.task_runner import SLOW_SECONDS, SPARED_SECONDS
from sked_core.runtime.journal import utc
from sked_core.testing.builders import a_container, a_definition, a_task
from sked_core.testing.fakes import FakeExecutor


def endings(solo: Issuing) -> list[Ending]:
    """What the store holds of it, oldest first."""
    entries = solo.memory.read(keys.endings(HOST)).entries
    return sorted((decode(entry.value, Ending) for entry in entries.values()), key=lambda one: one.ended)


def causes(solo: Solo) -> list[tuple[str, str]]:
    return [(one.cause, one.reason) for one in endings(solo)]


def writes(solo: Solo) -> int:
    return sum(op.key.startswith(keys.ENDINGS) for ops in solo.store.commits for op in ops)


def again(solo: Solo, task: Task) -> None:
    """Wait until it runs."""
    for _ in range(120):
        if task.id in solo.engine.running():
            return
        solo.pass_time(1)
    raise AssertionError(f"{task.id} was not started again")


class TestKinds:
    def test_a_crash_with_its_code_its_last_lines_and_when_it_ran(self, solo: Solo) -> None:
        task = a_task(HOST, 3)
        solo.issue(task)
        again(solo, task)
        began = utc(solo.clock.wall())
        solo.engine.say(task.id, *(f"line {number}" for number in range(60)))
        solo.pass_time(9)
        solo.engine.kill(task.id, "out of memory", 137)
        solo.settle()
        (found,) = endings(solo)
        assert (found.task, found.cluster, found.service, found.instance) == (task.id, "default", "web", 3)
        assert (found.task_name, found.task_version, found.host) == ("web", 1, HOST)
        assert (found.cause, found.reason, found.exits) == ("crashed", "web: out of memory", {"web": 137})
        assert found.log == [f"line {number}" for number in range(20, 60)]
        assert (found.started, found.ended) == (began, utc(solo.clock.wall()))
        assert (found.attempts, found.times, found.first) == (1, 1, "")

    def test_the_same_crash_again_and_again_takes_one_slot_and_is_counted(self, solo: Solo) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        first = ""
        for number in range(1, 5):
            again(solo, task)
            a_crash(solo, task, f"try {number}")
            (found,) = endings(solo)
            assert (found.times, found.attempts, found.log) == (number, number, [f"try {number}"])
            first = first or found.ended
        assert found.first == first < found.ended

    def test_one_that_is_unhealthy_for_too_long_with_what_its_check_said(self, solo: Solo) -> None:
        task = checked(grace_period="5s")
        solo.issue(task)
        solo.pass_time(1)
        solo.engine.say(task.id, "listening")
        solo.health.say(task.id, healthy=False, output="connection\nrefused\x1b[0m")
        solo.pass_time(10)
        first = endings(solo)[0]
        assert (first.cause, first.output, first.log) == ("unhealthy", "connection\nrefused\\x1b[0m", ["listening"])
        assert first.reason.startswith("unhealthy for longer than its grace period of 5 s")

    def test_one_that_is_given_up_unhealthy_ends_once_and_is_rejected(self, solo: Solo) -> None:
        task = checked(grace_period="5s")
        solo.issue(task)
        solo.pass_time(1)
        solo.health.say(task.id, healthy=False, output="refused")
        solo.pass_time(60)
        assert (solo.mine(task) or {})["rejected"]
        assert solo.engine.running() == []
        assert causes(solo) == [
            ("unhealthy", "unhealthy for longer than its grace period of 5 s: refused"),
            ("unhealthy", "unhealthy again after a restart: refused"),
            ("rejected", "unhealthy again after a restart: refused"),
        ]

    def test_a_start_that_fails(self, solo: Solo) -> None:
        def fail(task: Task, container: Any) -> None:
            raise ExecutorError("no space left")

        solo.engine.before_start = fail
        task = a_task(HOST, 0, a_definition(max_attempts=2))
        solo.issue(task)
        solo.pass_time(30)
        assert causes(solo) == [
            ("start_failed", "no space left"),
            ("rejected", "gave up after 2 starts: no space left"),
        ]
        assert [(one.times, one.started) for one in endings(solo)] == [(2, ""), (1, "")]

    def test_a_start_that_raises_what_nobody_foresaw(self, solo: Solo) -> None:
        def fail(task: Task, container: Any) -> None:
            raise ZeroDivisionError

        solo.engine.before_start = fail
        solo.issue(a_task(HOST, 0, a_definition(max_attempts=1)))
        solo.pass_time(1)
        assert causes(solo)[0] == ("start_failed", "executor bash of fakes failed: ZeroDivisionError")

    def test_one_that_this_host_refuses(self, solo: Solo) -> None:
        def refuse(task: Task, container: Any) -> None:
            raise Rejected("no such image\nno such user\x1b")

        solo.engine.before_start = refuse
        solo.issue(a_task(HOST, 0), a_task(HOST, 1, a_definition(containers=[a_container(type="nothing")])))
        solo.pass_time(2)
        reasons = {one.task: one.reason for one in endings(solo) if one.cause == "rejected"}
        assert reasons["default-web-1-0"] == "no such image\nno such user\\x1b", "a line for each reason"
        assert reasons["default-web-1-1"].startswith("executor nothing is not available")

    @pytest.mark.parametrize(
        ("how", "why"),
        [("withdraw", "withdrawn"), ("forget", "no longer issued"), ("change", "its record changed")],
    )
    def test_one_that_somebody_wanted_stopped_with_what_it_said_until_then(
        self, solo: Solo, how: str, why: str
    ) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        solo.pass_time(1)
        solo.engine.say(task.id, "at work")
        if how == "change":
            solo.issue(a_task(HOST, 0, a_definition(memory=77)))
        else:
            getattr(solo, how)(task)
        solo.pass_time(2)
        (found,) = endings(solo)
        assert (found.cause, found.reason, found.log) == ("stopped", why, ["at work"])

    def test_one_that_somebody_wanted_restarted(self, solo: Solo) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        again(solo, task)
        solo.issue(replace(task, restarts=1))
        solo.pass_time(2)
        assert solo.engine.running() == [task.id]
        assert causes(solo) == [("stopped", "somebody asked for a restart")]

    def test_one_that_crashed_and_is_withdrawn_before_its_next_start_ended_once(self, solo: Solo) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        a_crash(solo, task)
        solo.withdraw(task)
        solo.pass_time(5)
        assert causes(solo) == [("crashed", "web: exit 3")]

    def test_of_two_containers_both_are_heard_and_the_one_that_ended_has_a_code(self, solo: Solo) -> None:
        task = a_task(HOST, 0, a_definition(containers=[a_container("app"), a_container("side")]))
        solo.issue(task)
        solo.pass_time(1)
        for one in solo.engine.containers.values():
            one.output += [f"{one.handle.container} {number}" for number in range(30)]
        solo.withdraw(task)
        solo.pass_time(1)
        (found,) = endings(solo)
        assert found.log == [f"{name} {number}" for name in ("app", "side") for number in range(10, 30)]


class TestAgents:
    def test_one_that_ended_while_no_agent_was_there(self, solo: Solo) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        again(solo, task)
        began = utc(solo.clock.wall())
        solo.engine.say(task.id, "alone")
        solo.engine.kill(task.id, "exit 3", 3)
        solo.crash()
        solo.pass_time(1)
        (found,) = endings(solo)
        assert (found.cause, found.reason, found.exits, found.log) == ("crashed", "web: exit 3", {"web": 3}, ["alone"])
        assert found.started == began

    def test_one_that_ended_and_was_withdrawn_while_no_agent_was_there(self, solo: Solo) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        solo.pass_time(5)
        solo.engine.kill(task.id, "exit 3", 3)
        solo.forget(task)
        solo.crash()
        solo.pass_time(1)
        assert causes(solo) == [("crashed", "web: exit 3")]

    @pytest.mark.parametrize("times", [1, 3])
    def test_the_next_agents_do_not_count_it_again(self, solo: Solo, times: int) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        a_crash(solo, task)
        for _ in range(times):
            solo.crash()
            solo.settle()
        assert [one.times for one in endings(solo)] == [1]

    def test_the_next_agent_goes_on_in_the_slots_that_it_finds(self, solo: Solo) -> None:
        first, second = a_task(HOST, 0), a_task(HOST, 1)
        solo.issue(first, second)
        a_crash(solo, first)
        solo.pass_time(5)
        solo.crash()
        solo.pass_time(1)
        a_crash(solo, second)
        again(solo, first)
        a_crash(solo, first)
        assert [(one.task, one.times) for one in endings(solo)] == [(second.id, 1), (first.id, 2)]

    def test_what_can_not_be_read_of_an_earlier_agent_gives_way(self, solo: Solo) -> None:
        solo.memory.commit([Put(keys.ending(HOST, 0), b"{"), Put(keys.endings(HOST) + "x", b"{}")])
        task = a_task(HOST, 0)
        solo.issue(task)
        a_crash(solo, task)
        entries = solo.memory.read(keys.endings(HOST)).entries
        assert decode(entries[keys.ending(HOST, 0)].value, Ending).task == task.id


class TestStores:
    def test_an_outage_holds_up_no_restart_and_what_ended_meanwhile_is_written_after_it(self, solo: Solo) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        solo.pass_time(1)
        solo.store.down = "away"
        for _ in range(3):
            again(solo, task)
            a_crash(solo, task)
        again(solo, task)
        assert endings(solo) == []
        solo.store.down = ""
        solo.pass_time(15)
        (found,) = endings(solo)
        assert (found.times, found.attempts) == (3, 3)

    def test_what_the_store_did_not_take_outlives_the_agent(self, solo: Solo) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        solo.pass_time(1)
        solo.store.down = "away"
        a_crash(solo, task, "last words")
        solo.crash()
        solo.store.down = ""
        solo.pass_time(15)
        (found,) = endings(solo)
        assert (found.log, found.times) == (["last words"], 1)

    def test_a_commit_whose_answer_is_lost_is_not_counted_twice(
        self, solo: Solo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task, honest, lost = a_task(HOST, 0), solo.store.commit, []
        solo.issue(task)
        solo.pass_time(1)

        def commit(ops: Any) -> Any:
            revision = honest(ops)
            if not lost and any(op.key.startswith(keys.ENDINGS) for op in ops):
                lost.append(ops)
                raise ExecutorError("no answer")
            return revision

        monkeypatch.setattr(solo.store, "commit", commit)
        a_crash(solo, task)
        assert lost
        solo.crash()
        solo.pass_time(15)
        assert [one.times for one in endings(solo)] == [1]

    def test_nothing_is_written_to_a_stranger(self, solo: Solo) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        solo.pass_time(1)
        uid = solo.memory.read(keys.STORE_UID).entries[keys.STORE_UID].value
        solo.memory.commit([Put(keys.STORE_UID, b"another")])
        solo.pass_time(2)
        a_crash(solo, task)
        solo.pass_time(20)
        assert endings(solo) == []
        assert len(solo.agent.disk.endings()) == 1
        solo.memory.commit([Put(keys.STORE_UID, uid)])
        solo.pass_time(20)
        assert causes(solo) == [("crashed", "web: exit 3")]
        assert solo.agent.disk.endings() == []

    def test_while_nothing_ends_nothing_is_read_or_written(self, solo: Solo) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        solo.pass_time(120)
        assert not [prefix for prefix in solo.store.reads if prefix.startswith(keys.ENDINGS)]
        a_crash(solo, task)
        solo.pass_time(120)
        assert (writes(solo), solo.store.reads.count(keys.endings(HOST))) == (1, 1)
        a_crash(solo, task)
        solo.pass_time(120)
        assert (writes(solo), solo.store.reads.count(keys.endings(HOST))) == (2, 1)

    def test_a_store_that_hangs_holds_up_no_start_and_no_stop(self, solo: Solo) -> None:
        solo.jobs.hung.add("endings")
        task, other = a_task(HOST, 0), a_task(HOST, 1)
        solo.issue(task, other)
        a_crash(solo, task)
        solo.forget(other)
        solo.pass_time(5)
        assert solo.engine.running() == [task.id]
        assert sum(pool == "endings" for pool, _ in solo.jobs.waiting) == 1

    def test_however_many_tasks_end_the_slots_stay_bounded(self, solo: Solo) -> None:
        tasks = [a_task(HOST, number, a_definition(memory=1, cpu_units=1)) for number in range(40)]
        solo.issue(*tasks)
        solo.pass_time(1)
        for number, task in enumerate(tasks):
            solo.engine.say(task.id, *["ä" * 600] * 50)
            solo.engine.kill(task.id, f"exit {number}", number)
        solo.pass_time(10)
        solo.forget(*tasks)
        solo.pass_time(30)
        entries = solo.memory.read(keys.endings(HOST)).entries
        assert set(entries) == {keys.ending(HOST, slot) for slot in range(keys.KEPT_ENDINGS)}
        assert max(len(entry.value) for entry in entries.values()) <= MAX_BYTES
        assert sum(one.cause == "stopped" for one in endings(solo)) == 8


class TestEngines:
    def test_an_engine_that_takes_long_to_tell_what_was_written_is_spared_for_a_while(
        self, solo: Solo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[float] = []

        def slowly(executor: FakeExecutor, handle: Any, lines: int) -> list[str]:
            asked.append(solo.clock.monotonic())
            solo.clock.advance(SLOW_SECONDS + 1)
            return ["at last"]

        monkeypatch.setattr(FakeExecutor, "tail", slowly)
        tasks = [a_task(HOST, number) for number in range(3)]
        solo.issue(*tasks)
        solo.pass_time(1)
        solo.forget(tasks[0])
        solo.pass_time(1)
        solo.forget(tasks[1])
        solo.pass_time(1)
        assert (solo.engine.running(), len(asked)) == ([tasks[2].id], 1)
        assert [one.log for one in endings(solo)] == [["at last"], []]
        solo.pass_time(SPARED_SECONDS)
        solo.forget(tasks[2])
        solo.pass_time(1)
        assert len(asked) == 2

    def test_what_was_written_is_asked_for_before_it_is_removed_and_once(
        self, solo: Solo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        order: list[str] = []
        for name in ("tail", "stop"):
            honest = getattr(FakeExecutor, name)

            def told(executor: FakeExecutor, *args: Any, name: str = name, honest: Any = honest) -> Any:
                order.append(name)
                return honest(executor, *args)

            monkeypatch.setattr(FakeExecutor, name, told)
        task = a_task(HOST, 0)
        solo.issue(task)
        a_crash(solo, task)
        solo.withdraw(task)
        solo.pass_time(1)
        assert order == ["tail", "stop"]

    def test_one_that_ended_long_ago_does_not_count_for_a_new_life(self, solo: Solo) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        a_crash(solo, task)
        again(solo, task)
        solo.pass_time(2)
        solo.withdraw(task)
        solo.pass_time(1)
        solo.memory.commit([Delete(keys.task(task.id)), Delete(keys.host_task(HOST, task.id))])
        assert causes(solo) == [("crashed", "web: exit 3"), ("stopped", "withdrawn")]
        assert encode(endings(solo)[0])


class TestProcesses:
    """With the bash executor, whose processes really end."""

    @pytest.fixture
    def processes(self, world: World) -> Iterator[World]:
        policy = Policy(sections={"bash": BashPolicy.development()})
        world.engine = SimpleNamespace(  # type: ignore[assignment]
            executor=lambda context: BashExecutor(dataclasses.replace(context, policy=policy))
        )
        yield world
        left = [decode(entry.value, Task) for entry in world.memory.read(keys.host_tasks(HOST)).entries.values()]
        world.forget(*left)
        world.until("nothing runs any more", lambda: not world.health.tasks)

    def test_the_code_the_words_and_the_times_are_those_of_the_process(self, processes: World) -> None:
        start = "echo began on $SKED_HOST; echo to stderr >&2; exit 7"
        task = a_task(HOST, 0, a_definition(containers=[a_container(executor={"start": start})], max_attempts=1))
        processes.agent()
        processes.issue(task)
        processes.until("it is rejected", lambda: [one for one in endings(processes) if one.cause == "rejected"])
        crashed = next(one for one in endings(processes) if one.cause == "crashed")
        assert (crashed.exits, crashed.attempts) == ({"web": 7}, 1)
        assert crashed.log == [f"began on {HOST}", "to stderr"]
        assert crashed.started and crashed.started <= crashed.ended

    def test_one_that_is_killed_and_one_that_is_stopped(self, processes: World) -> None:
        start = "echo $$ > $HOME_OF_TEST/pid; echo up; exec sleep 600"
        env = {"HOME_OF_TEST": str(processes.folder)}
        task = a_task(HOST, 0, a_definition(containers=[a_container(executor={"start": start, "env": env})]))
        processes.agent()
        processes.issue(task)
        pid = processes.folder / "pid"
        processes.until("it runs", lambda: pid.exists() and pid.read_text().strip())
        os.kill(int(pid.read_text()), signal.SIGKILL)
        (crashed,) = processes.until("its end is kept", lambda: endings(processes))
        assert (crashed.cause, crashed.exits, crashed.log) == ("crashed", {"web": 137}, ["up"])
        assert "SIGKILL" in crashed.reason
        processes.until("it runs again", lambda: processes.health.tasks)
        processes.forget(task)
        stopped = processes.until(
            "that is kept as well", lambda: [e for e in endings(processes) if e.cause == "stopped"]
        )
        assert (stopped[0].reason, stopped[0].log) == ("no longer issued", ["up"])
