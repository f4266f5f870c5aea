"""Which of several services gets the room that there is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runtime.stage import Stage
from sked_core.interfaces.store import Delete, Put
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Placement
from sked_core.runtime.scheduling.loop import SchedulerLoop
from sked_core.testing.builders import a_cluster, a_definition, a_service

NAMES = ("alpha", "beta", "gamma", "omega")


@pytest.fixture
def stage(until: Callable[..., Any], declare: Any) -> Iterator[Stage]:
    """Four services that each want a whole host; ``omega`` is the one that matters."""
    with contextlib.closing(Stage(until)) as stage:
        declare(
            stage.memory,
            a_cluster("default", NAMES),
            *(a_definition(name, memory=8192) for name in NAMES),
            *(
                a_service(name, desired=1, **({"placement": Placement(priority=90)} if name == "omega" else {}))
                for name in NAMES
            ),
        )
        yield stage


def issued(stage: Stage) -> list[str]:
    return sorted(task.service for task in stage.tasks().values())


def look_again(stage: Stage, loop: SchedulerLoop) -> None:
    """Let the scheduler see what has changed, and do all that comes of it."""
    stage.seen(loop, keys.CONFIG)
    for _ in range(5):
        stage.clock.advance(0.5)
        loop.step()


def test_the_service_of_higher_priority_gets_the_room_first(stage: Stage) -> None:
    stage.hosts("h1")
    loop = stage.scheduler()
    loop.step()
    assert issued(stage) == ["omega"]
    stage.hosts("h2")
    look_again(stage, loop)
    assert issued(stage) == ["alpha", "omega"]  # of equal ones the first by name


def test_room_that_comes_back_goes_to_the_higher_priority_among_those_that_wait(stage: Stage) -> None:
    loop = stage.scheduler()
    loop.step()
    assert issued(stage) == []
    stage.hosts("h1")
    look_again(stage, loop)
    assert issued(stage) == ["omega"]


def test_a_priority_moves_nothing_that_runs(stage: Stage) -> None:
    stage.memory.commit([Delete(keys.service("omega"))])
    stage.hosts("h1")
    loop = stage.scheduler()
    loop.step()
    assert issued(stage) == ["alpha"]
    high = a_service("omega", desired=1, placement=Placement(priority=100))
    stage.memory.commit([Put(keys.service("omega"), encode(high))])
    look_again(stage, loop)
    assert issued(stage) == ["alpha"]
