"""The agent's loop in this process, on the reference store and an engine that outlives it: what it starts and stops,
what it leaves alone, and what it tells the store."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sked_core.clock import SystemClock
from sked_core.errors import ExecutorError, Rejected
from sked_core.interfaces.executor import State
from sked_core.interfaces.store import Delete, Put
from sked_core.logic import lifecycle
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.types import Task
from sked_core.runtime import agent_loop, host_facts, host_presence
from sked_core.runtime.agent_loop import AgentLoop
from sked_core.runtime.agent_settings import AgentSettings
from sked_core.runtime.memory import MemoryStore
from sked_core.runtime.plugins import Plugins
from sked_core.testing.builders import a_container, a_definition, a_task
from sked_core.testing.fakes import FakeEngine, FakeHealth, RecordingStore

HOST = "h1"
GARBAGE = b'{"cluster": '


class Agent:
    """One agent process, in a thread."""

    def __init__(self, loop: AgentLoop) -> None:
        self.stop, self.error = threading.Event(), None
        self.thread = threading.Thread(target=self._run, args=(loop,), daemon=True)
        self.thread.start()

    def _run(self, loop: AgentLoop) -> None:
        try:
            loop.run(self.stop)
        except Exception as error:
            self.error = error

    def end(self) -> None:
        self.stop.set()
        self.thread.join(15)
        assert not self.thread.is_alive()


class World:
    """A host with an engine, and the store that agents of it share."""

    def __init__(self, folder: Path, offering: Callable[..., Plugins], until: Callable[..., Any]) -> None:
        self.folder, self.offering, self.until = folder, offering, until
        self.memory = MemoryStore()
        self.store = RecordingStore(self.memory)
        self.engine, self.health = FakeEngine(), FakeHealth()
        self.agents: list[Agent] = []

    def agent(self, *, state: str = "state", **settings: Any) -> Agent:
        loop = AgentLoop(
            store=self.store,
            plugins=self.offering(sked_executors={"bash": self.engine.executor}),
            health=self.health,
            settings=AgentSettings(host=HOST, state_dir=self.folder / state, stop_grace=0.1, **settings),
            clock=SystemClock(),
        )
        self.agents.append(Agent(loop))
        return self.agents[-1]

    def close(self) -> None:
        for agent in self.agents:
            agent.end()
        self.memory.close()

    # --- the store -----------------------------------------------------------------------------------------------

    def issue(self, *tasks: Task) -> None:
        for task in tasks:
            both = (keys.task(task.id), keys.host_task(task.host, task.id))
            self.memory.commit([Put(key, encode(task)) for key in both])

    def withdraw(self, task: Task) -> None:
        self.issue(decode(encode({**decode(encode(task), dict), "scheduled": False}), Task))

    def forget(self, *tasks: Task) -> None:
        both = [key for task in tasks for key in (keys.task(task.id), keys.host_task(task.host, task.id))]
        self.memory.commit([Delete(key) for key in both])

    def raw(self, key: str) -> dict[str, Any] | None:
        entry = self.memory.read(key).entries.get(key)
        return decode(entry.value, dict) if entry else None

    def mine(self, task: Task) -> dict[str, Any] | None:
        return self.raw(keys.host_task(HOST, task.id))

    # --- what happens --------------------------------------------------------------------------------------------

    def until_running(self, *tasks: Task) -> None:
        ids = sorted(task.id for task in tasks)
        self.until(f"{ids} run, {self.engine.running()} do", lambda: self.engine.running() == ids)

    def reason(self, task: Task) -> str:
        """The reason for which the task is rejected, in both keys; waits until it is."""

        def rejected() -> bool:
            records = [self.mine(task), self.raw(keys.task(task.id))]
            return all(record and record["rejected"] for record in records)

        self.until(f"{task.id} rejected", rejected)
        mine, shared = self.mine(task), self.raw(keys.task(task.id))
        assert mine == shared
        return str((mine or {})["reject_reason"])

    def stays(self, what: str, holds: Callable[[], bool], seconds: float = 0.6) -> None:
        """It holds for as long as an agent that did wrong would need many times over."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert holds(), f"no longer: {what}"
            time.sleep(0.01)

    def has_read(self) -> None:
        """Returns once the agent has acted on all that stands in the store now: it starts a task that says so."""
        probe = a_task(HOST, 0, a_definition("probe"), service="probe")
        self.issue(probe)
        self.until("the probe runs", lambda: probe.id in self.engine.running())
        self.withdraw(probe)
        self.until("the probe is gone", lambda: self.mine(probe) is None)


