"""Many demands at once, by whatever scheduler: where it matters which tasks share a host, not only which is next."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from sked_core.errors import PluginError
from sked_core.interfaces.scheduler import Candidate, Scheduler, Wanted
from sked_core.logic.placement import FAULTS, failed, place_checked


def place_all(
    scheduler: Scheduler, name: str, batch: Sequence[Wanted], candidates: Sequence[Candidate]
) -> list[list[str]]:
    """The hosts of the tasks of each entry of ``batch``, fewer than its ``count`` where no room was found.

    A scheduler that has ``place_batch`` sees all of them together; one that has not is asked for one entry after the
    other, those with the largest tasks first, which leaves less unused than any other order of asking. ``free_ports``
    of the candidates is to be told whatever the demands ask for. Raises PluginError for a scheduler that failed or
    overdid it.
    """
    place_batch = getattr(scheduler, "place_batch", None)
    if place_batch is None:
        return _one_after_the_other(scheduler, name, batch, candidates)
    try:
        answers = itertools.islice(place_batch(tuple(batch), tuple(candidates)), len(batch) + 1)
        most = max((wanted.count for wanted in batch), default=0)
        chosen = [list(itertools.islice(hosts, most + 1)) for hosts in answers]
    except FAULTS as error:
        raise failed(name, error) from error
    _check(name, batch, candidates, chosen)
    return chosen


def largest_first(batch: Sequence[Wanted], candidates: Sequence[Candidate]) -> list[int]:
    """The places of the entries of ``batch``, those with the largest tasks first: by memory or cpu, whichever is the
    larger share of the most that any candidate has left. What is equally large goes by cluster and service."""
    memory = max((candidate.free_memory for candidate in candidates), default=0) or 1
    cpu_units = max((candidate.free_cpu_units for candidate in candidates), default=0) or 1

    def order(n: int) -> tuple[float, str, str, int]:
        demand = batch[n].demand
        return (
            -max(demand.memory / memory, demand.cpu_units / cpu_units),
            demand.cluster,
            demand.service,
            n,
        )

    return sorted(range(len(batch)), key=order)


def _one_after_the_other(
    scheduler: Scheduler, name: str, batch: Sequence[Wanted], candidates: Sequence[Candidate]
) -> list[list[str]]:
    left = {candidate.host: candidate for candidate in candidates}
    ports: defaultdict[str, set[int]] = defaultdict(set)
    chosen: list[list[str]] = [[] for _ in batch]
    for n in largest_first(batch, candidates):
        demand = batch[n].demand
        fitting = [
            candidate
            for host, candidate in left.items()
            if _open_to(batch[n], host) and candidate.fits(demand) and ports[host].isdisjoint(demand.fixed_ports)
        ]
        chosen[n] = place_checked(scheduler, name, demand, batch[n].count, fitting)
        for host in chosen[n]:
            left[host] = replace(left[host].after(demand), tasks_of_service=0, exclusive=False)
            ports[host] |= demand.fixed_ports
    return chosen


def _open_to(wanted: Wanted, host: str) -> bool:
    return wanted.hosts is None or host in wanted.hosts


def _check(
    name: str, batch: Sequence[Wanted], candidates: Sequence[Candidate], chosen: Sequence[Sequence[object]]
) -> None:
    """Raise PluginError unless all of ``chosen`` fits together."""
    if len(chosen) != len(batch):
        raise PluginError(f"scheduler {name} answered for {len(chosen)} of {len(batch)} services")
    left = {candidate.host: candidate for candidate in candidates}
    ports: defaultdict[str, set[int]] = defaultdict(set)
    for wanted, hosts in zip(batch, chosen, strict=True):
        demand = wanted.demand
        if len(hosts) > wanted.count:
            raise PluginError(f"scheduler {name} placed more than the {wanted.count} tasks it was asked for")
        for host in hosts:
            if (
                not isinstance(host, str)
                or host not in left
                or not _open_to(wanted, host)
                or not left[host].fits(demand)
                or not ports[host].isdisjoint(demand.fixed_ports)
            ):
                raise PluginError(
                    f"scheduler {name} placed a task of {demand.service} on {host!r:.80}, where none fits"
                )
            left[host] = replace(left[host].after(demand), exclusive=False)
            ports[host] |= demand.fixed_ports
