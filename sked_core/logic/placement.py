"""Where tasks go, as policies: scores that order the hosts that fit, and the check of schedulers that are more."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import msgspec

from sked_core.errors import PluginError
from sked_core.interfaces.scheduler import Candidate, Demand, Scheduler, Wanted
from sked_core.model.types import ANYWHERE

Score = Callable[[Demand, Candidate], float]
Terms = Callable[[Demand, Candidate], Mapping[str, float]]
Batch = Callable[[Sequence[Wanted], Sequence[Candidate]], Sequence[Sequence[str]]]
Scope = Literal["service", "size", "host"]
Rank = tuple[int, float]
"""Of two candidates the one with the smaller rank is better; where they are equal, the one that is first by name."""
ANY_DEMAND = Demand("", "")
FAULTS = (Exception, SystemExit, GeneratorExit)
"""What a stranger's code may raise that is its failure, and nobody's wish to end."""


class Scored:
    """Places on the host with the best rank; only the chosen host's changes between two placements.

    A fleet ranks hosts by its own means, over and over; ``place`` is the same for candidates at hand.
    """

    ours = False
    """Whether it is built in: nobody has to look after what its score does with what it is given."""

    def __init__(
        self, score: Score, terms: Terms | None, scope: Scope, fewest_first: bool, batch: Batch | None
    ) -> None:
        self.score, self.scope, self.fewest_first = score, scope, fewest_first
        self._terms = terms
        self._shown: tuple[Demand | None, Demand] = None, ANY_DEMAND
        """The demand that was shown last, and what was shown for it."""
        self.place_batch = batch

    def seen(self, demand: Demand) -> Demand:
        """What the score gets to see of ``demand``: no more than its scope, so that nothing else can matter."""
        known, made = self._shown
        if known is not demand:
            made = ANY_DEMAND if self.scope == "host" else demand
            if self.scope == "size":
                made = replace(demand, cluster="", service="", desired=0, placement=ANYWHERE, shunned_by=())
            made = made if self.ours else shown(made)
            self._shown = demand, made
        return made

    def rank(self, demand: Demand, candidate: Candidate) -> Rank:
        """The rank of ``candidate``. Raises whatever the score raises, and ValueError if it is no number."""
        score = float(self.score(self.seen(demand), candidate))
        if score != score:
            raise ValueError("the score is no number")
        return (candidate.tasks_of_service if self.fewest_first else 0, -score)

    def terms(self, demand: Demand, candidate: Candidate) -> dict[str, float]:
        """What the rank of ``candidate`` is made of, by name: higher is better."""
        first = {"tasks of the service": float(-candidate.tasks_of_service)} if self.fewest_first else {}
        if self._terms is not None:
            return {**first, **self._terms(self.seen(demand), candidate)}
        return {**first, "score": float(self.score(self.seen(demand), candidate))}

    def place(self, demand: Demand, count: int, candidates: Sequence[Candidate]) -> Iterator[str]:
        by_host = {candidate.host: candidate for candidate in candidates}
        heap = [(self.rank(demand, candidate), candidate.host) for candidate in candidates]
        heapq.heapify(heap)
        for _ in range(count):
            if not heap:
                return
            _, host = heapq.heappop(heap)
            yield host
            left = by_host[host] = by_host[host].after(demand)
            if left.fits(demand):
                heapq.heappush(heap, (self.rank(demand, left), host))


def scored(
    score: Score,
    *,
    terms: Terms | None = None,
    scope: Scope = "service",
    fewest_first: bool = False,
    batch: Batch | None = None,
) -> Scheduler:
    """A Scheduler out of a score: ``score(demand, candidate)``, higher is better, ties break by host name. It must be
    pure, and only read what it is given, during the call.

    ``terms``: the parts that the score is the sum of, by name, for people who ask why. ``fewest_first``: hosts with
    fewer tasks of the service come first, and the score decides between those with equally many. ``scope``: what the
    score looks at. ``size``: not at which service it is (its name, its cluster, how many tasks it wants or has), so
    that what was found for one service goes for all with tasks of that size; ``host``: at nothing of the demand at
    all. What is outside of the scope is not shown. The narrower it is, the less has to be asked: where there are
    thousands of hosts and many small services, ``service`` costs a hundred times more. ``batch``: what to do where
    many demands are to be placed at once, the ``place_batch`` of ``BatchScheduler``; None: one after the other.
    """
    return Scored(score, terms, scope, fewest_first, batch)


def emptiness(demand: Demand, candidate: Candidate) -> float:
    """The score of the ``default`` scheduler: the mean share of memory and cpu that is free (of those that the host
    declares), and a millionth less for each task, which decides where tasks say nothing of what they need."""
    memory, cpu_units = candidate.memory, candidate.cpu_units
    if memory and cpu_units:
        free = (candidate.free_memory / memory + candidate.free_cpu_units / cpu_units) / 2
    elif memory:
        free = candidate.free_memory / memory
    else:
        free = candidate.free_cpu_units / cpu_units if cpu_units else 0.0
    return free - candidate.tasks / 1_000_000


def _emptiness_terms(demand: Demand, candidate: Candidate) -> Mapping[str, float]:
    tasks = -candidate.tasks / 1_000_000
    return {"free share": emptiness(demand, candidate) - tasks, "tasks": tasks}


def spread() -> Scheduler:
    """The ``default`` scheduler: fewest tasks of the service first, then the emptiest host."""
    made = Scored(emptiness, _emptiness_terms, "host", fewest_first=True, batch=None)
    made.ours = True
    return made


def shown(demand: Demand) -> Demand:
    """``demand`` for a stranger, with lists of its own."""
    placement = demand.placement
    lists = {name: list(one) for name, one in msgspec.structs.asdict(placement).items() if isinstance(one, list)}
    return replace(demand, placement=msgspec.structs.replace(placement, **lists))


def place_checked(
    scheduler: Scheduler, name: str, demand: Demand, count: int, candidates: Sequence[Candidate]
) -> list[str]:
    """The hosts that ``scheduler`` chose. Raises PluginError if it chose one that does not fit, or failed: a plugin's
    mistake must neither overload a host nor end the process that serves other services."""
    if not candidates:
        return []
    try:
        chosen = list(itertools.islice(scheduler.place(shown(demand), count, list(candidates)), count + 1))
    except FAULTS as error:
        raise failed(name, error) from error
    if len(chosen) > count:
        raise PluginError(f"scheduler {name} placed more than the {count} tasks it was asked for")
    left = {candidate.host: candidate for candidate in candidates}
    hosts: list[str] = []
    for host in chosen:
        if not isinstance(host, str) or host not in left or not left[host].fits(demand):
            raise PluginError(f"scheduler {name} placed a task of {demand.service} on {host!r:.80}, where none fits")
        left[host] = left[host].after(demand)
        hosts.append(host)
    return hosts


def failed(name: str, error: BaseException) -> PluginError:
    """What is said of a scheduler that raised ``error``."""
    return PluginError(f"scheduler {name} failed: {type(error).__name__}: {error}"[:300])
