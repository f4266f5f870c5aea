"""Where tasks go: filters that say why not, scores that order what is left, and a heap between them."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence

from sked_core.errors import PluginError
from sked_core.interfaces.scheduler import Candidate, Demand, Scheduler

Score = Callable[[Demand, Candidate], float]


class Scored:
    """Places on the host with the highest score; only the chosen host's score changes between two placements."""

    def __init__(self, score: Score) -> None:
        self._score = score

    def rank(self, demand: Demand, candidate: Candidate) -> tuple[int, float]:
        """The smaller, the better. Raises whatever the score raises."""
        return (0, -self._score(demand, candidate))

    def place(self, demand: Demand, count: int, candidates: Sequence[Candidate]) -> Iterator[str]:
        by_host = {candidate.host: candidate for candidate in candidates}
        heap = [(-self._score(demand, candidate), candidate.host) for candidate in candidates]
        heapq.heapify(heap)
        for _ in range(count):
            if not heap:
                return
            _, host = heapq.heappop(heap)
            yield host
            left = by_host[host] = by_host[host].after(demand)
            if left.fits(demand):
                heapq.heappush(heap, (-self._score(demand, left), host))


def scored(score: Score) -> Scheduler:
    """A Scheduler out of a score: ``score(demand, candidate)``, higher is better, ties break by host name."""
    return Scored(score)


def spread(demand: Demand, candidate: Candidate) -> float:
    """The score of the ``default`` scheduler: fewest tasks of the service first, then the emptiest host."""
    shares = [
        free / total
        for free, total in ((candidate.free_memory, candidate.memory), (candidate.free_cpu_units, candidate.cpu_units))
        if total
    ]
    emptiness = sum(shares) / len(shares) if shares else 0.0
    return -1000.0 * candidate.tasks_of_service - candidate.tasks / 1000.0 + emptiness


def place_checked(
    scheduler: Scheduler, name: str, demand: Demand, count: int, candidates: Sequence[Candidate]
) -> list[str]:
    """The hosts that ``scheduler`` chose. Raises PluginError if it chose one that does not fit, or failed: a plugin's
    mistake must neither overload a host nor end the process that serves other services."""
    if not candidates:
        return []
    try:
        chosen = list(itertools.islice(scheduler.place(demand, count, candidates), count + 1))
    except Exception as error:
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


def failed(name: str, error: Exception) -> PluginError:
    """What is said of a scheduler that raised ``error``."""
    return PluginError(f"scheduler {name} failed: {type(error).__name__}: {error}"[:300])
