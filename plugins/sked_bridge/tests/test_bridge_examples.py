"""The examples do what they are shown for: an executor in shell, schedulers in Node and Perl."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from rigs.needs import program as needed
from sked_bridge.executor import BridgedExecutor
from sked_bridge.programs import Program
from sked_bridge.samples import executor_sample
from sked_bridge.scheduler import BridgedScheduler
from sked_core.plugin import Candidate, Demand, State

from .conftest import EMPTIEST, PROCESS, QUIETEST, task

PATIENT = 60.0


@pytest.fixture
def executor(make_executor: Callable[[Program], BridgedExecutor]) -> Iterator[BridgedExecutor]:
    for name in ("jq", "setsid"):
        needed(name)
    executor = make_executor(PROCESS)
    yield executor
    last = make_executor(PROCESS)
    for handle in last.recover():
        last.stop(handle, 0)


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENT
    while not holds():
        assert time.monotonic() < deadline, "never"
        time.sleep(0.02)


def test_a_process_outlives_the_program_and_is_taken_over(executor, make_executor):
    one, container = task("process", {"script": 'echo "$GREETING"; exec sleep 1000'})
    handle = executor.start(one, container, {"GREETING": "it's $5\nand more", "a.b": "no variable of a shell"})
    assert executor.start(one, container, {}) == handle, "it runs already"
    for process in psutil.Process().children():
        if process.name() == PROCESS.path.name:
            process.send_signal(signal.SIGKILL)
    assert executor.inspect([handle])[handle].state is State.RUNNING
    executor.close()
    again = make_executor(PROCESS)
    assert {one: seen.state for one, seen in again.recover().items()} == {handle: State.RUNNING}
    until(lambda: again.tail(handle, 5) == ["it's $5", "and more"])
    again.stop(handle, 5)
    assert again.inspect([handle])[handle].state is State.ABSENT
    again.stop(handle, 5)
    assert again.recover() == {}


def test_how_it_ended_is_told_and_a_dead_one_is_replaced(executor):
    one, container = task("process", {"script": "exit 7"})
    first = executor.start(one, container, {})
    until(lambda: executor.inspect([first])[first].state is State.EXITED)
    assert executor.inspect([first])[first].exit_code == 7
    second = executor.start(one, container, {})
    assert second.ref != first.ref
    assert executor.inspect([first])[first].state is State.ABSENT


def test_what_ignores_the_polite_way_is_ended_by_force_with_all_that_it_left(executor):
    script = "trap '' TERM; setsid sleep 1000 & sleep 1000 & while :; do sleep 0.1; done"
    one, container = task("process", {"script": script})
    handle = executor.start(one, container, {"SKED_TEST": "stubborn"})
    executor.stop(handle, 0.5)
    left = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SKED_PROCESS") == handle.ref:
                left.append(process)
        except psutil.Error:
            continue
    assert not left


def test_specs_are_judged(executor):
    sample = executor_sample(PROCESS)
    assert executor.validate(sample.stays) == []
    assert [bool(executor.validate(spec)) for spec in sample.wrong] == [True] * len(sample.wrong)
    assert sample.script is not None
    assert sample.script("echo") == {"script": "echo"}
    assert executor.ports({}, 8080) == {8080}
    assert executor.ports({}, 0) == frozenset()


def candidate(host: str, memory: int, tasks: int = 0) -> Candidate:
    return Candidate(host, memory, 4096, 1000, memory, 4096, 1000, 10, tasks, 0)


def test_the_scheduler_in_node_spreads_over_what_is_emptiest():
    needed("node", "nodejs")
    hosts = [candidate("c", 900), candidate("a", 500), candidate("b", 900)]
    demand = Demand("k", "s", memory=400)
    assert list(BridgedScheduler(EMPTIEST).place(demand, 4, hosts)) == ["b", "c", "a", "b"]
    assert list(BridgedScheduler(EMPTIEST).place(demand, 9, hosts)) == ["b", "c", "a", "b", "c"]


def test_the_scheduler_in_perl_gives_scores_that_the_bridge_places_by():
    needed("perl")
    hosts = [candidate("c", 1000, 2), candidate("a", 1000, 1), candidate("b", 500)]
    demand = Demand("k", "s", memory=400)
    assert list(BridgedScheduler(QUIETEST).place(demand, 9, hosts)) == ["b", "a", "a", "c", "c"]


@pytest.mark.skipif(os.geteuid() != 0, reason="looks at what an agent of root shows others")
def test_no_secret_of_the_environment_is_on_a_command_line(executor):
    one, container = task("process", {"script": "exec sleep 1000"})
    seen: list[str] = []
    handle = executor.start(one, container, {"TOKEN": "canary-5e"})
    for process in psutil.process_iter():
        try:
            seen += process.cmdline()
        except psutil.Error:
            continue
    assert not any("canary-5e" in word for word in seen)
    assert executor.inspect([handle])[handle].state is State.RUNNING
