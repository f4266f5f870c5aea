"""What an apply writes, and what a scaling writes: pure functions of what is declared and what is stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import msgspec

from sked_core.errors import InvalidValue
from sked_core.interfaces.store import Check, Delete, Entry, Op, Put, Revision
from sked_core.logic.rollout_start import Kind, begin, begin_ops, parse
from sked_core.model import keys
from sked_core.model.codec import decode, encode, patch
from sked_core.model.manifest import Manifest
from sked_core.model.resolve import derived_bounds, normalise, same
from sked_core.model.types import Cluster, Rollout, Service, TaskDefinition

CREATED, CONFIGURED, UNCHANGED, DELETED = "created", "configured", "unchanged", "deleted"
MAX_COUNT = 1_000_000


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one object: ``kind`` and ``name`` as people type them (``service``, ``web``; a task
    definition's name is ``web/3``), ``outcome`` created, configured, unchanged or deleted, and the ops for it.

    ``before`` and ``after``: of a service, what was declared (None: nothing, or nothing that can be read) and what is.
    ``begun``: the roll-out that begins with the change, ``ended`` the one that it supersedes.
    """

    kind: str
    name: str
    outcome: str
    ops: tuple[Op, ...] = ()
    before: Service | None = None
    after: Service | None = None
    begun: Rollout | None = None
    ended: Rollout | None = None

    @property
    def rolls_out(self) -> bool:
        """Whether a service that is stored gets another version: that is a roll-out."""
        old, new = self.before, self.after
        if old is None or new is None:
            return False
        return (old.task_name, old.task_version) != (new.task_name, new.task_version)


def plan_apply(manifest: Manifest, entries: Mapping[str, Entry]) -> tuple[Change, ...]:
    """One change for each object of ``manifest``, given the ``config/`` entries that it was validated against.

    Task definitions come first and clusters last: where a store can't take all ops in one commit, no part of them
    ever refers to what is not there yet. Every Put carries a Check of the revision that was read, so that a
    concurrent change is a Conflict and never lost. Fields that this version does not know are kept.
    """
    return tuple(_changes(manifest, entries))


def unlisted(manifest: Manifest, entries: Mapping[str, Entry]) -> Iterator[Change]:
    """The removal of each service that ``manifest`` does not declare and no cluster lists once that is applied."""
    clusters = {keys.cluster(one.name): one for one in manifest.clusters}
    for key in (key for key in entries if key.startswith(keys.CLUSTERS) and key not in clusters):
        try:
            clusters[key] = decode(entries[key].value, Cluster)
        except InvalidValue as error:
            raise InvalidValue(f"what {key} lists is not known, so nothing is pruned: {error}") from None
    kept = {name for one in clusters.values() for name in one.services} | {one.name for one in manifest.services}
    for key in (key for key in entries if key.startswith(keys.SERVICES)):
        if (name := keys.last_segment(key)) not in kept:
            yield Change("service", name, DELETED, (Check(key, entries[key].revision), Delete(key)))


def with_rollout(
    change: Change, active: Entry | None, history: Iterable[int], *, by: str, why: str, at: str, kind: Kind = "update"
) -> Change:
    """``change``, which ``rolls_out``, with the ops that begin its roll-out in the same commit.

    ``active`` is the entry under ``keys.rollout``, ``history`` the numbers that are kept; read in this order.
    """
    if change.after is None:
        return change
    kept = list(history)
    begun, ended = begin(
        change.before, change.after, parse(active), max(kept, default=0), kind=kind, by=by, why=why, at=at
    )
    ops = (*change.ops, *begin_ops(change.name, begun, ended, active, kept))
    return replace(change, ops=ops, begun=begun, ended=ended)


def scale(stored: bytes, count: int) -> bytes:
    """The stored service with ``desired`` set to ``count``; bounds that nobody gave follow.

    Raises InvalidValue, with the edit to make as hint, for a count that can't be or that is outside of the ``min``
    and ``max`` of the manifest.
    """
    service = decode(stored, Service)
    if not 0 <= count <= MAX_COUNT:
        raise InvalidValue(f"expected a count from 0 to {MAX_COUNT}, got {count}")
    if service.auto_bounds or not {"min", "max"} & decode(stored, dict).keys():
        low, high = derived_bounds(count)
        return patch(stored, desired=count, min=low, max=high, auto_bounds=True)
    for wrong, name, bound, word in (
        (count < service.min, "min", service.min, "below"),
        (count > service.max, "max", service.max, "above"),
    ):
        if wrong:
            raise InvalidValue(
                f"{count} is {word} the {name} of {bound} that service {service.name} was given",
                hint=f"in its manifest set `{name}: {count}`, or leave min and max out so that they follow;"
                " then `sked apply -f` it and scale again",
            )
    return patch(stored, desired=count)


def _changes(manifest: Manifest, entries: Mapping[str, Entry]) -> Iterator[Change]:
    for definition in manifest.task_definitions:
        key = keys.task_definition(definition.name, definition.version)
        name = f"{definition.name}/{definition.version}"
        entry = entries.get(key)
        if entry is None:
            yield _write("task_definition", name, key, encode(definition), Revision(0))
        elif same(normalise(decode(entry.value, TaskDefinition)), definition):
            yield Change("task_definition", name, UNCHANGED)
        else:
            raise InvalidValue(f"task definition {name} is applied already with other content: raise its version")
    for service in manifest.services:
        change = _declare("service", service.name, keys.service(service.name), service, entries)
        yield replace(change, before=_stored(entries.get(keys.service(service.name))), after=service)
    for cluster in manifest.clusters:
        yield _declare("cluster", cluster.name, keys.cluster(cluster.name), cluster, entries)


def _stored(entry: Entry | None) -> Service | None:
    try:
        return decode(entry.value, Service) if entry else None
    except InvalidValue:
        return None


def _declare(kind: str, name: str, key: str, value: msgspec.Struct, entries: Mapping[str, Entry]) -> Change:
    entry = entries.get(key)
    if entry is None:
        return _write(kind, name, key, encode(value), Revision(0))
    fields = msgspec.to_builtins(value)
    left_out = set(type(value).__struct_fields__) - fields.keys()
    try:
        before = decode(entry.value, dict)
        data = encode({name: field for name, field in {**before, **fields}.items() if name not in left_out})
    except InvalidValue:
        # What stands there is no JSON object at all: applying it anew is the repair.
        return _write(kind, name, key, encode(value), entry.revision)
    if before == decode(data, dict):
        return Change(kind, name, UNCHANGED)
    return _write(kind, name, key, data, entry.revision)


def _write(kind: str, name: str, key: str, data: bytes, revision: Revision) -> Change:
    return Change(kind, name, CONFIGURED if revision else CREATED, (Check(key, revision), Put(key, data)))
