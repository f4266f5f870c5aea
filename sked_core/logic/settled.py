"""What can be told of a pair before it is planned for: whether anything is to be done, and whether health counts."""

from __future__ import annotations

from collections.abc import Sequence

from sked_core.logic.fleet import Fleet
from sked_core.logic.plan import Goal, Issued
from sked_core.logic.steps import Steps


def settled(goal: Goal, issued: Sequence[Issued], fleet: Fleet) -> bool:
    """Whether nothing is left to do for the pair, whatever the health of its tasks: the cheap and usual case."""
    if goal.cluster is None:
        return not issued
    if len(issued) != goal.service.desired or goal.definition is None:
        return False
    steps = Steps(goal, (), fleet, {}, (), None)
    return all(steps.is_current(one.task) for one in issued)


def asks_for_health(goal: Goal, issued: Sequence[Issued], fleet: Fleet) -> bool:
    """Whether the plan for the pair may depend on how its tasks are: not where tasks are only missing, or all of them
    have to go. Of a ``goal`` without a hold and without moves."""
    if goal.cluster is None:
        return False
    steps = Steps(goal, issued, fleet, {}, (), None)
    return bool(steps.outdated) or len(steps.current) > goal.service.desired
