"""The moves of services as one scheduler process takes them further: the decision is ``reconcile``'s, here is written
what has become of them, in the commit of the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec

from sked_core.interfaces.store import Check, Delete, Entry, Op, Put, Revision
from sked_core.logic.moves import superseded
from sked_core.logic.plan import Goal, MoveStep, Plan
from sked_core.logic.world import Pair
from sked_core.model import keys
from sked_core.model.codec import decode, patch
from sked_core.model.duration import to_seconds
from sked_core.model.types import Event, TaskMove
from sked_core.runtime.journal import Journal
from sked_core.runtime.scheduling.view import View


class ServiceMoves:
    """Called with the store's monitor held."""

    def __init__(self, view: View, journal: Journal) -> None:
        self._view, self._journal = view, journal
        self._since: dict[str, tuple[Revision, float]] = {}
        """The record of each service as it was last changed, and when that was seen (monotonic seconds)."""

    def forget_times(self) -> None:
        """Nobody could make progress for a while: patience begins anew."""
        self._since.clear()

    def under_way(self, service: str) -> bool:
        """Whether there are moves of the service that can be read."""
        return keys.moves(service) in self._view.moves.objects

    def fault(self, service: str) -> str:
        """What is to be said of a record that can't be read; empty if there is none."""
        key = keys.moves(service)
        fault = self._view.moves.faults.get(key)
        return f"{key} can't be read: {fault}; repair or remove it" if fault else ""

    def given_up(self, service: str, now: float, *, rolling: bool) -> str:
        """Why all of the service's moves are to be given up; empty if they go on."""
        declared, moves = self._view.service(service), self._view.moves.objects[keys.moves(service)]
        if why := superseded(moves, declared, rolling=rolling):
            return why
        revision = self._view.moves.entries[keys.moves(service)].revision
        known, since = self._since.setdefault(service, (revision, now))
        if known != revision:
            self._since[service] = revision, now
        elif declared and now - since >= to_seconds(declared.update_policy.progress_deadline):
            return f"no move came further for {to_seconds(declared.update_policy.progress_deadline):g} s"
        return ""

    def patience(self, service: str, now: float) -> float:
        """Seconds until the moves are given up if none comes further."""
        declared, known = self._view.service(service), self._since.get(service)
        if declared is None or known is None:
            return float("inf")
        return max(0.0, known[1] + to_seconds(declared.update_policy.progress_deadline) - now)

    def goal(self, pair: Pair, goal: Goal) -> Goal:
        """``goal`` with the moves of the pair, and all others."""
        own: list[TaskMove] = []
        elsewhere: list[TaskMove] = []
        for key, moves in self._view.moves.objects.items():
            for move in moves.moves:
                mine = key == keys.moves(pair[1]) and move.cluster == pair[0]
                (own if mine else elsewhere).append(move)
        return replace(goal, moves=tuple(own), elsewhere=tuple(elsewhere))

    def written(
        self, service: str, goals: Mapping[Pair, Goal], plans: Mapping[Pair, Plan], gone: str
    ) -> tuple[tuple[Op, ...], tuple[Event, ...]]:
        """What goes into the commit of ``plans`` for ``goals``. ``gone``: why all moves are given up, if they are: then
        the plans were made without them."""
        key = keys.moves(service)
        entry, moves = self._view.moves.entries[key], self._view.moves.objects[key]
        left: list[TaskMove] = []
        steps: list[MoveStep] = []
        if not gone:
            left += [move for plan in plans.values() for move in plan.moves]
            steps += [step for plan in plans.values() for step in plan.steps]
        for move in moves.moves:
            goal = goals.get((move.cluster, service))
            if not gone and goal is not None and goal.cluster is not None:
                continue  # the plan has seen to it
            if not gone and keys.cluster(move.cluster) in self._view.clusters.faults:
                left.append(move)  # what can't be read is not gone
            else:
                steps.append(MoveStep("cancelled", move, gone or f"{service} is not wanted in {move.cluster} any more"))
        left.sort(key=lambda move: (move.turn, move.task))
        if left == moves.moves:
            return (), ()
        change: Op = Put(key, _rewritten(entry, left)) if left else Delete(key)
        return (Check(key, entry.revision), change), tuple(self._event(service, step) for step in steps)

    def _event(self, service: str, step: MoveStep) -> Event:
        move = step.move
        return self._journal.event(
            f"move.{step.what}",
            f"task/{move.task}",
            service=service,
            host=move.to,
            why=step.why,
            before=move.source,
            after=move.to,
        )


def _rewritten(entry: Entry, left: Sequence[TaskMove]) -> bytes:
    """The record with these moves; fields that this version does not know stay as they are, those of each move too."""
    stored = {one.get("task"): one for one in decode(entry.value, dict)["moves"]}
    return patch(entry.value, moves=[stored.get(move.task, {}) | msgspec.to_builtins(move) for move in left])
