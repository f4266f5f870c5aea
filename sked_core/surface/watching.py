"""``-w``: what a command shows, again whenever it changes. In place on a terminal; elsewhere what has changed.

Elsewhere the first look is printed whole, and then each row that is new or different. Of a row that has gone it is said
that it has: ``task/default-web-3-0 is gone``, for programs ``{"gone": "task/default-web-3-0"}``. An outage of the store
is waited for: on a terminal the first line says so, elsewhere a line on stderr.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from sked_core.client.copied.feed import Staleness
from sked_core.client.copied.mirror import Mirror
from sked_core.client.copied.picture import session_of
from sked_core.client.session import Session
from sked_core.errors import Unavailable
from sked_core.model import keys
from sked_core.model.spec import plain
from sked_core.runtime.journal import utc
from sked_core.surface.listings import Listing, tabled
from sked_core.surface.progress import Shown
from sked_core.surface.render import GAP, cell, json_line, note, out, refuse_document

REST_SECONDS = 0.1
"""Between two looks: where much happens, one look finds several changes."""
FIRST_SECONDS = 60.0
"""How long the first look may take."""


def looks(sked: Session, every: float | None = None) -> Generator[tuple[Session, Staleness | None]]:
    """The state now, after each change, and ``every`` so many seconds, as sessions that answer from a copy, for ever;
    and since when the store has been away, if it is. Raises Unavailable only if it was never there."""
    sked.store.read(keys.STORE_UID)
    logging.getLogger("sked.mirror").addHandler(logging.NullHandler())  # people are told in another way
    mirror, changed = Mirror(sked), threading.Event()
    forget = mirror.feed.listen(changed.set)
    mirror.start()
    try:
        if not mirror.ready(FIRST_SECONDS):
            stale = mirror.stale()
            raise Unavailable(stale.trouble if stale else f"nothing was read in {FIRST_SECONDS:g} seconds")
        while True:
            changed.clear()
            yield session_of(sked, mirror.look()), mirror.stale()
            changed.wait(every)
            time.sleep(REST_SECONDS)
    finally:
        forget()
        mirror.close()


def as_it_was(stale: Staleness | None) -> list[str]:
    """What stands above lines that are old."""
    return [f"AS IT WAS at {utc(stale.since)}: {stale.trouble}"] if stale else []


def watch_lines(sked: Session, lines: Callable[[Session], Sequence[str]]) -> None:
    """Show what ``lines`` says of each look, until Ctrl-C."""
    told = _Told()
    for seen, stale in looks(sked):
        told.show(lines(seen), stale)


def watch_documents(sked: Session, items: Callable[[Session], Sequence[Any]]) -> None:
    """The same for programs: a line of JSON for all of it, each time that it is another one."""
    refuse_document()
    before, told = [""], _Told()
    for seen, stale in looks(sked):
        told.away(stale)
        now = [json_line(item) for item in items(seen)]
        for line in now:
            if line not in before:
                _say(line)
        before = now


def watch(sked: Session, listing: Listing, rows: Callable[[Session], Sequence[Any]], output: str) -> None:
    """Show a listing of each look, until Ctrl-C."""
    if output == "json":
        refuse_document()
    told, changes = _Told(), _Changes(listing, output)
    drawn = output in ("table", "wide") and told.in_place
    for seen, stale in looks(sked):
        if not drawn:
            told.away(stale)
        found = rows(seen)
        if drawn:
            told.show(tabled(listing, found, output=output), stale)
        else:
            changes.show(found)


def _say(line: str) -> None:
    out(line)
    if sys.stdout is not None:
        sys.stdout.flush()


class _Told:
    """What whoever watches sees."""

    def __init__(self) -> None:
        self._shown = Shown(sys.stdout)
        self.in_place = self._shown.in_place
        self._away = False

    def show(self, lines: Sequence[str], stale: Staleness | None) -> None:
        if not self.in_place:
            self.away(stale)
            self._shown.show(lines)
        elif stale is None:
            self._shown.show(lines)
        else:
            self._shown.show([*as_it_was(stale), *lines])

    def away(self, stale: Staleness | None) -> None:
        """Say once that the store is away, and that it is back."""
        if stale is not None and not self._away:
            note(f"sked: {plain(stale.trouble)}; trying again")
        if stale is None and self._away:
            note("sked: the store answers again")
        self._away = stale is not None


class _Changes:
    """Prints rows that are new or different, in columns that fit those so far."""

    def __init__(self, listing: Listing, output: str) -> None:
        self._listing, self._output = listing, output
        self._columns = listing.shown(output)
        self._before: Mapping[str, Sequence[str]] | None = None
        self._widths: list[int] = []

    def show(self, rows: Sequence[Any]) -> None:
        now: dict[str, Sequence[str]] = {}
        for row in rows:
            now.setdefault(self._listing.name(row), self._said(row))
        if self._before is None and self._output in ("table", "wide"):
            self._head([line for lines in now.values() for line in lines])
        before = self._before or {}
        for name, lines in now.items():
            for line in lines:
                if line not in before.get(name, ()):
                    _say(self._line(line))
        for name in before.keys() - now.keys():
            if self._output != "name":
                _say(json_line({"gone": name}) if self._output == "json" else plain(f"{name} is gone"))
        self._before = now

    def _said(self, row: Any) -> Sequence[Any]:
        if self._output == "json":
            return [json_line(self._listing.json(row))]
        if self._output == "name":
            return [self._listing.name(row)]
        return [tuple(cell(one.of(line)) for one in self._columns) for line in self._listing.spread(row)]

    def _head(self, lines: Sequence[Sequence[str]]) -> None:
        titles = [one.title for one in self._columns]
        self._widths = [max(len(line[index]) for line in (titles, *lines)) for index in range(len(titles))]
        _say(self._line(titles))
        _say("-" * sum(width + GAP for width in self._widths))

    def _line(self, said: str | Sequence[str]) -> str:
        if isinstance(said, str):
            return said
        self._widths = [max(width, len(text)) for width, text in zip(self._widths, said, strict=True)]
        return "".join(text.ljust(width + GAP) for text, width in zip(said, self._widths, strict=True))
