"""Moves under every fault that there is: bounds hold, and no record of them is left in the end."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from sked_core.model import keys
from sked_core.model.codec import decode
from sked_core.model.types import Event
from sked_core.testing.sim.run import Simulation
from sked_core.testing.sim.store import KINDS

QUIET = ("move tasks", "seconds", "half a minute", "start")
RESTARTS = ("restart", "restart", "stop task", "seconds", "half a minute", "start")
FAULTS = (
    "kill", "doom", "nap", "pause", "swap", "cut", "outage", "lossy", "deliver", "power", "engine", "crash", "sicken",
    "mark", "refuse", "delete task",
)  # fmt: skip
STEPS, SEEDS = 30, 12


def moved(simulation: Simulation) -> Counter[str]:
    """What became of moves, as events tell it."""
    found = [entry.value for key, entry in simulation.world.store.entries.items() if key.startswith(keys.EVENTS)]
    return Counter(event.what for value in found for event in decode(value, list[Event]))


def played(name: str, store: str, orders: tuple[str, ...]) -> Counter[str]:
    """Stories of these orders and every fault; what their events tell."""
    told: Counter[str] = Counter()
    for seed in range(SEEDS):
        dice = Random(f"{name}/{store}/{seed}")
        simulation = Simulation(dice, store=store)
        simulation.begin()
        for _ in range(STEPS):
            if simulation.violation is None:
                simulation.act(dice.choice(orders if dice.random() < 0.7 else FAULTS))
        told += moved(simulation)
        simulation.end()
        assert simulation.violation is None, f"{store} seed {seed}: {simulation.violation}"
    return told


@pytest.mark.parametrize("store", KINDS)
def test_moves_end_and_keep_the_bounds_whatever_fails(store: str) -> None:
    told = played("moves", store, QUIET)
    # So that the stories are about moves at all: how many begin in a dozen of them is a matter of the dice.
    assert told["move.started"] >= SEEDS * 3 // 4 and told["move.done"] >= SEEDS // 2 and told["move.cancelled"], told


@pytest.mark.parametrize("store", KINDS)
def test_restarts_and_stops_come_to_an_end_and_keep_the_bounds_whatever_fails(store: str) -> None:
    told = played("restarts", store, RESTARTS)
    assert told["move.done"] >= SEEDS // 4 and told["task.restarted"] and told["task.withdrawn"], told
