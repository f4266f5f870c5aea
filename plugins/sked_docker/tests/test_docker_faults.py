"""A real engine behind a wire that fails: replies that never come, an engine that goes away and comes back."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from rigs.wire import Wire
from sked_core.plugin import ExecutorError, Handle, State
from sked_core.testing.clock import FakeClock
from sked_docker.engine import SETTLE_SECONDS
from sked_docker.executor import LIST_LAGS_SECONDS, DockerExecutor

SLEEP = {"cmd": "sleep 1000"}


@pytest.fixture
def wire(api: docker.APIClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """Executors that connect from now on go through it."""
    made = Wire(tmp_path / "engine.sock", api._custom_adapter.socket_path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{made.path}")
    yield made
    made.cut()


def start(executor: DockerExecutor, task: Any) -> Handle:
    return executor.start(task, task.task_definition.containers[0], {})


def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.02)


@contextlib.contextmanager
def impatient(call: float = 1, change: float = 2.0) -> Iterator[None]:
    """What is asked in the body waits for so many seconds only; all else as long as a busy engine takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sked_docker.engine.CALL_SECONDS", call)
        for deadline in ("CREATE_SECONDS", "START_SECONDS", "REMOVE_SECONDS"):
            patch.setattr(f"sked_docker.executor.{deadline}", change)
        yield


def states(api: docker.APIClient, store_uid: str) -> list[str]:
    return [row["State"] for row in api.containers(all=True, filters={"label": f"sked.store={store_uid}"})]


@pytest.mark.parametrize("request_line", ["/start", "/containers/create"])
def test_a_call_with_unknown_outcome_is_looked_after_before_it_counts_as_failed(
    executor: DockerExecutor, api: docker.APIClient, make_task: Any, store_uid: str, wire: Wire, request_line: str
) -> None:
    wire.swallow_reply_to(request_line)
    with impatient(call=20, change=15.0):  # time enough for the engine to have done it
        handle = start(executor, make_task(SLEEP))
    wire.swallow_reply_to("")
    assert executor.inspect([handle])[handle].state is State.RUNNING
    assert states(api, store_uid) == ["running"]


def test_what_an_unknown_outcome_left_behind_is_no_hindrance_to_the_next_start(
    executor: DockerExecutor, api: docker.APIClient, make_task: Any, store_uid: str, wire: Wire
) -> None:
    task = make_task(SLEEP)
    executor.recover()
    wire.swallow_reply_to("/containers/")  # neither the start nor the look at it is answered
    with impatient(), pytest.raises(ExecutorError, match="did not answer") as caught:
        start(executor, task)
    assert not caught.value.permanent
    wire.swallow_reply_to("")
    handle = start(executor, task)
    assert states(api, store_uid) == ["running"]
    executor.stop(handle, 0)


def test_a_stop_that_was_not_confirmed_is_an_error_and_the_next_one_finishes(
    executor: DockerExecutor, api: docker.APIClient, make_task: Any, store_uid: str, wire: Wire
) -> None:
    handle = start(executor, make_task(SLEEP))
    wire.swallow_reply_to("DELETE")
    with impatient(), pytest.raises(ExecutorError, match="did not answer"):
        executor.stop(handle, 0)
    wire.swallow_reply_to("")
    executor.stop(handle, 0)
    assert states(api, store_uid) == []


def test_an_engine_out_of_reach_or_just_back_never_means_that_a_container_is_gone(
    make_executor: Any, api: docker.APIClient, make_task: Any, wire: Wire
) -> None:
    clock = FakeClock()
    executor = make_executor(clock=clock)
    kept = start(executor, make_task(SLEEP, service="kept"))
    lost = start(executor, make_task(SLEEP, service="lost"))
    wire.cut()
    for call in (lambda: executor.inspect([kept]), executor.recover, lambda: executor.stop(kept, 0)):
        with pytest.raises(ExecutorError, match="cannot reach the Docker engine at unix://") as caught:
            call()
        assert "docker version" in caught.value.hint
        assert not caught.value.permanent
    with pytest.raises(ExecutorError, match="cannot reach"):
        start(executor, make_task(SLEEP, service="more"))
    api.remove_container(lost.ref, force=True)
    wire.mend()
    assert executor.inspect([kept])[kept].state is State.RUNNING
    with pytest.raises(ExecutorError, match="just come back"):
        executor.inspect([kept, lost])
    clock.advance(SETTLE_SECONDS + 1)
    seen = executor.inspect([kept, lost])
    assert (seen[kept].state, seen[lost].state) == (State.RUNNING, State.ABSENT)


