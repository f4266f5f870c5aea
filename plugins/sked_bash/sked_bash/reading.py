"""Reading the output of a container line by line, while it is written, and over what is cut off meanwhile."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from sked_bash import logs
from sked_core.plugin import MAX_LINE_BYTES, Clock, LogLine, LogQuery, Stop

PIECE_BYTES = 64 * 1024
PAUSE_SECONDS = 0.1
"""Between two looks whether more was written."""
_CURSOR = re.compile(r"([0-9a-f]*):([0-9]{1,18})")


def lines(
    folder: Path, instance: str, query: LogQuery, stop: Stop, *, running: Callable[[], bool], clock: Clock
) -> Iterator[LogLine]:
    """Lines of ``instance`` in ``folder``, as the port has it. ``running``: whether more may come. Raises OSError."""
    known = [part.instance for part in logs.parts(folder)]
    if instance not in known and known[-1] == "":
        instance = ""  # begun by an agent that kept no record of it
    if query.previous:
        # An instance that is gone from the record was the last one, or its folder is all that is left of it.
        before = known[: known.index(instance)] if instance in known else []
        if not before:
            return
        instance = before[-1]
    for each, start in _begin(folder, instance, query):
        reader = _Reader(folder, each, start, clock)
        follow = query.follow and not query.previous and each == instance
        while not stop.is_set():
            alive = follow and running()  # asked before the last look, so that nothing slips between
            yield from reader.more(stop)
            if not alive:
                yield from reader.rest()
                break
            reader.live = True
            stop.wait(PAUSE_SECONDS)


class _Reader:
    """Goes through the output of one instance. ``live``: what it finds now has just been written."""

    def __init__(self, folder: Path, instance: str, start: int, clock: Clock) -> None:
        self._folder, self._instance, self._clock = folder, instance, clock
        self._at, self._held, self.live = start, b"", False

    def more(self, stop: Stop) -> Iterator[LogLine]:
        """All whole lines that are there; the beginning of one more is kept for the next time."""
        while not stop.is_set():
            at, data = logs.piece(self._folder, self._instance, self._at, PIECE_BYTES)
            if not data:
                return
            now = datetime.fromtimestamp(self._clock.wall(), UTC).isoformat(timespec="milliseconds")
            stamp = now.replace("+00:00", "Z") if self.live else ""
            if at > self._at:
                yield from self.rest()
                yield self._line(f"{at - self._at} bytes were not kept here", at, stamp, stream="note")
            self._at = at + len(data)
            *whole, self._held = (self._held + data).split(b"\n")
            end = self._at - len(self._held) - sum(len(line) + 1 for line in whole)
            for line in whole:
                *first, last = _split(line)
                for part in first:
                    end += len(part)
                    yield self._line(_text(part), end, stamp)
                end += len(last) + 1
                yield self._line(_text(last), end, stamp)
            while len(self._held) > MAX_LINE_BYTES:
                part = next(_split(self._held))
                self._held = self._held[len(part) :]
                yield self._line(_text(part), self._at - len(self._held), stamp)

    def rest(self) -> Iterator[LogLine]:
        """The last line, where it has no end."""
        if self._held:
            held, self._held = self._held, b""
            yield self._line(_text(held), self._at, "")

    def _line(self, text: str, end: int, at: str, *, stream: str = "") -> LogLine:
        return LogLine(text, stream, at, f"{self._instance}:{end}")


def _begin(folder: Path, instance: str, query: LogQuery) -> Iterator[tuple[str, int]]:
    """Which instances to read, each from which byte: what is left of an earlier one, for whoever read that last."""
    cursor = _CURSOR.fullmatch(query.after)
    if cursor is None:
        yield instance, _start_of_last(folder, instance, query.lines)
        return
    read, at = cursor[1], int(cursor[2])
    known = list(dict.fromkeys(part.instance for part in logs.parts(folder)))
    if read in known and instance in known:
        known = known[known.index(read) : known.index(instance) + 1]
    if not known or known[0] != read:
        yield instance, 0
        return
    yield from ((each, at if each == read else 0) for each in known)


def _start_of_last(folder: Path, instance: str, count: int) -> int:
    """The byte at which the last ``count`` lines begin (-1: the first whole line that is kept)."""
    kept = [part for part in logs.parts(folder) if part.instance == instance]
    first, end = (kept[0].start, kept[-1].end) if kept else (0, 0)
    if count == 0:
        return end
    missing = count
    for part in reversed(kept) if count > 0 else ():
        at = part.end
        while at > part.start:
            low = max(part.start, at - PIECE_BYTES)
            start, data = logs.piece(folder, instance, low, at - low)
            data = data[: max(0, at - start)]  # nothing, where it was cut off meanwhile
            place = len(data) - (at == end and data.endswith(b"\n"))  # the end of the very last line parts nothing
            while missing and (place := data.rfind(b"\n", 0, place)) >= 0:
                missing -= 1
            if not missing:
                return start + place + 1
            at = low
    if first == 0:
        return 0
    start, data = logs.piece(folder, instance, first, MAX_LINE_BYTES)
    return start + data.find(b"\n") + 1  # whatever was cut off left half a line


def _split(line: bytes) -> Iterator[bytes]:
    """Pieces of at most MAX_LINE_BYTES, none of which ends within a character; one, where the line is that short."""
    while len(line) > MAX_LINE_BYTES:
        cut = MAX_LINE_BYTES
        while cut > MAX_LINE_BYTES - 4 and line[cut] & 0xC0 == 0x80:
            cut -= 1
        yield line[:cut]
        line = line[cut:]
    yield line


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "replace")
