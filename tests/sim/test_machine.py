"""The same simulated clusters, driven by hypothesis: it chooses actions and dice, and shrinks what it finds."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sked_core.testing.sim.run import Simulation
from sked_core.testing.sim.store import KINDS

NAMES = sorted(Simulation(Random(0)).actions)
PASSING = [name for name in NAMES if name in ("a moment", "seconds", "half a minute")]
ACTING = [name for name in NAMES if name not in PASSING]


class ClusterMachine(RuleBasedStateMachine):
    """Rules are the actions of users, the nemesis and time; the judge looks on after every step of every process."""

    def __init__(self) -> None:
        super().__init__()
        self.simulation: Simulation | None = None

    @initialize(dice=st.integers(0, 2**16), store=st.sampled_from(sorted(KINDS)))
    def begin(self, dice: int, store: str) -> None:
        self.simulation = Simulation(Random(dice), store=store)
        self.simulation.begin()

    @precondition(lambda self: self.simulation is not None)
    @rule(name=st.sampled_from(ACTING))
    def act(self, name: str) -> None:
        assert self.simulation is not None
        self.simulation.act(name)

    @precondition(lambda self: self.simulation is not None)
    @rule(name=st.sampled_from(PASSING))
    def let_time_pass(self, name: str) -> None:
        assert self.simulation is not None
        self.simulation.act(name)

    @invariant()
    def holds(self) -> None:
        if self.simulation is not None:
            assert self.simulation.violation is None, str(self.simulation.violation)

    def teardown(self) -> None:
        if self.simulation is not None and self.simulation.violation is None:
            self.simulation.end()
            assert self.simulation.violation is None, str(self.simulation.violation)


TestCluster: Any = ClusterMachine.TestCase
TestCluster.settings = settings(
    max_examples=30,
    stateful_step_count=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
