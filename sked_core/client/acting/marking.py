"""The mark of a host, which no agent ever writes: cordoned, draining; and how far a drain is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from sked_core.client import reading
from sked_core.client.looking.listing import why as why_waiting
from sked_core.client.session import Session
from sked_core.errors import InvalidValue
from sked_core.interfaces.store import Delete, Op, Put, Store, entry_at
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.spec import known
from sked_core.model.types import Mark, ServiceStatus, Task
from sked_core.runtime.state import batches


def cordon(sked: Session, hosts: Sequence[str], *, why: str = "") -> list[str]:
    """Place no further tasks on ``hosts``; what runs there goes on. Returns those whose mark that changed. Raises
    NotFound for a stranger, with nothing written; Unavailable."""
    return _mark(sked, hosts, Mark(state="cordoned"), why)


def uncordon(sked: Session, hosts: Sequence[str], *, why: str = "") -> list[str]:
    """Take the mark away, whichever it is. Returns and raises as ``cordon`` does."""
    return _mark(sked, hosts, None, why)


def drain(
    sked: Session, hosts: Sequence[str], *, force: bool = False, deadline: float = 0.0, why: str = ""
) -> list[str]:
    """Move all tasks away from ``hosts``, which are marked at once, so that tasks don't hop from one to the next.

    ``force``: below `min` at once; ``deadline``: below `min` after so many seconds, 0 for never. The same drain again
    changes nothing, with other options it changes the drain. Returns and raises as ``cordon`` does; InvalidValue for
    both options at once.
    """
    if force and deadline:
        raise InvalidValue("force means now, a deadline means later: give one of them")
    if deadline < 0:
        raise InvalidValue("the deadline has to be more than 0")
    return _mark(sked, hosts, Mark(state="draining", force=force, deadline=deadline), why)


@dataclass(frozen=True, slots=True)
class Left:
    """What is left on a host. Tasks that the host has rejected don't count: they don't run.

    ``waiting``: services, with their clusters, whose tasks have not been asked to stop yet, and what schedulers say of
    them; empty where they say nothing.
    """

    host: str
    tasks: int
    stopping: int
    waiting: Mapping[tuple[str, str], str]


def left_on(store: Store, hosts: Sequence[str]) -> list[Left]:
    """How far the drain of each of ``hosts`` is. Raises Unavailable."""
    found = []
    reasons: dict[tuple[str, str], str] = {}
    asked: set[str] = set()
    for host in hosts:
        tasks: list[Task | None] = []
        for key, entry in store.read(keys.host_tasks(host)).entries.items():
            try:
                tasks.append(decode(entry.value, Task))
            except InvalidValue:
                if keys.last_segment(key):
                    tasks.append(None)  # whatever it is, it is not gone
        there = [task for task in tasks if task is None or not task.rejected]
        waiting = {(task.service, task.cluster.name) for task in there if task is not None and task.scheduled}
        for service in {service for service, _ in waiting} - asked:
            reasons |= _reasons(store, service)
        asked |= {service for service, _ in waiting}
        stopping = sum(task is not None and not task.scheduled for task in there)
        found.append(Left(host, len(there), stopping, {pair: reasons.get(pair, "") for pair in sorted(waiting)}))
    return found


def _reasons(store: Store, service: str) -> dict[tuple[str, str], str]:
    """What schedulers say of a service whose tasks wait, by service and cluster."""
    entry = entry_at(store, keys.service_status(service))
    try:
        clusters = decode(entry.value, ServiceStatus).clusters if entry else {}
    except InvalidValue:
        clusters = {}
    return {(service, name): why_waiting(status) for name, status in clusters.items()}


def _mark(sked: Session, hosts: Sequence[str], mark: Mark | None, why: str) -> list[str]:
    """Set the mark of all hosts in one commit; None takes it away.

    A host that has such a mark already keeps it, with the time at which a deadline began.
    """
    wanted = [keys.check_host(host) for host in dict.fromkeys(hosts)]
    there = [keys.last_segment(key) for key in sked.store.read(keys.HOSTS).entries]
    for host in wanted:
        known("host", host, there)
    before = reading.by_name(sked.store, keys.MARKS, Mark)
    changed = [host for host in wanted if not _same(before.get(host), mark, why)]
    if mark is not None and len(changed) >= sked.store.max_ops:  # then in two rounds: tasks still don't hop
        _commit(sked, changed, before, Mark(state="cordoned"), why)
    _commit(sked, changed, before, mark, why)
    return changed


def _same(before: Mark | None, after: Mark | None, why: str) -> bool:
    if before is None or after is None:
        return before is after
    unchanged = (before.state, before.force, before.deadline) == (after.state, after.force, after.deadline)
    return unchanged and why in ("", before.why)


def _commit(sked: Session, hosts: Sequence[str], before: Mapping[str, Mark], mark: Mark | None, why: str) -> None:
    journal = sked.journal()
    at = journal.now()
    ops: list[list[Op]] = []
    events = {}
    for host in hosts:
        key, former = keys.mark(host), before.get(host, Mark(state="cordoned"))
        if mark is None:
            ops.append([Delete(key)])
        else:
            reason = why or (former.why if former.state == mark.state else "")
            ops.append([Put(key, encode(msgspec.structs.replace(mark, by=journal.who, at=at, why=reason)))])
        state = _said(former if host in before else None)
        what = f"host.{mark.state if mark else 'ready'}"
        events[key] = journal.event(what, f"host/{host}", host=host, why=why, before=state, after=_said(mark))
    for batch in batches(ops, max_ops=sked.store.max_ops - 1):
        journal.commit(batch, [events[op.key] for op in batch])


def _said(mark: Mark | None) -> str:
    if mark is None:
        return "ready"
    return mark.state + (" by force" if mark.force else f" for {mark.deadline:g}s at most" if mark.deadline else "")
