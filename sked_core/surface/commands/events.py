"""``sked events``: what was decided and what happened, as far back as the store keeps it, and on."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

import click

from sked_core.client.looking.happenings import Happening, filtered, past
from sked_core.client.looking.happenings import follow as go_on
from sked_core.client.naming import notice_unknown
from sked_core.model.spec import one_line
from sked_core.surface.options import by_option, command, duration, output_option, session
from sked_core.surface.render import GAP, cell, emit, json_line, out, refuse_document

FIRST_LINES = 10
"""How many of the past are shown before those that follow."""
COLUMNS = ("at", "who", "what", "subject", "host", "from -> to", "why")
USUAL_WIDTHS = (20, 24, 18, 24, 10, 14, 0)
"""For a table whose rows are not known yet."""


@command(
    "events",
    "sked events -n 20",
    "sked events -f --by-service web",
    "sked events --since 1h --by-host web-1",
    "sked events -o jsonl | jq -r 'select(.what == \"task.failed\") | .subject'",
)
@click.option("-f", "--follow", "-w", "--watch", "follow", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@by_option("service", "Only of this service and its tasks.")
@by_option("host", "Only of this host and its tasks.")
@by_option("task", "Only of this task.")
@click.option("--since", metavar="TIME", callback=duration, help="Only of the last 10m, 1h30m, ….")
@click.option("-n", "--lines", type=click.IntRange(min=0), help="Only the last so many; with -f 10 if not said.")
@output_option
def events(
    follow: bool, by_service: str, by_host: str, by_task: str, since: float | None, lines: int | None, output: str
) -> None:
    """Show who decided what and why, the newest last: as far back as the store keeps it."""
    if follow and output == "json":
        refuse_document()
    wanted = filtered(service=by_service, host=by_host, task=by_task)
    if follow and lines is None and since is None:
        lines = FIRST_LINES
    with session() as sked:
        found, seen = past(sked.store, wanted, since=since, lines=lines)
        if not found and lines != 0:
            notice_unknown(sked.store, service=by_service, host=by_host, task=by_task)
        if output == "json" and not follow:
            return emit("EventList", [one.json() for one in found])
        show = _jsonl if output == "json" else _Table(found, follow=follow).show
        show(found)
        if follow:
            go_on(sked.store, seen, wanted, show)
        return None


def _jsonl(found: Sequence[Happening]) -> None:
    for one in found:
        out(json_line(one.json()))


class _Table:
    """Rows one by one, in columns that fit those so far; the last column is not filled up."""

    def __init__(self, first: Sequence[Happening], *, follow: bool) -> None:
        rows = [COLUMNS, *map(_row, first)]
        least = USUAL_WIDTHS if follow else (0,) * len(COLUMNS)
        terminal = sys.stdout is not None and sys.stdout.isatty()
        self._gap = " " * (2 if terminal else GAP)
        self._widths = [max(least[i], *(len(row[i]) for row in rows)) for i in range(len(COLUMNS))]
        rule = sum(self._widths) + len(self._gap) * len(COLUMNS)
        out(self._line(COLUMNS))
        out("-" * (min(rule, shutil.get_terminal_size().columns) if terminal else rule))

    def show(self, found: Sequence[Happening]) -> None:
        for row in map(_row, found):
            self._widths = [max(width, len(text)) for width, text in zip(self._widths, row[:-1], strict=False)] + [0]
            out(self._line(row))

    def _line(self, row: Sequence[str]) -> str:
        return self._gap.join(text.ljust(width) for text, width in zip(row, self._widths, strict=True)).rstrip()


def _row(one: Happening) -> tuple[str, ...]:
    event = one.event
    change = f"{event.before} -> {event.after}".strip() if event.before or event.after else ""
    return tuple(map(cell, (event.at, event.who, event.what, event.subject, event.host, change, one_line(event.why))))
