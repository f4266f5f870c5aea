"""What every executor whose containers can run a shell has to pass that offers logs and commands from afar.

Subclass ``LogContract`` and ``CommandContract`` in a test module, and give each the fixtures ``executor`` and ``run``:
``run(script)`` starts a container that runs ``sh -c script`` and returns its handle; whatever it started is to be gone
after the test.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sked_core.errors import ExecutorError
from sked_core.interfaces.executor import MAX_LINE_BYTES, ExecProcess, ExecRequest, Handle, LogLine, LogQuery, Stop

Run = Callable[[str], Handle]
DEADLINE_SECONDS = 60.0


class Follower:
    """Reads the logs of a container in a thread of its own."""

    def __init__(self, executor: Any, handle: Handle, query: LogQuery) -> None:
        self.lines: list[LogLine] = []
        self.stop = Stop()
        self.failure: BaseException | None = None
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=(executor, handle, query), daemon=True)
        self._thread.start()

    def _read(self, executor: Any, handle: Handle, query: LogQuery) -> None:
        try:
            for line in executor.logs(handle, query, self.stop):
                with self._more:
                    self.lines.append(line)
                    self._more.notify_all()
        except BaseException as error:  # noqa: BLE001  told by whoever waits
            self.failure = error

    def until(self, text: str) -> list[str]:
        """All texts so far, once one of them is ``text``."""
        with self._more:
            found = self._more.wait_for(lambda: text in [line.text for line in self.lines], DEADLINE_SECONDS)
            assert found, f"{text} never came, only {self.lines[-5:]} ({self.failure})"
            return [line.text for line in self.lines]

    def end(self) -> list[str]:
        """All texts, once it has ended."""
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive(), "it never ended"
        if self.failure is not None:
            raise self.failure
        return [line.text for line in self.lines]


def read(executor: Any, handle: Handle, query: LogQuery) -> list[str]:
    """The texts of what ``query`` asks for."""
    return [line.text for line in executor.logs(handle, query, Stop())]


def ended(executor: Any, handle: Handle) -> None:
    """Wait until the container has ended."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while executor.inspect([handle])[handle].state.value == "running":
        assert time.monotonic() < deadline, "it never ended"
        time.sleep(0.02)


def talk(process: ExecProcess, given: bytes | None = None) -> tuple[int, bytes, bytes]:
    """Exit code, and what came on both streams, of a command that gets ``given`` as its input."""

    def write() -> None:
        if given is not None:
            process.write(given)
        process.close_input()

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    said = {"stdout": b"", "stderr": b""}
    while (part := process.read()) is not None:
        said[part[0]] += part[1]
    code = process.wait()
    process.close()
    writer.join(DEADLINE_SECONDS)
    return code, said["stdout"], said["stderr"]


