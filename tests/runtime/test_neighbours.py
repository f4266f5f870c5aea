"""Services that are to be near one another or apart, and hosts whose tags change: what schedulers make of it by
themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from runtime.stage import Stage
from sked_core.interfaces.store import Delete, Put
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.types import Neighbour, Placement, ServiceStatus
from sked_core.runtime.scheduling.loop import SchedulerLoop
from sked_core.runtime.state import marker
from sked_core.testing.builders import a_cluster, a_definition, a_service

HERE, FAR = Placement(near=[Neighbour(service="web")]), Placement(apart=[Neighbour(service="web", per="zone")])


@pytest.fixture
def stage(until: Callable[..., Any], declare: Any) -> Iterator[Stage]:
    """A host in each of two zones, and services that nobody has placed yet."""
    with contextlib.closing(Stage(until)) as stage:
        stage.hosts("h1", tags={"zone": "a"})
        stage.hosts("h2", tags={"zone": "b"})
        declare(stage.memory, a_cluster("default", ("batch", "cache", "web")), a_definition("web"))
        yield stage


def declare_service(stage: Stage, name: str, placement: Placement | None = None) -> None:
    service = replace(a_service("web", desired=1), name=name)
    stage.memory.commit([
        Put(keys.service(name), encode(service if placement is None else replace(service, placement=placement)))
    ])  # fmt: skip


def look_again(stage: Stage, loop: SchedulerLoop, prefix: str = keys.CONFIG) -> None:
    """Let the scheduler see what has changed, and do all that comes of it."""
    stage.seen(loop, prefix)
    for _ in range(5):
        stage.clock.advance(0.5)
        loop.step()


def places(stage: Stage) -> dict[str, str]:
    return {task.service: task.host for task in stage.tasks().values() if task.scheduled}


def test_a_service_waits_for_the_one_that_it_is_to_be_near_and_follows_it(stage: Stage) -> None:
    declare_service(stage, "cache", HERE)
    loop = stage.scheduler()
    loop.step()
    key = keys.service_status("cache")
    status = decode(stage.memory.read(key).entries[key].value, ServiceStatus)
    assert status.clusters["default"].hosts == {
        "h1": ["near web: none on this host"],
        "h2": ["near web: none on this host"],
    }
    declare_service(stage, "web")
    look_again(stage, loop)
    assert places(stage)["cache"] == places(stage)["web"]


@pytest.mark.parametrize("order", [("batch", "web"), ("web", "batch")])
def test_apart_holds_whichever_of_the_two_is_placed_first(stage: Stage, order: tuple[str, str]) -> None:
    placements = {"batch": FAR, "web": None}
    declare_service(stage, order[0], placements[order[0]])
    loop = stage.scheduler()
    loop.step()
    declare_service(stage, order[1], placements[order[1]])
    look_again(stage, loop)
    assert sorted(places(stage).values()) == ["h1", "h2"]


def test_once_the_other_has_gone_there_is_room(stage: Stage) -> None:
    declare_service(stage, "web")
    loop = stage.scheduler()
    loop.step()
    (web,) = stage.tasks().values()
    assert web.host == "h1"
    declare_service(stage, "batch", replace(FAR, require=["zone = a"]))
    look_again(stage, loop)
    assert "batch" not in places(stage)
    stage.memory.commit([Delete(keys.service("web"))])
    look_again(stage, loop)
    gone = [keys.task(web.id), keys.host_task(web.host, web.id)]
    stage.memory.commit([*map(Delete, gone), marker("web", web.host)])
    look_again(stage, loop, keys.SCHEDULING)
    assert places(stage) == {"batch": "h1"}


def test_tasks_move_when_the_tags_of_their_host_change(stage: Stage) -> None:
    declare_service(stage, "web", Placement(require=["zone = a"]))
    loop = stage.scheduler()
    loop.step()
    assert places(stage) == {"web": "h1"}
    stage.hosts("h1", tags={"zone": "b"})
    stage.hosts("h2", tags={"zone": "a"})
    look_again(stage, loop)
    assert {task.host for task in stage.tasks().values() if task.scheduled} == {"h1", "h2"}  # the new one comes first
