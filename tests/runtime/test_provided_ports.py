"""Ports of tasks as a scheduler gives them while they come and go, and of agents whose range changes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runtime.solo import HOST, Solo
from runtime.stage import Stage
from sked_core.interfaces.store import Delete
from sked_core.logic.port_book import REST_SECONDS
from sked_core.model import keys
from sked_core.runtime.scheduling.loop import SchedulerLoop
from sked_core.runtime.state import marker
from sked_core.testing.builders import a_cluster, a_definition, a_service, a_task

FEW = {"port_range": (20000, 20009)}


class World(Stage):
    """One host, and a service whose tasks get a port. Its agent does at once what it is asked to."""

    def __init__(self, until: Callable[..., Any], declare: Callable[..., None]) -> None:
        super().__init__(until)
        self.declare = declare
        self.hosts("h1", **FEW)

    def ports(self, loop: SchedulerLoop, desired: int, version: int = 1) -> list[int]:
        """The ports of the tasks once so many of the version are issued, and no others are left."""
        definition = a_definition(version=version, provide_port=True)
        self.declare(self.memory, a_cluster(), a_service(version=version, desired=desired, min=0), definition)

        def settled() -> bool:
            loop.step()
            tasks = self.tasks().values()
            for task in tasks:
                self.health.register(task)
                self.health.say(task.id, healthy=True)
                if not task.scheduled:
                    both = (keys.task(task.id), keys.host_task(task.host, task.id))
                    self.memory.commit([*map(Delete, both), marker(task.service, task.host)])
            self.clock.advance(0.1)
            wanted = [task for task in tasks if task.scheduled and task.task_definition.version == version]
            return len(wanted) == len(tasks) == desired

        self.until(f"{desired} tasks of version {version}", settled)
        return sorted(task.port for task in self.tasks().values())


@pytest.fixture
def world(until: Callable[..., Any], declare: Callable[..., None]) -> Iterator[World]:
    with contextlib.closing(World(until, declare)) as world:
        yield world


def test_a_port_rests_before_the_same_task_is_given_it_again(world: World) -> None:
    loop = world.scheduler()
    first = world.ports(loop, 1)
    assert world.ports(loop, 0) == []
    again = world.ports(loop, 1)
    assert again != first
    assert world.ports(loop, 0) == []
    world.clock.advance(REST_SECONDS)
    loop._keeper.drop()  # the lease lives by the machine's clock
    assert world.ports(loop, 1) == first


def test_all_ports_are_given_before_one_is_given_again(world: World) -> None:
    loop = world.scheduler()
    given: list[int] = []
    for _ in range(10):
        given += world.ports(loop, 1)
        world.ports(loop, 0)
    assert sorted(given) == list(range(20000, 20010))
    assert world.ports(loop, 1) == given[:1], "nothing else is free: the one that rested for longest"


def test_what_rests_is_given_where_there_is_no_other(world: World) -> None:
    loop = world.scheduler()
    assert len(world.ports(loop, 9)) == 9
    assert world.ports(loop, 0) == []
    assert world.ports(loop, 10) == list(range(20000, 20010))


def test_a_scheduler_that_knows_of_no_rest_begins_elsewhere_with_another_version(world: World) -> None:
    first = world.ports(world.scheduler(), 1)
    world.ports(world.loops[-1], 0)
    world.loops[-1]._keeper.drop()
    assert world.ports(world.scheduler(), 1, version=2) != first


def test_tasks_keep_their_ports_when_the_range_of_their_host_changes(world: World) -> None:
    loop = world.scheduler()
    before = world.ports(loop, 5)
    world.hosts("h1", port_range=(30000, 30009))

    def known() -> bool:
        world.clock.advance(0.1)
        loop.step()
        return loop._view.fleet.hosts["h1"].host.port_range == (30000, 30009)

    world.until("the new range is known", known)
    after = world.ports(loop, 8)
    assert set(before) < set(after)
    assert [port for port in after if port > 20009] == [port for port in after if 30000 <= port <= 30009] != []


def test_an_agent_that_is_given_another_range_leaves_its_tasks_alone(solo: Solo) -> None:
    task = a_task(HOST, 0, port=20001)
    solo.issue(task)
    solo.settle()
    solo.settle()
    solo.settings["port_range"] = (21000, 21009)
    solo.crash()
    solo.pass_time(30)
    assert (solo.engine.running(), solo.engine.starts) == ([task.id], [task.id])
    assert (solo.raw(keys.host(HOST)) or {})["port_range"] == [21000, 21009]
