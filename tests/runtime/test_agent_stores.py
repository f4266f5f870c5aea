"""What an agent makes of a store that lost things, is a stranger, or holds garbage; and what it tells it."""

from __future__ import annotations

import json
import logging
import platform
import socket
from typing import Any

import psutil
import pytest

from sked_core.interfaces.store import Delete, Put
from sked_core.logic import lifecycle
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.runtime.agent import host_facts
from sked_core.testing.builders import a_task

HOST = "h1"
GARBAGE = b'{"cluster": '


class TestOneRecordConcernsOneTask:
    @pytest.mark.parametrize("value", [GARBAGE, b"", b"null", b"7", b"\xff", b"[" * 100_000], ids=range(6))
    def test_a_running_task_whose_record_can_not_be_read_goes_on(self, world: Any, caplog, value: bytes) -> None:
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

    def test_a_record_of_another_task_or_host_is_no_order(self, world: Any, caplog) -> None:
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
        self, world: Any, monkeypatch: pytest.MonkeyPatch, caplog
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

    def test_a_few_are_stopped_at_once(self, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lifecycle, "BRAKE_SECONDS", 3600.0)
        tasks = [a_task(HOST, number) for number in range(6)]
        world.agent()
        world.issue(*tasks)
        world.until_running(*tasks)
        world.forget(*tasks[:3])
        world.until_running(*tasks[3:])

    def test_withdrawing_all_is_an_order_and_not_held(self, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lifecycle, "BRAKE_SECONDS", 3600.0)
        tasks = [a_task(HOST, number) for number in range(8)]
        world.agent()
        world.issue(*tasks)
        world.until_running(*tasks)
        for task in tasks:
            world.withdraw(task)
        world.until_running()


class TestStrangeStore:
    def test_a_store_under_another_name_freezes_the_host_until_it_is_accepted(self, world: Any, caplog) -> None:
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
    def test_it_says_what_the_host_has_and_keeps_what_others_added(self, world: Any) -> None:
        world.memory.commit([Put(keys.host(HOST), json.dumps({"name": HOST, "rack": "b4", "memory": 1}).encode())])
        world.agent(address="10.0.0.7", tags={"zone": "a"})
        world.until("published", lambda: (world.raw(keys.host(HOST)) or {}).get("executors") == ["bash"])
        record = world.raw(keys.host(HOST)) or {}
        assert (record["rack"], record["address"], record["tags"]) == ("b4", "10.0.0.7", {"zone": "a"})
        assert record["memory"] == host_facts.memory_mb()
        assert record["attributes"] == {
            "arch": platform.machine(), "os": platform.system().lower(), "kernel": platform.release(),
            "cores": str(psutil.cpu_count()),
        }  # fmt: skip

    def test_garbage_in_its_place_is_replaced(self, world: Any) -> None:
        world.memory.commit([Put(keys.host(HOST), GARBAGE)])
        world.agent()
        world.until("published", lambda: world.memory.read(keys.host(HOST)).entries[keys.host(HOST)].value != GARBAGE)
        assert (world.raw(keys.host(HOST)) or {})["name"] == HOST

    def test_ports_in_use_are_those_of_all_listeners(self) -> None:
        with socket.socket() as four, socket.socket(socket.AF_INET6) as six:
            for one, address in ((four, "127.0.0.1"), (six, "::1")):
                one.bind((address, 0))
                one.listen()
            mine = {one.getsockname()[1] for one in (four, six)}
            assert mine <= host_facts.ports_in_use()
        assert not mine & host_facts.ports_in_use()

    def test_it_is_written_when_it_changes_and_only_then(self, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(host_facts, "ports_in_use", lambda: {22})
        world.agent()
        world.until("published", lambda: (world.raw(keys.host(HOST)) or {}).get("executors") == ["bash"])
        world.until("its start is told", lambda: world.memory.read(keys.EVENTS).entries)
        rounds: list[int] = []

        def ports() -> set[int]:
            rounds.append(1)
            return {22}

        world.store.commits.clear()
        monkeypatch.setattr(host_facts, "ports_in_use", ports)
        world.until("ten more rounds", lambda: len(rounds) > 10)
        assert world.store.commits == []
        monkeypatch.setattr(host_facts, "ports_in_use", lambda: {22, 80})
        world.until("published", lambda: (world.raw(keys.host(HOST)) or {})["ports"] == [22, 80])

    def test_it_goes_with_its_agents_lease_when_the_agent_ends(self, world: Any) -> None:
        agent = world.agent()
        world.until("alive", lambda: world.memory.read(keys.LIVE).entries)
        agent.end()
        assert world.memory.read(keys.LIVE).entries == {}
        assert world.raw(keys.host(HOST)) is not None
