"""From the plans for a service to commits, which the store refuses if they were made on what is not true any more."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from msgspec.structs import replace

from sked_core.interfaces.store import Check, Op, Put, Revision
from sked_core.logic.plan import WAITING_FOR, Change, Plan
from sked_core.logic.recording import bytes_kept, fitted, sealed
from sked_core.logic.world import Pair
from sked_core.model import codec, keys
from sked_core.model.decisions import Decision
from sked_core.model.types import Event, Task
from sked_core.runtime.journal import Journal
from sked_core.runtime.scheduling.feed import SchedulerFeed
from sked_core.runtime.scheduling.rollout_moves import Move
from sked_core.runtime.scheduling.service_status import status_of
from sked_core.runtime.scheduling.view import View, definition_key
from sked_core.runtime.state import batches, change_ops, marker

RESERVED_OPS = 7
"""Of each commit, beside the changes: fence, service, definition, marker (checked, written), events, the lock's end."""


def signed(plan: Plan, sign: Callable[[Task], Task]) -> Plan:
    """``plan`` with what it issues signed. Not so what it takes away: those are records of the store as they stand,
    which nobody vouches for."""
    changes = (
        replace(one, after=sign(one.after)) if one.after is not None and one.after.scheduled else one
        for one in plan.changes
    )
    return dataclasses.replace(plan, changes=tuple(changes))


def commits_of(
    service: str,
    plans: Mapping[Pair, Plan],
    move: Move,
    view: View,
    feed: SchedulerFeed,
    *,
    scheduler: str,
    journal: Journal,
    decision: Decision | None,
) -> Iterator[tuple[list[Op], list[Event]]]:
    """The ops of ``plans`` and of ``move``, in as many commits as the store needs, each with the events that it makes
    true (and keeps: they are among the ops). All are to be made under the service's lock, and those of ``plans`` that
    change tasks guarded by ``feed.guard``.

    ``scheduler``: the one that the service is placed by; ``journal``: of this process, whose name markers show.
    ``decision``: what is kept of where ``plans`` place tasks.
    """
    declared = view.services.entries.get(keys.service(service))
    guards: list[Op] = [Check(keys.service(service), declared.revision if declared else Revision(0))]
    groups: list[list[Op]] = []
    told: dict[int, list[Event]] = {}
    """Events by the group that they go with."""
    number = decision.number if decision else 0

    def group(ops: list[Op], events: list[Event]) -> None:
        told[len(groups)] = events
        groups.append(ops)

    if move.ops:
        group(list(move.ops), list(move.events))
    if plans and not move.alone:
        status, key = status_of(service, scheduler, plans, view, journal.now()), keys.service_status(service)
        if status != view.status(service):
            known = view.statuses.entries.get(key)
            ops: list[Op] = [Check(key, known.revision if known else Revision(0)), Put(key, codec.encode(status))]
            if decision is not None:
                limit = bytes_kept(len(view.services.entries))
                ops.append(Put(keys.decision(service, number), fitted(decision, limit)))
            group(ops, _blocked(service, plans, view, journal))
    changes = [change for plan in plans.values() for change in plan.changes]
    for change in changes:
        raw = view.tasks.raw(keys.task(change.before.id)) if change.before else None
        group(change_ops(change, raw), [_event(change, journal, number)])
    if changes:
        guards.append(marker(service, journal.who))
        wanted = view.service(service)
        definition = view.definitions.entries.get(definition_key(wanted)) if wanted else None
        if wanted and definition:
            guards.append(Check(definition_key(wanted), definition.revision))
    of_op = {id(ops[0]): events for number, ops in enumerate(groups) if (events := told[number])}
    for batch in batches(groups, max_ops=feed.max_ops - RESERVED_OPS):
        events = [event for op in batch for event in of_op.get(id(op), ())]
        yield [*guards, *batch, *([journal.put(events)] if events else [])], events


def decision_of(
    service: str, scheduler: str, plans: Mapping[Pair, Plan], view: View, journal: Journal
) -> Decision | None:
    """What ``plans`` decide about where tasks of ``service`` go, whole; None if they place nothing anew."""
    made = [sealed(batch, service) for plan in plans.values() for batch in plan.batches]
    status = view.status(service)
    number = status.decisions + 1 if status else 1
    return (
        Decision(number=number, at=journal.now(), by=journal.who, scheduler=scheduler, batches=made) if made else None
    )


def _event(change: Change, journal: Journal, decision: int) -> Event:
    before, after = change.before.task if change.before else None, change.after
    task = after or before
    assert task is not None
    what = "task.removed" if after is None else "task.issued" if after.scheduled else "task.withdrawn"
    event = journal.event(
        what,
        f"task/{task.id}",
        service=task.service,
        host=task.host,
        why=change.why,
        before=before.host if before else "",
        after=after.host if after is not None and after.scheduled else "",
    )
    return replace(event, decision=decision) if decision and what == "task.issued" else event


def _blocked(service: str, plans: Mapping[Pair, Plan], view: View, journal: Journal) -> list[Event]:
    """What newly keeps the service from what is desired."""
    status = view.status(service)
    events = []
    for pair, plan in plans.items():
        before = status.clusters[pair[0]].blocked if status and pair[0] in status.clusters else ""
        if plan.blocked and plan.blocked != before and not plan.blocked.startswith(WAITING_FOR):
            events.append(journal.event("service.blocked", f"service/{service}", service=service, why=plan.blocked))
    return events
