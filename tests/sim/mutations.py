"""For each invariant deliberate bugs that must be found: a check that finds nothing proves nothing.

docs/guarantees.md lists them. Where each one shows first depends on dice, and so on the code: ``PYTHONPATH=tests python
tests/sim/mutations.py [NAME...]`` looks for places again and prints the lines of SEARCHES.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from sim.agent_mutations import AGENT
from sim.mutating import Mutation, Mutations, Search
from sim.scheduler_mutations import SCHEDULER
from sked_core.testing.sim.store import KINDS

INVARIANTS = (*(f"A{number}" for number in range(1, 16)), *(f"B{number}" for number in range(1, 14)))
MUTATIONS = Mutations(AGENT | SCHEDULER)


@dataclass(frozen=True, slots=True)
class InPlugin:
    """A bug that can't show where there are no processes: ``test`` puts it in place, and has it be noticed."""

    invariant: str
    bug: str
    test: str


OF_BASH = "plugins/sked_bash/tests/test_bash_mutations.py"
IN_PLUGINS = {
    "by-pid": InPlugin(
        "A7",
        "a process is known by its pid alone",
        f"{OF_BASH}::test_a_pid_alone_is_not_taken_for_the_process",
    ),
    "any-boot": InPlugin(
        "A7",
        "what ran before the host was restarted is taken for what runs now",
        f"{OF_BASH}::test_another_boot_is_not_taken_for_this_one",
    ),
    "first-session": InPlugin(
        "A8",
        "of a task's processes only those of its first session are ended",
        f"{OF_BASH}::test_a_process_that_left_its_session_is_not_forgotten",
    ),
}

BAD_DEPLOYS = ("deploy", "half a minute")
MOVES = ("move tasks", "seconds")
REFUSALS = ("refuse", "refuse", "power", "half a minute", "minutes")
CROWD = ("declare", "scale", "delete of host")
SEARCHES = {
    # agents
    "any-store": Search("consul", 0, ("wipe", "half a minute")),
    "any-age": Search("etcd", 0, ("copy", "scale", "restore", "minutes"), steps=40),
    "no-answer-is-empty": Search("etcd", 4),
    "clean-start": Search("etcd", 0),
    "acts-on-notes": Search("etcd", 3, ("power", "outage", "seconds", "half a minute"), steps=24),
    "two-workers": Search("etcd", 0, ("mix", "power", "crash", "swap", "scale"), steps=30, most=150),
    "forgets-what-runs": Search("etcd", 0, ("power", "delete task")),
    "adopts-nothing": Search("etcd", 6, ("swap", "scale")),
    "forgets-a-container": Search("consul", 0),
    "garbage-is-absent": Search("etcd", 0, ("garble", "seconds")),
    "no-brake": Search("consul", 2, CROWD),
    "silence-is-an-end": Search("etcd", 0, ("engine", "seconds")),
    "silence-is-absence": Search("etcd", 23, ("engine", "scale", "half a minute", "mark"), steps=24, most=150),
    "works-itself": Search("etcd", 0),
    "keeps-what-moved": Search("consul", 4, ("power", "half a minute")),
    "never-compares": Search("etcd", 0, ("move by hand", "half a minute"), soon="A13"),
    "shares-ports": Search("consul", 0, ("power", "half a minute", "cut", "delete task")),
    "more-slots": Search("etcd", 0),
    "no-pause": Search("etcd", 0, BAD_DEPLOYS),
    "counts-nothing": Search("consul", 0, BAD_DEPLOYS),
    "always-publishes": Search("etcd", 0, quiet=True),
    "lease-every-time": Search("consul", 0),
    "never-says-gone": Search("etcd", 0),
    "reads-once": Search("consul", 0),
    # schedulers and commands
    "no-fence": Search("etcd", 0, ("nap", "nap", "scale"), steps=40),
    "no-lock": Search("etcd", 6, ("nap", "seconds", "scale", "deploy")),
    "trusts-for-ever": Search("consul", 6, ("nap", "seconds", "scale")),
    "one-below-min": Search("etcd", 0, BAD_DEPLOYS),
    "one-above-max": Search("consul", 0),
    "first-port": Search("etcd", 0),
    "one-key": Search("consul", 0),
    "one-id-for-two": Search("etcd", 0, ("collide",)),
    "never-fails": Search("consul", 1, BAD_DEPLOYS, soon="B7"),
    "never-ends": Search("consul", 0),
    "forgives-rejections": Search("consul", 0, REFUSALS, steps=24),
    "never-longer": Search("consul", 0, REFUSALS, steps=24),
    "lost-at-once": Search("etcd", 0),
    "counts-outages": Search("etcd", 1, ("outage", "power", "half a minute", "half a minute"), steps=24),
    "counts-silence": Search("etcd", 1, ("cut agents", "half a minute"), steps=24),
    "any-number-lost": Search("etcd", 5, ("power", "cut agents", "minutes"), most=150),
    "always-writes": Search("etcd", 0, quiet=True),
    "lease-for-each": Search("consul", 0),
    "only-the-first": Search("etcd", 0, ("kill", "scale")),
    "moves-above-max": Search("consul", 0, MOVES),
    "moves-for-ever": Search("consul", 0, MOVES),
}


def place(mutation: Mutation, search: Search, *, runs: int = 60, enough: int = 6) -> tuple[Search | None, str]:
    """Where the mutation breaks its own invariant first, or else one of its neighbours; and what its runs came to: they
    end when it was found often ``enough`` to know that it is no matter of luck."""
    found, count, firsts = dict[str, int](), 0, dict[str, Search]()
    for seed in range(runs // len(KINDS)):
        for store in sorted(KINDS, key=search.store.__ne__):
            here, count = replace(search, store=store, seed=seed), count + 1
            with mutation.in_place():
                violation = here.run(seed)
            if violation is not None:
                found[violation.invariant] = found.get(violation.invariant, 0) + 1
                firsts.setdefault(violation.invariant, here)
        if found.get(mutation.invariant, 0) >= enough:
            break
    first = next((firsts[name] for name in (mutation.invariant, *mutation.also) if name in firsts), None)
    return first, f"in {count} runs {found}"


if __name__ == "__main__":
    for name in sys.argv[1:] or MUTATIONS:
        there, told = place(MUTATIONS[name], SEARCHES[name])
        where = f'"{there.store}", {there.seed}' if there else "nowhere"
        print(f'    "{name}": Search({where}  # {MUTATIONS[name].invariant}: {told}', flush=True)
