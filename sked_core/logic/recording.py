"""Decisions written down while they are made, and made to fit into what may be kept of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from sked_core.interfaces.scheduler import Demand, Scheduler
from sked_core.logic.decision import answer_of, asked_of, inputs_digest, seen_of, terms_of
from sked_core.logic.fleet import Fleet
from sked_core.model.decisions import Batch, Decision, Seen
from sked_core.model.keys import KEPT_DECISIONS
from sked_core.model.types import Task, TaskDefinition

MAX_HOSTS_KEPT = 200
"""Of more hosts than that no figures are kept: the record would not hold them, and taking them down takes its time."""
MAX_BYTES_KEPT, MIN_BYTES_KEPT = 24 * 1024, 2 * 1024
MAX_BYTES_KEPT_OF_ALL = 64 * 1024 * 1024
"""How large one decision may be, and all that are kept of all services: with many services each gets less."""
MAX_TERMS_KEPT = 10
"""Of how many placements the score is kept term by term."""


@dataclass(frozen=True, slots=True)
class Keep:
    """What is to be kept of decisions about one pair. ``hosts``: of how many the figures are taken down at most;
    ``waiting``: so many tasks waited before. A batch that places none is kept only if more wait now."""

    hosts: int = MAX_HOSTS_KEPT
    waiting: int = 0


class Recording:
    """One batch while it is placed. Nothing is taken down before there is something to keep."""

    def __init__(
        self,
        keep: Keep,
        fleet: Fleet,
        scheduler: Scheduler,
        demand: Demand,
        count: int,
        allowed: Collection[str] | None,
        avoid: Mapping[str, str],
    ) -> None:
        self._keep, self._fleet, self._scheduler = keep, fleet, scheduler
        self._demand, self._count, self._allowed, self._avoid = demand, count, allowed, avoid
        self._seen: Seen | None = None
        self._terms: list[dict[str, float]] = []
        self._tasks: list[Task] = []
        self._freed: list[str] = []

    def choose(self, host: str) -> None:
        """``host`` was chosen for the next task; nothing is reserved for it yet."""
        if not self._tasks:
            self._take_down()
        if len(self._terms) < MAX_TERMS_KEPT:
            score = terms_of(self._scheduler, self._demand, self._fleet.candidate(host, self._demand))
            self._terms.append({**self._fleet.wishes(host, self._demand, self._allowed), **score})

    def place(self, task: Task, hole: Task | None) -> None:
        """It became ``task``, in the place of ``hole`` if that is given."""
        self._tasks.append(task)
        self._freed.append(hole.host if hole is not None and not hole.rejected else "")

    def batch(self, definition: TaskDefinition, refusals: Mapping[str, tuple[str, ...]]) -> Batch | None:
        """What is to be kept, if anything is, now that ``refusals`` say why no more were placed."""
        waiting = self._count - len(self._tasks)
        if not self._tasks:
            if waiting <= self._keep.waiting:
                return None
            self._take_down()
        hosts, seen = [task.host for task in self._tasks], self._seen
        if seen is not None and any(self._freed):
            seen = replace(seen, freed=self._freed)
        known = len(self._fleet.hosts)
        return Batch(
            cluster=self._demand.cluster,
            task_name=definition.name,
            task_version=definition.version,
            asked=asked_of(self._demand, self._count),
            instances=[task.instance for task in self._tasks],
            hosts=hosts,
            waiting=waiting,
            refusals={host: list(reasons) for host, reasons in refusals.items()},
            terms=self._terms if any(self._terms) else [],
            seen=seen,
            left_out="" if seen is not None else f"the figures of {known} hosts are more than is kept of a decision",
        )

    def _take_down(self) -> None:
        if len(self._fleet.hosts) <= self._keep.hosts:
            self._seen = seen_of(self._fleet, self._demand, self._allowed, self._avoid)


def bytes_kept(services: int) -> int:
    """How many bytes one decision may have where there are so many services."""
    share = MAX_BYTES_KEPT_OF_ALL // (KEPT_DECISIONS * max(1, services))
    return min(MAX_BYTES_KEPT, max(MIN_BYTES_KEPT, share))


def sealed(batch: Batch, service: str) -> Batch:
    """``batch`` with the digests by which its inputs and its answer can be told from others."""
    digest = inputs_digest(batch, service) if batch.seen is not None else ""
    return replace(batch, digest=digest, answer=answer_of(batch).digest())


def fitted(decision: Decision, limit: int) -> bytes:
    """``decision`` in at most ``limit`` bytes of JSON (if that is possible at all): figures of hosts go first, then
    the later placements, reasons and scores, and it says what was left out."""
    value = msgspec.json.encode(decision)
    for number, batch in enumerate(decision.batches):
        if len(value) > limit and batch.seen is not None:
            size = len(msgspec.json.encode(batch.seen))
            said = f"the figures of {len(batch.seen.hosts)} hosts take {size} bytes more than is kept of a decision"
            decision = _with(decision, number, replace(batch, seen=None, left_out=said))
            value = msgspec.json.encode(decision)
    while len(value) > limit:
        number = max(range(len(decision.batches)), key=lambda one: len(msgspec.json.encode(decision.batches[one])))
        smaller = _halved(decision.batches[number])
        if smaller is None:
            break
        decision = _with(decision, number, smaller)
        value = msgspec.json.encode(decision)
    return value


def _with(decision: Decision, number: int, batch: Batch) -> Decision:
    return replace(decision, batches=[*decision.batches[:number], batch, *decision.batches[number + 1 :]])


def _halved(batch: Batch) -> Batch | None:
    """Half as much of the longest list; None where nothing is left to be shortened."""
    placed, refused, terms = len(batch.hosts), len(batch.refusals), len(batch.terms)
    if max(placed, refused, terms) <= 1:
        return None
    if placed >= max(refused, terms):
        kept = placed // 2
        return replace(
            batch, instances=batch.instances[:kept], hosts=batch.hosts[:kept], omitted=batch.omitted + placed - kept
        )
    if refused >= terms:
        kept = refused // 2
        first = dict(list(batch.refusals.items())[:kept])
        return replace(batch, refusals=first, silent=batch.silent + refused - kept)
    return replace(batch, terms=batch.terms[: terms // 2])
