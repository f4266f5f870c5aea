"""What is issued to a host, as its agent in this process starts, stops and writes it."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from sked_core.errors import ExecutorError
from sked_core.interfaces.store import Delete, Put
from sked_core.logic import lifecycle
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.types import Task
from sked_core.testing.builders import a_container, a_definition, a_task

HOST = "h1"


class TestIssued:
    def test_it_is_started_registered_and_stopped_when_it_is_asked_for(self, world: Any) -> None:
        task = a_task(HOST)
        world.agent()
        world.issue(task)
        world.until_running(task)
        world.until("registered", lambda: task.id in world.health.registered())
        world.withdraw(task)
        world.until_running()
        world.until("both keys gone", lambda: not world.memory.read(keys.STATE).entries)
        assert world.health.registered() == frozenset()
        assert world.engine.stops == [task.id]

    def test_retiring_and_rejecting_write_both_keys_in_one_commit(self, world: Any) -> None:
        fine, bad = a_task(HOST, 0), a_task(HOST, 1, a_definition(containers=[a_container(type="nothing")]))
        world.agent()
        world.issue(fine, bad)
        world.until_running(fine)
        world.reason(bad)
        world.withdraw(fine)
        world.until("gone", lambda: world.mine(fine) is None)
        for task, kind in ((fine, Delete), (bad, Put)):
            touched = [ops for ops in world.store.commits if any(op.key == keys.task(task.id) for op in ops)]
            assert len(touched) == 1
            written = {op.key for op in touched[0] if isinstance(op, kind)}
            both = {keys.task(task.id), keys.host_task(HOST, task.id)}
            assert written - {keys.changed("web")} == both
            assert Put(keys.changed("web"), HOST.encode()) in touched[0], "schedulers are told"

    def test_a_single_key_removed_by_hand_stops_the_task(self, world: Any) -> None:
        task = a_task(HOST)
        world.agent()
        world.issue(task)
        world.until_running(task)
        world.memory.commit([Delete(keys.host_task(HOST, task.id))])
        world.until_running()

    def test_a_record_that_changed_restarts_the_task_and_one_written_anew_does_not(self, world: Any) -> None:
        task = a_task(HOST)
        world.agent()
        world.issue(task)
        world.until_running(task)
        world.issue(task)
        world.has_read()
        assert world.engine.starts.count(task.id) == 1
        container = a_container(executor={"start": "something else"})
        world.issue(a_task(HOST, 0, a_definition(containers=[container])))
        world.until("started anew", lambda: world.engine.starts.count(task.id) == 2)
        world.until_running(task)
        assert world.engine.stops.count(task.id) == 1

    def test_a_hand_written_record_without_a_host_is_run(self, world: Any) -> None:
        world.agent()
        empty, absent = a_task("", 0), a_task("", 1)
        left_out = {name: value for name, value in decode(encode(absent), dict).items() if name != "host"}
        world.memory.commit([Put(keys.host_task(HOST, empty.id), encode(empty))])
        world.memory.commit([Put(keys.host_task(HOST, absent.id), encode(left_out))])
        world.until_running(empty, absent)

    def test_unknown_fields_are_kept_when_it_is_rejected(self, world: Any) -> None:
        task = a_task(HOST, 0, a_definition(containers=[a_container(type="nothing")]))
        record = {**decode(encode(task), dict), "team": {"name": "a"}}
        both = (keys.task(task.id), keys.host_task(HOST, task.id))
        world.memory.commit([Put(key, encode(record)) for key in both])
        world.agent()
        world.reason(task)
        assert (world.mine(task) or {})["team"] == {"name": "a"}
        assert (world.raw(keys.task(task.id)) or {})["team"] == {"name": "a"}

    def test_a_task_that_moved_meanwhile_is_not_touched_by_the_host_that_it_left(self, world: Any) -> None:
        task = a_task(HOST)
        world.agent()
        world.issue(task)
        world.until_running(task)
        moved = a_task("h2")
        stopping = {**decode(encode(task), dict), "scheduled": False}
        world.memory.commit(
            [
                Put(keys.task(task.id), encode(moved)),
                Put(keys.host_task("h2", task.id), encode(moved)),
                Put(keys.host_task(HOST, task.id), encode(stopping)),
            ]
        )
        world.until("retired here", lambda: world.mine(task) is None)
        assert world.engine.running() == []
        assert world.raw(keys.task(task.id)) == decode(encode(moved), dict)
        assert world.raw(keys.host_task("h2", task.id)) == decode(encode(moved), dict)

    def test_a_rejection_does_not_reach_a_task_that_moved_meanwhile_either(self, world: Any) -> None:
        task = a_task(HOST, 0, a_definition(containers=[a_container(type="nothing")]))
        moved = a_task("h2", 0, task.task_definition)
        world.agent()
        world.has_read()  # what it looks at when it starts would have shown whose the task is
        world.memory.commit([Put(keys.task(task.id), encode(moved)), Put(keys.host_task(HOST, task.id), encode(task))])
        world.until("rejected here", lambda: (world.mine(task) or {})["rejected"])
        assert world.raw(keys.task(task.id)) == decode(encode(moved), dict)


class TestStarts:
    def test_a_slow_start_delays_nobody_else(self, world: Any) -> None:
        gate = threading.Event()

        def wait_for_one(task: Task, container: Any) -> None:
            if task.instance == 0:
                assert gate.wait(60)

        world.engine.before_start = wait_for_one
        tasks = [a_task(HOST, number) for number in range(4)]
        world.agent()
        world.issue(*tasks)
        world.until_running(*tasks[1:])
        gate.set()
        world.until_running(*tasks)

    def test_a_start_that_fails_is_tried_again_and_given_up_with_the_last_error(
        self, world: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lifecycle.backoff, "BASE_SECONDS", 0.01)
        monkeypatch.setattr(lifecycle.backoff, "delay", lambda failures, key, **more: 0.02)
        tries: list[str] = []

        def fail(task: Task, container: Any) -> None:
            tries.append(task.id)
            raise ExecutorError(f"failure number {len(tries)}")

        world.engine.before_start = fail
        task = a_task(HOST, 0, a_definition(max_attempts=3))
        world.agent()
        world.issue(task)
        assert world.reason(task) == "gave up after 3 starts: failure number 3"
        assert len(tries) == 3

    def test_a_start_whose_outcome_is_unknown_is_looked_for_and_not_made_twice(self, world: Any) -> None:
        def lose_the_answer(task: Task, container: Any) -> None:
            world.engine.after_start = lambda task, container: None
            raise ExecutorError("the answer was lost")

        world.engine.after_start = lose_the_answer
        task = a_task(HOST)
        world.agent()
        world.issue(task)
        world.until("registered", lambda: task.id in world.health.registered())
        assert world.engine.starts == [task.id]
        world.until_running(task)

    def test_the_second_container_fails_and_nothing_of_the_first_is_left(self, world: Any) -> None:
        def fail(task: Task, container: Any) -> None:
            if container.name == "second":
                raise ExecutorError("no", permanent=True)

        world.engine.before_start = fail
        task = a_task(HOST, 0, a_definition(containers=[a_container("first"), a_container("second")]))
        world.agent()
        world.issue(task)
        assert world.reason(task) == "no"
        assert world.engine.containers == {}
        assert world.health.registered() == frozenset()

    def test_what_died_is_started_again(self, world: Any) -> None:
        task = a_task(HOST)
        world.agent()
        world.issue(task)
        world.until_running(task)
        world.engine.kill(task.id)
        world.until("again", lambda: world.engine.starts.count(task.id) == 2)
        world.until_running(task)

    def test_an_engine_that_stops_answering_is_not_taken_for_dead_tasks(self, world: Any) -> None:
        task = a_task(HOST)
        world.agent()
        world.issue(task)
        world.until_running(task)
        world.engine.down = "hung"
        world.until("noticed", lambda: (world.raw(keys.host(HOST)) or {"executors": None})["executors"] == [])
        world.engine.down = ""
        world.until("answers", lambda: (world.raw(keys.host(HOST)) or {"executors": None})["executors"] == ["bash"])
        world.has_read()
        assert world.engine.starts.count(task.id) == 1
        assert task.id in world.engine.running()
        assert (world.mine(task) or {})["rejected"] is False

    def test_a_note_that_the_full_disk_does_not_take_keeps_no_task_from_starting(
        self, world: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        from sked_core.runtime.agent.disk import AgentDisk

        save = AgentDisk._save

        def full(self: AgentDisk, path: Path, value: object, *, durable: bool = False) -> None:
            if path.parent.name == "notes":
                raise OSError(28, "No space left on device")
            save(self, path, value, durable=durable)

        monkeypatch.setattr(AgentDisk, "_save", full)
        task = a_task(HOST)
        with caplog.at_level(logging.WARNING, "sked.agent"):
            world.agent()
            world.issue(task)
            world.until_running(task)
        assert f"no note of {task.id}: [Errno 28] No space left on device" in caplog.text


def test_an_unhealthy_task_is_restarted_after_its_grace_with_the_checks_words(world: Any, caplog) -> None:
    task = a_task(HOST, 0, a_definition(grace_period=300_000_000))
    world.agent()
    with caplog.at_level(logging.INFO, "sked.agent"):
        world.issue(task)
        world.until_running(task)
        world.health.say(task.id, healthy=False, output="connection refused")
        world.until("restarted", lambda: world.engine.stops == [task.id])
    assert "unhealthy for longer than its grace period of 0.3 s: connection refused" in caplog.text
    world.health.say(task.id, healthy=True)
    world.until_running(task)


def test_the_end_of_the_agent_waits_for_a_start_under_way_and_tears_nothing(world: Any) -> None:
    gate, begun = threading.Event(), threading.Event()

    def wait(task: Task, container: Any) -> None:
        begun.set()
        assert gate.wait(60)

    world.engine.before_start = wait
    agent = world.agent()
    task = a_task(HOST)
    world.issue(task)
    assert begun.wait(60)
    agent.stop.set()
    gate.set()
    agent.end()
    assert world.engine.running() == [task.id]
    world.engine.before_start = lambda task, container: None
    world.agent()
    world.has_read()
    assert world.engine.starts.count(task.id) == 1