class LogContract:
    """What ``logs`` promises."""

    def test_the_last_lines_are_told_or_all_of_them(self, executor: Any, run: Run) -> None:
        handle = run("for i in 1 2 3 4 5; do echo line $i; done; printf 'no end'")
        ended(executor, handle)
        every = [*(f"line {number}" for number in range(1, 6)), "no end"]
        assert read(executor, handle, LogQuery()) == every
        assert read(executor, handle, LogQuery(lines=2)) == every[-2:]
        assert read(executor, handle, LogQuery(lines=100)) == every
        assert read(executor, handle, LogQuery(lines=0)) == []

    def test_following_sees_what_is_written_and_ends_with_the_container(self, executor: Any, run: Run) -> None:
        handle = run("echo one; i=0; while [ $i -lt 30 ]; do i=$((i+1)); sleep 0.1; echo tick; done; echo last")
        follower = Follower(executor, handle, LogQuery(follow=True))
        follower.until("tick")
        texts = follower.end()
        assert texts[0] == "one"
        assert texts[-1] == "last"
        assert set(texts[1:-1]) == {"tick"}

    def test_following_from_now_leaves_out_what_was(self, executor: Any, run: Run) -> None:
        handle = run("echo old; echo older; while :; do sleep 0.1; echo new; done")
        Follower(executor, handle, LogQuery(follow=True)).until("new")
        follower = Follower(executor, handle, LogQuery(lines=0, follow=True))
        assert "old" not in follower.until("new")
        follower.stop.set()
        assert set(follower.end()) == {"new"}

    def test_it_ends_soon_when_asked_also_where_nothing_is_written(self, executor: Any, run: Run) -> None:
        handle = run("echo only; sleep 1000")
        follower = Follower(executor, handle, LogQuery(follow=True))
        follower.until("only")
        follower.stop.set()
        assert follower.end() == ["only"]

    def test_reading_goes_on_behind_a_cursor_without_loss_or_repetition(self, executor: Any, run: Run) -> None:
        handle = run("i=0; while [ $i -lt 500 ]; do i=$((i+1)); echo $i; done; sleep 0.3; echo 501; echo 502")
        first = Follower(executor, handle, LogQuery(follow=True))
        first.until("200")
        first.stop.set()
        texts = first.end()
        rest = read(executor, handle, LogQuery(after=first.lines[-1].cursor, follow=True))
        assert [*texts, *rest] == [str(number) for number in range(1, 503)]
        for line in first.lines[:3]:
            again = read(executor, handle, LogQuery(after=line.cursor))
            assert again[0] == str(int(line.text) + 1)

    def test_a_cursor_of_somebody_else_is_no_harm(self, executor: Any, run: Run) -> None:
        handle = run("echo one")
        ended(executor, handle)
        for cursor in ("x", "::", "0:999999999999", "../../etc/passwd:1", "2999-01-01T00:00:00Z"):
            assert set(read(executor, handle, LogQuery(after=cursor))) <= {"one"}

    def test_a_reader_that_is_slow_holds_up_nobody(self, executor: Any, run: Run) -> None:
        handle = run("i=0; while [ $i -lt 2000 ]; do i=$((i+1)); printf '%01000d\\n' $i; done; echo done")
        lines: Iterator[LogLine] = executor.logs(handle, LogQuery(follow=True), Stop())
        assert int(next(lines).text) == 1
        ended(executor, handle)
        assert [line.text for line in lines][-1] == "done"

    def test_a_long_line_comes_in_pieces_of_bounded_size(self, executor: Any, run: Run) -> None:
        size = 3 * MAX_LINE_BYTES + 17
        handle = run(f"head -c {size} /dev/zero | tr '\\0' x; echo; echo last")
        ended(executor, handle)
        *pieces, last = read(executor, handle, LogQuery())
        assert last == "last"
        assert max(len(piece) for piece in pieces) <= MAX_LINE_BYTES
        assert sum(len(piece) for piece in pieces) == size

    def test_what_is_no_text_is_replaced(self, executor: Any, run: Run) -> None:
        handle = run("printf 'a\\377b\\r\\n'; printf '\\033[31mred\\n'")
        ended(executor, handle)
        assert read(executor, handle, LogQuery()) == ["a\ufffdb", "\x1b[31mred"]


