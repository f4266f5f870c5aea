"""``sked events``: what was decided and what happened, as far back as the store keeps it, and on."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import click
import msgspec

from sked_core.clock import SystemClock
from sked_core.errors import InvalidValue, Unavailable
from sked_core.interfaces.store import Entry, Store
from sked_core.model import keys
from sked_core.model.codec import decode
from sked_core.model.spec import plain
from sked_core.model.types import Event
from sked_core.runtime.journal import utc
from sked_core.surface.options import command, duration, session
from sked_core.surface.render import GAP, cell, document, note, out

LONGEST_WAIT = 10.0
PAUSE_SECONDS = 0.2
"""Between two looks: each reads all that is kept, and where much happens one look finds several."""
RETRY_SECONDS = 1.0
FIRST_LINES = 10
"""How many of the past are shown before those that follow."""
COLUMNS = ("at", "who", "what", "subject", "host", "from -> to", "why")
USUAL_WIDTHS = (20, 24, 18, 24, 10, 14, 0)
"""For a table whose rows are not known yet."""


@command("events")
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on, until Ctrl-C.")
@click.option("--by-service", metavar="SERVICE", default="", help="Only of this service and its tasks.")
@click.option("--by-host", metavar="HOST", default="", help="Only of this host and its tasks.")
@click.option("--by-task", metavar="ID", default="", help="Only of this task.")
@click.option("--since", metavar="TIME", callback=duration, help="Only of the last 10m, 1h30m, ….")
@click.option("-n", "--lines", type=click.IntRange(min=0), help="Only the last so many; with -f 10 if not said.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "jsonl"]), default="table", show_default=True,
              help="How to print.")  # fmt: skip
def events(
    follow: bool, by_service: str, by_host: str, by_task: str, since: float | None, lines: int | None, output: str
) -> None:
    """Show who decided what and why, the newest last: as far back as the store keeps it."""
    if follow and output == "json":
        raise click.UsageError("a document has an end, what follows has none: -o jsonl")
    wanted = _filter(by_service, by_host, by_task)
    if follow and lines is None and since is None:
        lines = FIRST_LINES
    with session() as sked:
        snapshot = sked.store.read(keys.EVENTS)
        found = [one for one in _told(snapshot.entries.items()) if wanted(one.event)]
        found.sort(key=lambda one: one.event.at)
        if since is not None:
            start = utc(SystemClock().wall() - since)
            found = [one for one in found if one.event.at >= start]
        if lines is not None:
            found = found[len(found) - min(lines, len(found)) :]
        if output == "json":
            return out(document("EventList", [one.stored for one in found]))
        show = _jsonl if output == "jsonl" else _Table(found, follow=follow).show
        show(found)
        if follow:
            _follow(sked.store, set(snapshot.entries), lambda more: show([one for one in more if wanted(one.event)]))
        return None


@dataclass(frozen=True, slots=True)
class _Told:
    event: Event
    stored: dict[str, Any]


def _told(entries: Iterable[tuple[str, Entry]]) -> list[_Told]:
    """The events in ``entries``, by key. What can't be decoded is named on stderr."""
    found: list[_Told] = []
    for key, entry in sorted(entries):
        try:
            found += map(_Told, decode(entry.value, list[Event]), decode(entry.value, list[dict[str, Any]]))
        except InvalidValue as error:
            note(f"sked: {plain(key)} is left out: {plain(str(error))}")
    return found


def _filter(service: str, host: str, task: str) -> Callable[[Event], bool]:
    subjects = [
        f"service/{keys.check_name(service)}" if service else "",
        f"host/{keys.check_host(host)}" if host else "",
        f"task/{keys.check_task_id(task)}" if task else "",
    ]

    def wanted(event: Event) -> bool:
        given = zip(subjects, ((service, event.service), (host, event.host), (task, None)), strict=True)
        return all(not name or field == name or event.subject == subject for subject, (name, field) in given)

    return wanted


def _follow(store: Store, seen: set[str], show: Callable[[Sequence[_Told]], None]) -> None:
    """Show what is told from now on. Clocks of hosts differ, so that a new key may stand before others: what has been
    seen is remembered by key, as long as the store keeps it."""
    away = False
    while True:
        try:
            snapshot = store.read(keys.EVENTS)
            if away:
                note("sked: the store answers again")
            away = False
            show(_told((key, entry) for key, entry in snapshot.entries.items() if key not in seen))
            seen = set(snapshot.entries)
            store.wait(keys.EVENTS, snapshot.revision, LONGEST_WAIT)
            time.sleep(PAUSE_SECONDS)
        except Unavailable as error:
            if not away:
                note(f"sked: {plain(str(error))}; trying again")
            away = True
            time.sleep(RETRY_SECONDS)


def _jsonl(found: Sequence[_Told]) -> None:
    for one in found:
        out(msgspec.json.encode(one.stored).decode())


class _Table:
    """Rows one by one, in columns that fit those so far; the last column is not filled up."""

    def __init__(self, first: Sequence[_Told], *, follow: bool) -> None:
        rows = [COLUMNS, *map(_row, first)]
        least = USUAL_WIDTHS if follow else (0,) * len(COLUMNS)
        terminal = sys.stdout is not None and sys.stdout.isatty()
        self._gap = " " * (2 if terminal else GAP)
        self._widths = [max(least[i], *(len(row[i]) for row in rows)) for i in range(len(COLUMNS))]
        rule = sum(self._widths) + len(self._gap) * len(COLUMNS)
        out(self._line(COLUMNS))
        out("-" * (min(rule, shutil.get_terminal_size().columns) if terminal else rule))

    def show(self, found: Sequence[_Told]) -> None:
        for row in map(_row, found):
            self._widths = [max(width, len(text)) for width, text in zip(self._widths, row[:-1], strict=False)] + [0]
            out(self._line(row))

    def _line(self, row: Sequence[str]) -> str:
        return self._gap.join(text.ljust(width) for text, width in zip(row, self._widths, strict=True)).rstrip()


def _row(one: _Told) -> tuple[str, ...]:
    event = one.event
    change = f"{event.before} -> {event.after}".strip() if event.before or event.after else ""
    return tuple(map(cell, (event.at, event.who, event.what, event.subject, event.host, change, event.why)))
