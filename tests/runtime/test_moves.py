"""How schedulers carry out moves: on a store whose hosts' agents are played by the test."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runtime.stage import Stage
from runtime.web_play import WebPlay
from sked_core.interfaces.store import Delete, Put
from sked_core.logic.placement import spread
from sked_core.logic.replay import replay
from sked_core.model import keys
from sked_core.model.codec import decode
from sked_core.model.decisions import Decision
from sked_core.model.types import Event, Mark, Moves, ServiceStatus, TaskMove, UpdatePolicy
from sked_core.testing.builders import a_check, a_cluster, a_container, a_definition, a_service

CHECKED = a_container(checks=[a_check()])


class Play(WebPlay):
    """A healthy service ``web`` of four tasks on h1 and h2; h3 has joined since."""

    def __init__(self, stage: Stage, **fields: object) -> None:
        self.stage, self.fields = stage, {"desired": 4, "min": 3, "max": 5, **fields}
        stage.memory.commit([Delete(keys.host("h3")), Delete(keys.live("h3"))])
        for version in (1, 2):
            self.write(keys.task_definition("web", version), a_definition("web", version, containers=[CHECKED]))
        self.write(keys.cluster("default"), a_cluster())
        self.write(keys.service("web"), a_service(**self.fields))
        self.loop = stage.scheduler()
        self.settle()
        stage.hosts("h3", memory=10**6, cpu_units=10**6)
        self.settle(2)
        assert self.hosts() == {"h1": 2, "h2": 2}

    def move(self, *moves: tuple[str, str], desired: int = 4) -> None:
        """Ask for moves: of one task of each first host to the second."""
        taken, asked = set[str](), []
        for turn, (source, to) in enumerate(moves, 1):
            task = next(n for n, t in sorted(self.stage.tasks().items()) if t.host == source and n not in taken)
            taken.add(task)
            asked.append(TaskMove(task=task, cluster="default", source=source, to=to, turn=turn))
        self.write(keys.moves("web"), Moves(moves=asked, desired=desired, by="test"))

    def record(self) -> Moves | None:
        entry = self.stage.memory.read(keys.moves("web")).entries.get(keys.moves("web"))
        return decode(entry.value, Moves) if entry else None

    def decisions(self) -> list[Decision]:
        entries = self.stage.memory.read(keys.decisions("web")).entries.values()
        return sorted((decode(entry.value, Decision) for entry in entries), key=lambda one: one.number)

    def hosts(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for task in self.stage.tasks().values():
            found[task.host] = found.get(task.host, 0) + 1
        return dict(sorted(found.items()))

    def blocked(self) -> str:
        entry = self.stage.memory.read(keys.service_status("web")).entries[keys.service_status("web")]
        return decode(entry.value, ServiceStatus).clusters["default"].blocked

    def told(self, prefix: str = "move.") -> list[Event]:
        entries = sorted(self.stage.memory.read(keys.EVENTS).entries.items())
        events = [event for _, entry in entries for event in decode(entry.value, list[Event])]
        return [event for event in events if event.what.startswith(prefix)]


@pytest.fixture
def play(stage: Stage) -> Any:
    return lambda **fields: Play(stage, **fields)


def test_moves_are_carried_out_and_told_and_the_record_goes_with_the_last_one(play):
    web = play()
    web.move(("h1", "h3"), ("h2", "h3"))
    web.step()
    record = web.record()
    assert [move.state for move in record.moves] == ["starting", "waiting"]
    assert web.stage.tasks()[record.moves[0].replacement].host == "h3"
    assert "2 moves left" in web.blocked() and web.blocked().startswith("waiting for ")
    web.settle()
    assert web.hosts() == {"h1": 1, "h2": 1, "h3": 2}
    assert web.record() is None and web.blocked() == ""
    events = web.told()
    assert [event.what for event in events] == ["move.started", "move.done", "move.started", "move.done"]
    assert {(event.before, event.after) for event in events} == {("h1", "h3"), ("h2", "h3")}
    assert not web.told("service.blocked"), "that it waits for its own moves is no news"


def test_another_scheduler_goes_on_after_any_step_with_what_one_has_begun(play):
    web = play()
    web.move(("h1", "h3"), ("h2", "h3"))
    seen = set()
    for _ in range(30):
        web.loop._halt.set()
        web.loop = web.stage.scheduler()  # the one before it was killed, and left its lock to its lease
        web.stage.clock.advance(30.0)
        web.step()
        seen.add(tuple(move.state for move in web.record().moves) if web.record() else ())
        counts = [task.scheduled for task in web.stage.tasks().values()]
        assert sum(counts) >= 4 and len(counts) <= 5
        web.agents()
        if web.record() is None:
            break
    assert web.hosts() == {"h1": 1, "h2": 1, "h3": 2} and len(seen) >= 4


def test_a_move_to_the_same_host_restarts_a_task_there_and_scaling_does_not_end_that(play):
    web = play()
    before = {key: task.host for key, task in web.stage.tasks().items()}
    moves = [TaskMove(task=key, cluster="default", source=host, to=host) for key, host in sorted(before.items())]
    web.write(keys.moves("web"), Moves(moves=moves, desired=4, by="test"))
    web.step()
    assert "4 restarts left" in web.blocked()
    web.write(keys.service("web"), a_service(**{**web.fields, "desired": 5, "max": 6}))
    for _ in range(20):
        web.step()
        running = [task for task in web.stage.tasks().values() if task.scheduled]
        assert len(running) >= 3 and len(web.stage.tasks()) <= 6
        web.agents()
    assert web.record() is None and web.blocked() == ""
    done = [(event.subject.removeprefix("task/"), event.after) for event in web.told("move.done")]
    assert dict(done) == before, "each was replaced where it was"
    assert not web.told("move.cancelled") and sum(web.hosts().values()) == 5


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda web: web.write(keys.service("web"), a_service(version=2, **web.fields)), "another version"),
        (lambda web: web.write(keys.service("web"), a_service(**{**web.fields, "desired": 5})), "from 4 to 5"),
        (lambda web: web.stage.memory.commit([Delete(keys.service("web"))]), "not declared any more"),
        (lambda web: web.write(keys.mark("h1"), Mark(state="draining")), "does not run on h1 any more as it did"),
    ],
    ids=["roll-out", "scaling", "deletion", "drain"],
)
def test_other_orders_supersede_what_is_left_of_the_moves(play, change, why):
    web = play()
    web.move(("h1", "h3"))
    change(web)
    web.settle(3)
    assert web.record() is None
    assert [event.what for event in web.told()] == ["move.cancelled"]
    assert why in web.told()[0].why


def test_a_record_that_cannot_be_read_is_left_alone_and_the_service_is_scheduled_all_the_same(play):
    web = play()
    web.stage.memory.commit([Put(keys.moves("web"), b'{"moves": 3}')])
    web.settle(2)
    assert "scheduling/moves/web can't be read" in web.blocked() and "repair or remove it" in web.blocked()
    web.write(keys.service("web"), a_service(**{**web.fields, "desired": 5}))
    web.settle(3)
    assert sum(web.hosts().values()) == 5
    assert web.stage.memory.read(keys.moves("web")).entries[keys.moves("web")].value == b'{"moves": 3}'
    web.stage.memory.commit([Delete(keys.moves("web"))])
    web.settle(2)
    assert web.blocked() == ""


def test_fields_that_others_have_put_into_the_record_stay(play):
    web = play()
    web.move(("h1", "h3"), ("h2", "h3"))
    key = keys.moves("web")
    stored = json.loads(web.stage.memory.read(key).entries[key].value) | {"ticket": 7}
    stored["moves"][1]["colour"] = "blue"
    web.stage.memory.commit([Put(key, json.dumps(stored).encode())])
    web.step()
    after = json.loads(web.stage.memory.read(key).entries[key].value)
    assert after["ticket"] == 7 and after["moves"][1]["colour"] == "blue"
    assert after["moves"][0]["state"] == "starting" and after["moves"][0]["from"] == "h1"


def test_moves_that_come_no_further_are_given_up_after_the_progress_deadline(play):
    web = play(update=UpdatePolicy(progress_deadline="30s"))
    web.move(("h1", "h3"))
    for instance in range(6):
        web.stage.health.say(f"default-web-1-{instance}", healthy=instance < 4, output="500")
    web.settle(3)
    assert web.record().moves[0].state == "starting"
    web.settle(30)
    assert web.record() is None
    assert web.told()[-1].what == "move.cancelled" and "no move came further for 30 s" in web.told()[-1].why
    web.settle(3)
    assert web.hosts() == {"h1": 2, "h2": 2}, "the replacement that never became healthy is gone"


def test_removing_the_record_ends_the_moves(play):
    web = play()
    web.move(("h1", "h3"), ("h2", "h3"))
    web.settle(2)
    web.stage.memory.commit([Delete(keys.moves("web"))])
    web.settle()
    assert sum(web.hosts().values()) == 4 and web.blocked() == ""


def test_nothing_is_written_once_moves_are_done(play):
    web = play()
    web.move(("h1", "h3"))
    web.settle()
    before = web.stage.memory.read(keys.STATE).revision
    web.settle(5)
    assert web.stage.memory.read(keys.STATE).revision == before


def test_each_task_that_is_moved_has_its_decision(stage: Stage) -> None:
    play = Play(stage)
    before = play.decisions()
    play.move(("h1", "h3"), ("h2", "h3"))
    play.settle(12)
    moved = {name for name, task in stage.tasks().items() if task.host == "h3"}
    found = [batch for one in play.decisions()[len(before) :] for batch in one.batches]
    assert {f"default-web-1-{batch.instances[0]}" for batch in found} == moved and len(found) == 2
    assert all(batch.hosts == ["h3"] and replay(batch, "web", spread(), "default").same for batch in found)
