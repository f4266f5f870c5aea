"""What has to change so that a service's issued tasks become what users declared. Pure; the heart of a scheduler.

Order of thought for one (cluster, service) pair:

1. Tasks that are no longer wanted at all (service deleted, taken out of the cluster, scaled down) are withdrawn.
2. Missing tasks of the wanted version are issued, never more than ``max`` in all. A rejected or lost task is a
   hole: it is removed in the same step that issues its replacement, and left for people to read until then.
3. Moves of tasks to other hosts (logic.move_steps) begin one after another.
4. Outdated tasks (other version, draining or foreign host, or moved) are withdrawn one step at a time: only while
   every task of the wanted version is healthy, and never so that fewer than ``min`` healthy ones remain.

A roll-out that is held (paused, failed, waiting for its canaries) has two wanted versions: so many tasks of the new
one, and the former one for the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sked_core.interfaces.scheduler import Scheduler
from sked_core.logic.fleet import Fleet
from sked_core.logic.move_steps import begin_moves, issue_moved, take_up
from sked_core.logic.plan import Goal, Issued, Plan
from sked_core.logic.recording import Keep
from sked_core.logic.steps import Steps
from sked_core.model.types import Health, TaskId


def reconcile(
    goal: Goal,
    issued: Sequence[Issued],
    *,
    fleet: Fleet,
    health: Mapping[TaskId, Health],
    scheduler: Scheduler,
    avoid: Mapping[str, str],
    steady: Collection[TaskId] | None = None,
    unreadable: Collection[str] = (),
    keep: Keep | None = None,
) -> Plan:
    """The plan for one (cluster, service) pair.

    ``steady``: tasks that have been healthy for long enough to be relied on; None: those that are healthy.

    ``issued``: all tasks of the pair. ``fleet`` must count them; it is updated to what the plan leads to.
    ``avoid``: hosts that rejected this service lately, with the reason to show. ``unreadable``: ids whose records
    can't be decoded: left alone, and never issued anew. ``keep``: what is to be kept of the placements, None: nothing.
    """
    ordered = sorted(issued, key=lambda one: (one.task.task_definition.version, one.task.instance))
    steps = Steps(goal, ordered, fleet, health, unreadable, steady)
    if goal.moves:
        steps.moving = take_up(steps, ordered)
    steps.remove_abandoned()
    if goal.cluster is None:
        return steps.withdraw_all()
    if goal.definition is None:
        return Plan(
            tuple(steps.changes),
            blocked=f"no task definition {goal.service.task_name} version {goal.service.task_version}",
            moves=goal.moves,
        )
    steps.withdraw_surplus()
    steps.keep = keep
    issue_moved(steps, scheduler, avoid)
    waiting, refusals = steps.issue_missing(scheduler, avoid)
    waits = begin_moves(steps, scheduler, waiting, avoid)
    blocked = steps.withdraw_outdated(waiting)
    moving = steps.moving.seen(steps.stopping)
    blocked = moving.told(blocked or waits) or blocked
    return Plan(tuple(steps.changes), waiting, blocked, refusals, tuple(steps.batches), moving.left, moving.steps)
