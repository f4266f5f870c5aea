"""What a mutation is: one deliberate bug in the code under test, put in place for the time of some simulated runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

import pytest

from sked_core.testing.sim.goals import unsettled
from sked_core.testing.sim.judge import Violation
from sked_core.testing.sim.run import Simulation

Patch = pytest.MonkeyPatch
SOON_SECONDS = 150.0
"""Rounds in which the keys of a host's tasks are compared are a minute apart."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """``invariant``: the one that the bug breaks; ``also``: those that it may break first, since they are neighbours.
    ``bug``: what is wrong then, as docs/guarantees.md says it."""

    name: str
    invariant: str
    bug: str
    apply: Callable[[Patch], None]
    also: tuple[str, ...] = ()

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The bug is there in the body, and nowhere else."""
        with pytest.MonkeyPatch.context() as patch:
            self.apply(patch)
            yield


@dataclass(frozen=True, slots=True)
class Search:
    """Where a mutation is looked for: in ``most`` runs from ``seed`` on, of ``steps`` each, on ``store``. ``often``:
    actions that make up half of them, where it seldom shows; ``quiet``: whether each waits for silence in its end;
    ``soon``: A13 or B7 where that is to hold when faults have ended, before people clear up or deploy anything."""

    store: str
    seed: int
    often: tuple[str, ...] = ()
    steps: int = 12
    quiet: bool = False
    soon: str = ""
    most: int = 60

    def run(self, seed: int) -> Violation | None:
        """One of its runs: as ``scripts/simulate`` does it, if nothing is to happen often."""
        simulation = Simulation(Random(f"{self.store}/{seed}"), store=self.store)
        simulation.begin()
        for _ in range(self.steps):
            if simulation.violation is not None:
                break
            if self.often and simulation.dice.random() < 0.5:
                simulation.act(simulation.dice.choice(self.often))
            else:
                simulation.step()
        if self.soon and simulation.violation is None:
            simulation.world.heal()
            if self.soon == "B7":
                simulation._undisturbed()
            else:
                _all_in_place(simulation)
        simulation.end(quiet=self.quiet)
        return simulation.violation

    def find(self) -> tuple[int, Violation] | None:
        """The first of its seeds that finds something, with what it finds."""
        for seed in range(self.seed, self.seed + self.most):
            if (found := self.run(seed)) is not None:
                return seed, found
        return None


def _all_in_place(simulation: Simulation) -> None:
    """A13: what is another host's runs nowhere else, some time after the last fault."""
    world = simulation.world
    world.run_for(SOON_SECONDS)
    moved = [what for rule, what in unsettled(world, simulation.users) if rule == "A13"]
    if moved and simulation.violation is None:
        world.judge.violated("A13", f"{SOON_SECONDS:g} s after all faults: {'; '.join(moved)}")


class Mutations(dict[str, Mutation]):
    """Mutations by name; ``of`` is a decorator for what applies one."""

    def of(
        self, invariant: str, name: str, bug: str, *, also: tuple[str, ...] = ()
    ) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
        def add(apply: Callable[[Patch], None]) -> Callable[[Patch], None]:
            assert name not in self
            self[name] = Mutation(name, invariant, bug, apply, also)
            return apply

        return add
