"""Bugs that simulated clusters found by chance, each brought about on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from sked_core.interfaces.store import Delete, Op, Put
from sked_core.model import keys
from sked_core.model.codec import decode, encode, patch
from sked_core.model.types import Host, Mark
from sked_core.testing.sim.engine import EngineFaults
from sked_core.testing.sim.goals import unsettled
from sked_core.testing.sim.run import Simulation
from sked_core.testing.sim.store import KINDS, Faults, SimClient


@pytest.fixture(params=sorted(KINDS))
def simulation(request: pytest.FixtureRequest) -> Simulation:
    return Simulation(Random(1), store=request.param)


def settled(simulation: Simulation, within: float) -> bool:
    """Whether all is as declared within so many seconds; the judge must have nothing to say."""
    world, end = simulation.world, simulation.world.clock.now + within
    while unsettled(world, simulation.users) and world.clock.now < end:
        world.run_for(2.0)
    assert simulation.violation is None, str(simulation.violation)
    return not unsettled(world, simulation.users)


def refuse_everywhere(simulation: Simulation) -> None:
    for host in simulation.world.hosts.values():
        host.engine.refuses.add("web")


def test_an_agent_whose_first_word_arrived_without_its_knowing_acts_all_the_same(simulation: Simulation) -> None:
    world, before = simulation.world, simulation.world.store.before
    assert before is not None

    def lose_first_words(client: SimClient, what: str, prefix: str, ops: Sequence[Op]) -> None:
        before(client, what, prefix, ops)
        world.store.faults = Faults(late=float(any(op.key.startswith(keys.LIVE) for op in ops)))

    world.store.before = lose_first_words
    world.run_for(2.0)
    world.store.before, world.store.faults = before, Faults()
    while world.store.late:
        world.deliver()
    simulation.users.declare_first("web", desired=3)
    assert settled(simulation, 120.0)


@pytest.mark.parametrize("fault", [Faults(dropped=1.0), Faults(lost=1.0), Faults(late=1.0)], ids=str)
def test_a_task_whose_end_could_not_be_told_is_replaced(simulation: Simulation, fault: Faults) -> None:
    world = simulation.world
    simulation.users.declare_first("web", desired=2)
    assert settled(simulation, 60.0)
    host, task_id = next((host, next(iter(records))) for host, records in world.judge.mirror.own.items() if records)
    world.user.commit([Delete(keys.host_task(host, task_id))])
    world.run_for(0.1)  # the agent has read that
    world.store.faults = fault
    world.run_for(10.0)
    world.store.faults = Faults()
    assert settled(simulation, 200.0)


@pytest.mark.parametrize("store", sorted(KINDS))
def test_a_store_that_comes_and_goes_lets_no_further_host_be_given_up(store: str) -> None:
    simulation = next(one for seed in range(99) if len((one := Simulation(Random(seed), store=store)).world.hosts) == 5)
    world = simulation.world
    world.run_for(5.0)
    simulation.users.declare_first("web", desired=10)
    assert settled(simulation, 60.0)
    assert all(world.judge.mirror.own[host] for host in world.hosts)
    agents = world.agents()
    for gone in (agents[3:], agents[1:3]):
        for agent in gone:
            agent.client.cut = True
        world.run_for(70.0)
        world.store.down = True
        for scheduler in world.schedulers():
            scheduler.dues["step"], scheduler.planned = world.clock.now, None  # it looks, and finds no store
        world.run_for(3.0)
        world.store.down = False
        world.run_for(70.0)
    assert simulation.violation is None, str(simulation.violation)


def test_each_version_that_all_hosts_reject_is_a_try_of_its_own(simulation: Simulation) -> None:
    world, users = simulation.world, simulation.users
    users.declare_first("web", desired=4)
    assert settled(simulation, 60.0)
    refuse_everywhere(simulation)
    for _ in range(12):
        users.deploy("web", "good")
        world.run_for(5.0)
    assert simulation.violation is None, str(simulation.violation)


def test_what_one_round_gave_a_host_is_rejected_as_one(simulation: Simulation) -> None:
    refuse_everywhere(simulation)
    simulation.users.declare_first("web", desired=60)
    simulation.world.run_for(10.0)
    assert simulation.violation is None, str(simulation.violation)


def test_a_roll_out_that_goes_on_after_it_had_failed_is_another_try(simulation: Simulation) -> None:
    world, users = simulation.world, simulation.users
    users.declare_first("web", desired=4)
    assert settled(simulation, 60.0)
    refuse_everywhere(simulation)
    users.deploy("web", "good")
    resumed = 0
    for _ in range(20):
        world.run_for(3.0)
        rollout = world.judge.mirror.rollout("web")
        if rollout is not None and rollout.state == "failed":
            resumed += "resumes" in users.edit_rollout()
    assert resumed > 12
    assert simulation.violation is None, str(simulation.violation)


def test_a_host_whose_engine_was_away_while_its_last_tasks_left_takes_tasks_again(simulation: Simulation) -> None:
    world, users = simulation.world, simulation.users
    users.declare_first("web", desired=4)
    assert settled(simulation, 60.0)

    def executors() -> dict[str, list[str]]:
        values = world.judge.mirror.values
        return {name: decode(values[keys.host(name)], Host).executors for name in world.hosts}

    known = executors()
    for host in world.hosts.values():
        host.engine.faults = EngineFaults(down=True)
    world.run_for(8.0)
    assert executors() != known
    key = keys.service("web")
    world.user.commit([Put(key, patch(world.judge.mirror.values[key], desired=0, min=0))])
    world.run_for(2.0)
    for host in world.hosts.values():
        host.engine.faults = EngineFaults()
    world.run_for(30.0)
    assert not any(world.judge.mirror.own.values())
    assert executors() == known


def test_the_judge_knows_that_a_scheduler_has_not_read_of_a_drain_that_was_called_off(simulation: Simulation) -> None:
    world, key = simulation.world, keys.mark("h0")
    world.run_for(5.0)
    (scheduler, *_) = world.schedulers()
    world.user.commit([Put(key, encode(Mark(state="draining", deadline=10.0)))])
    world.run_for(20.0)
    for why in ("first", "second"):
        world.user.commit([Put(key, encode(Mark(state="cordoned", why=why)))])
    assert world.judge._forced(scheduler, "h0")
    world.run_for(20.0)
    assert not world.judge._forced(scheduler, "h0")
