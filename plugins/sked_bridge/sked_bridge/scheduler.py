"""A scheduler that is a program."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import msgspec

from sked_bridge.pool import Refusal, Short, T, shared
from sked_bridge.programs import Program
from sked_core.plugin import Candidate, Demand, PluginError

SECONDS = 20.0
_NOT_SHOWN = ("placement", "shunned_by")
"""Core sees to them."""


class _Placed(msgspec.Struct):
    hosts: list[Short]


class _Scored(msgspec.Struct):
    scores: list[Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]]


class BridgedScheduler:
    """Asks the program for hosts, or for scores to choose them by. What it gets is in an order that says nothing."""

    def __init__(self, program: Program) -> None:
        self._pool = shared(program)

    def place(self, demand: Demand, count: int, candidates: Sequence[Candidate]) -> Iterator[str]:
        ordered = sorted(candidates, key=lambda candidate: candidate.host)
        methods = self._pool.hello().methods
        if "place" in methods:
            shown = [asdict(candidate) for candidate in ordered]
            params = {"demand": _demand(demand), "count": count, "candidates": shown}
            yield from self._ask("place", params, _Placed).hosts
        elif "score" in methods:
            yield from self._best(demand, count, ordered)
        else:
            raise PluginError(f"{self._pool.program} offers neither place nor score")

    def _best(self, demand: Demand, count: int, candidates: Sequence[Candidate]) -> Iterator[str]:
        heap = [
            (-score, one.host, one) for score, one in zip(self._scores(demand, candidates), candidates, strict=True)
        ]
        heapq.heapify(heap)
        for _ in range(count):
            if not heap:
                return
            _, host, candidate = heapq.heappop(heap)
            yield host
            left = candidate.after(demand)
            if left.fits(demand):
                heapq.heappush(heap, (-self._scores(demand, [left])[0], host, left))

    def _scores(self, demand: Demand, candidates: Sequence[Candidate]) -> list[float]:
        params = {"demand": _demand(demand), "candidates": [asdict(candidate) for candidate in candidates]}
        scores = self._ask("score", params, _Scored).scores
        if len(scores) != len(candidates):
            raise PluginError(f"{self._pool.program} gave {len(scores)} scores for {len(candidates)} candidates")
        return scores

    def _ask(self, method: str, params: dict[str, Any], kind: type[T]) -> T:
        try:
            return self._pool.ask(method, params, kind, self._pool.hello().deadlines.get(method, SECONDS))
        except Refusal as refusal:
            raise PluginError(f"{self._pool.program}: {refusal}", hint=refusal.hint) from None


def _demand(demand: Demand) -> dict[str, Any]:
    """As JSON has it, sets in an order of their own."""
    shown = {name: value for name, value in asdict(demand).items() if name not in _NOT_SHOWN}
    return {name: sorted(value) if isinstance(value, frozenset) else value for name, value in shown.items()}
