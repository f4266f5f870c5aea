"""What an agent makes of what an earlier one left: containers, notes, and a host that is taken."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from sked_core.interfaces.executor import State
from sked_core.logic import lifecycle
from sked_core.model import keys
from sked_core.runtime.agent import host_presence
from sked_core.testing.builders import a_definition, a_task

HOST = "h1"


class TestRestartsOfTheAgent:
    def test_what_runs_is_adopted_and_not_started_again(self, world: Any) -> None:
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

    def test_an_orphan_is_stopped_once_the_store_has_been_read_and_not_before(self, world: Any) -> None:
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

    def test_what_is_found_dead_is_not_started_before_the_store_has_been_read(self, world: Any) -> None:
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

    def test_one_container_too_many_is_stopped_and_one_stays(self, world: Any) -> None:
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

    def test_containers_of_other_hosts_and_stores_are_not_ours(self, world: Any) -> None:
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
    def test_a_damaged_note_is_treated_as_absent(self, world: Any, caplog, damage: bytes) -> None:
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
        self, world: Any, caplog, damage: bytes, monkeypatch: pytest.MonkeyPatch
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

    def test_starts_are_counted_on_after_a_restart(self, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
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


class TestSecondAgent:
    def test_with_the_same_folder_it_is_refused_at_once(self, world: Any) -> None:
        world.agent()
        world.until("alive", lambda: world.memory.read(keys.LIVE).entries)
        second = world.agent()
        second.thread.join(60)
        assert "another agent of this host is running" in str(second.error)

    def test_with_another_folder_it_waits_does_nothing_and_is_refused(
        self, world: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(host_presence, "TAKEOVER_SECONDS", 5.0)  # many times what the first lets pass
        world.agent()
        task = a_task(HOST)
        world.issue(task)
        world.until_running(task)
        second = world.agent(state="other")
        second.thread.join(60)
        assert "another agent (id " in str(second.error)
        assert "runs as host h1" in str(second.error)
        assert (world.engine.starts, world.engine.stops) == ([task.id], [])

    def test_it_takes_over_when_the_first_one_has_gone(self, world: Any) -> None:
        first = world.agent()
        task = a_task(HOST)
        world.issue(task)
        world.until_running(task)
        world.agent(state="other")
        first.end()
        world.has_read()
        assert world.engine.starts.count(task.id) == 1
        assert world.engine.containers["fake-1"].state is State.RUNNING
