"""Whose a task is: where ``state/tasks/<id>`` and a host's key disagree, the former counts (reliability.md A13, B5).

Not so for what the task is. All agents may write ``state/tasks/``, and only one of them ``state/hosts/<host>/``: what
would have anything else started here is never taken from the former (decision 0034). They are written together, so
only a tool or a person can have brought them apart: it is looked for at a slow pace.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from sked_core.clock import Clock
from sked_core.errors import Conflict, Denied, InvalidValue
from sked_core.interfaces.store import Check, Delete, Entry, Op, Put, Revision, Store, entry_at
from sked_core.model import codec, keys
from sked_core.model.types import Task
from sked_core.runtime.state import decode_task

log = logging.getLogger("sked.agent")
ROUND_SECONDS, ROUND_LOOKS = 60.0, 30
"""How many tasks are looked at in how long, those first that have not been for longest; all at the first round."""
LONGEST_SECONDS = 3.0
"""After which a round is over: with a slow store, orders must not wait for it."""


class Ownership:
    """Brings the keys of one host in line. Not thread-safe."""

    def __init__(self, store: Store, host: str, clock: Clock) -> None:
        self._store, self._host, self._clock = store, host, clock
        self._looked: dict[str, float] = {}
        self._due = float("-inf")

    def settle(self, entries: Mapping[str, Entry]) -> Mapping[str, Entry]:
        """``entries`` below this host's prefix without those that turned out to be stale: their keys are removed.

        A task that another host's key lacks is written there. Cheap but once a round. Raises Unavailable.
        """
        begun = self._clock.monotonic()
        if begun < self._due:
            return entries
        self._due = begun + ROUND_SECONDS
        oldest = sorted(entries, key=lambda key: self._looked.get(key, 0.0))[: ROUND_LOOKS if self._looked else None]
        self._looked = {key: at for key, at in self._looked.items() if key in entries}
        stale = set()
        for key in oldest:
            if self._clock.monotonic() - begun > LONGEST_SECONDS:
                break
            self._looked[key] = begun
            try:
                if self._is_stale(key, entries[key]):
                    stale.add(key)
            except Denied as error:
                log.warning("%s is not compared with %s, or not brought in line: %s", key, keys.TASKS, error)
        return {key: entry for key, entry in entries.items() if key not in stale}

    def _is_stale(self, key: str, mine: Entry) -> bool:
        task_id = key.removeprefix(keys.host_tasks(self._host))
        try:
            shared_key = keys.task(task_id)
            shared = entry_at(self._store, shared_key)
            if shared is None or shared.value == mine.value:
                return False
            named = decode_task(shared_key, shared).task
            owner = named.host or self._host
        except InvalidValue:
            return False  # nothing follows from a record that nobody can read
        ops: list[Op] = [Check(key, mine.revision), Check(shared_key, shared.revision)]
        kept = owner == self._host and self._runs_other(key, mine, named)
        if kept:
            ops.append(Put(shared_key, mine.value))
        elif owner == self._host:
            ops.append(Put(key, shared.value))
        else:
            theirs = keys.host_task(owner, task_id)
            ops.append(Delete(key))
            if entry_at(self._store, theirs) is None:
                ops += [Check(theirs, Revision(0)), Put(theirs, shared.value)]
        try:
            self._store.commit(ops)
        except Conflict:
            return False  # changed meanwhile: a later round sees what came of it
        if kept:
            log.warning("%s said other things of what runs than %s, and is brought in line", shared_key, key)
            return False
        what = "differs" if owner == self._host else f"says that it is on {owner}: what runs of it here is stopped"
        log.warning("%s was no longer true and is brought in line: %s %s", key, shared_key, what)
        return owner != self._host

    def _runs_other(self, key: str, mine: Entry, named: Task) -> bool:
        """Whether ``named`` would have something else run than this host's own record, which can be read."""
        try:
            return codec.digest(decode_task(key, mine, self._host).task) != codec.digest(named)
        except InvalidValue:
            return False