@pytest.mark.parametrize("heads_pass", [False, True])
def test_silence_about_one_container_says_nothing_about_the_others(
    make_executor: Any, api: docker.APIClient, make_task: Any, wire: Wire, heads_pass: bool
) -> None:
    executor = make_executor(clock=FakeClock())
    hung = start(executor, make_task(SLEEP, service="hung"))
    lost = start(executor, make_task(SLEEP, service="lost"))
    api.kill(hung.ref)
    wire.swallow_reply_to(hung.ref, heads_pass=heads_pass)
    with impatient(), pytest.raises(ExecutorError, match="did not answer within 1 s"):
        executor.inspect([hung])
    if not heads_pass:  # the reply to a removal has no body
        with impatient(), pytest.raises(ExecutorError, match="did not answer within 2 s"):
            executor.stop(hung, 0)
    api.remove_container(lost.ref, force=True)
    assert executor.inspect([lost])[lost].state is State.ABSENT


@pytest.mark.parametrize("heads_pass", [False, True])
def test_silence_about_the_list_is_an_engine_out_of_reach(
    make_executor: Any, api: docker.APIClient, make_task: Any, wire: Wire, heads_pass: bool
) -> None:
    executor = make_executor(clock=FakeClock())
    lost = start(executor, make_task(SLEEP))
    wire.swallow_reply_to("/containers/json", heads_pass=heads_pass)
    with impatient(), pytest.raises(ExecutorError, match="did not answer within 1 s"):
        executor.inspect([lost])
    wire.swallow_reply_to("")
    api.remove_container(lost.ref, force=True)
    with pytest.raises(ExecutorError, match="just come back"):
        executor.inspect([lost])


def test_a_container_that_the_engine_restarted_is_looked_at_by_itself_for_a_moment_only(
    make_executor: Any, api: docker.APIClient, make_task: Any, wire: Wire
) -> None:
    clock, calls = FakeClock(), []
    executor = make_executor(clock=clock)
    executor.watch(lambda: calls.append(1))
    until(lambda: calls)
    once = "test -e /ran || { touch /ran; sleep 0.5; exit 1; }; sleep 1000"
    handle = start(executor, make_task({"cmd": ["sh", "-c", once], "flags": ["--restart=on-failure:3"]}))
    until(lambda: len(calls) > 1)
    until(lambda: api.inspect_container(handle.ref)["RestartCount"] == 1)
    until(lambda: executor.inspect([handle])[handle].state is State.RUNNING)
    assert handle.ref in executor._died, "the list may not show the end yet"
    clock.advance(LIST_LAGS_SECONDS + 1)
    until(lambda: executor.inspect([handle])[handle].state is State.RUNNING and handle.ref not in executor._died)
    wire.swallow_reply_to(f"/{handle.ref}/json")
    assert executor.inspect([handle])[handle].state is State.RUNNING, "the list alone is asked"


def test_watch_comes_back_with_the_engine_and_tells_so(
    executor: DockerExecutor, api: docker.APIClient, make_task: Any, wire: Wire
) -> None:
    calls: list[int] = []
    handle = start(executor, make_task(SLEEP))
    executor.watch(lambda: calls.append(1))
    until(lambda: calls)
    wire.cut()
    api.kill(handle.ref)  # nobody hears this
    wire.mend()
    until(lambda: len(calls) > 1)  # but once the engine is back, the agent is made to look
    assert executor.inspect([handle])[handle].state is State.EXITED


def test_a_context_that_does_not_exist_is_an_error_not_the_local_engine(
    executor: DockerExecutor, docker_engine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONTEXT", "sked-no-such-context")
    with pytest.raises(ExecutorError, match="sked-no-such-context"):
        executor.recover()
