"""Logs and commands from afar: how cut files and marks play with it."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from sked_bash import logs, reading
from sked_core.plugin import ExecRequest, Handle, LogQuery, State, Stop
from sked_core.testing.executors import Follower, ended, read, talk

Eventually = Callable[..., Any]
HEARS_ONLY_TWICE = "trap '' TERM; trap 'trap - HUP' HUP; echo ready; while :; do sleep 0.05; done"
"""As a bash that has just begun to read its terminal when it is hung up."""


@pytest.fixture
def executor(rig: Any) -> Any:
    return rig.executor


@pytest.fixture
def run(rig: Any) -> Any:
    def start(script: str, instance: int = 0) -> Handle:
        return rig.start(instance, {"SKED_TEST": secrets.token_hex(4)}, start=script)

    return start


class TestLogs:
    """On files, beyond what the kit tries."""

    def test_nothing_is_lost_or_repeated_where_the_log_is_cut(
        self, executor: Any, run: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logs, "MAX_BYTES", 50_000)
        # Pauses, so that nothing is written between the copy and the cut: that would be lost, as the page says.
        handle = run("for a in $(seq 1 30); do for b in $(seq 1 1000); do echo $a-$b; done; sleep 0.15; done")
        follower = Follower(executor, handle, LogQuery(follow=True))
        texts = follower.end()
        notes = [line for line in follower.lines if line.stream == "note"]
        assert not notes
        assert texts == [f"{a}-{b}" for a in range(1, 31) for b in range(1, 1001)]
        assert len(list((executor._folder((handle.task_id, "c"))).glob("output.log.*"))) == 2, "it was cut meanwhile"

    def test_a_reader_that_is_too_slow_is_told_what_is_missing(
        self, rig: Any, run: Any, eventually: Eventually, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logs, "MAX_BYTES", 20_000)
        # Each part in one write, when it is asked for: nothing is written while the log is cut, that would be lost.
        part = (
            "until [ -e {0}/ask-{1} ]; do sleep 0.05; done; seq {2} {3} >part; dd if=part bs=1M status=none;"
            " touch {0}/said-{1}"
        )
        parts = range(6)
        handle = run("; ".join(part.format(tmp_path, n, 5000 * n + 1, 5000 * n + 5000) for n in parts))
        executor, log = rig.executor, rig.home(handle) / "output.log"
        lines = executor.logs(handle, LogQuery(follow=True), Stop())
        for number in parts:
            (tmp_path / f"ask-{number}").touch()
            if number == 0:
                next(lines)
            eventually(lambda number=number: (tmp_path / f"said-{number}").exists() and log.stat().st_size == 0)
        ended(executor, handle)
        rest = list(lines)
        note = next(line for line in rest if line.stream == "note")
        assert note.text.endswith("bytes were not kept here")
        assert rest[-1].text == "30000"
        # What there is of bytes is what there were of them, as told.
        total = sum(len(str(number)) + 1 for number in range(1, 30001))
        missing = sum(int(line.text.split()[0]) for line in rest if line.stream == "note")
        had = 2 + sum(len(line.text) + 1 for line in rest if line.stream != "note")
        assert abs(total - missing - had) <= len([line for line in rest if line.stream == "note"])

    def test_the_next_agent_goes_on_behind_the_cursor_of_the_last(
        self, rig: Any, run: Any, eventually: Eventually, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Each thousand when it is asked for: nothing is written while the log is cut, that would be lost.
        asked = "until [ -e {0}/{1} ]; do sleep 0.05; done; seq {1}001 {2}000"
        handle = run("; ".join(["seq 1 1000", *(asked.format(tmp_path, n, n + 1) for n in (1, 2))]))
        log = rig.home(handle) / "output.log"
        first = Follower(rig.executor, handle, LogQuery(follow=True))
        first.until("1000")
        first.stop.set()
        texts = first.end()
        rig.executor.close()
        successor = rig.agent()
        assert handle in successor.recover()
        (tmp_path / "1").touch()
        eventually(lambda: log.stat().st_size == 3893 + 5000)
        monkeypatch.setattr(logs, "MAX_BYTES", 5_000)
        eventually(lambda: log.stat().st_size == 0)
        (tmp_path / "2").touch()
        rest = read(successor, handle, LogQuery(after=first.lines[-1].cursor, follow=True))
        assert [*texts, *rest] == [str(number) for number in range(1, 3001)]

    def test_the_instance_before_is_told_and_a_cursor_of_it_leads_into_the_next(self, rig: Any, run: Any) -> None:
        first = run("echo first 1; echo first 2; exit 1")
        ended(rig.executor, first)
        cursor = next(rig.executor.logs(first, LogQuery(), Stop())).cursor
        assert read(rig.executor, first, LogQuery(previous=True)) == []
        second = run("echo second; sleep 1000")
        Follower(rig.executor, second, LogQuery(follow=True)).until("second")
        assert read(rig.executor, second, LogQuery(previous=True)) == ["first 1", "first 2"]
        assert read(rig.executor, second, LogQuery(previous=True, lines=1)) == ["first 2"]
        assert read(rig.executor, second, LogQuery(lines=10)) == ["second"]
        assert read(rig.executor, second, LogQuery(after=cursor)) == ["first 2", "second"]

    def test_what_a_task_said_can_be_read_after_it_is_gone(self, rig: Any, run: Any) -> None:
        handle = run("echo last words; sleep 1000")
        Follower(rig.executor, handle, LogQuery(follow=True)).until("last words")
        assert rig.executor.kept(handle.task_id) == []
        rig.executor.stop(handle, 1)
        for executor in (rig.executor, rig.agent()):
            (kept,) = executor.kept(handle.task_id)
            assert kept.container == "c"
            assert read(executor, kept, LogQuery()) == ["last words"]
        assert rig.executor.kept("../../etc") == []

    def test_the_time_is_told_of_what_was_read_while_it_was_written(self, rig: Any, run: Any) -> None:
        handle = run("echo old; sleep 0.5; echo new; sleep 1000")
        follower = Follower(rig.executor, handle, LogQuery(follow=True))
        follower.until("new")
        times = {line.text: line.at for line in follower.lines}
        assert times["new"].endswith("Z")
        follower.stop.set()
        assert [line.at for line in rig.executor.logs(handle, LogQuery(), Stop())] == ["", ""]

    @pytest.mark.parametrize("count", [1, 2, 5, 63, 64, 65, 200, 1000])
    def test_the_last_lines_are_found_wherever_pieces_end(
        self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, count: int
    ) -> None:
        monkeypatch.setattr(logs, "MAX_BYTES", 500)
        monkeypatch.setattr(reading, "PIECE_BYTES", 64)
        logs.begin(tmp_path, "ab")
        with open(tmp_path / "output.log", "ab", buffering=0) as log:
            for number in range(200):
                log.write(b"%d\n" % number if number % 7 else b"\n")
                logs.cap(tmp_path)
        expected = [str(number) if number % 7 else "" for number in range(200)]

        def told(lines: int) -> list[str]:
            query = LogQuery(lines=lines)
            return [
                line.text for line in reading.lines(tmp_path, "ab", query, Stop(), running=lambda: False, clock=Clock())
            ]

        every = told(-1)
        assert len(every) > 190, "what is cut off is the little by which the log was too long"
        assert every == expected[-len(every) :]
        assert told(count) == every[-count:]

    def test_a_folder_of_an_agent_that_kept_no_record_is_read_all_the_same(self, rig: Any, run: Any) -> None:
        handle = run("echo one; sleep 1000")
        Follower(rig.executor, handle, LogQuery(follow=True)).until("one")
        (rig.home(handle) / "output.json").unlink()
        assert read(rig.executor, handle, LogQuery()) == ["one"]
        (rig.home(handle) / "output.json").write_text("{")
        assert read(rig.executor, handle, LogQuery()) == ["one"]

    def test_a_log_that_was_swapped_leads_nowhere(self, rig: Any, run: Any, tmp_path: Any) -> None:
        handle = run("sleep 1000")
        (tmp_path / "secret").write_text("precious\n")
        (rig.home(handle) / "output.log").unlink()
        (rig.home(handle) / "output.log").symlink_to(tmp_path / "secret")
        assert read(rig.executor, handle, LogQuery()) == []


class Clock:
    def wall(self) -> float:
        return 0.0


class TestCommands:
    """With processes, beyond what the kit tries."""

    def test_a_command_is_nothing_that_keeps_a_task_alive(self, rig: Any, run: Any, eventually: Eventually) -> None:
        handle = run("until [ -e stop ]; do sleep 0.05; done")
        process = rig.executor.exec(handle, ExecRequest(("sh", "-c", "touch stop; echo begun; sleep 1000")))
        assert process.read() == ("stdout", b"begun\n")
        eventually(lambda: rig.executor.inspect([handle])[handle].state is State.EXITED)
        process.close()

    def test_what_a_command_leaves_in_the_background_goes_with_the_task(
        self, rig: Any, run: Any, eventually: Eventually, alive: Any
    ) -> None:
        handle = run("sleep 1000")
        script = "nohup setsid sleep 1001 >/dev/null 2>&1 & echo $!"
        code, out, _ = talk(rig.executor.exec(handle, ExecRequest(("bash", "-c", script))))
        pid = int(out)
        assert code == 0
        assert alive(pid)
        successor = rig.agent()  # the agent that began it may be gone
        assert handle in successor.recover()
        assert len(successor.recover()) == 1, "a command is no container of its own"
        successor.stop(handle, 5)
        eventually(lambda: not alive(pid))

    @pytest.mark.parametrize(
        "command", [("bash", "--norc", "-i"), ("bash", "-c", HEARS_ONLY_TWICE)], ids=["bash", "deaf"]
    )
    def test_a_shell_on_a_terminal_does_not_delay_the_end_of_the_task(
        self, rig: Any, run: Any, command: tuple[str, ...]
    ) -> None:
        handle = run("sleep 1000")
        shell = rig.executor.exec(handle, ExecRequest(command, tty=True))
        shell.write(b"echo rea''dy\n")
        said = b""
        while b"ready" not in said:
            said += shell.read()[1]
        begun = time.monotonic()
        rig.executor.stop(handle, 60)
        assert time.monotonic() - begun < 30
        while shell.read() is not None:
            pass
        shell.close()

    def test_nothing_is_left_open_by_many_of_them(self, rig: Any, run: Any) -> None:
        handle = run("sleep 1000")
        talk(rig.executor.exec(handle, ExecRequest(("true",))))
        before = len(os.listdir("/proc/self/fd"))
        for tty in (False, True) * 5:
            talk(rig.executor.exec(handle, ExecRequest(("true",), tty=tty)))
        # One left by each would be ten more; those of other tests in this process come and go.
        assert len(os.listdir("/proc/self/fd")) < before + 10
        assert not [thread for thread in threading.enumerate() if "exec" in thread.name]
