"""What one process tells of what it decided and what it saw: events, kept in the store within a bound.

The events of one commit stand together under one key, so that telling costs one operation however many tasks a decision
moves. Ids begin with the time, so that keys sort as they happened; time is used for nothing else.
"""

from __future__ import annotations

import datetime
import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sked_core.clock import Clock
from sked_core.errors import Conflict
from sked_core.interfaces.store import Check, Delete, Op, Put, Store
from sked_core.model import codec, keys
from sked_core.model.types import Event
from sked_core.runtime.state import batches

log = logging.getLogger("sked.events")
MAX_KEPT_KEYS, MAX_KEPT_BYTES = 1000, 1024 * 1024
"""How much is kept in the store: a thousand commits that told something, or a megabyte of them."""
MAX_BYTES_OF_COMMIT = 24 * 1024
"""What the events of one commit may take, some hundred of them: it has to fit into the commit (state.batches)."""
MAX_TEXT = 500
"""Characters of a reason that an event keeps, and of what was before and after."""
MAX_WAITING = 1000
"""How many events wait for a store that does not answer; the oldest are given up first."""

Observer = Callable[[Event], None]
"""Is called with each event once it has happened; must not raise."""


def utc(wall: float) -> str:
    """``wall`` (seconds since the epoch) as people read it: ``2026-11-29T16:20:05Z``."""
    return datetime.datetime.fromtimestamp(wall, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Journal:
    """The events of one process. Callable from any thread.

    ``who`` is what they call it; ``source`` tells its keys from those of others of this name, where there are any.
    """

    def __init__(
        self, store: Store, clock: Clock, who: str, observer: Observer = lambda _: None, *, source: str = ""
    ) -> None:
        self._store, self._clock, self.who, self._observer = store, clock, who, observer
        self._source = re.sub(r"[^A-Za-z0-9._-]+", "-", source or who)[-100:]
        self._count = 0
        self._waiting: list[Event] = []
        self._unsent: Put | None = None
        """What a commit of unknown outcome may have kept already: under the same key it is kept once."""
        self._mutex, self._flushing = threading.Lock(), threading.Lock()

    def event(self, what: str, subject: str, *, why: str = "", **fields: str) -> Event:
        """An event of now. ``fields``: service, host, before, after."""
        texts: dict[str, Any] = {name: _text(value) for name, value in (fields | {"why": why}).items()}
        return Event(at=self.now(), who=self.who, what=what, subject=subject, **texts)

    def now(self) -> str:
        """The time as people read it."""
        return utc(self._clock.wall())

    def put(self, events: Sequence[Event]) -> Put:
        """The operation that keeps ``events``, to go into the commit that makes them true. Call ``tell`` after it.

        Of very many (MAX_BYTES_OF_COMMIT) the first are kept, and one more that says how many there were.
        """
        shown = next(_parts(events), [])
        if len(events) > len(shown):
            rest = f"{len(events) - len(shown)} more of the same commit are not told one by one"
            shown.append(self.event("events.omitted", shown[-1].subject, service=shown[-1].service, why=rest))
        with self._mutex:
            self._count += 1
            event_id = f"{int(self._clock.wall() * 1000):014d}-{self._source}-{self._count}"
        return Put(keys.events(event_id), codec.encode(shown))

    def tell(self, events: Sequence[Event]) -> None:
        """Hand events that have happened to whoever observes them."""
        for event in events:
            self._observer(event)

    def commit(self, ops: Sequence[Op], events: Sequence[Event]) -> None:
        """Commit ``ops`` together with what keeps ``events``, and tell them. Raises what the store raises."""
        self._store.commit([*ops, self.put(events)] if events else ops)
        self.tell(events)

    def add(self, event: Event) -> None:
        """Tell an event that goes with no commit: observers learn it now, the store with the next ``flush``."""
        self._observer(event)
        with self._mutex:
            self._waiting.append(event)
            del self._waiting[:-MAX_WAITING]

    def flush(self) -> None:
        """Keep what was added. Raises SkedError; then it is kept with the next one, and never twice."""
        with self._flushing:
            while True:
                if self._unsent is None:
                    with self._mutex:
                        part = next(_parts(self._waiting), [])
                        del self._waiting[: len(part)]
                    if not part:
                        return
                    self._unsent = self.put(part)
                self._store.commit([self._unsent])
                self._unsent = None

    def trim(self) -> None:
        """Remove the oldest events beyond what is kept. Harmless however many do it at once. Raises Unavailable."""
        entries = sorted(self._store.read(keys.EVENTS).entries.items(), reverse=True)
        kept, size, surplus = 0, 0, []
        for key, entry in entries:
            kept, size = kept + 1, size + len(entry.value)
            if kept > MAX_KEPT_KEYS or size > MAX_KEPT_BYTES:
                surplus.append((Check(key, entry.revision), Delete(key)))
        for batch in batches(reversed(surplus), max_ops=self._store.max_ops):
            try:
                self._store.commit(batch)
            except Conflict:
                log.debug("somebody else removes old events as well")
                return


def _text(value: str) -> str:
    """``value`` as a store can hold it: what tasks print may be long, and need not be text."""
    return value[:MAX_TEXT].encode(errors="backslashreplace").decode()


def _parts(events: Sequence[Event]) -> Iterator[list[Event]]:
    """``events`` in order, in lists that one key may hold."""
    part: list[Event] = []
    size = 0
    for event in events:
        weight = len(codec.encode(event)) + 1
        if part and size + weight > MAX_BYTES_OF_COMMIT:
            yield part
            part, size = [], 0
        part.append(event)
        size += weight
    if part:
        yield part
