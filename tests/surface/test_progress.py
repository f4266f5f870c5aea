"""What a wait shows: redrawn on a terminal, line by line elsewhere."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import termios
from collections.abc import Iterator

import pytest

from sked_core.surface.progress import Shown


class Terminal:
    """A pseudo-terminal, and what would stand on its screen."""

    def __init__(self, columns: int, lines: int) -> None:
        self._master, slave = pty.openpty()
        self._slave = slave
        self.resize(columns, lines)
        attributes = termios.tcgetattr(slave)
        attributes[1] &= ~termios.OPOST
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        self.stream = os.fdopen(slave, "w", encoding="utf-8")
        self._written = ""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def screen(self) -> list[str]:
        self.stream.write("\0")  # what was written before it has come through once it has
        self.stream.flush()
        written = b""
        while not written.endswith(b"\0"):
            written += os.read(self._master, 65536)
        self._written += written[:-1].decode()
        rows: list[str] = [""]
        for up, text in re.findall(r"\x1b\[(\d+)A\r\x1b\[J|([^\x1b]+)", self._written):
            if up:
                rows[-1 - int(up) :] = [""]
            else:
                first, *rest = text.split("\n")
                rows[-1] += first
                rows += rest
        return rows[:-1]

    def close(self) -> None:
        self.stream.close()
        os.close(self._master)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal(columns=20, lines=5)
    yield terminal
    terminal.close()


def test_on_a_terminal_the_block_is_redrawn_in_place(terminal):
    shown = Shown(terminal.stream)
    shown.show(["a: 0 of 2", "b: 0 of 2"])
    shown.show(["a: 1 of 2"])
    shown.show(["a: 2 of 2", "b: 2 of 2"])
    assert terminal.screen() == ["a: 2 of 2", "b: 2 of 2"]


def test_what_is_said_stays_above_the_block(terminal):
    shown = Shown(terminal.stream)
    shown.show(["a: 0 of 2"])
    shown.say("the store is away")
    shown.show(["a: 1 of 2"])
    assert terminal.screen() == ["the store is away", "a: 1 of 2"]


def test_a_terminal_is_never_wrapped_nor_scrolled_past(terminal):
    shown = Shown(terminal.stream)
    shown.show(["x" * 19, "x" * 20, "語" * 15, *"abcd"])
    assert terminal.screen() == ["x" * 19, "x" * 18 + "…", "語" * 9 + "…", "… and 4 more"]
    shown.show(["a"])
    shown.show(["b"])
    assert terminal.screen()[-1] == "b"


def test_a_console_that_does_not_know_its_size_shows_what_there_is(terminal):
    terminal.resize(0, 0)
    shown = Shown(terminal.stream)
    shown.show(["default/web: 1 of 4 tasks healthy"])
    assert terminal.screen() == ["default/web: 1 of 4 tasks healthy"]


def test_a_dumb_terminal_gets_lines(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    shown = Shown(terminal.stream)
    shown.show(["x" * 30])
    shown.show(["y"])
    assert terminal.screen() == ["x" * 30, "y"]


def test_elsewhere_each_change_is_a_whole_line_without_escapes():
    stream = io.StringIO()
    shown = Shown(stream)
    shown.show(["a: 0 of 2", "b: " + "x" * 300])
    shown.show(["a: 0 of 2", "b: " + "x" * 300])
    shown.show(["a: 1 of 2\x1b[2J", "b: " + "x" * 300])
    shown.say("done")
    assert stream.getvalue().splitlines() == ["a: 0 of 2", "b: " + "x" * 300, "a: 1 of 2\\x1b[2J", "done"]
