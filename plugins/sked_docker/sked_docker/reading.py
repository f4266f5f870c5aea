"""Reading the output of a container line by line, while it is written.

The engine keeps the output and sends it as fast as it is read, message by message: a piece of a line with the time at
which the line began. It takes a time as the place to go on from, so that a cursor is the time of a line and how many of
that time were told already.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime

from sked_core.plugin import MAX_LINE_BYTES, ExecutorError, LogLine, LogQuery, Stop
from sked_docker.engine import Engine, words_of
from sked_docker.output import HEADER

STREAMS = {1: "stdout", 2: "stderr"}
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z ")
_CURSOR = re.compile(r"([0-9]{1,12})\.([0-9]{9})/([0-9]{1,9})")


def lines_of(engine: Engine, ref: str, query: LogQuery, stop: Stop) -> Iterator[LogLine]:
    """Lines of the container ``ref``, as the port has it. Of those before this instance nothing is kept."""
    if query.previous:
        return
    after, lines = query.after, query.lines
    # A stream that follows a container may end with it before all was sent: what is kept then is read once more.
    for follow in (True, False) if query.follow else (False,):
        if query.follow and not follow and not after and not lines:
            return  # nothing came, and nothing was wanted of what was there before
        for line in _read(engine, ref, after, lines, stop, follow=follow):
            yield line
            if not line.cursor:
                return
            after = line.cursor
        if stop.is_set():
            return


def _read(engine: Engine, ref: str, after: str, lines: int, stop: Stop, *, follow: bool) -> Iterator[LogLine]:
    from docker.types import CancellableStream

    cursor = _CURSOR.fullmatch(after)
    asked = {"stdout": "1", "stderr": "1", "timestamps": "1", "follow": "1" if follow else "0"}
    if cursor:
        asked |= {"since": f"{cursor[1]}.{cursor[2]}", "tail": "all"}
    else:
        asked |= {"tail": "all" if lines < 0 else str(lines)}
    with engine.stream("GET", f"/containers/{ref}/logs", query=asked) as response:
        if response.status_code == 404:
            return
        if response.status_code in (409, 500, 501):  # of a log driver that can't be read from
            yield LogLine(f"its output can't be read: {words_of(response)}", "note")
            return
        if response.status_code != 200:
            raise ExecutorError(f"the Docker engine can't read the output of {ref[:12]}: {words_of(response)}")
        chunks = CancellableStream(response.raw.stream(64 * 1024), response)

        def end() -> None:
            with suppress(OSError, AttributeError):  # it may be ending by itself right now
                chunks.close()

        stop.call(end)
        told = int(cursor[3]) if cursor else 0
        for line in lines_in(chunks):
            if stop.is_set():
                return
            if cursor and told and line.cursor.startswith(f"{cursor[1]}.{cursor[2]}/"):
                told -= 1
                continue
            yield line


def lines_in(chunks: Iterable[bytes]) -> Iterator[LogLine]:
    """Lines out of what the engine sends, whichever way it is cut."""
    held: dict[int, tuple[bytes, bytes]] = {}
    count: dict[str, int] = {}

    def line(number: int, stamp: bytes, text: bytes) -> LogLine:
        place = _place(stamp)
        for other in [known for known in count if known != place]:
            del count[other]
        count[place] = count.get(place, 0) + 1
        shown = text.removesuffix(b"\r").decode("utf-8", "replace")
        return LogLine(shown, STREAMS.get(number, ""), stamp.decode().strip(), f"{place}/{count[place]}")

    for number, message in _messages(chunks):
        found = _STAMP.match(message)
        stamp, text = (found[0], message[found.end() :]) if found else (b"", message)
        begun, before = held.pop(number, (stamp, b""))
        text = before + text
        while len(text) > MAX_LINE_BYTES and text.find(b"\n", 0, MAX_LINE_BYTES + 1) < 0:
            cut = MAX_LINE_BYTES
            while cut > MAX_LINE_BYTES - 4 and text[cut] & 0xC0 == 0x80:
                cut -= 1
            yield line(number, begun, text[:cut])
            text = text[cut:]
        *whole, rest = text.split(b"\n")
        for one in whole:
            yield line(number, begun, one)
        if rest:
            held[number] = (begun, rest)
    for number, (begun, rest) in held.items():
        yield line(number, begun, rest)


def _messages(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Each message with the number of its stream; one that was cut short is left out."""
    raw = bytearray()
    for chunk in chunks:
        raw += chunk
        while len(raw) >= HEADER and len(raw) >= (end := HEADER + int.from_bytes(raw[4:HEADER], "big")):
            yield raw[0], bytes(raw[HEADER:end])
            del raw[:end]


def _place(stamp: bytes) -> str:
    """The time as the engine takes it: seconds since the epoch, and nanoseconds."""
    found = _STAMP.match(stamp)
    if not found:
        return "0.000000000"
    seconds = int(datetime.fromisoformat(found[1].decode() + "+00:00").timestamp())
    return f"{seconds}.{(found[2] or b'0').decode().ljust(9, '0')}"
