"""Progress for whoever waits: a block that is redrawn in place on a terminal, the lines that changed elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Callable, Sequence
from typing import TextIO, TypeVar

from sked_core.client import outcomes
from sked_core.model.spec import plain

T = TypeVar("T")
LOOK_SECONDS = 0.5


class Shown:
    """The lines that a wait shows, on stderr. Not to be shared between threads.

    Nothing else may be printed between two calls of ``show``, except by ``say``.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self.in_place = self._stream.isatty() and os.environ.get("TERM") not in (None, "", "dumb")
        """Whether lines are redrawn: a spinner or a running time may be among them only then."""
        self._before: list[str] = []
        self._drawn = 0

    def show(self, lines: Sequence[str]) -> None:
        """``lines`` are how things are now. On a terminal they replace those of before, cut to its width and height;
        elsewhere those that were not among them are printed, whole."""
        now = [plain(line) for line in lines]
        if self.in_place:
            if now != self._before:
                self._draw(now)
        else:
            self._write([line for line in now if line not in self._before])
        self._before = now

    def say(self, line: str) -> None:
        """A line that stays: above the block on a terminal."""
        if self.in_place:
            drawn, self._drawn = self._drawn, 0
            self._stream.write(_back(drawn))
            self._write([plain(line)])
            self._draw(self._before)
        else:
            self._write([plain(line)])

    def _draw(self, lines: Sequence[str]) -> None:
        width, height = self._size()
        room = max(1, height - 1)
        shown = list(lines) if len(lines) <= room else [*lines[: room - 1], f"… and {len(lines) - room + 1} more"]
        self._stream.write(_back(self._drawn))
        self._write([_cut(line, width) for line in shown])
        self._drawn = len(shown)

    def _write(self, lines: Sequence[str]) -> None:
        self._stream.write("".join(f"{line}\n" for line in lines))
        self._stream.flush()

    def _size(self) -> tuple[int, int]:
        """Columns and lines, asked each time: windows are resized."""
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return shutil.get_terminal_size()
        # Consoles of containers and of serial lines may say 0 by 0.
        return size if size.columns and size.lines else shutil.get_terminal_size((80, 24))


def wait_for(pending: Callable[[], T], timeout: float, goes_on: str, hint: str, pause: float = LOOK_SECONDS) -> T:
    """What ``pending`` returned last: nothing, or, after ``timeout`` seconds, what it still waits for. Raises Ended on
    Ctrl-C, with what ``goes_on`` all the same, and a ``hint`` how to look again."""
    deadline = time.monotonic() + timeout
    try:
        while (late := pending()) and time.monotonic() < deadline:
            time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
        return late
    except KeyboardInterrupt:
        raise outcomes.Ended(f"interrupted; {goes_on}", code=outcomes.INTERRUPTED, hint=hint) from None


def _back(lines: int) -> str:
    """What moves the cursor to the first of the ``lines`` above and clears from there on."""
    return f"\x1b[{lines}A\r\x1b[J" if lines else ""


def _cut(line: str, width: int) -> str:
    """``line`` in at most ``width`` - 1 columns, so that no terminal wraps it."""
    room = max(1, width - 1)
    if len(line) * 2 <= room:
        return line
    taken = 0
    for index, character in enumerate(line):
        taken += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if taken > room - (index < len(line) - 1):
            return line[:index] + "…"
    return line
