"""The steps by which tasks of a pair move to other hosts: a replacement beside what it replaces, or in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sked_core.interfaces.scheduler import Scheduler
from sked_core.logic.moves import Moving
from sked_core.logic.plan import WAITING_FOR, Issued, demand_of
from sked_core.logic.recording import Recording
from sked_core.logic.steps import Steps
from sked_core.model.types import TaskId, TaskMove


def take_up(steps: Steps, issued: Sequence[Issued]) -> Moving:
    """The moves of the goal as far as they go on; tasks whose replacement is there are outdated from here on.
    ``issued``: all tasks of the pair."""
    goal = steps.goal
    moving = Moving(goal.moves, goal.elsewhere, issued)
    if goal.definition is not None:
        moving.demand = demand_of(goal, goal.definition, goal.fixed_ports)
    leaving = moving.look({one.id: one.task for one in steps.current})
    steps.outdated += [one for one in steps.current if one.id in leaving]
    steps.current = [one for one in steps.current if one.id not in leaving]
    return moving


def issue_moved(steps: Steps, scheduler: Scheduler, avoid: Mapping[str, str]) -> None:
    """Issue the tasks for which others have made room, where they were to go if that is still possible. ``avoid``:
    hosts that are left alone for a while, with the reason; ``scheduler``: whose scores are kept of it."""
    moving = steps.moving
    for move in moving.expected():
        if len(steps.current) >= steps.ahead():
            moving.cancel(move, "the service has all its tasks")
        elif _room(steps) > 0:
            if refusal := _refusal(steps, move.to, avoid):
                moving.cancel(move, f"{move.to} can't take it any more: {refusal}")
            else:
                _issue(steps, scheduler, move)
                moving.finish(move)


def begin_moves(steps: Steps, scheduler: Scheduler, waiting: int, avoid: Mapping[str, str]) -> str:
    """Begin with the moves whose turn it is, as far as ``max`` allows; returns what the next one waits for, if it does.

    ``waiting``: how many tasks found no host; the rest as above.
    """
    moving, goal = steps.moving, steps.goal
    pending = moving.in_state("waiting")
    if not pending:
        return ""
    if waiting or steps.holes or goal.hold or len(steps.current) != goal.service.desired:
        return f"{WAITING_FOR} all tasks of the service to be there"
    if unsteady := sorted(one.id for one in steps.current if one.id not in steps.steady):
        return f"{WAITING_FOR} {unsteady[0]} to become healthy before the next task is moved"
    by_id = {one.id: one for one in steps.current}
    for move in pending:
        if move.task not in by_id:
            moving.cancel(move, "it is withdrawn: it is one too many")
            continue
        if first := moving.comes_first(move):
            return f"{WAITING_FOR} the move of {first.task}, which comes before that of {move.task}"
        one, room, refusal = by_id[TaskId(move.task)], _room(steps), _refusal(steps, move.to, avoid)
        if room > 0 and not refusal:
            steps.current.remove(one)
            steps.outdated.append(one)
            moving.start(move, _issue(steps, scheduler, move))
            continue
        # Not beside it; perhaps in its place.
        with steps.fleet.trial():
            steps.fleet.release(one.task)
            alone = _refusal(steps, move.to, avoid)
        if alone and (first := moving.earlier(move)):
            return f"{WAITING_FOR} the move of {first.task}: until then {move.to} can't take {move.task}: {alone}"
        if alone:
            moving.cancel(move, f"{move.to} can't take it: {alone}")
        elif steps.stopping or steps.outdated:
            return f"{WAITING_FOR} room to replace {move.task}"
        elif len(steps.healthy) <= goal.service.min:
            moving.cancel(move, steps.no_room(goal.service.desired + 1) if room <= 0 else f"{move.to}: {refusal}")
        else:
            steps.current.remove(one)
            steps.withdraw(one, f"makes room for its replacement on {move.to}")
            moving.stop_first(move)
            return ""
    return ""


def _room(steps: Steps) -> int:
    """How many more tasks ``max`` allows."""
    there = (steps.current, steps.kept, steps.outdated, steps.stopping)
    return steps.goal.service.max - sum(len(tasks) for tasks in there)


def _refusal(steps: Steps, host: str, avoid: Mapping[str, str]) -> str:
    """Why ``host`` can't take one more task of the wanted version; empty if it can."""
    cluster = steps.goal.cluster
    if host not in steps.fleet.hosts:
        return "there is no such host"
    return "; ".join(steps.fleet.refusal(host, steps.moving.demand, cluster.hosts if cluster else None, avoid))


def _issue(steps: Steps, scheduler: Scheduler, move: TaskMove) -> TaskId:
    """Issue the replacement; returns its id. It is recorded as a placement for which no other host came into question,
    so it comes to the same whenever it is run again."""
    cluster, definition = steps.goal.cluster, steps.goal.definition
    assert cluster is not None and definition is not None
    record = None
    if steps.keep is not None:
        others = dict.fromkeys(
            steps.fleet.hosts.keys() - {move.to}, f"{move.task} moves from {move.source} to {move.to}"
        )
        record = Recording(steps.keep, steps.fleet, scheduler, steps.moving.demand, 1, cluster.hosts, others)
        record.choose(move.to)
    way = f"is restarted on {move.to}" if move.restarts else f"moves there from {move.source}"
    one = steps.issue(cluster, definition, move.to, None, f"{move.task} {way}")
    steps.current.append(one)
    if record is not None:
        record.place(one.task, None)
        steps.batches += filter(None, [record.batch(definition, {})])
    return one.id