@pytest.fixture
def world(tmp_path: Path, offering, until, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(agent_loop, "INSPECT_SECONDS", 0.1)
    monkeypatch.setattr(agent_loop, "RECOVER_SECONDS", 0.1)
    monkeypatch.setattr(agent_loop, "SWEEP_SECONDS", 0.3)
    monkeypatch.setattr(agent_loop, "TEND_SECONDS", 0.3)
    monkeypatch.setattr(host_presence, "PUBLISH_SECONDS", 0.1)
    world = World(tmp_path, offering, until)
    yield world
    world.close()


class TestIssued:
    def test_it_is_started_registered_and_stopped_when_it_is_asked_for(self, world: World) -> None:
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

    def test_retiring_and_rejecting_write_both_keys_in_one_commit(self, world: World) -> None:
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
            assert written == {keys.task(task.id), keys.host_task(HOST, task.id)}

    def test_a_single_key_removed_by_hand_stops_the_task(self, world: World) -> None:
        task = a_task(HOST)
        world.agent()
        world.issue(task)
        world.until_running(task)
        world.memory.commit([Delete(keys.host_task(HOST, task.id))])
        world.until_running()

    def test_a_record_that_changed_restarts_the_task_and_one_written_anew_does_not(self, world: World) -> None:
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

    def test_a_hand_written_record_without_a_host_is_run(self, world: World) -> None:
        world.agent()
        empty, absent = a_task("", 0), a_task("", 1)
        left_out = {name: value for name, value in decode(encode(absent), dict).items() if name != "host"}
        world.memory.commit([Put(keys.host_task(HOST, empty.id), encode(empty))])
        world.memory.commit([Put(keys.host_task(HOST, absent.id), encode(left_out))])
        world.until_running(empty, absent)

    def test_unknown_fields_are_kept_when_it_is_rejected(self, world: World) -> None:
        task = a_task(HOST, 0, a_definition(containers=[a_container(type="nothing")]))
        record = {**decode(encode(task), dict), "team": {"name": "a"}}
        both = (keys.task(task.id), keys.host_task(HOST, task.id))
        world.memory.commit([Put(key, encode(record)) for key in both])
        world.agent()
        world.reason(task)
        assert (world.mine(task) or {})["team"] == {"name": "a"}
        assert (world.raw(keys.task(task.id)) or {})["team"] == {"name": "a"}

    def test_a_task_that_moved_meanwhile_is_not_touched_by_the_host_that_it_left(self, world: World) -> None:
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

    def test_a_rejection_does_not_reach_a_task_that_moved_meanwhile_either(self, world: World) -> None:
        task = a_task(HOST, 0, a_definition(containers=[a_container(type="nothing")]))
        moved = a_task("h2", 0, task.task_definition)
        world.memory.commit([Put(keys.task(task.id), encode(moved)), Put(keys.host_task(HOST, task.id), encode(task))])
        world.agent()
        world.until("rejected here", lambda: (world.mine(task) or {})["rejected"])
        assert world.raw(keys.task(task.id)) == decode(encode(moved), dict)


class TestRejections:
    def refuse(self, world: World, task: Task, **settings: Any) -> str:
        world.agent(**settings)
        world.issue(task)
        reason = world.reason(task)
        assert task.id not in world.engine.starts
        return reason

    def test_an_unknown_executor_names_those_that_there_are(self, world: World) -> None:
        task = a_task(HOST, 0, a_definition(containers=[a_container(type="podman")]))
        assert self.refuse(world, task) == "executor podman is not available on this host (available: bash)"

    def test_an_executor_that_the_operator_does_not_allow(self, world: World) -> None:
        reason = self.refuse(world, a_task(HOST), allow_executors=frozenset({"docker"}))
        assert reason == "executor bash is not available on this host (available: none)"

    def test_a_cluster_that_the_operator_does_not_allow(self, world: World) -> None:
        reason = self.refuse(world, a_task(HOST), allow_clusters=frozenset({"other"}))
        assert reason == "policy: this host takes no tasks of cluster default"

    def test_one_task_more_than_the_operator_allows(self, world: World) -> None:
        world.agent(max_tasks=2)
        first = [a_task(HOST, 0), a_task(HOST, 1)]
        world.issue(*first)
        world.until_running(*first)
        third = a_task(HOST, 2)
        world.issue(third)
        assert world.reason(third) == "policy: this host takes 2 tasks at most"
        assert world.engine.running() == [task.id for task in first]

    def test_a_spec_that_the_executor_refuses(self, world: World) -> None:
        task = a_task(HOST, 0, a_definition(containers=[a_container(executor={"problem": "no such option"})]))
        assert self.refuse(world, task) == "container web: problem: no such option"

    def test_a_task_without_containers(self, world: World) -> None:
        assert self.refuse(world, a_task(HOST, 0, a_definition(containers=[]))) == "the task has no containers"

    @pytest.mark.parametrize(
        ("what", "fact", "amount"), [("memory", "memory_mb", "memory"), ("cpu", "cpu_units", "cpu_units")]
    )
    def test_what_does_not_fit_beside_the_others_is_told_in_numbers(
        self, world: World, monkeypatch: pytest.MonkeyPatch, what: str, fact: str, amount: str
    ) -> None:
        monkeypatch.setattr(host_facts, fact, lambda: 1000)
        world.agent()
        first = a_task(HOST, 0, a_definition(**{amount: 700}))
        world.issue(first)
        world.until_running(first)
        second = a_task(HOST, 1, a_definition(containers=[a_container(**{amount: 301})]))
        world.issue(second)
        assert world.reason(second) == f"{what}: needs 301, free 300 of 1000"
        assert world.engine.running() == [first.id]

    def test_a_disk_that_is_too_full(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(host_facts, "free_disk_mb", lambda folder: 100)
        task = a_task(HOST, 0, a_definition(containers=[a_container(disk_use=101)]))
        assert self.refuse(world, task) == "disk: needs 101 MB, free 100 MB"

    def test_a_port_that_another_task_of_this_host_holds(self, world: World) -> None:
        world.agent()
        first = a_task(HOST, 0, a_definition(port=39871), port=39871)
        world.issue(first)
        world.until_running(first)
        second = a_task(
            HOST, 0, a_definition("db", containers=[a_container(executor={"ports": [39871]})]), service="db"
        )
        world.issue(second)
        assert world.reason(second) == f"port 39871 is held by task {first.id}"

    def test_a_refusal_by_the_engine(self, world: World) -> None:
        def refuse(task: Task, container: Any) -> None:
            raise Rejected("no room on the engine")

        world.engine.before_start = refuse
        world.agent()
        task = a_task(HOST)
        world.issue(task)
        assert world.reason(task) == "no room on the engine"

    def test_what_can_never_start_here_is_not_tried_twice(self, world: World) -> None:
        tries: list[str] = []

        def fail(task: Task, container: Any) -> None:
            tries.append(task.id)
            raise ExecutorError("no such image", permanent=True)

        world.engine.before_start = fail
        world.agent()
        task = a_task(HOST)
        world.issue(task)
        assert world.reason(task) == "no such image"
        assert tries == [task.id]

    def test_an_engine_that_does_not_answer_and_has_never_run_the_task(self, world: World) -> None:
        world.engine.down = "connection refused"
        task = a_task(HOST)
        world.agent()
        world.issue(task)
        assert world.reason(task) == "executor bash does not answer on this host: connection refused"
        # The host says so as well, so that nothing more of this kind is placed here.
        world.until("host record", lambda: (world.raw(keys.host(HOST)) or {"executors": None})["executors"] == [])

    def test_reasons_are_cut_short(self, world: World) -> None:
        def refuse(task: Task, container: Any) -> None:
            raise Rejected("x" * 10_000)

        world.engine.before_start = refuse
        task = a_task(HOST)
        world.agent()
        world.issue(task)
        assert len(world.reason(task)) == 1024


class TestStarts:
    def test_a_slow_start_delays_nobody_else(self, world: World) -> None:
        gate = threading.Event()

        def wait_for_one(task: Task, container: Any) -> None:
            if task.instance == 0:
                assert gate.wait(15)

        world.engine.before_start = wait_for_one
        tasks = [a_task(HOST, number) for number in range(4)]
        world.agent()
        world.issue(*tasks)
        world.until_running(*tasks[1:])
        gate.set()
        world.until_running(*tasks)

    def test_a_start_that_fails_is_tried_again_and_given_up_with_the_last_error(
        self, world: World, monkeypatch: pytest.MonkeyPatch
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

    def test_a_start_whose_outcome_is_unknown_is_looked_for_and_not_made_twice(self, world: World) -> None:
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

    def test_the_second_container_fails_and_nothing_of_the_first_is_left(self, world: World) -> None:
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

    def test_what_died_is_started_again(self, world: World) -> None:
        task = a_task(HOST)
        world.agent()
        world.issue(task)
        world.until_running(task)
        world.engine.kill(task.id)
        world.until("again", lambda: world.engine.starts.count(task.id) == 2)
        world.until_running(task)

    def test_an_engine_that_stops_answering_is_not_taken_for_dead_tasks(self, world: World) -> None:
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
        self, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        from sked_core.runtime.agent_disk import AgentDisk

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


class TestRestartsOfTheAgent:
    def test_what_runs_is_adopted_and_not_started_again(self, world: World) -> None:
        tasks = [a_task(HOST, number) for number in range(3)]
        first = world.agent()
        world.issue(*tasks)
        world.until_running(*tasks)
        before = dict(world.engine.containers)
        first.end()
        assert world.engine.running() == [task.id for task in tasks]
        world.health.tasks.clear()
        world.agent()
        world.until("registered again", lambda: world.health.registered() >= {task.id for task in tasks})
        world.has_read()
        assert {ref: one for ref, one in world.engine.containers.items() if ref in before} == before
        assert all(world.engine.starts.count(task.id) == 1 for task in tasks)

    def test_an_orphan_is_stopped_once_the_store_has_been_read_and_not_before(self, world: World) -> None:
        kept, orphan = a_task(HOST, 0), a_task(HOST, 1)
        first = world.agent()
        world.issue(kept, orphan)
        world.until_running(kept, orphan)
        first.end()
        world.forget(orphan)
        world.store.down = "no leader"
        world.agent()
        world.stays("not stopped", lambda: not world.engine.stops)
        assert world.engine.running() == [kept.id, orphan.id]
        world.store.down = ""
        world.until_running(kept)
        assert world.engine.stops == [orphan.id]

    def test_what_is_found_dead_is_not_started_before_the_store_has_been_read(self, world: World) -> None:
        alive, dead = a_task(HOST, 0), a_task(HOST, 1)
        first = world.agent()
        world.issue(alive, dead)
        world.until_running(alive, dead)
        first.end()
        world.engine.kill(dead.id)
        world.store.down = "no leader"
        world.agent()
        world.stays("not started", lambda: len(world.engine.starts) == 2)
        assert (sorted(world.engine.starts), world.engine.stops) == ([alive.id, dead.id], [])
        world.store.down = ""
        world.until_running(alive, dead)
        assert sorted(world.engine.starts) == [alive.id, dead.id, dead.id]

    def test_one_container_too_many_is_stopped_and_one_stays(self, world: World) -> None:
        task = a_task(HOST)
        first = world.agent()
        world.issue(task)
        world.until_running(task)
        first.end()
        (one,) = world.engine.containers.values()
        copy = type(one)(one.owner, one.task, type(one.handle)(task.id, "web", "fake-copy", one.handle.digest))
        world.engine.containers["fake-copy"] = copy
        world.agent()
        world.until_running(task)
        world.until("stopped", lambda: len(world.engine.containers) == 1)
        assert world.engine.starts == [task.id]

    def test_containers_of_other_hosts_and_stores_are_not_ours(self, world: World) -> None:
        first = world.agent()
        task = a_task(HOST)
        world.issue(task)
        world.until_running(task)
        (one,) = world.engine.containers.values()
        for number, owner in enumerate([("h2", one.owner[1]), (HOST, "another-store")]):
            stranger = type(one)(owner, one.task, type(one.handle)(task.id, "web", f"stranger-{number}", "x"))
            world.engine.containers[f"stranger-{number}"] = stranger
        first.end()
        world.agent()
        world.has_read()
        assert {"stranger-0", "stranger-1"} < set(world.engine.containers)

    @pytest.mark.parametrize("damage", [b"", b"{", b"null", b'{"agent": 7}', b"\x00" * 100], ids=range(5))
    def test_a_damaged_note_is_treated_as_absent(self, world: World, caplog, damage: bytes) -> None:
        task = a_task(HOST)
        first = world.agent()
        world.issue(task)
        world.until_running(task)
        first.end()
        note = world.folder / "state" / "notes" / f"{task.id}.json"
        assert note.exists()
        note.write_bytes(damage)
        with caplog.at_level(logging.WARNING, "sked.agent"):
            world.agent()
            world.has_read()
        assert f"{note} is treated as absent" in caplog.text
        assert world.engine.starts.count(task.id) == 1

    @pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"store_uid": 1}'], ids=range(4))
    def test_a_damaged_identity_is_treated_as_absent_and_what_runs_is_still_found(
        self, world: World, caplog, damage: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task = a_task(HOST)
        first = world.agent()
        world.issue(task)
        world.until_running(task)
        first.end()
        (world.folder / "state" / "identity.json").write_bytes(damage)
        with caplog.at_level(logging.WARNING, "sked.agent"):
            world.agent()
            world.has_read()
        assert "identity.json is treated as absent" in caplog.text
        assert world.engine.starts.count(task.id) == 1
        assert task.id in world.engine.running()

    def test_starts_are_counted_on_after_a_restart(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lifecycle.backoff, "delay", lambda failures, key, **more: 0.02)
        task = a_task(HOST, 0, a_definition(max_attempts=3))
        first = world.agent()
        world.issue(task)
        world.until_running(task)
        world.engine.kill(task.id)
        world.until("second start", lambda: world.engine.starts.count(task.id) == 2)
        world.until_running(task)
        first.end()
        world.engine.kill(task.id)
        world.agent()
        world.until("third start", lambda: world.engine.starts.count(task.id) == 3)
        world.until_running(task)
        world.engine.kill(task.id, "exit 3")
        assert world.reason(task) == "gave up after 3 starts: web: exit 3"


class TestOneRecordConcernsOneTask:
    @pytest.mark.parametrize("value", [GARBAGE, b"", b"null", b"7", b"\xff", b"[" * 100_000], ids=range(6))
    def test_a_running_task_whose_record_can_not_be_read_goes_on(self, world: World, caplog, value: bytes) -> None:
        hit, other = a_task(HOST, 0), a_task(HOST, 1)
        world.agent()
        world.issue(hit, other)
        world.until_running(hit, other)
        with caplog.at_level(logging.WARNING, "sked.agent"):
            world.memory.commit([Put(keys.host_task(HOST, hit.id), value)])
            world.has_read()
        assert world.engine.starts.count(hit.id) == 1
        assert hit.id not in world.engine.stops
        assert f"{hit.id} is left as it is: its record is no valid task" in caplog.text
        world.withdraw(other)
        world.until_running(hit)
        # Repaired, it is still the same task; removed, it goes.
        world.issue(hit)
        world.has_read()
        assert world.engine.starts.count(hit.id) == 1
        world.forget(hit)
        world.until_running()

    def test_a_record_of_another_task_or_host_is_no_order(self, world: World, caplog) -> None:
        other, foreign = a_task(HOST, 5), a_task("h2", 6)
        world.memory.commit(
            [
                Put(keys.host_task(HOST, "default-web-1-9"), encode(other)),
                Put(keys.host_task(HOST, foreign.id), encode(foreign)),
                Put(keys.host_tasks(HOST) + "Strange_Name", encode(other)),
                Put(keys.host_tasks(HOST) + "default-web-1-5/deeper", encode(other)),
            ]
        )
        with caplog.at_level(logging.WARNING, "sked.agent"):
            world.agent()
            world.has_read()
        assert set(world.engine.starts) == {"default-probe-1-0"}
        assert "the key says default-web-1-9, the record default-web-1-5" in caplog.text
        assert "the key says host h1, the record h2" in caplog.text


class TestBrake:
    def test_many_that_vanish_at_once_are_held_until_they_stayed_away(
        self, world: World, monkeypatch: pytest.MonkeyPatch, caplog
    ) -> None:
        monkeypatch.setattr(lifecycle, "BRAKE_SECONDS", 3600.0)
        tasks = [a_task(HOST, number) for number in range(6)]
        world.agent()
        world.issue(*tasks)
        world.until_running(*tasks)
        with caplog.at_level(logging.ERROR, "sked.agent"):
            world.forget(*tasks[:5])
            world.has_read()
        assert set(world.engine.stops) == {"default-probe-1-0"}
        assert "5 running tasks vanished from the store at once" in caplog.text
        world.issue(*tasks[:5])
        world.has_read()
        assert all(world.engine.starts.count(task.id) == 1 for task in tasks)
        world.forget(*tasks[:5])
        world.has_read()
        monkeypatch.setattr(lifecycle, "BRAKE_SECONDS", 0.3)
        world.until_running(tasks[5])

    def test_a_few_are_stopped_at_once(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lifecycle, "BRAKE_SECONDS", 3600.0)
        tasks = [a_task(HOST, number) for number in range(6)]
        world.agent()
        world.issue(*tasks)
        world.until_running(*tasks)
        world.forget(*tasks[:3])
        world.until_running(*tasks[3:])

    def test_withdrawing_all_is_an_order_and_not_held(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lifecycle, "BRAKE_SECONDS", 3600.0)
        tasks = [a_task(HOST, number) for number in range(8)]
        world.agent()
        world.issue(*tasks)
        world.until_running(*tasks)
        for task in tasks:
            world.withdraw(task)
        world.until_running()


class TestStrangeStore:
    def test_a_store_under_another_name_freezes_the_host_until_it_is_accepted(self, world: World, caplog) -> None:
        tasks = [a_task(HOST, number) for number in range(2)]
        first = world.agent()
        world.issue(*tasks)
        world.until_running(*tasks)
        with caplog.at_level(logging.ERROR, "sked.agent"):
            state = [*world.memory.read(keys.STATE).entries, *world.memory.read("config/").entries]
            world.memory.commit([Put(keys.STORE_UID, b"another"), *(Delete(key) for key in state)])
            world.until("frozen", lambda: "the store is another one than before (another" in caplog.text)
        # What dies meanwhile is restarted; nothing is stopped, and nothing is written.
        world.store.commits.clear()
        world.engine.kill(tasks[0].id)
        world.until_running(*tasks)
        assert world.engine.stops == []
        assert [op.key for ops in world.store.commits for op in ops if op.key.startswith("state/")] == []
        first.end()
        world.agent(accept_store=True)
        world.until("written back", lambda: all(world.mine(task) for task in tasks))
        world.has_read()
        assert {task.id for task in tasks} <= set(world.engine.running())
        assert set(world.engine.stops) == {"default-probe-1-0"}


class TestHostRecord:
    def test_it_says_what_the_host_has_and_keeps_what_others_added(self, world: World) -> None:
        world.memory.commit([Put(keys.host(HOST), json.dumps({"name": HOST, "rack": "b4", "memory": 1}).encode())])
        world.agent(address="10.0.0.7", tags={"zone": "a"})
        world.until("published", lambda: (world.raw(keys.host(HOST)) or {}).get("executors") == ["bash"])
        record = world.raw(keys.host(HOST)) or {}
        assert (record["rack"], record["address"], record["tags"]) == ("b4", "10.0.0.7", {"zone": "a"})
        assert record["memory"] == host_facts.memory_mb()

    def test_garbage_in_its_place_is_replaced(self, world: World) -> None:
        world.memory.commit([Put(keys.host(HOST), GARBAGE)])
        world.agent()
        world.until("published", lambda: world.memory.read(keys.host(HOST)).entries[keys.host(HOST)].value != GARBAGE)
        assert (world.raw(keys.host(HOST)) or {})["name"] == HOST

    def test_it_is_written_when_it_changes_and_only_then(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(host_facts, "listening_ports", lambda: {22: "sshd"})
        world.agent()
        world.until("published", lambda: (world.raw(keys.host(HOST)) or {}).get("executors") == ["bash"])
        rounds: list[int] = []

        def ports() -> dict[int, str]:
            rounds.append(1)
            return {22: "sshd"}

        world.store.commits.clear()
        monkeypatch.setattr(host_facts, "listening_ports", ports)
        world.until("ten more rounds", lambda: len(rounds) > 10)
        assert world.store.commits == []
        monkeypatch.setattr(host_facts, "listening_ports", lambda: {22: "sshd", 80: "nginx"})
        world.until("published", lambda: (world.raw(keys.host(HOST)) or {})["ports"] == [22, 80])

    def test_it_goes_with_its_agents_lease_when_the_agent_ends(self, world: World) -> None:
        agent = world.agent()
        world.until("alive", lambda: world.memory.read(keys.LIVE).entries)
        agent.end()
        assert world.memory.read(keys.LIVE).entries == {}
        assert world.raw(keys.host(HOST)) is not None


class TestSecondAgent:
    def test_with_the_same_folder_it_is_refused_at_once(self, world: World) -> None:
        world.agent()
        world.until("alive", lambda: world.memory.read(keys.LIVE).entries)
        second = world.agent()
        second.thread.join(10)
        assert "another agent of this host is running" in str(second.error)

    def test_with_another_folder_it_waits_does_nothing_and_is_refused(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(host_presence, "TAKEOVER_SECONDS", 0.5)
        world.agent()
        task = a_task(HOST)
        world.issue(task)
        world.until_running(task)
        second = world.agent(state="other")
        second.thread.join(10)
        assert "another agent (id " in str(second.error)
        assert "runs as host h1" in str(second.error)
        assert (world.engine.starts, world.engine.stops) == ([task.id], [])

    def test_it_takes_over_when_the_first_one_has_gone(self, world: World) -> None:
        first = world.agent()
        task = a_task(HOST)
        world.issue(task)
        world.until_running(task)
        world.agent(state="other")
        first.end()
        world.has_read()
        assert world.engine.starts.count(task.id) == 1
        assert world.engine.containers["fake-1"].state is State.RUNNING


def test_an_unhealthy_task_is_restarted_after_its_grace_with_the_checks_words(world: World, caplog) -> None:
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


def test_the_end_of_the_agent_waits_for_a_start_under_way_and_tears_nothing(world: World) -> None:
    gate, begun = threading.Event(), threading.Event()

    def wait(task: Task, container: Any) -> None:
        begun.set()
        assert gate.wait(15)

    world.engine.before_start = wait
    agent = world.agent()
    task = a_task(HOST)
    world.issue(task)
    assert begun.wait(10)
    agent.stop.set()
    gate.set()
    agent.end()
    assert world.engine.running() == [task.id]
    world.engine.before_start = lambda task, container: None
    world.agent()
    world.has_read()
    assert world.engine.starts.count(task.id) == 1
