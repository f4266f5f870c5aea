"""What one instance of a unit wrote, out of systemd's journal."""

from __future__ import annotations

import json
import re
import selectors
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from sked_core.plugin import Handle, LogLine, LogQuery, Stop
from sked_systemd.units import Units, closed

QUIET_SECONDS = 1.0
"""After so long without a line it is looked whether the container has ended."""
_CURSOR = re.compile(r"[0-9a-zA-Z=;_-]{1,400}")


def read(units: Units, handle: Handle, query: LogQuery, stop: Stop, running: Callable[[], bool]) -> Iterator[LogLine]:
    """The lines that ``query`` asks for. ``running``: whether the container does still. Raises ExecutorError."""
    if query.previous or (query.after and not _CURSOR.fullmatch(query.after)):
        return
    ways = ["--output=json", f"_SYSTEMD_INVOCATION_ID={handle.ref}"]
    if query.after:
        ways.append(f"--after-cursor={query.after}")
    elif query.lines >= 0:
        ways.append(f"--lines={query.lines}")
    else:
        ways.append("--no-tail")
    process = units.journal(*ways, *(["--follow"] if query.follow else []))
    stop.call(lambda: process.kill())
    try:
        assert process.stdout is not None
        with selectors.DefaultSelector() as ready:
            ready.register(process.stdout, selectors.EVENT_READ)
            rest, over = b"", False
            while not stop.is_set():
                if not ready.select(QUIET_SECONDS):
                    if over:
                        return
                    over = query.follow and not running()  # once more: what it wrote last may be under way
                    continue
                got = process.stdout.read1(65_536)  # type: ignore[attr-defined]
                if not got:
                    return
                *lines, rest = (rest + got).split(b"\n")
                yield from (line for one in lines if (line := _line(one)) is not None)
    finally:
        closed(process)


def _line(record: bytes) -> LogLine | None:
    try:
        told: dict[str, Any] = json.loads(record)
    except ValueError:
        return None
    text = told.get("MESSAGE")
    if isinstance(text, list):  # what is no UTF-8 comes as numbers
        text = bytes(text).decode(errors="replace")
    moment = datetime.fromtimestamp(int(told.get("__REALTIME_TIMESTAMP", "0")) / 1e6, UTC)
    return LogLine(str(text or ""), "", moment.isoformat().replace("+00:00", "Z"), str(told.get("__CURSOR", "")))
