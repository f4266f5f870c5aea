"""Brings a scheduler's view up to date, and reads no more for it than what has changed.

Three prefixes are watched: ``config/`` and ``hosts/``, which are small and seldom change, and ``scheduling/``, where
whoever changes the tasks of a service leaves a marker with the service's name, in the same commit. So one changed task
costs reading the markers of the last minutes and the tasks of one service, however many there are. All of it is read
again every RESYNC_SECONDS, for the sake of programs that leave no marker; markers are kept for longer than that.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from sked_core.clock import Clock
from sked_core.errors import Conflict, InvalidValue
from sked_core.interfaces.store import Check, Delete, Entry, Op, Revision, Snapshot
from sked_core.logic.world import Pair
from sked_core.model import codec, keys
from sked_core.model.types import Presence, Task
from sked_core.runtime.loop import Watcher
from sked_core.runtime.scheduling.view import View, definition_key
from sked_core.runtime.state import batches
from sked_core.runtime.stores.yielding_store import YieldingStore

log = logging.getLogger("sked.scheduler")

RESYNC_SECONDS = 60.0
"""Longest time between two full reads, whether or not watches fire (reliability.md C2)."""
MARKER_SECONDS = 2 * RESYNC_SECONDS
"""How long a marker stands: nobody who resyncs in time can miss it."""
OTHERS_SECONDS = 1.0
"""How long reading what others changed is put off: their changes come in bursts, and are read once."""
WORTH_ONE_READ = 30
"""How many tasks more one may as well read as ask once more: where most services have changed, all are read at once."""
NOTHING = Snapshot({}, Revision(0))
WATCHED = (keys.CONFIG, keys.HOST_STATES, keys.SCHEDULING)
REST = 3.0
"""After a prefix was read, so many times the duration of that passes until it is read again: an apply of thousands of
objects comes in hundreds of commits. The first change after a rest is read at once."""
HOSTS_REST = 30.0
"""The same for what hosts say of themselves: thousands of them, each of which says something else now and then."""
HOSTS_SECONDS = 0.05
"""How long after a change below ``config/`` hosts are read: whoever declared a service need not wait for that."""
LONGEST_REST = 1.0
"""In seconds: a read that took long because the store hung says nothing about what the prefix holds."""


class SchedulerFeed:
    """Not thread-safe, except for ``invalidate``. ``look`` first; ``present`` and ``view`` are what it found."""

    def __init__(self, store: YieldingStore, view: View, clock: Clock) -> None:
        self._store, self._view, self._clock = store, view, clock
        self.max_ops = store.max_ops
        self.present: Mapping[str, Collection[str]] = {}
        """Living scheduler processes by name, with the schedulers that each can place with. Never changed in place."""
        self._changed = {prefix: threading.Event() for prefix in (keys.HOSTS, *WATCHED)}
        self._taken = {prefix: threading.Event() for prefix in self._changed}
        self._resting_until = dict.fromkeys(self._changed, float("-inf"))
        self._invalid = threading.Event()
        self._read_at = float("-inf")
        self._seen: dict[str, Revision] = {}
        """Markers by service, as last read."""
        self._basis: dict[str, Revision] = {}
        """The same, as they were when the tasks were read that the view has."""
        self._pairs: dict[str, list[Pair]] = {}
        """Of services that were read by themselves: the pairs that they had then."""
        self._known: dict[str, Snapshot] = {}
        self._missing: set[str] = set()
        """Keys of task definitions that services name and that did not exist."""
        self._stood_since: dict[str, float] = {}
        self._stale: dict[str, float] = {}

    def watch(self, notify: Callable[[], None], stop: threading.Event) -> None:
        """From now on, notice changes at once, and call ``notify`` after each."""
        for prefix in WATCHED:
            Watcher(prefix, partial(self._wait, prefix), partial(self._noticed, prefix, notify), stop)

    def _wait(self, prefix: str, since: int, timeout: float) -> int:
        # Not again before the last change was read: where a store looks at all of a prefix for each answer, being told
        # of a thousand changes one by one would keep it busy for nothing.
        if self._changed[prefix].is_set() and not self._taken[prefix].wait(timeout):
            return since
        return self._store.wait(prefix, Revision(since), timeout)

    def _noticed(self, prefix: str, notify: Callable[[], None]) -> None:
        self._taken[prefix].clear()
        self._changed[prefix].set()
        notify()

    def invalidate(self) -> None:
        """Have the next ``look`` read everything: after an error, or a pause of any kind."""
        self._invalid.set()

    def look(self, now: float, mine: Callable[[str], bool]) -> float:
        """Bring the view up to date at ``now``; services that are not ``mine`` may be behind: see ``stale``.

        Returns the seconds until it wants to be called again. Raises Unavailable.
        """
        if now >= self._view.look_at:  # nobody is lost by what was read before a process was stopped for a while
            self._changed[keys.HOST_STATES].set()
            self._resting_until[keys.HOST_STATES] = now
        if self._invalid.is_set() or now - self._read_at >= RESYNC_SECONDS:
            self._read_all(now)
        else:
            self._read_changed(now)
        if self._stale:
            self._catch_up(now, mine)
        due = [self._read_at + RESYNC_SECONDS, *(since + OTHERS_SECONDS for since in self._stale.values())]
        due += [self._resting_until[prefix] for prefix, event in self._changed.items() if event.is_set()]
        return max(0.0, min(due) - now)

    def _catch_up(self, now: float, mine: Callable[[str], bool]) -> None:
        for service in [name for name in self._stale if mine(name)]:
            self.read_tasks(service)
        late = [name for name, since in self._stale.items() if now - since >= OTHERS_SECONDS]
        if len(late) * WORTH_ONE_READ > len(self._view.tasks.objects):
            self._read_all_tasks()
        for service in sorted(self._stale.keys() & set(late)):
            self.read_tasks(service)

    def stale(self, service: str) -> bool:
        """Whether tasks of the service have been changed by others that were not read yet."""
        return service in self._stale

    def _read_all(self, now: float) -> None:
        self._invalid.clear()
        self._known.clear()  # all of it, whatever a store may think has not changed
        for prefix in self._changed:
            self._take(prefix)
        try:
            self._take_scheduling(now)  # before the tasks: what changes from here on leaves a newer marker
            config = _divided(self._store.read(keys.CONFIG).entries)
            self._view.take_hosts(config[keys.HOSTS])
            self._view.take_declared(config[keys.SERVICES], config[keys.CLUSTERS])
            self._view.take_definitions(config[keys.TASK_DEFINITIONS], set(self._view.definitions.entries))
            wanted = {definition_key(service) for service in self._view.services.objects.values()}
            self._missing = wanted - self._view.definitions.objects.keys()
            self._take_host_states(now)
            self._view.statuses.take(self._store.read(keys.SERVICE_STATUS).entries)
            self._read_all_tasks()
        except BaseException:
            self._invalid.set()
            raise
        self._view.changes.services |= self._view.names()
        self._read_at = now

    def _read_all_tasks(self) -> None:
        self._view.take_tasks(self._store.read(keys.TASKS).entries)
        self._basis = dict(self._seen)
        self._pairs.clear()
        self._stale.clear()

    def _read_changed(self, now: float) -> None:
        takes = {
            keys.HOSTS: self._take_hosts,
            keys.SCHEDULING: self._take_scheduling,
            keys.HOST_STATES: self._take_host_states,
            keys.CONFIG: self._take_declared,
        }
        for prefix, take in takes.items():
            if self._changed[prefix].is_set() and now >= self._resting_until[prefix]:
                self._take(prefix)
                begun = self._clock.monotonic()
                try:
                    take(now)
                except BaseException:
                    self._invalid.set()
                    raise
                ended = self._clock.monotonic()
                rest = HOSTS_REST if prefix == keys.HOSTS else REST
                self._resting_until[prefix] = ended + min(rest * (ended - begun), LONGEST_REST)

    def _take(self, prefix: str) -> None:
        """Take note of a change, before reading: one during the read is another one."""
        self._changed[prefix].clear()
        self._taken[prefix].set()

    def _take_host_states(self, _now: float) -> None:
        self._view.take_host_states(self._read(keys.HOST_STATES))

    def _read(self, prefix: str) -> Mapping[str, Entry]:
        """What stands below a prefix that is read with every change below it."""
        known = self._known[prefix] = self._store.read_again(prefix, self._known.get(prefix, NOTHING))
        return known.entries

    def _take_hosts(self, _now: float) -> None:
        self._view.take_hosts(self._read(keys.HOSTS))

    def _take_declared(self, now: float) -> None:
        """Everything but the hosts, which are read soon, and the task definitions, which never change once they are
        applied; missing ones are fetched."""
        if not self._changed[keys.HOSTS].is_set():
            self._changed[keys.HOSTS].set()
            self._resting_until[keys.HOSTS] = max(self._resting_until[keys.HOSTS], now + HOSTS_SECONDS)
        wanted = self._view.take_declared(self._read(keys.SERVICES), self._read(keys.CLUSTERS))
        missing = self._missing = (wanted | self._missing) - self._view.definitions.objects.keys()
        if len(missing) > WORTH_ONE_READ:
            self._view.take_definitions(self._store.read(keys.TASK_DEFINITIONS).entries, missing)
        else:
            for key in sorted(missing):
                self.read_definition(key)

    def read_definition(self, key: str) -> None:
        """Read one task definition anew."""
        self._view.take_definitions(self._one(key), (key,))

    def read_tasks(self, service: str) -> None:
        """Read one service's tasks anew."""
        self._basis.pop(service, None)
        if service in self._seen:
            self._basis[service] = self._seen[service]
        self._pairs[service] = self._view.pairs(service)
        for pair in self._pairs[service]:
            entries = self._store.read(keys.service_tasks(*pair)).entries
            self._view.take_tasks(entries, [keys.task(one.id) for one in self._view.tasks_of(pair)])
        self._stale.pop(service, None)

    def outgrown(self, service: str) -> bool:
        """Whether the service has become part of clusters since, so that not all of its tasks were read."""
        return service in self._pairs and not set(self._view.pairs(service)) <= set(self._pairs[service])

    def read_again(self, service: str, now: float) -> None:
        """Read all anew that a refused commit for the service may have been wrong about."""
        self._take_scheduling(now)
        self._view.services.take(self._one(keys.service(service)), (keys.service(service),))
        declared = self._view.service(service)
        if declared is not None:
            self.read_definition(definition_key(declared))
        self.read_tasks(service)
        self.read_status(service)

    def read_status(self, service: str) -> None:
        """Read what was last said of one service anew."""
        key = keys.service_status(service)
        self._view.statuses.take(self._one(key), (key,))

    def _one(self, key: str) -> dict[str, Entry]:
        """The entry under exactly this key, if there is one."""
        return {found: entry for found, entry in self._store.read(key).entries.items() if found == key}

    # --- scheduling/ ---------------------------------------------------------------------------------------------

    def _take_scheduling(self, now: float) -> None:
        entries = self._read(keys.SCHEDULING)
        present = dict(presences(entries))
        self.present = self.present if present == self.present else present
        self._view.take_rollouts({key: entry for key, entry in entries.items() if key.startswith(keys.ROLLOUTS)})
        self._view.take_moves({key: entry for key, entry in entries.items() if key.startswith(keys.MOVES)})
        found = {keys.last_segment(key): entry for key, entry in entries.items() if key.startswith(keys.CHANGED)}
        for service, entry in found.items():
            if keys.is_name(service) and self._seen.get(service) != entry.revision:
                self._seen[service] = entry.revision
                self._stale.setdefault(service, now)
                self._stood_since[service] = now
        for service in self._seen.keys() - found.keys():
            del self._seen[service]
            self._basis.pop(service, None)
            self._stood_since.pop(service, None)

    def guard(self, service: str) -> Check:
        """What a commit has to carry that is based on the service's tasks as the view has them."""
        return Check(keys.changed(service), self._basis.get(service, Revision(0)))

    def wrote(self, service: str, ops: Sequence[Op], revision: Revision, *, tasks: Mapping[str, Task]) -> None:
        """Take in a commit of this process that wrote ``tasks`` (by key) and was guarded, if it changed any: nobody
        else can have changed the service's tasks since they were read."""
        self._view.take_own(ops, revision, tasks)
        if any(op.key == keys.changed(service) for op in ops):
            now = self._clock.monotonic()
            self._stood_since[service] = now
            self._seen[service] = self._basis[service] = revision

    def clear_markers(self, now: float, mine: Callable[[str], bool]) -> None:
        """Remove markers of ``mine`` that everybody has seen by now. Raises Unavailable."""
        old = [name for name, since in self._stood_since.items() if now - since >= MARKER_SECONDS and mine(name)]
        groups = [(Check(keys.changed(name), self._seen[name]), Delete(keys.changed(name))) for name in old]
        for batch in batches(groups, max_ops=self._store.max_ops):
            try:
                self._store.commit(batch)
            except Conflict:
                log.debug("a marker has been renewed: cleared with the next ones")
        self._stood_since.update(dict.fromkeys(old, now))  # what was not removed is tried again in as long a while


def _divided(config: Mapping[str, Entry]) -> dict[str, dict[str, Entry]]:
    """What stands below ``config/``, by kind."""
    divided: dict[str, dict[str, Entry]] = {
        prefix: {} for prefix in (keys.HOSTS, keys.SERVICES, keys.CLUSTERS, keys.TASK_DEFINITIONS)
    }
    for key, entry in config.items():
        for prefix, found in divided.items():
            if key.startswith(prefix):
                found[key] = entry
    return divided


def presences(entries: Mapping[str, Entry]) -> list[tuple[str, Collection[str]]]:
    """The scheduler processes that are there, with what they place by."""
    found: list[tuple[str, Collection[str]]] = []
    for key, entry in entries.items():
        if key.startswith(keys.SCHEDULERS):
            try:
                name = keys.check_host(key.removeprefix(keys.SCHEDULERS))
                found.append((name, frozenset(codec.decode(entry.value, Presence).schedulers)))
            except InvalidValue:
                continue  # somebody else's garbage stands in no line
    return found
