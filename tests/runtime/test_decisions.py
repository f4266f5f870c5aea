"""What schedulers keep of their decisions: in the commit that carries them out, within a bound, for as long as the
service is there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from runtime.stage import Stage
from sked_core.interfaces.store import Delete, Put
from sked_core.logic.decision import answer_of, decide, inputs_digest, scene_of
from sked_core.logic.placement import spread
from sked_core.model import keys
from sked_core.model.codec import decode
from sked_core.model.decisions import Decision
from sked_core.model.types import Event, ServiceStatus
from sked_core.testing.builders import a_cluster, a_definition, a_service


@pytest.fixture
def stage(until) -> Iterator[Stage]:
    with contextlib.closing(Stage(until)) as stage:
        yield stage


def decisions(stage: Stage, service: str = "web") -> list[Decision]:
    entries = stage.memory.read(keys.decisions(service)).entries
    return sorted((decode(entry.value, Decision) for entry in entries.values()), key=lambda one: one.number)


def counted(stage: Stage) -> int:
    return decode(
        stage.memory.read(keys.service_status("web")).entries[keys.service_status("web")].value, ServiceStatus
    ).decisions


def test_a_decision_is_kept_with_what_it_was_made_from_and_told_with_its_tasks(stage: Stage, declare) -> None:
    stage.hosts("h1", "h2")
    declare(stage.memory, a_cluster(), a_service(desired=3), a_definition(memory=100))
    stage.scheduler().step()
    (decision,) = decisions(stage)
    (batch,) = decision.batches
    assert (decision.number, decision.by, decision.scheduler) == (1, "scheduler s0", "default")
    placed = {f"default-web-1-{number}": host for number, host in zip(batch.instances, batch.hosts, strict=True)}
    assert placed == {name: task.host for name, task in stage.tasks().items()}
    assert len(placed) == 3
    assert batch.seen is not None
    assert inputs_digest(batch, "web") == batch.digest
    scene = scene_of(batch.asked, batch.seen, batch.cluster, "web")
    assert decide(scene, spread(), "default").digest() == batch.answer == answer_of(batch).digest()
    told = [
        event for entry in stage.memory.read(keys.EVENTS).entries.values() for event in decode(entry.value, list[Event])
    ]
    assert {event.decision for event in told if event.what == "task.issued"} == {1}
    assert counted(stage) == 1


def test_what_can_t_be_placed_is_a_decision_once_and_not_with_every_look(stage: Stage, declare) -> None:
    stage.hosts("h1", memory=100)
    declare(stage.memory, a_cluster(), a_service(desired=2), a_definition(memory=80))
    loop = stage.scheduler()
    loop.step()
    assert [(one.batches[0].hosts, one.batches[0].waiting) for one in decisions(stage)] == [(["h1"], 1)]
    assert decisions(stage)[0].batches[0].refusals == {"h1": ["memory: free 20 MB < 80 MB"]}
    for _ in range(3):
        stage.clock.advance(1)
        loop.step()
    assert counted(stage) == 1
    declare(stage.memory, a_service(desired=3))
    stage.seen(loop, keys.CONFIG)
    loop.step()
    assert [(one.number, one.batches[0].hosts, one.batches[0].waiting) for one in decisions(stage)][1:] == [(2, [], 2)]


def test_a_settled_service_decides_nothing_and_writes_nothing(stage: Stage, declare) -> None:
    stage.hosts("h1")
    declare(stage.memory, a_cluster(), a_service(desired=1), a_definition())
    loop = stage.scheduler()
    loop.step()
    written = stage.memory.read("").revision
    stage.clock.advance(1)
    loop.step()
    assert stage.memory.read("").revision == written


def test_the_last_few_decisions_are_kept_and_none_once_the_service_is_gone(stage: Stage, declare) -> None:
    stage.hosts("h1")
    declare(stage.memory, a_cluster(), a_service(desired=1), a_definition())
    loop = stage.scheduler()
    for desired in range(1, 12):
        declare(stage.memory, a_service(desired=desired))
        if desired > 1:
            stage.seen(loop, keys.CONFIG)
        loop.step()
    assert [one.number for one in decisions(stage)] == list(range(4, 12))
    assert counted(stage) == 11
    stage.memory.commit([Delete(keys.service("web"))])
    stage.seen(loop, keys.CONFIG)
    loop.step()
    for name, task in stage.tasks().items():
        stage.memory.commit(
            [Delete(keys.task(name)), Delete(keys.host_task(task.host, name)), Put(keys.changed("web"), b"h1")]
        )
    stage.seen(loop, keys.SCHEDULING)
    loop.step()
    loop.step()
    assert stage.memory.read(keys.SERVICE_STATUS).entries == {}
    assert stage.memory.read(keys.DECISIONS).entries == {}


def test_a_record_of_an_older_version_counts_as_no_decision(stage: Stage, declare) -> None:
    stage.hosts("h1")
    declare(stage.memory, a_cluster(), a_service(desired=1), a_definition())
    stage.memory.commit([Put(keys.service_status("web"), b'{"scheduler":"default","clusters":{}}')])
    stage.scheduler().step()
    assert [one.number for one in decisions(stage)] == [1]


def test_what_stands_in_a_slot_is_replaced_whatever_it_is(stage: Stage, declare) -> None:
    stage.hosts("h1")
    declare(stage.memory, a_cluster(), a_service(desired=1), a_definition())
    stage.memory.commit([Put(keys.decision("web", 1), b"no decision")])
    stage.scheduler().step()
    assert [one.number for one in decisions(stage)] == [1]
