"""The last lines of a container, as they come from a real engine, and as they may come."""

from typing import Any

import docker
import pytest

from sked_core.plugin import ExecutorError, Handle, TaskId
from sked_docker.executor import DockerExecutor
from sked_docker.output import last_lines


def piece(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def run(executor: DockerExecutor, api: docker.APIClient, task: Any) -> Handle:
    """Start it and wait until it has ended."""
    handle = executor.start(task, task.task_definition.containers[0], {})
    api.wait(handle.ref, timeout=120)
    return handle


def test_the_last_lines_of_both_streams_are_told_after_the_end(
    executor: DockerExecutor, api: docker.APIClient, make_task: Any
) -> None:
    script = "for i in 1 2 3 4; do echo out $i; done; sleep 0.2; echo err >&2; sleep 0.2; printf 'caf\\303 end'; exit 3"
    handle = run(executor, api, make_task({"cmd": ["sh", "-c", script]}))
    assert executor.tail(handle, 3) == ["out 4", "err", "caf\ufffd end"]
    assert executor.tail(handle, 100)[0] == "out 1"
    executor.stop(handle, 0)
    assert executor.tail(handle, 3) == []


def test_a_long_line_comes_in_one(executor: DockerExecutor, api: docker.APIClient, make_task: Any) -> None:
    script = "head -c 100000 /dev/zero | tr '\\0' x; echo; echo last"
    handle = run(executor, api, make_task({"cmd": ["sh", "-c", script]}))
    assert executor.tail(handle, 20) == ["x" * 100_000, "last"]


def test_a_driver_that_keeps_nothing_tells_nothing(
    executor: DockerExecutor, api: docker.APIClient, make_task: Any
) -> None:
    handle = run(executor, api, make_task({"cmd": ["sh", "-c", "echo one"], "flags": ["--log-driver=none"]}))
    assert executor.tail(handle, 20) == []


def test_an_engine_out_of_reach_is_an_error(executor: DockerExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(ExecutorError, match="cannot reach the Docker engine"):
        executor.tail(Handle(TaskId("default-web-1-0"), "c0", "0" * 64), 20)


@pytest.mark.parametrize(
    ("raw", "lines"),
    [
        (b"", []),
        (piece(1, b"a\n") + piece(2, b"b\n"), ["a", "b"]),
        (piece(1, b"a") + piece(2, b"b\n") + piece(1, b"c\n"), ["b", "ac"]),
        (piece(1, b"a\nb"), ["a", "b"]),
        (piece(1, b"caf\xc3") + piece(1, b"\xa9\n"), ["caf\u00e9"]),
        (piece(1, b"\xff\x00\n"), ["\ufffd\x00"]),
        (piece(1, b"a\n\nb\n"), ["a", "", "b"]),
        (piece(1, b"abc\n")[:-2], ["ab"]),
        (piece(1, b"a\n") + b"\x01\x00\x00", ["a"]),
        (piece(1, b"1\n2\n3\n4\n5\n"), ["3", "4", "5"]),
    ],
)
def test_pieces_become_lines(raw: bytes, lines: list[str]) -> None:
    assert last_lines(raw, 3) == lines
