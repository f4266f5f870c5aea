"""What was decided and what happened, as far back as the store keeps it, and on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sked_core.client.notices import notice
from sked_core.clock import SystemClock
from sked_core.errors import InvalidValue, Unavailable
from sked_core.interfaces.store import Entry, Store
from sked_core.model import keys
from sked_core.model.codec import decode
from sked_core.model.spec import plain
from sked_core.model.types import Event
from sked_core.runtime.journal import utc

LONGEST_WAIT = 10.0
PAUSE_SECONDS = 0.2
"""Between two looks: each reads all that is kept, and where much happens one look finds several."""
RETRY_SECONDS = 1.0

Wanted = Callable[[Event], bool]


@dataclass(frozen=True, slots=True)
class Happening:
    """An event. ``stored``: all its fields as they are stored, which is what ``-o json`` prints."""

    event: Event
    stored: dict[str, Any]

    def json(self) -> dict[str, Any]:
        """The same for programs."""
        return self.stored


def filtered(*, service: str = "", host: str = "", task: str = "") -> Wanted:
    """Whether an event is about the service or its tasks, the host or its tasks, the task. Raises InvalidValue for what
    can't be a name."""
    subjects = [
        f"service/{keys.check_name(service)}" if service else "",
        f"host/{keys.check_host(host)}" if host else "",
        f"task/{keys.check_task_id(task)}" if task else "",
    ]

    def wanted(event: Event) -> bool:
        given = zip(subjects, ((service, event.service), (host, event.host), (task, None)), strict=True)
        return all(not name or field == name or event.subject == subject for subject, (name, field) in given)

    return wanted


def happenings(entries: Iterable[tuple[str, Entry]]) -> list[Happening]:
    """The events in ``entries``, by key. What can't be decoded is noticed."""
    found: list[Happening] = []
    for key, entry in sorted(entries):
        try:
            found += map(Happening, decode(entry.value, list[Event]), decode(entry.value, list[dict[str, Any]]))
        except InvalidValue as error:
            notice(f"sked: {plain(key)} is left out: {plain(str(error))}")
    return found


def past(
    store: Store, wanted: Wanted, *, since: float | None = None, lines: int | None = None
) -> tuple[list[Happening], frozenset[str]]:
    """What is kept, the newest last, with the keys that were read (for ``follow``). ``since``: only of so many seconds;
    ``lines``: only the last so many. Raises Unavailable."""
    snapshot = store.read(keys.EVENTS)
    found = [one for one in happenings(snapshot.entries.items()) if wanted(one.event)]
    found.sort(key=lambda one: one.event.at)
    if since is not None:
        start = utc(SystemClock().wall() - since)
        found = [one for one in found if one.event.at >= start]
    if lines is not None:
        found = found[len(found) - min(lines, len(found)) :]
    return found, frozenset(snapshot.entries)


def follow(store: Store, seen: Iterable[str], wanted: Wanted, show: Callable[[Sequence[Happening]], None]) -> None:
    """Call ``show`` with what is told from now on, for ever; an outage of the store is noticed once, and waited for.

    Clocks of hosts differ, so that a new key may stand before others: what has been seen is remembered by key, as long
    as the store keeps it.
    """
    away, known = False, set(seen)
    while True:
        try:
            snapshot = store.read(keys.EVENTS)
            if away:
                notice("sked: the store answers again")
            away = False
            told = happenings((key, entry) for key, entry in snapshot.entries.items() if key not in known)
            show([one for one in told if wanted(one.event)])
            known = set(snapshot.entries)
            store.wait(keys.EVENTS, snapshot.revision, LONGEST_WAIT)
            time.sleep(PAUSE_SECONDS)
        except Unavailable as error:
            if not away:
                notice(f"sked: {plain(str(error))}; trying again")
            away = True
            time.sleep(RETRY_SECONDS)
