"""What is told of a task that does not run well: the reason, its last lines, the next try; and until when."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from runtime.solo import HOST, Solo
from sked_core.errors import ExecutorError
from sked_core.interfaces.store import Put
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.types import Event, Failure, Task
from sked_core.testing.builders import a_check, a_container, a_definition, a_task
from sked_core.testing.fakes import FakeExecutor


def failure(solo: Solo, task: Task) -> Failure | None:
    entry = solo.memory.read(keys.failure(task.id)).entries.get(keys.failure(task.id))
    return decode(entry.value, Failure) if entry else None


def writes(solo: Solo, task: Task) -> int:
    return sum(any(op.key == keys.failure(task.id) for op in ops) for ops in solo.store.commits)


def a_crash(solo: Solo, task: Task, *lines: str, detail: str = "exit 3") -> None:
    """Let it run for a second, say something, and die."""
    solo.pass_time(1)
    solo.engine.say(task.id, *lines)
    solo.engine.kill(task.id, detail)
    solo.settle()


def checked(**fields: Any) -> Task:
    return a_task(HOST, 0, a_definition(containers=[a_container(checks=[a_check()])], **fields))


class TestDeath:
    def test_the_reason_the_last_lines_and_the_next_try_are_told_while_it_waits(self, solo: Solo) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        a_crash(solo, task, "first", *(f"line {number}" for number in range(20)))
        told = failure(solo, task)
        assert told is not None
        assert (told.host, told.attempts, told.unhealthy, told.reason) == (HOST, 1, False, "web: exit 3")
        assert told.log == [f"line {number}" for number in range(20)]
        assert told.at == "2023-11-14T22:13:21Z"
        assert "2023-11-14T22:13:21Z" <= told.next_try <= "2023-11-14T22:13:23Z"
        assert (solo.engine.running(), solo.told("task.failed")[0].before) == ([], "start 1 of 10")
        (commit,) = [ops for ops in solo.store.commits if any(op.key == keys.failure(task.id) for op in ops)]
        assert Put(keys.changed("web"), HOST.encode()) in commit, "schedulers are told"

    def test_it_grows_with_each_failure_and_is_written_once_for_each(self, solo: Solo) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        for number in range(1, 5):
            while solo.engine.running() != [task.id]:
                solo.pass_time(1)
            a_crash(solo, task)
            assert failure(solo, task).attempts == number  # type: ignore[union-attr]
            assert writes(solo, task) == number

    def test_lines_are_cut_and_made_fit_to_be_shown(self, solo: Solo) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        a_crash(solo, task, "x" * 1000, "\x1b[31mred\ud800")
        assert failure(solo, task).log == ["x" * 500, "\\x1b[31mred\\ud800"]  # type: ignore[union-attr]

    def test_an_executor_that_keeps_no_lines_or_fails_to_tell_them_changes_nothing_else(
        self, solo: Solo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        monkeypatch.setattr(FakeExecutor, "tail", lambda *_: 1 / 0)
        a_crash(solo, task, "unheard")
        assert failure(solo, task).log == []  # type: ignore[union-attr]
        monkeypatch.delattr(FakeExecutor, "tail")
        solo.pass_time(5)
        a_crash(solo, task)
        assert failure(solo, task).attempts == 2  # type: ignore[union-attr]
        solo.pass_time(10)
        assert solo.engine.running() == [task.id]

    def test_of_two_containers_the_one_that_ended_is_heard(self, solo: Solo) -> None:
        task = a_task(HOST, 0, a_definition(containers=[a_container("app"), a_container("side")]))
        solo.issue(task)
        solo.pass_time(1)
        for one in solo.engine.containers.values():
            one.output += [f"{one.handle.container} speaks"]
            if one.handle.container == "side":
                one.state, one.detail = type(one.state).EXITED, "exit 1"
        solo.pass_time(5)
        told = failure(solo, task)
        assert told is not None
        assert (told.reason, told.log) == ("side: exit 1", ["side speaks"])


class TestOtherFailures:
    def test_a_start_that_fails_is_told(self, solo: Solo) -> None:
        def fail(task: Task, container: Any) -> None:
            raise ExecutorError("no space left")

        solo.engine.before_start = fail
        task = a_task(HOST, 0, a_definition(max_attempts=2))
        solo.issue(task)
        for _ in range(3):
            solo.settle()
        told = failure(solo, task)
        assert told is not None
        assert (told.attempts, told.reason, told.log, told.next_try != "") == (1, "no space left", [], True)
        solo.pass_time(10)
        told = failure(solo, task)
        assert told is not None
        assert (told.attempts, told.next_try) == (2, "")
        assert (solo.mine(task) or {})["reject_reason"] == "gave up after 2 starts: no space left"
        assert failure(solo, task) is not None, "it is told for as long as the task is here"
        solo.forget(task)
        solo.pass_time(1)
        assert failure(solo, task) is None

    def test_giving_up_tells_the_last_line(self, solo: Solo) -> None:
        task = a_task(HOST, 0, a_definition(max_attempts=1))
        solo.issue(task)
        a_crash(solo, task, "starting", "no such table: users")
        solo.pass_time(1)
        assert (solo.mine(task) or {})["reject_reason"] == (
            "gave up after 1 start: web: exit 3; it last wrote: no such table: users"
        )

    def test_one_that_stays_unhealthy_is_restarted_once_and_then_rejected(self, solo: Solo) -> None:
        task = checked(grace_period="10s")
        solo.issue(task)
        solo.pass_time(2)
        solo.engine.say(task.id, "waiting for the database")
        solo.health.say(task.id, healthy=False, output="HTTP 500\nat once\x1b")
        solo.pass_time(12)
        told = failure(solo, task)
        assert told is not None
        assert (told.unhealthy, told.attempts, told.output) == (True, 1, "HTTP 500\nat once\\x1b")
        assert (told.log, solo.engine.stops) == (["waiting for the database"], [task.id])
        assert told.reason.startswith("unhealthy for longer than its grace period of 10 s: HTTP 500")
        assert solo.engine.starts == [task.id] * 2
        solo.pass_time(12)
        assert (solo.mine(task) or {})["reject_reason"] == "unhealthy again after a restart: HTTP 500\nat once\x1b"
        assert solo.engine.running() == []
        told = failure(solo, task)
        assert told is not None
        assert (told.unhealthy, told.attempts, told.next_try) == (True, 2, "")

    def test_a_restart_of_the_agent_begins_no_new_row(self, solo: Solo) -> None:
        task = checked(grace_period="10s")
        solo.issue(task)
        solo.health.say(task.id, healthy=False)
        solo.pass_time(13)
        assert len(solo.engine.starts) == 2
        solo.crash()
        solo.pass_time(15)
        assert (solo.mine(task) or {})["reject_reason"] == "unhealthy again after a restart"


class TestWell:
    @pytest.mark.parametrize(("task", "seconds"), [(checked(), 5), (a_task(HOST, 0), 60)], ids=["checked", "unchecked"])
    def test_once_it_is_well_again_it_is_told_no_more(self, solo: Solo, task: Task, seconds: int) -> None:
        solo.issue(task)
        a_crash(solo, task)
        solo.pass_time(3)
        assert solo.engine.running() == [task.id]
        solo.pass_time(seconds - 4)
        assert failure(solo, task) is not None
        solo.pass_time(4)
        assert failure(solo, task) is None
        assert writes(solo, task) == 2

    def test_one_that_is_not_healthy_stays_told(self, solo: Solo) -> None:
        task = checked(grace_period="1h")
        solo.issue(task)
        a_crash(solo, task)
        solo.health.say(task.id, healthy=False)
        solo.pass_time(300)
        assert failure(solo, task) is not None

    def test_what_an_earlier_agent_told_is_told_no_more_once_it_is_not_so(self, solo: Solo) -> None:
        well, gone, ill = (a_task(HOST, number) for number in range(3))
        theirs = Failure(host="h2", reason="theirs")
        solo.issue(well, gone, ill)
        for task in (well, gone, ill):
            a_crash(solo, task)
        solo.memory.commit([Put(keys.failure("default-other-1-0"), encode(theirs)), Put(keys.failure("x"), b"{")])
        solo.agent.disk.unlock()
        solo.forget(gone)
        solo.boot()
        solo.pass_time(1)
        assert failure(solo, gone) is None
        assert failure(solo, ill).reason == "web: exit 3"  # type: ignore[union-attr]
        solo.pass_time(62)
        assert failure(solo, well) is None
        assert set(solo.memory.read(keys.FAILURES).entries) == {keys.failure("default-other-1-0"), keys.failure("x")}

    def test_the_word_of_another_host_is_never_touched(self, solo: Solo) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        a_crash(solo, task)
        solo.memory.commit([Put(keys.failure(task.id), encode(Failure(host="h2", reason="theirs")))])
        solo.forget(task)
        solo.pass_time(1)
        assert failure(solo, task) == Failure(host="h2", reason="theirs")


class TestStore:
    def test_one_that_is_away_delays_no_restart_and_is_told_later(self, solo: Solo) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        solo.pass_time(1)
        solo.store.down = "no leader"
        a_crash(solo, task)
        solo.pass_time(4)
        assert solo.engine.running() == [task.id]
        solo.store.down = ""
        solo.pass_time(11)
        assert failure(solo, task) is not None

    def test_one_that_hangs_delays_no_restart(self, solo: Solo) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        solo.pass_time(1)
        solo.jobs.hung = {"failures"}
        a_crash(solo, task)
        solo.pass_time(4)
        assert solo.engine.running() == [task.id]

    def test_a_strangers_is_told_nothing(self, solo: Solo) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        solo.pass_time(1)
        solo.memory.commit([Put(keys.STORE_UID, b"another")])
        solo.settle()
        before = len(solo.store.commits)
        a_crash(solo, task)
        solo.pass_time(4)
        assert (solo.engine.running(), failure(solo, task)) == ([task.id], None)
        told = [op.key for ops in solo.store.commits[before:] for op in ops]
        assert not [key for key in told if key.startswith((keys.FAILURES, keys.EVENTS))]

    def test_nothing_is_written_while_nothing_changes(self, solo: Solo) -> None:
        solo.issue(*(a_task(HOST, number) for number in range(5)))
        a_crash(solo, a_task(HOST, 0))
        solo.pass_time(120)
        solo.store.commits.clear()
        solo.pass_time(600)
        assert solo.store.commits == []


class TestEvents:
    def names(self, solo: Solo) -> list[str]:
        return [event.what for event in solo.events if event.subject.startswith("task/")]

    def test_the_life_of_a_task_is_told_in_order_and_kept(self, solo: Solo) -> None:
        task = checked(shutdown_delay="5s", grace_period="1s")
        solo.issue(task)
        solo.pass_time(70)
        solo.health.say(task.id, healthy=False, output="refused")
        solo.settle()
        solo.health.say(task.id, healthy=True)
        solo.pass_time(2)
        solo.engine.kill(task.id, "exit 1")
        solo.pass_time(3)
        solo.withdraw(task)
        solo.pass_time(8)
        assert self.names(solo) == [
            *("task.started", "task.healthy", "task.unhealthy", "task.healthy", "task.failed"),
            *("task.started", "task.healthy", "task.stopping", "task.stopped"),
        ]
        kept = sorted(solo.memory.read(keys.EVENTS).entries.items())
        events = list(itertools.chain.from_iterable(decode(entry.value, list[Event]) for _, entry in kept))
        assert events == solo.events
        assert {(event.who, event.host) for event in events} == {("agent h1", HOST)}
        assert {event.service for event in events if event.subject == f"task/{task.id}"} == {"web"}
        (stopping,), (unhealthy,) = solo.told("task.stopping"), solo.told("task.unhealthy")
        assert (stopping.why, unhealthy.why) == ("withdrawn", "refused")

    def test_a_rejection_is_told_once(self, solo: Solo) -> None:
        task = a_task(HOST, 0, a_definition(containers=[a_container(type="nothing")]))
        solo.issue(task)
        solo.pass_time(30)
        (told,) = solo.told("task.rejected")
        assert told.why == "executor nothing is not available on this host (available: bash)"

    def test_an_agent_that_comes_back_tells_that_and_not_the_health_of_all(self, solo: Solo) -> None:
        tasks = [a_task(HOST, number) for number in range(3)]
        solo.issue(*tasks)
        solo.pass_time(5)
        solo.events.clear()
        solo.crash()
        solo.pass_time(30)
        assert [(event.what, event.subject) for event in solo.events] == [
            ("agent.started", "host/h1"),
            ("agent.adopted", "host/h1"),
        ]
        assert solo.events[1].why == "took over 3 containers of executor bash"

    @pytest.mark.parametrize("times", [1, 3])
    def test_an_end_that_was_told_is_not_told_again_by_the_next_agent_and_a_new_one_is(
        self, solo: Solo, times: int
    ) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        a_crash(solo, task)
        for _ in range(times):
            solo.crash()
            solo.settle()
        assert (solo.engine.running(), len(solo.told("task.failed"))) == ([], 1)
        solo.pass_time(5)
        assert solo.engine.running() == [task.id]
        solo.crash()
        solo.pass_time(1)
        a_crash(solo, task)
        assert [event.before for event in solo.told("task.failed")] == ["start 1 of 10", "start 2 of 10"]

    def test_one_that_ended_while_no_agent_was_there_is_told(self, solo: Solo) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        a_crash(solo, task)
        solo.pass_time(5)
        assert solo.engine.running() == [task.id]
        solo.engine.kill(task.id, "exit 3")
        solo.crash()
        solo.pass_time(1)
        assert [event.why for event in solo.told("task.failed")] == ["web: exit 3"] * 2

    def test_a_store_that_is_another_is_told_once_and_kept_when_the_right_one_is_back(self, solo: Solo) -> None:
        solo.settle()
        uid = solo.memory.read(keys.STORE_UID).entries[keys.STORE_UID].value
        solo.memory.commit([Put(keys.STORE_UID, b"another")])
        solo.pass_time(60)
        (frozen,) = solo.told("agent.frozen")
        assert "another one than before" in frozen.why
        kept = b"".join(entry.value for entry in solo.memory.read(keys.EVENTS).entries.values())
        assert b"agent.frozen" not in kept
        solo.memory.commit([Put(keys.STORE_UID, uid)])
        solo.pass_time(1)
        solo.settle()
        assert b"agent.frozen" in b"".join(entry.value for entry in solo.memory.read(keys.EVENTS).entries.values())

    def test_a_stop_that_is_tried_again_is_told_once(self, solo: Solo) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        solo.pass_time(1)
        solo.withdraw(task)
        stop, solo_fails = FakeExecutor.stop, [3]

        def fail(executor: FakeExecutor, handle: Any, grace: float) -> None:
            if solo_fails[0]:
                solo_fails[0] -= 1
                raise ExecutorError("busy")
            stop(executor, handle, grace)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(FakeExecutor, "stop", fail)
            solo.pass_time(60)
        assert (len(solo.told("task.stopping")), len(solo.told("task.stopped"))) == (1, 1)
        assert set(solo.health.tasks) == set()
