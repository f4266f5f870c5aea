"""One immutable picture of a store's state, which everything that reads a store can be asked with.

A picture stands in for the store and for the health provider, so that listings, explanations and the page are made by
the same functions that commands call, without any question to the store.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sked_core.client.held import Held
from sked_core.client.session import Session
from sked_core.errors import InvalidValue, Unavailable
from sked_core.interfaces.store import Entry, Lease, Op, Revision, Snapshot, Store, check_key
from sked_core.model import keys
from sked_core.model.codec import decode
from sked_core.model.endings import Ending
from sked_core.model.types import (
    Cluster,
    Failure,
    Health,
    Host,
    Liveness,
    Mark,
    Moves,
    Presence,
    Rollout,
    Service,
    ServiceStatus,
    Task,
    TaskDefinition,
    TaskId,
)
from sked_core.runtime.state import decode_task

if TYPE_CHECKING:
    from sked_core.interfaces.health import HealthProvider
    from sked_core.model.policy import Policy

KINDS: dict[str, tuple[str, type | None]] = {
    keys.SERVICES: ("service", Service),
    keys.CLUSTERS: ("cluster", Cluster),
    keys.TASK_DEFINITIONS: ("task-definition", TaskDefinition),
    keys.HOSTS: ("host", Host),
    keys.LIVE: ("host", Liveness),
    keys.MARKS: ("host", Mark),
    keys.SCHEDULERS: ("scheduler", Presence),
    keys.ROLLOUTS: ("rollout", Rollout),
    keys.MOVES: ("service", Moves),
    keys.SERVICE_STATUS: ("service", ServiceStatus),
    keys.FAILURES: ("task", Failure),
    keys.EVENTS: ("event", None),
    keys.ENDINGS: ("ending", Ending),
    keys.TASKS: ("task", Task),
    keys.HOST_TASKS: ("task", Task),
}
"""What a picture holds, by prefix: what a change below it is a change of, and what stands there (None: left encoded).
Below ``keys.HOST_TASKS`` it has only what somebody wrote for a host without any scheduler."""


def held(prefix: str, key: str, entry: Entry) -> Held:
    """``entry`` with what it holds, which stands below ``prefix`` (one of KINDS)."""
    kind = KINDS[prefix][1]
    try:
        if kind is None:
            return Held(entry, None)
        if kind is Presence:
            keys.check_host(key.removeprefix(prefix))  # such keys alone are a scheduler's
        if kind is Task:
            return Held(entry, decode_task(key, entry).task)
        return Held(entry, decode(entry.value, kind))
    except InvalidValue:
        return Held(entry, None)


NEVER = Revision(0)


@dataclass(frozen=True, slots=True)
class Area:
    """What stands below one prefix, in natural order of keys; ``number``: of the picture in which it changed last."""

    entries: Mapping[str, Held] = field(default_factory=dict)
    revision: Revision = NEVER
    number: int = 0


@dataclass(frozen=True, slots=True)
class Picture:
    """The state at one moment. ``number`` grows with every change that was noticed, within one ``epoch``; two pictures
    of the same epoch and number are the same. ``revision``: of the last commit that was read."""

    epoch: str
    number: int = 0
    revision: Revision = NEVER
    areas: Mapping[str, Area] = field(default_factory=dict)
    health: Mapping[TaskId, Health] = field(default_factory=dict)
    health_number: int = 0
    silent: Mapping[str, str] = field(default_factory=dict)
    """Hosts that are alive for the store but whose agents give this process no answer, with since when (RFC 3339)."""

    def area(self, prefix: str) -> Mapping[str, Held]:
        """What stands below one of KINDS."""
        found = self.areas.get(prefix)
        return found.entries if found else {}

    def changed(self, *prefixes: str) -> int:
        """The number of the picture in which something below these (none: anything) changed last; health is
        ``keys.HEALTH``."""
        if not prefixes:
            return self.number
        numbers = [self.areas[prefix].number for prefix in prefixes if prefix in self.areas]
        return max([*numbers, self.health_number if keys.HEALTH in prefixes else 0], default=0)

    def objects(self, prefix: str) -> dict[str, Any]:
        """What can be read below one of KINDS, by the rest of the key."""
        cut = len(prefix)
        return {key[cut:]: one.made for key, one in self.area(prefix).items() if one.made is not None}

    def tasks(self) -> dict[str, Task]:
        """All tasks by id, those included that no scheduler issued."""
        found: dict[str, Task] = {
            one.made.id: one.made for one in self.area(keys.HOST_TASKS).values() if one.made is not None
        }
        return found | self.objects(keys.TASKS)


class PictureStore:
    """See sked_core.interfaces.store.Store: answers from ``picture`` what it holds, and hands the rest to ``store``."""

    def __init__(self, picture: Picture, store: Store) -> None:
        self._picture, self._store = picture, store
        self.max_ops = store.max_ops

    def read(self, prefix: str) -> Snapshot:
        if prefix:
            check_key(prefix, prefix=True)
        areas = self._picture.areas
        if prefix in areas and prefix != keys.HOST_TASKS:
            return Snapshot(areas[prefix].entries, areas[prefix].revision)
        within = next((name for name in areas if prefix.startswith(name)), "")
        if within and not prefix.startswith(keys.HOST_TASKS):
            found = {key: one for key, one in areas[within].entries.items() if key.startswith(prefix)}
            return Snapshot(found, areas[within].revision)
        if prefix.startswith(keys.HOST_TASKS):
            return self._host_tasks(prefix)
        if prefix in _WHOLE:
            parts = [areas[name] for name in areas if name.startswith(prefix)]
            merged = {key: one for part in parts for key, one in part.entries.items()}
            return Snapshot(merged, min((part.revision for part in parts), default=Revision(0)))
        return self._store.read(prefix)

    def read_keys(self, prefix: str) -> Iterable[str]:
        """Keys alone; of tasks of hosts only those that ``state/tasks/`` has not, which are what is looked for."""
        return self._picture.area(prefix) if prefix == keys.HOST_TASKS else self.read(prefix).entries

    def _host_tasks(self, prefix: str) -> Snapshot:
        areas = self._picture.areas
        found: dict[str, Entry] = {}
        for one in (*areas[keys.HOST_TASKS].entries.items(), *self._issued()):
            if one[0].startswith(prefix):
                found[one[0]] = one[1]
        return Snapshot(found, min(areas[keys.HOST_TASKS].revision, areas[keys.TASKS].revision))

    def _issued(self) -> Iterable[tuple[str, Entry]]:
        for one in self._picture.area(keys.TASKS).values():
            if one.made is not None and one.made.host:
                yield keys.host_task(one.made.host, one.made.id), one

    def commit(self, ops: Sequence[Op]) -> Revision:
        return self._store.commit(ops)

    def wait(self, prefix: str, since: Revision, timeout: float) -> Revision:
        return self._store.wait(prefix, since, timeout)

    def grant(self, ttl: float) -> Lease:
        return self._store.grant(ttl)

    def close(self) -> None:
        """The store is closed by whoever opened it."""


_WHOLE = frozenset({keys.CONFIG, keys.STATE, keys.HOST_STATES})
"""Prefixes that hold nothing but whole areas; ``scheduling/`` has markers besides."""


class PictureHealth:
    """See sked_core.interfaces.health.HealthProvider: for those who only read."""

    def __init__(self, health: Mapping[TaskId, Health]) -> None:
        self._health = health

    def register(self, task: Task) -> None:
        raise Unavailable("a picture of the state keeps no checks")

    def deregister(self, task_id: TaskId) -> None:
        raise Unavailable("a picture of the state keeps no checks")

    def registered(self) -> frozenset[TaskId]:
        return frozenset()

    def health(self, services: Collection[tuple[str, str]], hosts: Collection[str] = ()) -> Mapping[TaskId, Health]:
        return self._health

    def wait(self, since: int, timeout: float, hosts: Collection[str] = ()) -> int:
        return since

    def close(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class PictureSession(Session):
    """A session that looks at ``picture``; what it writes goes to the store."""

    picture: Picture = field(default_factory=lambda: Picture(""))

    def health(
        self,
        host: str = "",
        store_uid: str = "",
        policy: Policy | None = None,
        mask: Callable[[str, str], str] = lambda _, text: text,
    ) -> HealthProvider:
        """That of the picture. Registering anything there raises Unavailable."""
        return PictureHealth(self.picture.health)

    def silent(self) -> Mapping[str, str]:
        """Those of the picture."""
        return self.picture.silent


def session_of(sked: Session, picture: Picture, who: str = "") -> PictureSession:
    """A session for ``who`` (else that of ``sked``) which looks at ``picture``."""
    return PictureSession(
        store=PictureStore(picture, sked.store),
        plugins=sked.plugins,
        settings=sked.settings,
        who=who or sked.who,
        picture=picture,
    )
