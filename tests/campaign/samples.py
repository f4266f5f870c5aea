"""What a monitor sees, and what a row says it does: the only things that the judge knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from sked_core.errors import SkedError
from sked_core.model import codec, keys
from sked_core.model.types import Rollout, Service, Task


@dataclass(frozen=True, slots=True)
class Stored:
    """One key, as the store's own interface tells it. ``lease``: the session or lease that it is bound to."""

    value: bytes
    revision: int
    created: int
    lease: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """One started container of a task, which lives. ``mark``: the one of its processes, or the engine's id;
    ``first``: pid and start time of its oldest process (0, 0 in an engine)."""

    host: str
    task: str
    container: str
    mark: str
    first: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Note:
    """Something that the row did, or knows, from then on.

    what            subject          meaning
    ``harm``        mark of one      it may vanish: the row kills it
    ``mortal``      service          its tasks end by themselves, or fall ill
    ``down``/``up`` host             its agent does not run / was started
    ``cut``/``heal`` host            its agent can't reach the store / can again
    ``asleep``/``awake`` host        its agent is stopped by a signal / goes on
    ``outage``/``answers`` -         nobody reaches the store / all can again
    ``hand``        task             an operator changes its keys by hand
    ``accept``      -                an operator has said that the store is right as it is
    ``deaf``/``hears`` -             the engine does not answer / does again
    ``innocent``    pid start        nobody of Sked's may touch this process
    ``stranger``    container id     nobody of Sked's may touch this container
    ``loosen``      -                the user has just changed counts: bounds are judged anew from the next sample
    ``due``         task seconds     it has to run within so many seconds, whatever hangs
    ``still``/``moves`` -            nothing is to be written / it may be again
    ``killed``      process          a Sked process ended without giving its lease back
    ``seize``       service          its lock is destroyed by hand
    ``settled``     -                everything has to be as declared
    """

    at: float
    what: str
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """``store`` None: it did not answer. ``engine``: whether the engine did; what ran there before is repeated in
    ``instances`` if not. ``ended``: containers that are there and do not run. ``processes``: of Sked, by name, with
    their pid; ``connections``: theirs to the store. ``lease_ages``: seconds from when each was renewed to ``at``,
    where the store tells, in the samples in which it was asked. ``innocents``: those that live. ``fresh``: whether
    leases and sockets were looked at for this sample; if not, what an earlier one found is repeated."""

    at: float
    store: Mapping[str, Stored] | None
    revision: int = 0
    leases: int | None = None
    lease_ages: Mapping[str, float] = field(default_factory=dict)
    instances: frozenset[Instance] = frozenset()
    ended: frozenset[Instance] = frozenset()
    containers: frozenset[str] = frozenset()
    engine: bool = True
    processes: Mapping[str, int] = field(default_factory=dict)
    connections: Mapping[str, int] = field(default_factory=dict)
    listening: frozenset[int] = frozenset()
    innocents: frozenset[tuple[int, int]] = frozenset()
    notes: tuple[Note, ...] = ()
    fresh: bool = True


@lru_cache(maxsize=50_000)
def task_of(value: bytes) -> Task | None:
    """The record, or None for one that can't be read."""
    try:
        return codec.decode(value, Task)
    except SkedError:
        return None


@lru_cache(maxsize=5_000)
def service_of(value: bytes) -> Service | None:
    try:
        return codec.decode(value, Service)
    except SkedError:
        return None


@lru_cache(maxsize=5_000)
def rollout_of(value: bytes) -> Rollout | None:
    try:
        return codec.decode(value, Rollout)
    except SkedError:
        return None


def issued(store: Mapping[str, Stored]) -> dict[tuple[str, str], Stored]:
    """What stands under ``state/hosts/``, by host and task."""
    found = {}
    for key, stored in store.items():
        if key.startswith(keys.HOST_TASKS):
            host, _, task = key.removeprefix(keys.HOST_TASKS).partition("/")
            found[host, task] = stored
    return found


def below(store: Mapping[str, Stored], prefix: str) -> dict[str, Stored]:
    return {key.removeprefix(prefix): stored for key, stored in store.items() if key.startswith(prefix)}
