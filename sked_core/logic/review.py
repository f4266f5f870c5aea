"""An apply for people to look at before it is done: what it changes, what becomes of that, and a number to hold it to.

Pure: from what is declared, what is stored and the World that was read with it.
"""

from __future__ import annotations

import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from sked_core.errors import InvalidValue
from sked_core.interfaces.scheduler import Scheduler
from sked_core.interfaces.store import Check, Entry, Put, Revision
from sked_core.logic.apply import Change
from sked_core.logic.projection import Course, Projection, project
from sked_core.logic.world import Pair, World
from sked_core.model import keys
from sked_core.model.codec import decode
from sked_core.model.duration import to_text
from sked_core.model.manifest import Manifest
from sked_core.model.resolve import changed_fields, normalise
from sked_core.model.types import Cluster, Service, TaskDefinition

KINDS: dict[str, type[msgspec.Struct]] = {"cluster": Cluster, "service": Service, "task_definition": TaskDefinition}
SAYING_NOTHING = frozenset(('""', "0", "null", "false", "[]", "{}"))
"""Values of a new object that are as good as left out."""
DURATIONS = ("grace_period", "shutdown_delay")
"""Fields that are stored in nanoseconds."""
MODULUS = 10**8
"""A review's number ends in eight digits of a digest of what it says; what stands before them is the store's revision
when it was made."""

Field = tuple[str, str, str]
"""Its path, the JSON before (``""``: absent) and after."""


@dataclass(frozen=True, slots=True)
class Reviewed:
    """One object: what becomes of it, field by field. ``against``: the version that a new task definition is compared
    with; ``kept``: the count that a service keeps because its manifest names none."""

    change: Change
    revision: Revision
    fields: tuple[Field, ...] = ()
    against: int | None = None
    kept: int | None = None


class Numbered(ABC):
    """What people look at before it is done, and can hold it to by a number."""

    __slots__ = ()

    @abstractmethod
    def said(self) -> object:
        """All that must still be so when it is done, as plain data."""

    def number(self, since: Revision) -> int:
        """What it can be held to: ``same`` tells whether another one says the same. ``since``: the store's revision."""
        return since * MODULUS + self._digest()

    def same(self, number: int) -> bool:
        """Whether what had this number said what this one says."""
        return number % MODULUS == self._digest()

    def _digest(self) -> int:
        said = hashlib.sha256(msgspec.json.encode(self.said())).digest()
        return int.from_bytes(said[:8], "big") % MODULUS


@dataclass(frozen=True, slots=True)
class Review(Numbered):
    """``objects`` as they would be declared; ``projection``: what becomes of the World then; ``named``: pairs of the
    services that are declared; ``elsewhere``: others whose fate is another one than without."""

    objects: tuple[Reviewed, ...]
    projection: Projection
    named: tuple[Pair, ...]
    elsewhere: tuple[Pair, ...]

    @property
    def shown(self) -> dict[Pair, Course]:
        """What becomes of the services that it is about."""
        return {pair: self.projection.courses[pair] for pair in (*self.named, *self.elsewhere)}

    @property
    def pending(self) -> bool:
        """Whether anything would be written."""
        return any(one.change.ops for one in self.objects)

    def unplaced(self) -> int:
        """How many tasks of what is shown find no host."""
        return sum(course.waiting for course in self.shown.values())

    def said(self) -> object:
        objects = [
            (one.change.kind, one.change.name, one.change.outcome, one.revision, one.fields, one.change.rolls_out)
            for one in self.objects
        ]
        fates = [(pair, _fate(course), len(course.stay)) for pair, course in self.shown.items()]
        return objects, fates, self.projection.ended


