"""A scheduler as an author might write one, with all that one can have. It is right as it stands: ``bugs`` puts bugs
into it, line by line."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from sked_core.plugin import Candidate, Demand, Wanted

TURNS, ENVIRONMENT, CHANCE, CLOCK = itertools.count(), os.environ, random, time


class Roomy:
    """Onto the host with most room."""

    def place(self, demand: Demand, count: int, candidates: Sequence[Candidate]) -> Iterator[str]:
        left = {each.host: each for each in candidates}
        for _ in range(count):
            fitting = [each for each in left.values() if each.fits(demand)]
            if not fitting:
                return
            best = min(fitting, key=lambda each: self.order(demand, each))
            yield best.host
            left[best.host] = best.after(demand)

    def place_batch(self, batch: Sequence[Wanted], candidates: Sequence[Candidate]) -> list[list[str]]:
        left = {each.host: each for each in candidates}
        taken: dict[str, set[int]] = {each.host: set() for each in candidates}
        chosen: list[list[str]] = [[] for _ in batch]
        for number in sorted(range(len(batch)), key=lambda at: self.turn(batch[at])):
            demand, hosts = batch[number].demand, batch[number].hosts
            for _ in range(batch[number].count):
                free = [each for each in left.values() if not taken[each.host] & demand.fixed_ports]
                fitting = [each for each in free if each.fits(demand) and (hosts is None or each.host in hosts)]
                if not fitting:
                    break
                best = min(fitting, key=lambda each, demand=demand: self.order(demand, each))
                chosen[number].append(best.host)
                taken[best.host] |= demand.fixed_ports
                left[best.host] = replace(best.after(demand), exclusive=False)
        return chosen

    def terms(self, demand: Demand, candidate: Candidate) -> Mapping[str, float]:
        return {
            "free memory": candidate.free_memory / candidate.memory if candidate.memory else 0.0,
            "free cpu": candidate.free_cpu_units / candidate.cpu_units if candidate.cpu_units else 0.0,
        }

    def order(self, demand: Demand, candidate: Candidate) -> tuple[object, ...]:
        room = sum(self.terms(demand, candidate).values())
        return -room, candidate.host

    def turn(self, wanted: Wanted) -> tuple[object, ...]:
        demand = wanted.demand
        return -max(demand.memory, demand.cpu_units), demand.cluster, demand.service
