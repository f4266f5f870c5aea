"""Logs and commands from afar, with a real engine: what every executor promises, and what an engine may send."""

from __future__ import annotations

import secrets
import threading
import time
from typing import Any

import docker
import pytest

from sked_core.plugin import MAX_LINE_BYTES, ExecRequest, ExecutorError, Handle, LogQuery, Stop, TaskId
from sked_core.testing.executors import Follower, ended, read, talk
from sked_docker.executor import DockerExecutor
from sked_docker.reading import lines_in


@pytest.fixture
def run(executor: DockerExecutor, make_task: Any) -> Any:
    def start(script: str) -> Handle:
        task = make_task({"cmd": ["sh", "-c", script]})
        return executor.start(task, task.task_definition.containers[0], {"SKED_TEST": secrets.token_hex(4)})

    return start


class TestLogs:
    """On what the engine keeps, beyond what the kit tries."""

    def test_streams_and_times_are_told(self, executor: DockerExecutor, run: Any) -> None:
        handle = run("echo out; sleep 0.2; echo err >&2")
        ended(executor, handle)
        first, second = executor.logs(handle, LogQuery(), Stop())
        assert (first.text, first.stream, second.text, second.stream) == ("out", "stdout", "err", "stderr")
        assert first.at < second.at
        assert first.at.endswith("Z")

    def test_of_one_that_is_gone_there_is_nothing(self, executor: DockerExecutor, run: Any) -> None:
        handle = run("echo one")
        ended(executor, handle)
        assert read(executor, handle, LogQuery(previous=True)) == []
        executor.stop(handle, 0)
        assert read(executor, handle, LogQuery()) == []
        assert executor.kept(handle.task_id) == []

    def test_an_engine_that_goes_away_ends_the_reading(self, executor: DockerExecutor, run: Any) -> None:
        follower = Follower(executor, run("echo one; sleep 1000"), LogQuery(follow=True))
        follower.until("one")
        executor.close()
        follower.stop.set()
        assert follower.end() == ["one"]

    def test_an_engine_out_of_reach_is_an_error(
        self, executor: DockerExecutor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
        handle = Handle(TaskId("default-web-1-0"), "c0", "0" * 64)
        with pytest.raises(ExecutorError, match="cannot reach the Docker engine"):
            read(executor, handle, LogQuery())
        with pytest.raises(ExecutorError, match="cannot reach the Docker engine"):
            executor.exec(handle, ExecRequest(("true",)))


class TestCommands:
    """With the engine's exec, beyond what the kit tries."""

    def test_a_command_whose_caller_is_gone_is_ended(
        self, executor: DockerExecutor, api: docker.APIClient, run: Any
    ) -> None:
        handle = run("echo started; sleep 1000")

        def commands() -> list[str]:
            return [row[-1] for row in api.top(handle.ref)["Processes"]]

        process = executor.exec(handle, ExecRequest(("sleep", "1234"), tty=True))
        deadline = time.monotonic() + 60
        while "sleep 1234" not in commands():  # the engine tells of its own program first, which becomes that one
            assert time.monotonic() < deadline, "it never ran"
        process.close()
        while "sleep 1234" in commands():
            assert time.monotonic() < deadline, "it runs on"
            time.sleep(0.05)

    @pytest.mark.parametrize("tty", [False, True])
    @pytest.mark.parametrize("name", ["no-such-command", "/no/such/command", 'no "such"'])
    def test_one_that_is_not_there_ends_as_in_a_shell(
        self, executor: DockerExecutor, run: Any, name: str, tty: bool
    ) -> None:
        handle = run("echo started; sleep 1000")
        code, out, err = talk(executor.exec(handle, ExecRequest((name, "and", "more"), tty=tty)))
        assert code == 127
        said = f"{name}: command not found"
        assert (out, err) == ((f"{said}\r\n".encode(), b"") if tty else (b"", f"{said}\n".encode()))

    def test_other_ends_before_or_after_the_beginning_stay_what_they_are(
        self, executor: DockerExecutor, run: Any
    ) -> None:
        handle = run("echo started; sleep 1000")
        code, out, err = talk(executor.exec(handle, ExecRequest(("/etc/passwd",))))
        assert (code, b"permission denied" in out + err) == (126, True)
        words = 'OCI runtime exec failed: exec: "x": executable file not found in $PATH'
        for after in ("exit 126", "sleep 0.5; exit 126"):
            process = executor.exec(handle, ExecRequest(("sh", "-c", f"echo '{words}'; {after}")))
            assert talk(process) == (126, f"{words}\n".encode(), b"")

    def test_many_at_once_are_kept_apart(self, executor: DockerExecutor, run: Any) -> None:
        handle = run("echo started; sleep 1000")
        answers: dict[int, bytes] = {}

        def ask(number: int) -> None:
            answers[number] = talk(executor.exec(handle, ExecRequest(("sh", "-c", f"cat; echo {number}"))), b"x\n")[1]

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert answers == {number: f"x\n{number}\n".encode() for number in range(6)}


def message(stream: int, text: bytes, second: int = 0) -> bytes:
    data = b"2026-01-02T03:04:%02d.500000001Z " % second + text
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_messages_become_lines_however_they_are_cut(size: int) -> None:
    raw = (
        message(1, b"a\n")
        + message(2, b"beg", 1)
        + message(1, b"b\r\n", 1)
        + message(2, b"in\n", 1)
        + message(1, b"", 2)
        + message(1, b"rest", 3)
        + b"\x01\x00\x00"
    )
    lines = list(lines_in(raw[at : at + size] for at in range(0, len(raw), size)))
    assert [(line.text, line.stream) for line in lines] == [
        ("a", "stdout"),
        ("b", "stdout"),
        ("begin", "stderr"),
        ("rest", "stdout"),
    ]
    assert [line.cursor for line in lines] == [
        "1767323040.500000001/1",
        "1767323041.500000001/1",
        "1767323041.500000001/2",
        "1767323043.500000001/1",
    ]
    assert lines[0].at == "2026-01-02T03:04:00.500000001Z"


def test_a_line_without_end_is_cut_between_characters() -> None:
    text = "é".encode() * MAX_LINE_BYTES
    lines = list(lines_in([message(1, b"x" + text[: len(text) // 2]), message(1, text[len(text) // 2 :])]))
    assert "".join(line.text for line in lines) == "x" + text.decode()
    assert max(len(line.text.encode()) for line in lines) <= MAX_LINE_BYTES