def since(number: int) -> Revision:
    """The store's revision when the review with this number was made."""
    return Revision(number // MODULUS)


def review(
    changes: Sequence[Change],
    manifest: Manifest,
    *,
    world: World,
    config: Mapping[str, Entry],
    counted: Collection[str],
    schedulers: Mapping[str, Scheduler],
) -> Review:
    """The review of ``changes``, which ``manifest`` comes to in ``world``.

    ``config``: the entries that both were made from; ``counted``: services whose manifest says how many tasks they are
    to have; ``schedulers``: those that are installed.
    """
    without, projection = project(world, schedulers), project(declared(world, changes), schedulers)
    services = {service.name for service in manifest.services}
    named = tuple(pair for pair in projection.courses if pair[1] in services)
    others = (pair for pair in projection.courses if pair[1] not in services)
    elsewhere = tuple(
        pair for pair in others if _fate(projection.courses[pair]) != _fate(without.courses.get(pair, Course()))
    )
    return Review(tuple(_reviewed(one, world, config, counted) for one in changes), projection, named, elsewhere)


def declared(world: World, changes: Sequence[Change]) -> World:
    """``world`` once ``changes`` are written."""
    services, clusters, definitions = dict(world.services), dict(world.clusters), dict(world.definitions)
    rollouts, faults = dict(world.rollouts), dict(world.faults)
    for change in changes:
        put = _put(change)
        if put is None:
            continue
        faults.pop(put.key, None)
        if change.kind == "service" and change.after is not None:
            services[change.name] = change.after
            if change.begun is not None:
                rollouts[change.name] = change.begun
        elif change.kind == "cluster":
            clusters[change.name] = decode(put.value, Cluster)
        elif change.kind == "task_definition":
            definition = decode(put.value, TaskDefinition)
            definitions[definition.name, definition.version] = definition
    return replace(
        world, services=services, clusters=clusters, definitions=definitions, rollouts=rollouts, faults=faults
    )


def _fate(course: Course) -> object:
    """What is to be told of a course, but for what stays and for numbers that change all the time."""
    moves = [(move.before.id, move.before.host, move.after.id, move.after.host) for move in course.moves]
    new = [(task.id, task.host) for task in course.new]
    gone = [task.id for task, _ in course.gone]
    return moves, new, gone, course.waiting, course.blocked


def _put(change: Change) -> Put | None:
    return next((op for op in change.ops if isinstance(op, Put)), None)


def _reviewed(change: Change, world: World, config: Mapping[str, Entry], counted: Collection[str]) -> Reviewed:
    put = _put(change)
    if put is None:
        return Reviewed(change, Revision(0))
    revision = next(op.revision for op in change.ops if isinstance(op, Check))
    after, against = decode(put.value, dict), None
    before: Any = None
    if change.kind == "task_definition":
        against = _former(decode(put.value, TaskDefinition), world)
        before = msgspec.to_builtins(normalise(against)) if against else None
    elif put.key in config:
        with contextlib.suppress(InvalidValue):
            before = decode(config[put.key].value, dict)
    kept = change.after.desired if change.before and change.after and change.name not in counted else None
    fields = changed_fields(before or {}, after)
    if not before:
        usual = {path: value for path, _, value in changed_fields({}, _blank(KINDS[change.kind]))}
        fields = [one for one in fields if one[2] not in SAYING_NOTHING and usual.get(one[0]) != one[2]]
    fields = [_readable(one) for one in fields if one[0] not in ("name", "version")]
    return Reviewed(change, revision, tuple(fields), against.version if against else None, kept)


def _blank(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The fields that need not be said, as they are then."""
    fields = msgspec.structs.fields(kind)
    return {one.name: one.default for one in fields if one.default not in (msgspec.NODEFAULT, msgspec.UNSET)}


def _readable(field: Field) -> Field:
    path, before, after = field
    if path not in DURATIONS:
        return field
    said = [to_text(int(value)) if value.isdecimal() else value for value in (before, after)]
    return path, said[0], said[1]


def _former(definition: TaskDefinition, world: World) -> TaskDefinition | None:
    """What a new version is compared with: one that a service runs, else the highest one."""
    known = {version for name, version in world.definitions if name == definition.name}
    used = {one.task_version for one in world.services.values() if one.task_name == definition.name} & known
    return world.definitions[definition.name, max(used or known)] if known else None


def counted_services(documents: Sequence[Mapping[str, Any]]) -> set[str]:
    """The services of valid manifests that say how many tasks they are to have."""
    found = (one for document in documents for one in document.get("services") or ())
    return {one["name"] for one in found if "desired" in one}


def changed_since(revisions: Mapping[str, Revision], number: int) -> list[str]:
    """The keys that were written after the review with this number was made."""
    return sorted(key for key, revision in revisions.items() if revision > since(number) and key != keys.STORE_UID)
