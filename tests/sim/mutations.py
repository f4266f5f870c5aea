"""For each invariant deliberate bugs that must be found: a check that finds nothing proves nothing.

docs/guarantees.md lists them. Where each one shows first depends on dice, and so on the code: ``PYTHONPATH=tests python
tests/sim/mutations.py [NAME...]`` looks for places again and prints the lines of SEARCHES.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

from sim.agent_mutations import AGENT
from sim.mutating import Mutation, Mutations, Search
from sim.scheduler_mutations import SCHEDULER
from sked_core.testing.sim.store import KINDS

INVARIANTS = (*(f"A{number}" for number in range(1, 15)), *(f"B{number}" for number in range(1, 14)))
MUTATIONS = Mutations(AGENT | SCHEDULER)

BAD_DEPLOYS = ("deploy", "half a minute")
CROWD = ("declare", "scale", "delete of host")
SEARCHES = {
    # agents
    "any-store": Search("consul", 0, ("wipe", "half a minute")),
    "any-age": Search("etcd", 0, ("copy", "restore", "scale", "half a minute")),
    "no-answer-is-empty": Search("consul", 0),
    "clean-start": Search("etcd", 0),
    "acts-on-notes": Search("etcd", 0, ("power", "outage", "crash", "swap")),
    "two-workers": Search("consul", 0, ("mix", "scale", "crash")),
    "forgets-what-runs": Search("consul", 0, ("power", "delete task")),
    "adopts-nothing": Search("etcd", 0, ("swap", "scale")),
    "forgets-a-container": Search("consul", 0),
    "garbage-is-absent": Search("etcd", 0, ("garble", "seconds")),
    "no-brake": Search("consul", 0, CROWD),
    "silence-is-an-end": Search("etcd", 0, ("engine", "seconds")),
    "silence-is-absence": Search("consul", 0, ("engine", "scale", "seconds")),
    "works-itself": Search("etcd", 0),
    "keeps-what-moved": Search("consul", 0, ("power", "half a minute")),
    "never-compares": Search("etcd", 0, ("move by hand", "half a minute")),
    "shares-ports": Search("consul", 0, ("power", "half a minute", "cut", "delete task")),
    "no-pause": Search("etcd", 0, BAD_DEPLOYS),
    "counts-nothing": Search("consul", 0, BAD_DEPLOYS),
    "always-publishes": Search("etcd", 0, quiet=True),
    "lease-every-time": Search("consul", 0),
    "never-says-gone": Search("etcd", 0),
    "reads-once": Search("consul", 0),
    # schedulers and commands
    "no-fence": Search("consul", 0, ("nap", "seconds", "scale", "deploy")),
    "no-lock": Search("etcd", 0, ("nap", "seconds", "scale", "deploy")),
    "trusts-for-ever": Search("consul", 0, ("nap", "seconds", "scale")),
    "one-below-min": Search("etcd", 0, BAD_DEPLOYS),
    "one-above-max": Search("consul", 0),
    "first-port": Search("etcd", 0),
    "one-key": Search("consul", 0),
    "one-id-for-two": Search("etcd", 0, ("collide",)),
    "no-deadline": Search("consul", 0, BAD_DEPLOYS),
    "never-fails": Search("etcd", 0, BAD_DEPLOYS),
    "never-ends": Search("consul", 0),
    "forgives-rejections": Search("etcd", 0, ("refuse", "scale", "seconds")),
    "lost-at-once": Search("consul", 0),
    "counts-outages": Search("etcd", 0, ("outage", "power", "seconds")),
    "any-number-lost": Search("consul", 0, ("power", "cut agents", "minutes")),
    "always-writes": Search("etcd", 0, quiet=True),
    "lease-for-each": Search("consul", 0),
    "only-the-first": Search("etcd", 0, ("kill", "scale")),
}


def place(mutation: Mutation, search: Search, seconds: float) -> str:
    """Where the mutation breaks its own invariant, as a line of SEARCHES; else what it breaks."""
    begun, others = time.process_time(), dict[str, int]()
    for seed in range(10_000):
        for store in sorted(KINDS, key=search.store.__ne__):
            search = replace(search, store=store, seed=seed)
            with mutation.in_place():
                found = search.run(seed)
            spent = time.process_time() - begun
            if found is not None and found.invariant == mutation.invariant:
                return f"{store}, {seed}  # {spent:.1f} s, others: {others}"
            if found is not None:
                others[found.invariant] = others.get(found.invariant, 0) + 1
            if spent > seconds:
                return f"nowhere in {seed} seeds; others: {others}"
    return "nowhere"


if __name__ == "__main__":
    for name in sys.argv[1:] or MUTATIONS:
        print(f"{MUTATIONS[name].invariant} {name}: {place(MUTATIONS[name], SEARCHES[name], 40.0)}", flush=True)
