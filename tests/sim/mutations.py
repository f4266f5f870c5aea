"""For each invariant deliberate bugs that must be found: a check that finds nothing proves nothing.

docs/guarantees.md lists them. Where each is found depends on dice, and so on the code: ``python tests/sim/mutations.py
[NAME...]``, with PYTHONPATH=tests, looks for places again and prints the lines of SEARCHES.
"""

from __future__ import annotations

import sys
import time

from sim.agent_mutations import AGENT
from sim.mutating import Mutation, Mutations, Search
from sim.scheduler_mutations import SCHEDULER

from sked_core.testing.sim.run import run
from sked_core.testing.sim.store import KINDS

INVARIANTS = (*(f"A{number}" for number in range(1, 15)), *(f"B{number}" for number in range(1, 14)))
MUTATIONS = Mutations(AGENT | SCHEDULER)
SEARCHES: dict[str, Search] = {}

IN_PLUGINS = {}


def places(mutation: Mutation, seconds: float) -> Search | None:
    """Where the mutation breaks its own invariant."""
    end = time.process_time() + seconds
    for steps, every, most in ((12, 1, 400), (60, 1, 60), (12, 1, 5000)):
        every = 20 if mutation.invariant == "B11" else every
        for seed in range(0, most * every, every):
            for store in KINDS:
                with mutation.in_place():
                    found = run(seed, store=store, steps=steps).violation
                if found is not None and found.invariant == mutation.invariant:
                    return Search(store, seed, steps=steps, every=every)
                if time.process_time() > end:
                    return None
    return None


if __name__ == "__main__":
    for name in sys.argv[1:] or MUTATIONS:
        print(f'    "{name}": {places(MUTATIONS[name], 300.0)},  # {MUTATIONS[name].invariant}', flush=True)
