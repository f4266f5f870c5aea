"""What manifests come to: the changes, the roll-outs that begin with them, writing them, and the events of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sked_core.client.looking.overview import schedulers_there
from sked_core.client.looking.rollouts import active_entry
from sked_core.client.session import Session
from sked_core.interfaces.store import Check, Entry, Store
from sked_core.logic.apply import CREATED, DELETED, UNCHANGED, Change, with_rollout
from sked_core.logic.rollout_start import Kind, numbers
from sked_core.model import keys
from sked_core.model.manifest import Manifest, StoredConfig
from sked_core.model.types import Event, Service
from sked_core.model.validate import validate as validated
from sked_core.model.yaml_source import Source
from sked_core.runtime.journal import MAX_BYTES_OF_COMMIT, Journal
from sked_core.runtime.plugins.asked import spec_checkers
from sked_core.runtime.state import MAX_COMMIT_BYTES, batches


def against(sked: Session, sources: Sequence[Source], config: Mapping[str, Entry]) -> Manifest:
    """What ``sources`` declare, checked together with what is declared already. Raises InvalidManifest."""
    executors, schedulers = spec_checkers(sked.plugins), {*sked.plugins.names("scheduler")}
    stored = StoredConfig.from_values({key: entry.value for key, entry in config.items()})
    found = validated(sources, stored=stored, executors=executors, schedulers=schedulers)
    if strange := {one.scheduler for one in found.services} - schedulers:
        offered = {name for there in schedulers_there(sked).values() for name in there}
        if strange & offered:  # somebody places by it, though it is not installed here
            return validated(sources, stored=stored, executors=executors, schedulers=schedulers | offered)
    return found


def begin_rollout(store: Store, journal: Journal, change: Change, why: str, kind: Kind = "update") -> Change:
    """``change`` with the roll-out that goes with it, if it is a change of a service's version."""
    if not change.rolls_out:
        return change
    active = active_entry(store, change.name)
    history = numbers(store.read(keys.rollout_history(change.name)).entries)
    return with_rollout(change, active, history, kind=kind, by=journal.who, why=why, at=journal.now())


def commit_changes(store: Store, journal: Journal, changes: Sequence[Change], why: str) -> None:
    """Write ``changes`` and tell of them: in one transaction where the store takes that many operations; else in
    several, what is referred to first, a service together with its roll-out. Raises Conflict."""
    told = {change.ops[0].key: _events(journal, change, why) for change in changes if change.ops}
    # One operation and some bytes of each transaction are for the events.
    room, size = store.max_ops - 1, MAX_COMMIT_BYTES - MAX_BYTES_OF_COMMIT
    for batch in batches((change.ops for change in changes if change.ops), max_ops=room, max_bytes=size):
        events = [event for op in batch if isinstance(op, Check) for event in told.get(op.key, ())]
        journal.commit(batch, events)


def _events(journal: Journal, change: Change, why: str) -> list[Event]:
    if change.outcome == UNCHANGED:
        return []
    subject, name = f"{change.kind}/{change.name}", change.name
    if change.outcome == DELETED:
        return [journal.event("service.deleted", subject, service=name, why=why)]
    if change.after is None:
        return [journal.event(f"{change.kind}.applied", subject, why=why)]
    wanted = _version(change.after)
    former = _version(change.before) if change.before and change.outcome != CREATED else ""
    events = [journal.event("service.applied", subject, service=name, why=why, before=former, after=wanted)]
    if change.ended:
        message = f"roll-out {change.ended.number} ended for another one"
        events.append(journal.event("rollout.superseded", subject, service=name, why=message, after=wanted))
    if change.begun:
        origin = f"{change.begun.from_name} {change.begun.from_version}" if change.begun.from_name else ""
        message = f"roll-out {change.begun.number} ({change.begun.kind}): {why}"
        events.append(journal.event("rollout.started", subject, service=name, why=message, before=origin, after=wanted))
    return events


def _version(service: Service) -> str:
    return f"{service.task_name} {service.task_version}"
