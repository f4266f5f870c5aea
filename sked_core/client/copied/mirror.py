"""A copy of a store's state that is kept up to date, for servers that are asked often.

Threads wait for changes below a few prefixes and do nothing but wake one other, which reads what has changed: of tasks
those of the services whose marker changed (see runtime.scheduling.feed). All of it is read again every RESYNC_SECONDS,
for the sake of programs that leave no marker. What was found is an immutable Picture, and a feed of numbered changes.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

from sked_core.client.copied.feed import Change, Feed, Staleness
from sked_core.client.copied.health_copy import HealthCopy
from sked_core.client.copied.picture import KINDS, Area, Picture, held
from sked_core.client.held import Held, order
from sked_core.client.session import Session
from sked_core.clock import Clock, SystemClock
from sked_core.errors import SkedError, Unavailable
from sked_core.interfaces.store import Entry, Revision, Snapshot, entry_at, read_again
from sked_core.logic import backoff
from sked_core.model import keys
from sked_core.model.types import Health, Task, TaskId
from sked_core.runtime.loop import Watcher
from sked_core.runtime.pulse import Pulse

log = logging.getLogger("sked.mirror")

RESYNC_SECONDS = 60.0
"""Longest time between two full reads; markers stand for twice as long (runtime.scheduling.feed.MARKER_SECONDS)."""
PING_SECONDS = 5.0
"""How often the store is asked whether it is there, where nothing else asks it: one small key."""
REST, LONGEST_REST = 3.0, 1.0
"""After a prefix was read, so many times the duration of that passes until it is read again, seconds at most."""
RETRY_FIRST, RETRY_LAST = 0.1, 2.0
WORTH_ONE_READ = 30
"""How many tasks more one may as well read as ask once more."""

_PARTS = {
    keys.CONFIG: (keys.SERVICES, keys.CLUSTERS, keys.TASK_DEFINITIONS, keys.HOSTS),
    keys.HOST_STATES: (keys.LIVE, keys.MARKS),
    keys.SCHEDULING: (keys.SCHEDULERS, keys.ROLLOUTS, keys.MOVES),
    keys.SERVICE_STATUS: (keys.SERVICE_STATUS,),
    keys.FAILURES: (keys.FAILURES,),
    keys.EVENTS: (keys.EVENTS,),
    keys.ENDINGS: (keys.ENDINGS,),
}
"""What is watched, and what stands below it. Tasks are read by markers, health as its provider tells."""
_ITSELF = frozenset({keys.SERVICES, keys.CLUSTERS, keys.TASK_DEFINITIONS, keys.HOSTS, keys.ROLLOUTS, keys.TASKS})
"""Where the end of a record is the end of what it is about."""
WATCHED = (keys.SCHEDULING, keys.EVENTS, keys.FAILURES, keys.HOST_STATES)
"""No more than four are waited for at once: a process has eight connections to a Consul (reliability.md C9), and its
store makes of further waits a look each second. Almost all changes below the other prefixes come with an event."""
LOOK_SECONDS = 2.0
"""How often others are looked at, for changes of which no event tells: written by hand, or by agents of themselves."""
_NOTHING = Snapshot({}, Revision(0))


class Mirror:
    """``start`` first. ``look``, ``stale`` and ``feed`` may be called from any thread and never wait."""

    def __init__(self, sked: Session, clock: Clock | None = None) -> None:
        self._sked, self._store, self._clock = sked, sked.store, clock or SystemClock()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._health = HealthCopy(sked.health(), self._clock, self._tasks, self._wake.set)
        self._picture = Picture(epoch=secrets.token_hex(6))
        self._read = threading.Event()
        """Everything was read once."""
        self._staleness: Staleness | None = None
        self._answered = self._clock.wall()
        self.feed = Feed()
        """Numbered as pictures are; it tells of each new picture, and when the store goes away or comes back."""
        self.pulse = Pulse(self._clock)
        """Of the thread that reads."""
        self._silent: Mapping[str, str] = {}
        self._dirty = {prefix: threading.Event() for prefix in _PARTS}
        self._rests = dict.fromkeys(self._dirty, float("-inf"))
        self._known: dict[str, Snapshot] = {}
        self._markers: dict[str, Revision] = {}
        self._stale_tasks: set[str] = set()
        self._suspect = threading.Event()
        self._resync_at = self._ping_at = float("-inf")
        self._failures, self._store_uid = 0, b""
        self._settled, self._asked, self._served = threading.Condition(), 0, 0
        # Of the pass under way.
        self._areas: dict[str, Area] = {}
        self._found: dict[tuple[str, str], Change] = {}
        self._touched: set[str] = set()

    # --- for those who ask ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to read and to watch."""
        for prefix in WATCHED:
            Watcher(prefix, partial(self._wait, prefix), partial(self._noticed, prefix), self._stop)
        for name, run in (("mirror", self._run), ("mirror of the rest", self._look_at_rest)):
            threading.Thread(target=run, name=name, daemon=True).start()

    def close(self) -> None:
        """Stop; the store is closed by whoever opened it. Idempotent."""
        self._stop.set()
        self._wake.set()
        self._health.close()

    def ready(self, timeout: float) -> bool:
        """Whether everything was read once, within ``timeout`` seconds."""
        return self._read.wait(timeout)

    def look(self) -> Picture:
        """The state as it was read last. Raises Unavailable as long as it was never read."""
        if not self._read.is_set():
            staleness = self._staleness
            raise Unavailable(staleness.trouble if staleness else "the state is being read for the first time")
        return self._picture

    def stale(self) -> Staleness | None:
        """None as long as the store answers."""
        return self._staleness

    @property
    def epoch(self) -> str:
        """Within which numbers of changes mean anything."""
        return self._picture.epoch

    def settle(self, timeout: float) -> bool:
        """Wait until whatever was committed before this call can be seen in the picture, ``timeout`` seconds at most;
        tells whether it can."""
        with self._settled:
            self._asked += 1
            mine = self._asked
            for event in self._dirty.values():
                event.set()
            self._wake.set()
            return self._settled.wait_for(lambda: self._served >= mine or self._stop.is_set(), timeout)

    def hears_nothing_of(self, hosts: Mapping[str, str]) -> None:
        """Show from now on that the agents of these hosts give no answer, with since when (RFC 3339)."""
        self._silent = dict(hosts)
        self._wake.set()

    # --- watching ------------------------------------------------------------------------------------------------

    def _wait(self, prefix: str, since: int, timeout: float) -> int:
        try:
            return self._store.wait(prefix, Revision(since), timeout)
        except Exception:
            if not self._stop.is_set():
                self._suspect.set()
                self._wake.set()
            raise

    def _noticed(self, prefix: str) -> None:
        for one in _PARTS if prefix == keys.EVENTS else (prefix,):
            self._dirty[one].set()
        self._wake.set()

    def _look_at_rest(self) -> None:
        """Changes below prefixes that nobody waits for."""
        known: dict[str, int] = {}
        while not self._stop.wait(LOOK_SECONDS):
            for prefix in _PARTS.keys() - set(WATCHED):
                try:
                    revision = self._store.wait(prefix, Revision(known.get(prefix, 0)), 0.0)
                except Exception as error:  # noqa: BLE001 - the others find out as well
                    log.debug("%s: %s", prefix, error)
                    continue
                if known.get(prefix) != revision:
                    known[prefix] = revision
                    self._noticed(prefix)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            self.pulse.begin()
            try:
                pause = self._pass()
                self._failures = 0
            except Exception as error:  # noqa: BLE001 - a plugin's mistake must not leave the mirror blind for good
                log.log(logging.DEBUG if isinstance(error, SkedError) else logging.ERROR, "mirror: %s", error)
                self._failures += 1
                self._resync_at = float("-inf")
                self._away(str(error) or type(error).__name__)
                pause = backoff.delay(self._failures, "mirror", base=RETRY_FIRST, cap=RETRY_LAST)
                self.pulse.rest(pause)
                self._stop.wait(pause)
                continue
            self.pulse.rest(pause)
            self._clock.wait(self._wake, pause)

    def _away(self, trouble: str) -> None:
        before, self._staleness = self._staleness, Staleness(self._answered, trouble)
        if before is None:
            log.warning("the store does not answer: %s", trouble)
            self.feed.tell()

    def _pass(self) -> float:
        """Read what has changed, publish it, and return the seconds until something is due."""
        with self._settled:
            asked = self._asked
        if asked > self._served:
            self._rests = dict.fromkeys(self._rests, float("-inf"))
        now = self._clock.monotonic()
        self._areas, self._found, self._touched = dict(self._picture.areas), {}, set()
        whole = now >= self._resync_at
        if whole or self._suspect.is_set() or now >= self._ping_at:
            self._suspect.clear()
            self._ping()
        if whole:
            self._known.clear()
            self._stale_tasks.clear()
            for event in self._dirty.values():
                event.set()
        for prefix in _PARTS:
            if self._dirty[prefix].is_set() and (whole or now >= self._rests[prefix]):
                self._dirty[prefix].clear()  # before reading: a change during the read is another one
                begun = self._clock.monotonic()
                self._take_below(prefix)
                self._end(prefix, begun)
        if whole:
            self._take_all_tasks()
            self._resync_at = now + RESYNC_SECONDS
        elif self._stale_tasks:
            self._take_changed_tasks()
        if whole and not self._read.is_set():
            self._health.read()
            self._health.start()
        elif whole:
            self._health.invalidate()
        self._ping_at = self._clock.monotonic() + PING_SECONDS
        self._publish(self._health.now)
        self._answered = self._clock.wall()
        with self._settled:
            self._served = asked
            self._settled.notify_all()
        due = [self._rests[prefix] for prefix, event in self._dirty.items() if event.is_set()]
        return max(0.0, min([self._resync_at, self._ping_at, *due]) - self._clock.monotonic())

    def _end(self, prefix: str, begun: float) -> None:
        ended = self._clock.monotonic()
        self._rests[prefix] = ended + min(REST * (ended - begun), LONGEST_REST)

    def _ping(self) -> None:
        entry = entry_at(self._store, keys.STORE_UID)
        if entry is not None and self._store_uid not in (b"", entry.value):
            log.warning("another store answers: everything is read again")
            self._resync_at = float("-inf")
        if entry is not None:
            self._store_uid = entry.value

    # --- taking in -----------------------------------------------------------------------------------------------

    def _take_below(self, prefix: str) -> None:
        snapshot = self._known[prefix] = read_again(self._store, prefix, self._known.get(prefix, _NOTHING))
        parts: dict[str, dict[str, Entry]] = {part: {} for part in _PARTS[prefix]}
        for key, entry in snapshot.entries.items():
            for part, entries in parts.items():
                if key.startswith(part):
                    entries[key] = entry
                    break
        for part, entries in parts.items():
            self._take(part, entries, snapshot.revision)
        if prefix == keys.SCHEDULING:
            found = {key: one for key, one in snapshot.entries.items() if key.startswith(keys.CHANGED)}
            markers = {keys.last_segment(key): one.revision for key, one in found.items()}
            self._stale_tasks |= {
                name for name, at in markers.items() if self._markers.get(name) != at and keys.is_name(name)
            }
            self._markers = markers

    def _take_all_tasks(self) -> None:
        snapshot = self._store.read(keys.STATE)
        tasks = {key: one for key, one in snapshot.entries.items() if key.startswith(keys.TASKS)}
        others = {
            key: one
            for key, one in snapshot.entries.items()
            if key.startswith(keys.HOST_TASKS) and keys.TASKS + keys.last_segment(key) not in tasks
        }
        self._take(keys.TASKS, tasks, snapshot.revision)
        self._take(keys.HOST_TASKS, others, snapshot.revision)
        self._stale_tasks.clear()

    def _take_changed_tasks(self) -> None:
        if len(self._stale_tasks) * WORTH_ONE_READ > len(self._areas[keys.TASKS].entries):
            return self._take_all_tasks()
        known: dict[tuple[str, str], set[str]] = {}
        for cluster in self._areas[keys.CLUSTERS].entries.values():
            for service in self._stale_tasks & set(cluster.made.services if cluster.made else ()):
                known[cluster.made.name, service] = set()
        for key, one in self._areas[keys.TASKS].entries.items():
            if one.made is not None and one.made.service in self._stale_tasks:
                known.setdefault((one.made.cluster.name, one.made.service), set()).add(key)
        for pair, own in known.items():
            snapshot = self._store.read(keys.service_tasks(*pair))
            self._take(keys.TASKS, snapshot.entries, snapshot.revision, own)
        strangers = [
            key
            for key in self._areas[keys.HOST_TASKS].entries
            if keys.TASKS + keys.last_segment(key) in self._areas[keys.TASKS].entries
        ]
        if strangers:
            self._take(keys.HOST_TASKS, {}, self._areas[keys.HOST_TASKS].revision, strangers)
        self._stale_tasks.clear()
        return None

    def _tasks(self) -> Iterable[Task]:
        both = (self._areas[keys.TASKS], self._areas[keys.HOST_TASKS])
        return (one.made for area in both for one in area.entries.values() if one.made is not None)

    def _take(
        self, prefix: str, entries: Mapping[str, Entry], revision: Revision, known: Iterable[str] | None = None
    ) -> None:
        """Replace what stands under ``known`` keys (all, if not given) by ``entries``."""
        area = self._areas.get(prefix, Area())
        old = area.entries
        gone = [key for key in (old if known is None else known) if key not in entries and key in old]
        fresh: dict[str, Held] = {}
        for key, entry in entries.items():
            before = old.get(key)
            if before is None or before.revision != entry.revision or before.value != entry.value:
                fresh[key] = held(prefix, key, entry)
        now = old
        if gone or fresh:
            left = frozenset(gone)
            now = {key: one for key, one in old.items() if key not in left} | fresh
            if any(key not in old for key in fresh):
                now = dict(sorted(now.items(), key=lambda pair: order(pair[0])))
            self._touched.add(prefix)
        self._areas[prefix] = Area(now, revision, area.number)
        if prefix == keys.EVENTS and gone:
            self._note("event", "", gone=True)
            gone = []
        for key in (*gone, *fresh):
            self._change(prefix, key, fresh.get(key), old.get(key))

    def _change(self, prefix: str, key: str, after: Held | None, before: Held | None) -> None:
        kind, name = KINDS[prefix][0], key[len(prefix) :]
        task: Task | None = None
        if prefix == keys.HOST_TASKS:
            name = keys.last_segment(key)
        if kind == "task":
            made = (after or before or Held(Entry(b"", Revision(0)), None)).made
            known = self._areas.get(keys.TASKS, Area()).entries.get(keys.TASKS + name)
            task = made if isinstance(made, Task) else known.made if known is not None else None
        gone = after is None and prefix in _ITSELF
        self._note(kind, name, task, gone=gone)

    def _note(self, kind: str, name: str, task: Task | None = None, *, gone: bool = False) -> None:
        service, host = (task.service, task.host) if task is not None else ("", "")
        before = self._found.get((kind, name))
        self._found[kind, name] = Change(0, kind, name, service, host, gone or (before is not None and before.gone))

    # --- giving out ----------------------------------------------------------------------------------------------

    def _publish(self, health: Mapping[TaskId, Health]) -> None:
        before = self._picture
        turned = health is not before.health and health != before.health
        if turned:
            other = {task_id for task_id, _ in health.items() ^ before.health.items()}
            for task in self._tasks():
                if task.id in other:
                    self._note("task", task.id, task)
        live = self._areas[keys.LIVE].entries
        silent = {host: since for host, since in self._silent.items() if keys.live(host) in live}
        for host, _ in silent.items() ^ before.silent.items():
            self._note("host", host)
            self._touched.add(keys.LIVE)
        number = before.number + len(self._found)
        changes = [replace(one, number=before.number + 1 + at) for at, one in enumerate(self._found.values())]
        areas = {
            prefix: replace(area, number=number) if prefix in self._touched else area
            for prefix, area in self._areas.items()
        }
        picture = replace(
            before,
            number=number,
            revision=Revision(max((area.revision for area in areas.values()), default=0)),
            areas=areas,
            health=health if turned else before.health,
            health_number=number if turned else before.health_number,
            silent=silent,
        )
        before_that, trouble = self._staleness, self._health.trouble
        since = before_that.since if before_that else self._clock.wall()
        self._picture, self._staleness = picture, Staleness(since, trouble) if trouble else None
        self.feed.add(changes)
        self._read.set()
        if self._touched & {keys.TASKS, keys.HOST_TASKS}:
            self._health.tasks_changed()
        if changes or (before_that is None) != (self._staleness is None):
            self.feed.tell()
