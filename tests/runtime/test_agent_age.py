"""What an agent makes of an older state of its own store: nothing, until a person decides."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from sked_core.errors import Conflict, Denied, StoreChanged, Unavailable
from sked_core.interfaces.store import Delete, Entry, Put
from sked_core.model import keys
from sked_core.runtime.agent import issued_feed
from sked_core.runtime.agent.disk import AgentDisk
from sked_core.runtime.agent.issued_feed import Issue, IssuedFeed
from sked_core.runtime.stores.memory import MemoryStore
from sked_core.testing.builders import a_task
from sked_core.testing.clock import FakeClock

HOST = "h1"
TASKS = [a_task(HOST, number) for number in range(3)]


def picture(store: MemoryStore) -> dict[str, bytes]:
    """All that would be in a snapshot, without what is bound to leases."""
    return {key: entry.value for key, entry in store.read("").entries.items() if not entry.lease}


def set_back(store: MemoryStore, old: dict[str, bytes]) -> None:
    gone = picture(store).keys() - old.keys()
    store.commit([*(Delete(key) for key in gone), *(Put(key, value) for key, value in old.items())])


def count(world: Any) -> int:
    return int(world.memory.read(keys.agent(HOST)).entries[keys.agent(HOST)].value)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issued_feed, "CONFIRM_SECONDS", 0.1)


class TestSetBack:
    def test_it_freezes_the_host_and_the_right_state_thaws_it(self, world: Any, caplog) -> None:
        world.agent()
        world.issue(TASKS[0])
        world.until_running(TASKS[0])
        old = picture(world.memory)
        world.issue(*TASKS[1:])
        world.until_running(*TASKS)
        world.forget(TASKS[0])
        world.until_running(*TASKS[1:])
        new = picture(world.memory)
        starts = list(world.engine.starts)
        with caplog.at_level(logging.INFO, "sked.agent"):
            set_back(world.memory, old)
            world.until("frozen", lambda: "the store is set back to an older state (change " in caplog.text)
            # It is our own store, where others must not take this host for lost: it stays announced.
            live = world.memory.read(keys.LIVE).entries
            world.memory.commit([Delete(key) for key in live])
            world.until("announced", lambda: world.memory.read(keys.LIVE).entries)
            world.stays("all as it was", lambda: world.engine.running() == sorted(task.id for task in TASKS[1:]))
            assert (world.engine.starts, world.engine.stops) == (starts, [TASKS[0].id])
            world.engine.kill(TASKS[1].id)
            world.until_running(*TASKS[1:])
            assert picture(world.memory).items() >= {(key, old[key]) for key in old if key.startswith(keys.STATE)}
            set_back(world.memory, new)
            world.until("thawed", lambda: "the store is the right one again" in caplog.text)
        world.has_read()
        assert set(world.engine.running()) == {task.id for task in TASKS[1:]}
        assert world.engine.stops.count(TASKS[1].id) == world.engine.stops.count(TASKS[2].id) == 0

    def test_it_holds_across_a_restart_of_the_agent(self, world: Any, caplog) -> None:
        first = world.agent()
        world.has_read()
        old = picture(world.memory)
        world.issue(*TASKS)
        world.until_running(*TASKS)
        first.end()
        set_back(world.memory, old)
        with caplog.at_level(logging.ERROR, "sked.agent"):
            world.agent()
            world.until("frozen", lambda: "set back to an older state" in caplog.text)
        world.until("announced", lambda: world.memory.read(keys.LIVE).entries)
        world.stays("all runs", lambda: world.engine.running() == sorted(task.id for task in TASKS))

    def test_accepted_it_gets_back_what_runs_here_and_counts_on(self, world: Any, caplog) -> None:
        first = world.agent()
        world.issue(TASKS[0])
        world.until_running(TASKS[0])
        old = picture(world.memory)
        world.issue(*TASKS[1:])
        world.until_running(*TASKS)
        before = count(world)
        new = picture(world.memory)
        set_back(world.memory, old)
        first.end()
        world.agent(accept_store=True)
        world.until("written back", lambda: all(world.mine(task) for task in TASKS))
        world.has_read()
        assert count(world) > before
        assert {task.id for task in TASKS} <= set(world.engine.running())
        assert [world.engine.starts.count(task.id) for task in TASKS] == [1, 1, 1]
        assert keys.changed(TASKS[1].service) in world.memory.read(keys.CHANGED).entries
        # It was accepted once, not for ever; and what was given up is an older state now.
        with caplog.at_level(logging.ERROR, "sked.agent"):
            set_back(world.memory, new)
            world.until("frozen", lambda: "set back to an older state" in caplog.text)

    def test_what_was_accepted_is_the_store_of_the_first_look_and_no_later_one(self, world: Any, caplog) -> None:
        world.agent(accept_store=True)
        world.has_read()
        old = picture(world.memory)
        world.issue(TASKS[0])
        world.until_running(TASKS[0])
        set_back(world.memory, old)
        world.until("frozen", lambda: "set back to an older state" in caplog.text)
        world.stays("it runs", lambda: world.engine.running() == [TASKS[0].id])

    @pytest.mark.parametrize("restart", [True, False])
    def test_a_host_of_which_nothing_has_changed_since_goes_on(self, world: Any, caplog, restart: bool) -> None:
        first = world.agent()
        world.issue(*TASKS)
        world.until_running(*TASKS)
        old = picture(world.memory)
        elsewhere = a_task("h2", 7)
        world.issue(elsewhere)
        if restart:
            first.end()
            world.agent()
        set_back(world.memory, old)
        world.has_read()
        assert "set back" not in caplog.text

    def test_a_count_that_is_gone_is_a_set_back_and_garbage_in_its_place_is_none(self, world: Any, caplog) -> None:
        world.agent()
        world.has_read()
        world.memory.commit([Put(keys.agent(HOST), b"garbage")])
        world.has_read()
        assert count(world) > 0
        world.memory.commit([Delete(keys.agent(HOST))])
        world.issue(TASKS[0])
        world.until("frozen", lambda: "set back to an older state (change 0 of this host" in caplog.text)
        assert TASKS[0].id not in world.engine.starts


class TestCounting:
    def test_it_costs_nothing_while_nothing_changes_nor_at_a_restart(self, world: Any) -> None:
        first = world.agent()
        world.issue(TASKS[0])
        world.until_running(TASKS[0])
        first.end()
        before = count(world)
        world.store.commits.clear()
        world.agent()
        world.until("alive", lambda: world.memory.read(keys.LIVE).entries)
        world.memory.commit([Put(keys.host_task(HOST, TASKS[0].id), world.memory.read(keys.STATE).entries[
            keys.host_task(HOST, TASKS[0].id)].value)])  # fmt: skip
        world.stays("not counted", lambda: count(world) == before)
        assert [op.key for ops in world.store.commits for op in ops if op.key.startswith(keys.AGENTS)] == []

    def test_a_store_ahead_of_the_disk_is_a_crash_in_between(self, world: Any, caplog) -> None:
        first = world.agent()
        world.has_read()
        noted = world.folder / "state" / "seen.json"
        old = noted.read_bytes()
        world.issue(TASKS[0])
        world.until_running(TASKS[0])
        first.end()
        noted.write_bytes(old)
        world.agent()
        world.has_read()
        assert "set back" not in caplog.text

    def test_nothing_is_acted_on_that_could_not_be_counted(self, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        world.agent()
        world.issue(TASKS[0])
        world.until_running(TASKS[0])
        commit, tries = world.store.commit, []

        def refused(ops: Any) -> Any:
            if any(op.key.startswith(keys.AGENTS) for op in ops):
                tries.append(ops)
                raise Unavailable("no space")
            return commit(ops)

        monkeypatch.setattr(world.store, "commit", refused)
        world.forget(TASKS[0])
        world.until("tried twice", lambda: len(tries) > 1)
        assert world.engine.running() == [TASKS[0].id]
        monkeypatch.setattr(world.store, "commit", commit)
        world.until_running()

    @pytest.mark.parametrize("damage", [b"", b"{", b"\xff"], ids=range(3))
    def test_a_note_that_is_damaged_starts_over(self, world: Any, caplog, damage: bytes) -> None:
        first = world.agent()
        world.has_read()
        first.end()
        (world.folder / "state" / "seen.json").write_bytes(damage)
        world.agent()
        world.has_read()
        assert "set back" not in caplog.text

    def test_a_full_disk_keeps_nobody_from_working(self, world: Any, caplog) -> None:
        (world.folder / "state" / "seen.tmp").mkdir(parents=True)  # it can't be written
        world.agent()
        world.has_read()
        assert "no note of what was seen of the store" in caplog.text

    def test_nor_does_a_token_that_may_not_count(self, world: Any, caplog, monkeypatch: pytest.MonkeyPatch) -> None:
        commit = world.store.commit

        def denied(ops: Any) -> Any:
            if any(op.key.startswith(keys.AGENTS) for op in ops):
                raise Denied("the token lacks a permission")
            return commit(ops)

        monkeypatch.setattr(world.store, "commit", denied)
        world.agent()
        world.has_read()
        assert "this host can't tell when the store is set back" in caplog.text


class Feed:
    """A feed by itself, read by hand."""

    def __init__(self, store: MemoryStore, folder: Path) -> None:
        self.disk = AgentDisk(folder)
        self.disk.lock()
        self._feed = IssuedFeed(store, HOST, self.disk, lambda issue: None, clock=FakeClock(), accept=False)

    def read(self) -> Issue | StoreChanged:
        return self._feed.read()[0]


def test_a_store_that_is_set_back_between_the_look_and_the_count_is_not_counted_on(tmp_path: Path) -> None:
    class Treacherous(MemoryStore):
        old: dict[str, bytes] | None = None

        def commit(self, ops: Any) -> Any:
            if self.old is not None:
                old, self.old = self.old, None
                set_back(self, old)
            return super().commit(ops)

    store = Treacherous()
    feed = Feed(store, tmp_path)
    assert isinstance(feed.read(), Issue)
    old = picture(store)
    store.commit([Put(keys.host_task(HOST, TASKS[0].id), b"{}")])
    assert isinstance(feed.read(), Issue)
    store.commit([Put(keys.host_task(HOST, TASKS[1].id), b"{}")])
    seen = feed.disk.seen()
    store.old = old
    with pytest.raises(Conflict):
        feed.read()
    assert feed.disk.seen() == seen
    assert isinstance(feed.read(), StoreChanged)
    assert store.read(keys.agent(HOST)).entries[keys.agent(HOST)] == Entry(old[keys.agent(HOST)], store._data.revision)
