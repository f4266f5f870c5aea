"""How runs of this host's tasks ended, kept in the store when the tasks are gone: a bounded number of slots.

Endings wait, on the agent's disk as well, until a job has written them: a store that is slow or away holds up nothing
else, and gets them later. While nothing ends, nothing is read or written.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import partial

from sked_core.errors import InvalidValue, SkedError
from sked_core.interfaces.store import Put, Store
from sked_core.logic.keeping import place
from sked_core.model import codec, keys
from sked_core.model.endings import Ending
from sked_core.runtime.agent.disk import AgentDisk
from sked_core.runtime.state import batches
from sked_core.runtime.workers import Message, Submit

log = logging.getLogger("sked.agent")
RETRY_SECONDS = 10.0
"""When to try again what the store did not take."""
POOL = "endings"


class EndingNotes:
    """Used by the agent's main thread."""

    def __init__(self, *, store: Store, host: str, disk: AgentDisk, submit: Submit) -> None:
        self._store, self._host, self._disk, self._submit = store, host, disk, submit
        self._kept: Mapping[int, Ending] | None = None
        """What the store holds; None until it was asked, which is when there is something to write."""
        self._waiting = _joined({}, disk.endings())
        """What is to be written, in slots of its own: bounded as well."""
        self._unsaved = self._busy = False
        self._due = 0.0

    def note(self, ending: Ending) -> None:
        """It is written with the next ``begin``."""
        self._waiting = _joined(self._waiting, [ending])
        self._unsaved = True

    def begin(self, now: float, *, frozen: bool) -> None:
        """Begin to write what waits; while ``frozen`` (the store may be a stranger's) to the disk alone."""
        write = bool(self._waiting) and not frozen and now >= self._due
        if self._busy or not (write or self._unsaved):
            return
        self._busy, self._unsaved = True, False
        sent, self._waiting = self._waiting, {}
        self._submit(POOL, partial(self._settle, sent, write))

    def _settle(self, sent: Mapping[int, Ending], write: bool) -> Message:
        # What was noted is not to be lost with the agent, whether or not the store can be reached.
        self._disk.keep_endings(_in_order(sent))
        kept = self._kept
        if write:
            try:
                kept = self._read() if kept is None else kept
                found = _joined(kept, _in_order(sent))
                self._write(kept, found)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
                log.log(logging.DEBUG if isinstance(error, SkedError) else logging.ERROR, "endings wait: %s", error)
            else:
                self._disk.keep_endings([])
                return partial(self._settled, found, {}, 0.0)
        return partial(self._settled, kept, sent, RETRY_SECONDS if write else 0.0)

    def _settled(self, kept: Mapping[int, Ending] | None, left: Mapping[int, Ending], pause: float, now: float) -> None:
        """``left``: what was not written, perhaps before others that came meanwhile."""
        self._busy, self._kept = False, kept
        self._waiting, self._due = _joined(left, _in_order(self._waiting)), now + pause

    def _read(self) -> dict[int, Ending]:
        """What an earlier agent of this host left; what can't be read gives way."""
        entries, found = self._store.read(keys.endings(self._host)).entries, {}
        for slot in range(keys.KEPT_ENDINGS):
            entry = entries.get(keys.ending(self._host, slot))
            try:
                if entry is not None:
                    found[slot] = codec.decode(entry.value, Ending)
            except InvalidValue as error:
                log.warning("%s: %s", keys.ending(self._host, slot), error)
        return found

    def _write(self, kept: Mapping[int, Ending], wanted: Mapping[int, Ending]) -> None:
        changed = {slot: one for slot, one in wanted.items() if one is not kept.get(slot)}
        puts = [[Put(keys.ending(self._host, slot), codec.encode(one))] for slot, one in changed.items()]
        for batch in batches(puts, max_ops=self._store.max_ops):
            self._store.commit(batch)


def _joined(slots: Mapping[int, Ending], endings: Iterable[Ending]) -> dict[int, Ending]:
    joined = dict(slots)
    for ending in endings:
        slot, found = place(joined, ending)
        joined[slot] = found
    return joined


def _in_order(slots: Mapping[int, Ending]) -> list[Ending]:
    return sorted(slots.values(), key=lambda one: one.ended)