class CommandContract:
    """What ``exec`` promises."""

    @pytest.fixture
    def handle(self, run: Run) -> Handle:
        return run("echo started; sleep 1000")

    def test_a_command_ends_with_its_code_and_both_streams(self, executor: Any, handle: Handle) -> None:
        script = "echo out; echo err >&2; exit 3"
        assert talk(executor.exec(handle, ExecRequest(("sh", "-c", script)))) == (3, b"out\n", b"err\n")

    def test_arguments_are_not_read_by_a_shell(self, executor: Any, handle: Handle) -> None:
        words = ("$HOME", "a  b", "'", "*", "")
        code, out, _ = talk(executor.exec(handle, ExecRequest(("printf", "%s\\n", *words))))
        assert (code, out.decode().split("\n")[:-1]) == (0, list(words))

    def test_input_gets_there_whole_also_much_of_it(self, executor: Any, handle: Handle) -> None:
        given = bytes(range(256)) * 4000
        code, out, _ = talk(executor.exec(handle, ExecRequest(("cat",))), given)
        assert (code, out == given) == (0, True)

    def test_input_that_nobody_reads_holds_up_nobody(self, executor: Any, handle: Handle) -> None:
        code, out, _ = talk(executor.exec(handle, ExecRequest(("sh", "-c", "exec <&-; echo done"))), b"x" * 1_000_000)
        assert (code, out) == (0, b"done\n")

    def test_it_has_the_environment_of_the_container(self, executor: Any, handle: Handle) -> None:
        _, out, _ = talk(executor.exec(handle, ExecRequest(("sh", "-c", "echo $SKED_TEST"))))
        assert len(out.strip()) > 3

    def test_a_terminal_is_one_has_its_size_and_another_one_later(self, executor: Any, handle: Handle) -> None:
        # An engine may set the size a moment after the command has begun.
        sized = 'until [ "$(stty size)" = "{}" ]; do sleep 0.05; done; echo sized {};'
        script = "test -t 0 && test -t 1 && echo is-a-tty $TERM; " + sized.format("33 121", "first")
        script += 'read line; echo "got $line"; ' + sized.format("44 99", "again")
        process = executor.exec(
            handle, ExecRequest(("sh", "-c", script), tty=True, rows=33, columns=121, term="xterm-256color")
        )
        said = b""
        while b"sized first" not in said:
            said += process.read()[1]
        assert b"is-a-tty xterm-256color\r\n" in said
        process.resize(44, 99)
        process.write(b"hello\n")
        while (part := process.read()) is not None:
            said += part[1]
        assert b"got hello\r\n" in said
        assert b"sized again" in said
        assert process.wait() == 0
        process.close()

    def test_what_can_not_be_found_is_told(self, executor: Any, handle: Handle) -> None:
        try:
            code, out, err = talk(executor.exec(handle, ExecRequest(("no-such-program",))))
        except ExecutorError as error:
            assert "no-such-program" in str(error)
        else:
            assert code in (126, 127)
            assert b"no-such-program" in out + err

    def test_a_killed_one_has_the_code_of_its_signal(self, executor: Any, handle: Handle) -> None:
        assert talk(executor.exec(handle, ExecRequest(("sh", "-c", "kill -9 $$"))))[0] == 137

    def test_closing_ends_a_reader_that_waits(self, executor: Any, handle: Handle) -> None:
        process = executor.exec(handle, ExecRequest(("sh", "-c", "echo begun; sleep 1000")))
        assert process.read() == ("stdout", b"begun\n")
        seen: list[object] = []
        reader = threading.Thread(target=lambda: seen.append(process.read()), daemon=True)
        reader.start()
        process.close()
        process.close()
        reader.join(DEADLINE_SECONDS)
        assert seen == [None]

    def test_the_container_is_what_it_was_afterwards(self, executor: Any, handle: Handle) -> None:
        talk(executor.exec(handle, ExecRequest(("true",))))
        assert executor.inspect([handle])[handle].state.value == "running"
        assert read(executor, handle, LogQuery()) == ["started"], "what a command says is not the container's output"

    def test_a_command_ends_with_the_container(self, executor: Any, handle: Handle) -> None:
        process = executor.exec(handle, ExecRequest(("sh", "-c", "echo begun; sleep 1000")))
        assert process.read() == ("stdout", b"begun\n")
        executor.stop(handle, 1.0)
        while process.read() is not None:
            pass
        assert process.wait() != 0
        process.close()

    def test_in_one_that_does_not_run_nothing_is_run(self, executor: Any, run: Run) -> None:
        handle = run("exit 1")
        ended(executor, handle)
        with pytest.raises(ExecutorError):
            talk(executor.exec(handle, ExecRequest(("true",))))
        executor.stop(handle, 0)
        with pytest.raises(ExecutorError):
            talk(executor.exec(handle, ExecRequest(("true",))))
