"""From the plans for a service to commits, which the store refuses if they were made on what is not true any more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sked_core.interfaces.store import Check, Op, Put, Revision
from sked_core.logic.plan import Plan
from sked_core.model import codec, keys
from sked_core.runtime.scheduler_feed import SchedulerFeed
from sked_core.runtime.scheduler_view import Pair, View, definition_key
from sked_core.runtime.service_status import status_of
from sked_core.runtime.state import batches, change_ops, marker

RESERVED_OPS = 6
"""Of each commit, beside the changes: fence, service, definition, marker (checked and written), the lock's end."""


def commits_of(
    service: str, plans: Mapping[Pair, Plan], view: View, feed: SchedulerFeed, *, scheduler: str, by: str
) -> Iterator[list[Op]]:
    """The ops of ``plans``, in as many commits as the store needs. All are to be made under the service's lock.

    ``scheduler``: the one that the service is placed by; ``by``: the name of this process, which markers show.
    """
    declared = view.services.entries.get(keys.service(service))
    guards: list[Op] = [Check(keys.service(service), declared.revision if declared else Revision(0))]
    first: list[Op] = []
    groups: list[list[Op]] = []
    status, key = status_of(scheduler, plans, view), keys.service_status(service)
    if status != view.status(service):
        known = view.statuses.entries.get(key)
        groups.append([Check(key, known.revision if known else Revision(0)), Put(key, codec.encode(status))])
    changes = [change for plan in plans.values() for change in plan.changes]
    for change in changes:
        entry = view.tasks.entries.get(keys.task(change.before.id)) if change.before else None
        groups.append(change_ops(change, entry.value if entry else None))
    if changes:
        # That the tasks are what was planned on. After the first commit nobody else adds any: the lock is held.
        first.append(feed.guard(service))
        guards.append(marker(service, by))
        wanted = view.service(service)
        definition = view.definitions.entries.get(definition_key(wanted)) if wanted else None
        if wanted and definition:
            guards.append(Check(definition_key(wanted), definition.revision))
    for batch in batches(groups, max_ops=feed.max_ops - RESERVED_OPS):
        yield [*first, *guards, *batch]
        first = []
