"""What an agent makes of faults that come at a bad moment: nothing that runs is stopped, and nobody else waits."""

from __future__ import annotations

import errno
import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sked_core.errors import SkedError, Unavailable
from sked_core.interfaces.executor import Handle, Observation, State
from sked_core.interfaces.store import Delete, Op, Put
from sked_core.logic import lifecycle
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.runtime import workers
from sked_core.runtime.agent import issued_feed
from sked_core.runtime.agent import looks as agent_looks
from sked_core.runtime.agent import records as agent_records
from sked_core.runtime.stores.memory import MemoryStore
from sked_core.testing.builders import a_container, a_definition, a_task
from sked_core.testing.fakes import FakeEngine, FakeExecutor, RecordingStore

HOST = "h1"


def some_tasks(count: int) -> list[Any]:
    return [a_task(HOST, number) for number in range(count)]


class TestStores:
    def test_a_store_that_hiccups_while_it_is_refilled_gets_all_tasks_and_none_is_stopped(self, world: Any) -> None:
        tasks = some_tasks(3)
        world.issue(*tasks)
        first = world.agent()
        world.until_running(*tasks)
        first.end()
        world.memory.close()
        world.memory = MemoryStore()
        refills: list[int] = []

        class Hiccups(RecordingStore):
            def commit(self, ops: Any) -> Any:
                if any(isinstance(op, Put) and op.key.startswith(keys.HOST_TASKS) for op in ops):
                    refills.append(1)
                    if len(refills) == 2:
                        raise Unavailable("no leader")
                return super().commit(ops)

        world.store = Hiccups(world.memory)
        world.agent(accept_store=True)
        world.until("all written back", lambda: all(world.mine(task) for task in tasks))
        world.has_read()
        assert len(refills) > 3
        assert set(world.engine.stops) <= {"default-probe-1-0"}
        assert world.engine.running() == [task.id for task in tasks]

    def test_many_that_vanish_just_before_the_store_goes_away_are_not_stopped(
        self, world: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(lifecycle, "BRAKE_SECONDS", 1.0)
        monkeypatch.setattr(issued_feed, "CONFIRM_SECONDS", 0.5)
        tasks = some_tasks(10)
        world.issue(*tasks)
        world.agent()
        world.until_running(*tasks)
        with caplog.at_level(logging.ERROR, "sked.agent"):
            world.forget(*tasks)
            world.until("seen", lambda: "vanished from the store at once" in caplog.text)
        world.store.down = "no leader"
        world.stays("nothing was stopped", lambda: not world.engine.stops, 3.0)
        # Only the store itself can confirm it.
        world.store.down = ""
        world.until("stopped", lambda: not world.engine.running())

    def test_who_it_is_and_whose_it_is_are_not_read_again(self, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(issued_feed, "CONFIRM_SECONDS", 0.1)
        tasks = some_tasks(3)
        world.issue(*tasks)
        world.agent()
        world.until_running(*tasks)
        identity = (world.folder / "state/identity.json").read_bytes()
        real = Path.read_bytes

        def broken(path: Path) -> bytes:
            if path.name == "identity.json":
                raise OSError(errno.EIO, "Input/output error")
            return real(path)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "read_bytes", broken)
            lost = [*world.memory.read(keys.STATE).entries, keys.STORE_UID]
            world.memory.commit([Delete(key) for key in lost])
            world.stays("nothing was stopped", lambda: not world.engine.stops, 1.5)
        assert (world.folder / "state/identity.json").read_bytes() == identity
        assert world.memory.read(keys.STORE_UID).entries == {}

    @pytest.mark.parametrize("step", ["retire", "reject"])
    def test_a_write_that_the_store_refuses_is_not_tried_over_and_over(self, world: Any, step: str) -> None:
        task = a_task(HOST)
        if step == "reject":
            task = a_task(HOST, 0, a_definition(containers=[a_container(executor={"problem": "no such option"})]))
        tried: list[int] = []

        class Denies(RecordingStore):
            def commit(self, ops: list[Op]) -> Any:
                if any(op.key == keys.host_task(HOST, task.id) for op in ops if isinstance(op, Put | Delete)):
                    tried.append(1)
                    raise SkedError("permission denied")
                return super().commit(ops)

        world.store = Denies(world.memory)
        agent = world.agent()
        world.issue(task)
        if step == "retire":
            world.until_running(task)
            world.withdraw(task)
        world.until("tried", lambda: tried)
        world.stays("few tries", lambda: len(tried) <= 3, 2.0)
        assert agent.thread.is_alive()

    def test_the_key_that_the_host_lacks_to_which_a_task_was_moved_by_hand_is_written(self) -> None:
        store, moved = MemoryStore(), a_task("h2")
        store.commit([Put(keys.task(moved.id), encode(moved)), Put(keys.STORE_UID, b"this-store")])
        agent_records.tidy(store, HOST, moved.id, "this-store")
        revision = store.read(keys.STATE).revision
        agent_records.tidy(store, HOST, moved.id, "this-store")
        both = {keys.task(moved.id): encode(moved), keys.host_task("h2", moved.id): encode(moved)}
        assert {key: entry.value for key, entry in store.read(keys.STATE).entries.items()} == both
        assert store.read(keys.STATE).revision == revision
        store.close()

    def test_a_leftover_key_is_removed_in_the_store_of_this_host_only(self) -> None:
        store, task = MemoryStore(), a_task(HOST)
        store.commit([Put(keys.task(task.id), encode(task)), Put(keys.STORE_UID, b"a-stranger")])
        agent_records.tidy(store, HOST, task.id, "this-store")
        assert keys.task(task.id) in store.read(keys.TASKS).entries
        store.commit([Put(keys.STORE_UID, b"this-store")])
        agent_records.tidy(store, HOST, task.id, "this-store")
        assert store.read(keys.TASKS).entries == {}
        store.close()


class TestEngines:
    def test_starts_that_hang_keep_nothing_from_being_stopped_and_no_death_from_being_seen(
        self, world: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        ok, gone = some_tasks(2)
        world.issue(ok, gone)
        world.agent()
        world.until_running(ok, gone)
        release, hanging = threading.Event(), []

        def hang(task: Any, container: Any) -> None:
            if task.service == "slow":
                hanging.append(task.id)
                release.wait(60)

        world.engine.before_start = hang
        world.issue(*(a_task(HOST, number, a_definition("slow"), service="slow") for number in range(8)))
        try:
            world.until("all hang", lambda: len(hanging) == workers.POOL_THREADS)
            world.withdraw(gone)
            world.until("stopped", lambda: world.engine.stops == [gone.id])
            world.engine.kill(ok.id)
            world.until("death seen", lambda: f"{ok.id} ended: " in caplog.text)
        finally:
            release.set()

    @pytest.mark.parametrize("method", ["validate", "ports"])
    def test_an_executor_that_fails_on_a_spec_rejects_the_task_and_not_the_agent(
        self, world: Any, monkeypatch: pytest.MonkeyPatch, method: str
    ) -> None:
        real = getattr(FakeExecutor, method)

        def fail(executor: FakeExecutor, spec: Any, *more: Any) -> Any:
            if "odd" in spec:
                raise TypeError("not a number")
            return real(executor, spec, *more)

        monkeypatch.setattr(FakeExecutor, method, fail)
        agent, task = world.agent(), a_task(HOST, 0, a_definition(containers=[a_container(executor={"odd": 1})]))
        world.issue(task)
        assert world.reason(task) == "executor bash of fakes failed: TypeError: not a number"
        world.has_read()
        assert agent.thread.is_alive()

    @pytest.mark.parametrize(
        ("method", "answer", "told"),
        [
            ("start", None, "gave an object of type NoneType for a start"),
            ("start", Handle("default-another-1-0", "main", "x"), "gave an object of type Handle for a start"),
            ("start", Handle("default-bad-1-0", "main", 7), "gave an object of type Handle for a start"),
            ("start", SystemExit("no reason"), "no reason"),
            ("inspect", ["neither", "nor"], "gave an object of type list for a look"),
            ("inspect", {"x": Observation(State.RUNNING)}, "tells of an object of type str"),
            ("inspect", SystemExit("no reason"), "executor other of fakes failed: SystemExit: no reason"),
            ("recover", None, "gave an object of type NoneType for a look"),
            ("recover", {Handle("t", "main", "x"): "running"}, "with an object of type str"),
        ],
    )
    def test_an_executor_whose_answers_are_none_fails_by_itself(
        self, world: Any, caplog: pytest.LogCaptureFixture, method: str, answer: Any, told: str
    ) -> None:
        class Odd(FakeExecutor):
            """One method of it gives ``answer``."""

        def give(*_: Any) -> Any:
            if isinstance(answer, SystemExit):
                raise answer
            return answer

        setattr(Odd, method, give)
        offering, other = world.offering, FakeEngine()
        world.offering = lambda **offers: offering(
            sked_executors={**offers["sked_executors"], "other": lambda context: Odd(other, context)}
        )
        definition = a_definition("bad", containers=[a_container(type="other")])
        good, bad = a_task(HOST, 0), a_task(HOST, 0, definition, service="bad")
        agent = world.agent()
        world.issue(good, bad)
        world.until("it is told", lambda: told in caplog.text)
        world.until_running(good)
        if method == "start":
            world.until("and kept", lambda: told in str(world.raw(keys.FAILURES + bad.id)))
            world.withdraw(bad)
            world.until("it can be withdrawn", lambda: world.mine(bad) is None)
        world.has_read()
        agent.end()
        assert agent.error is None
        assert "Traceback" not in caplog.text or isinstance(answer, SystemExit)

    def test_a_task_that_ran_is_not_rejected_where_its_note_is_lost_and_the_engine_is_silent(
        self, world: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        task = a_task(HOST)
        world.issue(task)
        first = world.agent()
        world.until_running(task)
        first.end()
        shutil.rmtree(world.folder / "state/notes")
        world.engine.down = "engine restarting"
        world.agent()
        world.until("silence seen", lambda: "executor bash does not answer: engine restarting" in caplog.text)
        world.stays("not rejected", lambda: not world.mine(task)["rejected"], 1.0)
        with caplog.at_level(logging.INFO, "sked.agent"):
            world.engine.down = ""
            world.until("it answers", lambda: "executor bash answers again" in caplog.text)
        world.has_read()
        assert not world.mine(task)["rejected"]
        assert (world.engine.running(), world.engine.starts.count(task.id)) == ([task.id], 1)

    def test_tasks_of_an_executor_that_is_not_there_any_more_are_left_alone(self, world: Any) -> None:
        tasks = some_tasks(2)
        world.issue(*tasks)
        first = world.agent()
        world.until_running(*tasks)
        world.until("registered", lambda: len(world.health.tasks) == 2)
        first.end()
        offering, other = world.offering, FakeEngine()
        world.offering = lambda **offers: offering(sked_executors={"other": other.executor})
        world.agent()
        probe = a_task(HOST, 0, a_definition("probe", containers=[a_container(type="other")]), service="probe")
        world.issue(probe)
        world.until("the probe runs", lambda: other.running() == [probe.id])
        world.stays("as it was", lambda: {task.id for task in tasks} <= set(world.health.tasks), 1.0)
        assert not any(world.mine(task)["rejected"] for task in tasks)
        assert world.engine.running() == [task.id for task in tasks]


class TestRestarts:
    def test_a_second_agent_of_the_same_name_touches_nothing_while_the_first_lives(
        self, world: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        tasks = some_tasks(2)
        world.issue(*tasks)
        world.agent()
        world.until_running(*tasks)
        world.until("registered", lambda: len(world.health.tasks) == 2)
        with caplog.at_level(logging.INFO, "sked.agent"):
            second = world.agent(state="second")
            world.until("noticed", lambda: "another agent calls itself h1" in caplog.text)
            world.stays("registered", lambda: set(world.health.tasks) == {task.id for task in tasks}, 1.0)
        assert (sorted(world.engine.starts), world.engine.stops) == ([task.id for task in tasks], [])
        assert "took over" not in caplog.text
        world.withdraw(tasks[0])
        world.until("stopped by the first", lambda: world.mine(tasks[0]) is None)
        assert world.engine.stops == [tasks[0].id]
        assert second.thread.is_alive()

    def test_what_is_stopped_during_a_round_over_the_registrations_does_not_stay_registered(
        self, world: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # One round only, when the second agent has found what runs: no later one mends what this leaves behind.
        monkeypatch.setattr(agent_looks, "TEND_SECONDS", 600.0)
        kept, gone = some_tasks(2)
        world.issue(kept, gone)
        first = world.agent()
        world.until_running(kept, gone)
        world.until("registered", lambda: len(world.health.tasks) == 2)
        first.end()
        held, release, again, real = threading.Event(), threading.Event(), [], world.health.register

        def register(task: Any) -> None:
            held.set()
            release.wait(60)
            real(task)
            again.append(task.id)

        world.health.register = register
        world.agent()
        assert held.wait(60)
        world.withdraw(gone)
        world.until("gone", lambda: world.mine(gone) is None)
        assert gone.id not in world.health.tasks
        release.set()
        world.until("the round goes on", lambda: gone.id in again)
        world.until("deregistered", lambda: set(world.health.tasks) == {kept.id})

    @pytest.mark.parametrize("name", ["app", "zoo"])  # decided about before and after the earlier one
    def test_the_port_of_a_task_that_an_earlier_agent_started_is_held_by_it(
        self, world: Any, name: str, free_port: Callable[[], int]
    ) -> None:
        port = free_port()
        earlier = a_task(HOST, 0, a_definition(port=port), port=port)
        world.issue(earlier)
        first = world.agent()
        world.until_running(earlier)
        first.end()
        later = a_task(HOST, 0, a_definition(name, port=port), service=name, port=port)
        world.issue(later)  # found in the same read as the earlier one
        world.agent()
        assert world.reason(later) == f"port {port} is held by task {earlier.id}"
        assert world.engine.running() == [earlier.id]

    def test_a_note_that_can_not_be_removed_is_survived(
        self, world: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        task = a_task(HOST)
        world.issue(task)
        agent = world.agent()
        world.until_running(task)

        def refuse(path: Path, missing_ok: bool = False) -> None:
            raise OSError(errno.EROFS, "Read-only file system", str(path))

        with monkeypatch.context() as patched:
            patched.setattr(Path, "unlink", refuse)
            world.withdraw(task)
            world.until("said", lambda: f"the note of {task.id} stays: " in caplog.text)
            world.has_read()
        assert agent.thread.is_alive()
