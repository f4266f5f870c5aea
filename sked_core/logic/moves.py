"""Moves of tasks from host to host: which of them go on, which have ended, and whose turn it is. Pure.

A move goes as any replacement: its replacement is issued as far as ``max`` allows, and the task is asked to stop once
everything is healthy; where ``max`` leaves no room, the task goes first as far as ``min`` allows. All that is known of
it stands in the record of the service's moves, and each step is written in the commit that makes it true, so that any
scheduler goes on with what another one has begun. A move that can't be made any more is given up: what runs is as good
a place as any other, so nothing waits for it.

A move to the host where the task is already is a restart: another task takes its place there, in the same steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from sked_core.interfaces.scheduler import Demand
from sked_core.logic.plan import WAITING_FOR, Issued, MoveStep
from sked_core.model.types import Moves, Service, Task, TaskId, TaskMove
from sked_core.model.wording import counted


def superseded(moves: Moves, service: Service | None, *, rolling: bool) -> str:
    """Why none of ``moves`` is wanted any more; empty if they are. ``rolling``: whether the version changes."""
    if service is None:
        return "the service is not declared any more"
    if rolling:
        return "the service is changed to another version"
    if service.desired != moves.desired and not all(move.restarts for move in moves.moves):
        return f"the service was scaled from {moves.desired} to {service.desired}"
    return ""


def comes_first(move: TaskMove, others: Iterable[TaskMove]) -> TaskMove | None:
    """The one of ``others`` that has to come before ``move``, if there is any: an earlier one that has yet to leave the
    host where it goes, or to arrive there. So every host sees arrivals with at least the room that was planned."""
    earlier = (one for one in others if one.turn < move.turn)
    return next((one for one in earlier if one.source == move.to or (one.to == move.to and not one.replacement)), None)


class Moving:
    """The moves of one (cluster, service) pair while its plan is made. ``elsewhere``: those of all other pairs;
    ``issued``: all tasks of the pair."""

    def __init__(
        self, moves: Sequence[TaskMove], elsewhere: Sequence[TaskMove] = (), issued: Sequence[Issued] = ()
    ) -> None:
        self._left = {move.task: move for move in sorted(moves, key=lambda one: (one.turn, one.task))}
        self._elsewhere = elsewhere
        self._issued: dict[str, Task] = {one.id: one.task for one in issued}
        self._steps: list[MoveStep] = []
        self.demand = Demand("", "")
        """What a task of the wanted version asks for."""

    @property
    def steps(self) -> tuple[MoveStep, ...]:
        """What has become of moves, in order."""
        return tuple(self._steps)

    @property
    def left(self) -> tuple[TaskMove, ...]:
        """What is left to be made, in order."""
        return tuple(self._left.values())

    def in_state(self, state: str) -> list[TaskMove]:
        """Those in ``state``, in order."""
        return [move for move in self._left.values() if move.state == state]

    def look(self, current: Mapping[TaskId, Task]) -> frozenset[str]:
        """End what can't go on. ``current``: those tasks, by id, that are as they should be. Returns the ids of the
        tasks whose replacement is there, so that they are to leave."""
        leaving = set()
        for move in self.left:
            task, replacement = self._issued.get(move.task), current.get(TaskId(move.replacement))
            there = task is not None and task.host == move.source
            arrived = replacement is not None and replacement.host == move.to
            if move.state == "waiting":
                if not there or move.task not in current:
                    self.cancel(move, f"it does not run on {move.source} any more as it did")
            elif move.replacement and not arrived:
                self.cancel(move, self._failed(move, self._issued.get(move.replacement)))
            elif there and task is not None and task.scheduled and move.state == "starting":
                leaving.add(move.task)
            elif there and task is not None and not task.scheduled:
                self._left[move.task] = replace(move, state="stopping")
            elif there:
                self.cancel(move, "it was asked to stop, and is to run again")
            elif move.replacement:
                self._end(MoveStep("done", move))
        return frozenset(leaving)

    def _failed(self, move: TaskMove, replacement: Task | None) -> str:
        if replacement is not None and replacement.host == move.to and replacement.rejected:
            return f"{move.to} rejected {replacement.id}: {replacement.reject_reason}"
        return f"{move.replacement}, its replacement, does not run on {move.to} any more"

    def expected(self) -> list[TaskMove]:
        """Those whose task has gone to make room for its replacement, which can be issued now."""
        return [
            move
            for move in self.in_state("stopping")
            if not move.replacement and self._host_of(move.task) != move.source
        ]

    def _host_of(self, task_id: str) -> str | None:
        return self._issued[task_id].host if task_id in self._issued else None

    def comes_first(self, move: TaskMove) -> TaskMove | None:
        """See the function of this name."""
        return comes_first(move, (*self._left.values(), *self._elsewhere))

    def earlier(self, move: TaskMove) -> TaskMove | None:
        """Any move that is to come before ``move`` and is not done: with it the host may yet become one that can take
        the task, by rules about other services or tags."""
        others = (one for one in (*self._left.values(), *self._elsewhere) if one.turn < move.turn)
        return min(others, key=lambda one: (one.turn, one.task), default=None)

    def start(self, move: TaskMove, replacement: str) -> None:
        """Its replacement is issued."""
        self._left[move.task] = replace(move, state="starting", replacement=replacement)
        self._steps.append(MoveStep("started", move))

    def stop_first(self, move: TaskMove) -> None:
        """Its task is asked to stop, to make room for the replacement."""
        self._left[move.task] = replace(move, state="stopping")
        self._steps.append(MoveStep("started", move))

    def seen(self, stopping: Iterable[Issued]) -> Moving:
        """Itself, having taken note that these tasks are asked to stop."""
        for one in stopping if self._left else ():
            if one.id in self._left and self._left[one.id].state == "starting":
                self._left[one.id] = replace(self._left[one.id], state="stopping")
        return self

    def finish(self, move: TaskMove) -> None:
        """The replacement of a task that is gone was issued where it was to be."""
        self._end(MoveStep("done", move))

    def cancel(self, move: TaskMove, why: str) -> None:
        """It is given up."""
        self._end(MoveStep("cancelled", move, why))

    def _end(self, step: MoveStep) -> None:
        del self._left[step.move.task]
        self._steps.append(step)

    def why_leaving(self, task_id: str) -> str:
        """Why a task goes whose replacement is well; empty for one that nothing moves."""
        move = self._left.get(task_id)
        if move is None or move.state != "starting":
            return ""
        way = "is restarted" if move.restarts else f"moves to {move.to}"
        return f"{way}, where {move.replacement} is healthy"

    def told(self, waiting_for: str) -> str:
        """For people: what is left, and what it waits for. Empty if nothing is left."""
        if not self._left:
            return ""
        move = next(iter(self._left.values()))
        what = "restart" if all(one.restarts for one in self._left.values()) else "move"
        count = f"{counted(len(self._left), what)} left"
        way = f"be restarted on {move.to}" if move.restarts else f"move from {move.source} to {move.to}"
        return f"{waiting_for or f'{WAITING_FOR} {move.task} to {way}'} ({count})"


NO_MOVES = Moving(())
"""Of nearly every pair, nearly always."""
