"""What an agent refuses, and in which words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sked_core.errors import ExecutorError, Rejected
from sked_core.model import keys
from sked_core.model.types import Check, Task
from sked_core.runtime.agent import host_facts
from sked_core.testing.builders import a_container, a_definition, a_task

HOST = "h1"


class TestRejections:
    def refuse(self, world: Any, task: Task, **settings: Any) -> str:
        world.agent(**settings)
        world.issue(task)
        reason = world.reason(task)
        assert task.id not in world.engine.starts
        return reason

    def test_an_unknown_executor_names_those_that_there_are(self, world: Any) -> None:
        task = a_task(HOST, 0, a_definition(containers=[a_container(type="podman")]))
        assert self.refuse(world, task) == "executor podman is not available on this host (available: bash)"

    def test_an_executor_that_the_operator_does_not_allow(self, world: Any) -> None:
        reason = self.refuse(world, a_task(HOST), allow_executors=frozenset({"docker"}))
        assert reason == "executor bash is not available on this host (available: none)"

    def test_a_cluster_that_the_operator_does_not_allow(self, world: Any) -> None:
        reason = self.refuse(world, a_task(HOST), allow_clusters=frozenset({"other"}))
        assert reason == "policy: this host takes no tasks of cluster default"

    def test_one_task_more_than_the_operator_allows(self, world: Any) -> None:
        world.agent(max_tasks=2)
        first = [a_task(HOST, 0), a_task(HOST, 1)]
        world.issue(*first)
        world.until_running(*first)
        third = a_task(HOST, 2)
        world.issue(third)
        assert world.reason(third) == "policy: this host takes 2 tasks at most"
        assert world.engine.running() == [task.id for task in first]

    def test_a_spec_that_the_executor_refuses(self, world: Any) -> None:
        task = a_task(HOST, 0, a_definition(containers=[a_container(executor={"problem": "no such option"})]))
        assert self.refuse(world, task) == "container web: problem: no such option"

    def test_a_task_with_checks_without_end(self, world: Any) -> None:
        container = a_container(checks=[Check(tcp=f"127.0.0.1:{port}") for port in range(1, 1001)])
        assert self.refuse(world, a_task(HOST, 0, a_definition(containers=[container]))) == (
            "the task has more than 100 checks"
        )

    def test_a_task_without_containers(self, world: Any) -> None:
        assert self.refuse(world, a_task(HOST, 0, a_definition(containers=[]))) == "the task has no containers"

    @pytest.mark.parametrize(
        ("what", "fact", "amount"), [("memory", "memory_mb", "memory"), ("cpu", "cpu_units", "cpu_units")]
    )
    def test_what_does_not_fit_beside_the_others_is_told_in_numbers(
        self, world: Any, monkeypatch: pytest.MonkeyPatch, what: str, fact: str, amount: str
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

    @pytest.mark.parametrize(
        ("what", "setting", "asked"),
        [
            ("memory", "memory", {"memory": 60}),
            ("cpu", "cpu_units", {"cpu_units": 60}),
            ("disk", "disk", {"disk_use": 60}),
        ],
    )
    def test_what_goes_beyond_what_the_operator_grants_of_the_machine(
        self, world: Any, what: str, setting: str, asked: dict[str, int]
    ) -> None:
        world.agent(**{setting: 100})
        first, second = (a_task(HOST, number, a_definition(containers=[a_container(**asked)])) for number in range(2))
        world.issue(first)
        world.until_running(first)
        world.until("it says so", lambda: (world.raw(keys.host(HOST)) or {}).get(setting) == 100)
        world.issue(second)
        assert world.reason(second) == f"{what}: needs 60, free 40 of 100"
        assert world.engine.running() == [first.id]

    def test_a_disk_that_is_too_full(self, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(host_facts, "free_disk_mb", lambda folder: 100)
        task = a_task(HOST, 0, a_definition(containers=[a_container(disk_use=101)]))
        assert self.refuse(world, task) == "disk: needs 101 MB, free 100 MB"

    def test_a_port_that_another_task_of_this_host_holds(self, world: Any, free_port: Callable[[], int]) -> None:
        port = free_port()
        world.agent()
        first = a_task(HOST, 0, a_definition(port=port), port=port)
        world.issue(first)
        world.until_running(first)
        second = a_task(HOST, 0, a_definition("db", containers=[a_container(executor={"ports": [port]})]), service="db")
        world.issue(second)
        assert world.reason(second) == f"port {port} is held by task {first.id}"

    def test_a_refusal_by_the_engine(self, world: Any) -> None:
        def refuse(task: Task, container: Any) -> None:
            raise Rejected("no room on the engine")

        world.engine.before_start = refuse
        world.agent()
        task = a_task(HOST)
        world.issue(task)
        assert world.reason(task) == "no room on the engine"

    def test_what_can_never_start_here_is_not_tried_twice(self, world: Any) -> None:
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

    def test_an_engine_that_does_not_answer_and_has_never_run_the_task(self, world: Any) -> None:
        world.engine.down = "connection refused"
        task = a_task(HOST)
        world.agent()
        # What is issued is counted once it was read: a task that is in the first read might run already.
        world.until("a first read", lambda: world.memory.read(keys.agent(HOST)).entries)
        world.issue(task)
        assert world.reason(task) == "executor bash does not answer on this host: connection refused"
        # The host says so as well, so that nothing more of this kind is placed here.
        world.until("host record", lambda: (world.raw(keys.host(HOST)) or {"executors": None})["executors"] == [])

    def test_reasons_are_cut_short(self, world: Any) -> None:
        def refuse(task: Task, container: Any) -> None:
            raise Rejected("x" * 10_000)

        world.engine.before_start = refuse
        task = a_task(HOST)
        world.agent()
        world.issue(task)
        assert len(world.reason(task)) == 1024
