"""Where the two keys of a task disagree, ``state/tasks/`` counts for whose it is, and the host's own for what runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from sked_core.errors import Denied
from sked_core.interfaces.store import Delete, Entry, Put, Snapshot
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Task
from sked_core.runtime import ownership
from sked_core.runtime.agent import issued_feed
from sked_core.runtime.ownership import Ownership
from sked_core.runtime.stores.memory import MemoryStore
from sked_core.testing.builders import a_definition, a_task
from sked_core.testing.clock import FakeClock

HOST = "h1"


def mine(task: Task) -> str:
    return keys.host_task(HOST, task.id)


class TestAgent:
    @pytest.fixture(autouse=True)
    def often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ownership, "ROUND_SECONDS", 0.05)
        monkeypatch.setattr(issued_feed, "WAIT_SECONDS", 0.1)

    def test_a_stale_key_is_removed_and_the_copy_here_is_stopped(self, world: Any, caplog) -> None:
        task, other = a_task(HOST, 0), a_task(HOST, 1)
        world.agent()
        world.issue(task, other)
        world.until_running(task, other)
        moved = encode(a_task("h2", 0))
        with caplog.at_level(logging.WARNING, "sked.agent"):
            world.memory.commit([Put(keys.task(task.id), moved)])
            world.until_running(other)
        assert f"{keys.task(task.id)} says that it is on h2: what runs of it here is stopped" in caplog.text
        entries = world.memory.read(keys.STATE).entries
        assert mine(task) not in entries
        assert entries[keys.task(task.id)].value == entries[keys.host_task("h2", task.id)].value == moved
        assert other.id not in world.engine.stops

    def test_at_its_start_an_agent_does_not_start_what_is_on_another_host(self, world: Any) -> None:
        task, theirs = a_task(HOST, 0), a_task("h2", 0)
        world.issue(theirs)
        revision = world.memory.read(keys.host_task("h2", task.id)).entries[keys.host_task("h2", task.id)].revision
        world.memory.commit([Put(mine(task), encode(task))])
        world.agent()
        world.has_read()
        assert set(world.engine.starts) == {"default-probe-1-0"}
        entries = world.memory.read(keys.STATE).entries
        assert mine(task) not in entries
        assert entries[keys.host_task("h2", task.id)].revision == revision

    def test_a_task_that_was_written_by_hand_runs_on(self, world: Any) -> None:
        task = a_task(HOST, 0)
        world.memory.commit([Put(mine(task), encode(task))])
        world.agent()
        world.until_running(task)
        world.stays("it runs", lambda: world.engine.running() == [task.id])
        assert world.mine(task) is not None

    def test_nothing_is_started_that_only_the_key_which_all_agents_may_write_says(self, world: Any, caplog) -> None:
        task = a_task(HOST, 0)
        other = a_task(HOST, 0, a_definition(tags=["changed"]))
        world.agent()
        world.issue(task)
        world.until_running(task)
        with caplog.at_level(logging.WARNING, "sked.agent"):
            world.memory.commit([Put(keys.task(task.id), encode(other))])
            world.until("in line", lambda: world.raw(keys.task(task.id)) == world.mine(task))
            said = f"{keys.task(task.id)} said other things of what runs than {mine(task)}"
            world.until("said", lambda: said in caplog.text)  # once it is in line
        assert world.memory.read(mine(task)).entries[mine(task)].value == encode(task)
        assert world.engine.starts == [task.id]

    def test_what_differs_is_copied_once(self, world: Any) -> None:
        task = a_task(HOST, 0)
        changed = msgspec.structs.replace(task, reject_reason="said by a tool")
        world.agent()
        world.issue(task)
        world.until_running(task)
        world.memory.commit([Put(mine(task), encode(changed))])
        world.until("in line", lambda: world.mine(task) == world.raw(keys.task(task.id)))
        world.until_running(task)
        revision = world.memory.read(mine(task)).entries[mine(task)].revision
        world.stays("untouched", lambda: world.memory.read(mine(task)).entries[mine(task)].revision == revision)
        world.forget(task)
        world.until_running()


class Counting(MemoryStore):
    """Counts what is read of ``state/tasks/``."""

    reads = 0

    def read(self, prefix: str) -> Snapshot:
        self.reads += prefix.startswith(keys.TASKS)
        return super().read(prefix)


def issued(store: MemoryStore) -> Mapping[str, Entry]:
    return store.read(keys.host_tasks(HOST)).entries


def test_the_pace_is_bounded_and_everybody_gets_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Counting()
    tasks = [a_task(HOST, number) for number in range(100)]
    for task in tasks:
        store.commit([Put(key, encode(task)) for key in (mine(task), keys.task(task.id))])
    owned = Ownership(store, HOST, FakeClock())
    assert owned.settle(issued(store)) == issued(store)
    assert store.reads == 100  # all of them at the start
    owned.settle(issued(store))
    assert store.reads == 100
    monkeypatch.setattr(ownership, "ROUND_SECONDS", 0.0)
    owned._due = 0.0
    for task in tasks:
        store.commit([Put(keys.task(task.id), encode(a_task("h2", task.instance)))])
    left = [100 - ownership.ROUND_LOOKS * (number + 1) for number in range(3)]
    assert [len(owned.settle(issued(store))) for _ in range(3)] == left
    assert store.reads == 100 + 3 * ownership.ROUND_LOOKS
    assert len(owned.settle(issued(store))) == 0


def test_a_slow_store_ends_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Counting()
    for number in range(5):
        store.commit([Put(mine(a_task(HOST, number)), b"{}")])
    monkeypatch.setattr(ownership, "LONGEST_SECONDS", -1.0)
    entries = issued(store)
    assert Ownership(store, HOST, FakeClock()).settle(entries) == entries
    assert store.reads == 0


@pytest.mark.parametrize("value", [b"", b"null", b"{", b'{"cluster": {"name": "../x"}}'], ids=range(4))
def test_garbage_decides_nothing_and_is_mended_where_it_does_not_count(value: bytes) -> None:
    store = MemoryStore()
    task = a_task(HOST, 0)
    store.commit([Put(mine(task), encode(task)), Put(keys.task(task.id), value)])
    assert Ownership(store, HOST, FakeClock()).settle(issued(store)) == issued(store)
    assert store.read(mine(task)).entries[mine(task)].value == encode(task)
    store.commit([Put(mine(task), value), Put(keys.task(task.id), encode(task))])
    Ownership(store, HOST, FakeClock()).settle(issued(store))
    assert store.read(mine(task)).entries[mine(task)].value == encode(task)


@pytest.mark.parametrize("name", ["Strange_Name", "default-web-1-0/deeper", "x" * 300])
def test_hostile_names_lead_nowhere(name: str) -> None:
    store = MemoryStore()
    store.commit([Put(keys.host_tasks(HOST) + name, b"{}"), Put(keys.task("deeper"), encode(a_task("h2", 0)))])
    assert Ownership(store, HOST, FakeClock()).settle(issued(store)) == issued(store)


def test_a_token_that_may_not_mend_leaves_all_as_it_is(caplog) -> None:
    class Guarded(MemoryStore):
        def commit(self, ops: Any) -> Any:
            if any(op.key.startswith(keys.host_tasks("h2")) for op in ops):
                raise Denied("the token lacks a permission")
            return super().commit(ops)

    store, lost, stale = Guarded(), a_task(HOST, 0), a_task(HOST, 1)
    store.commit([Put(mine(task), encode(task)) for task in (lost, stale)])
    store.commit([Put(keys.task(lost.id), encode(a_task("h2", 0))), Put(keys.task(stale.id), encode(a_task("h3", 1)))])
    assert set(Ownership(store, HOST, FakeClock()).settle(issued(store))) == {mine(lost)}
    assert f"{mine(lost)} is not compared with state/tasks/, or not brought in line: the token lacks" in caplog.text


def test_who_writes_first_wins() -> None:
    class Raced(MemoryStore):
        armed = False

        def commit(self, ops: Any) -> Any:
            if self.armed:
                super().commit([Delete(keys.task(a_task("h2", 0).id))])
            return super().commit(ops)

    store, task = Raced(), a_task(HOST, 0)
    store.commit([Put(mine(task), encode(task)), Put(keys.task(task.id), encode(a_task("h2", 0)))])
    store.armed = True
    assert Ownership(store, HOST, FakeClock()).settle(issued(store)) == issued(store)
    assert mine(task) in issued(store)
