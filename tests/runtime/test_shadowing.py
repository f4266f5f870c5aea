"""A shadow scheduler: told apart from the one that decides, in a process of its own, and harmless whatever it does."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.stage import Stage
from sked_core.interfaces.store import Put
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.decisions import Decision
from sked_core.model.types import Event
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.scheduling.shadowing import Shadowing
from sked_core.testing.builders import a_cluster, a_definition, a_service

PATIENCE = 50.0
"""Longer than a process takes to start on a busy machine, as which the ten seconds of a scheduler may not do."""
PLUGIN = """
import os, time
from sked_core.plugin import hookimpl, scored

class Raising:
    def place(self, demand, count, candidates):
        raise ZeroDivisionError("no")

class Hanging:
    def place(self, demand, count, candidates):
        print("{}", flush=True)
        while True:
            pass

class Ending:
    def place(self, demand, count, candidates):
        os._exit(3)

class Greedy:
    def place(self, demand, count, candidates):
        taken = []
        while True:
            taken.append(bytearray(2**28))

class Overdoing:
    def place(self, demand, count, candidates):
        while True:
            yield candidates[0].host

@hookimpl
def sked_schedulers():
    return {
        "last": lambda: scored(lambda demand, one: float(ord(one.host[-1]))),
        "raising": Raising, "hanging": Hanging, "ending": Ending, "greedy": Greedy, "overdoing": Overdoing,
    }
"""


@pytest.fixture
def stage(until) -> Iterator[Stage]:
    with contextlib.closing(Stage(until)) as stage:
        yield stage


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schedulers of PLUGIN, as a package that child processes find."""
    (tmp_path / "odd_schedulers.py").write_text(PLUGIN)
    info = tmp_path / "odd_schedulers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-schedulers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sked]\nodd = odd_schedulers\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{':'.join(filter(None, sys.path))}")


@pytest.fixture
def decided(stage: Stage, declare, until, installed) -> Callable[..., tuple[Decision, list[Event]]]:
    """``decided("last", deadline=3)``: the decision that spreads two tasks over a and b, and the events, once the
    shadow of that name has had its say."""

    def decide(name: str, **more: float) -> tuple[Decision, list[Event]]:
        stage.hosts("a", "b")
        declare(stage.memory, a_cluster(), a_service(desired=2), a_definition(memory=100))
        loop = stage.scheduler()
        shadowing = Shadowing(stage.memory, name, loop.journal, **{"deadline": PATIENCE} | more)
        loop._evaluator._shadow = shadowing.ask
        loop.step()
        assert sorted(task.host for task in stage.tasks().values()) == ["a", "b"]
        until("the shadow answered", shadowing.idle)
        shadowing.close()
        loop.step()  # which writes what there is to be told
        key = keys.decision("web", 1)
        told = [
            one for entry in stage.memory.read(keys.EVENTS).entries.values() for one in decode(entry.value, list[Event])
        ]
        decision = decode(stage.memory.read(key).entries[key].value, Decision)
        return decision, [event for event in told if event.what.startswith("shadow.")]

    return decide


def test_where_it_would_differ_is_kept_with_the_decision_and_told(decided) -> None:
    decision, events = decided("last")
    shadow = decision.batches[0].shadow
    assert shadow is not None
    assert (shadow.scheduler, shadow.hosts, shadow.differs, shadow.fault) == ("last", ["b", "b"], 1, "")
    assert [(event.what, event.subject, event.decision) for event in events] == [("shadow.differed", "service/web", 1)]
    assert events[0].why.startswith("last would have put 1 of 2 tasks elsewhere")


@pytest.mark.parametrize(
    ("name", "fault", "more"),
    [
        ("raising", "ZeroDivisionError", {}),
        ("overdoing", "more than the 2 tasks", {}),
        ("ending", "its process ended", {}),
        ("greedy", "", {}),
        ("hanging", "it took longer than 3 s", {"deadline": 3.0}),
        ("unheard-of", "no scheduler", {}),
    ],
)
def test_whatever_it_does_the_decision_stands_and_the_fault_is_told(decided, name, fault, more) -> None:
    decision, events = decided(name, **more)
    shadow = decision.batches[0].shadow
    assert shadow is not None
    assert shadow.fault
    assert fault in shadow.fault
    assert decision.batches[0].hosts == ["a", "b"]
    assert [event.what for event in events] == ["shadow.failed"]


def test_after_one_that_hung_the_next_decision_is_asked_about_again(stage: Stage, declare, until, installed) -> None:
    stage.hosts("a", "b")
    declare(stage.memory, a_cluster(), a_service(desired=1), a_definition())
    loop = stage.scheduler()
    with contextlib.closing(Shadowing(stage.memory, "ending", loop.journal, deadline=PATIENCE)) as shadowing:
        loop._evaluator._shadow = shadowing.ask
        loop.step()
        until("the shadow answered", shadowing.idle)
        shadowing._name = "last"
        declare(stage.memory, a_service(desired=2))
        stage.seen(loop, keys.CONFIG)
        loop.step()
        until("the shadow answered", shadowing.idle)
    found = {number: stage.memory.read(keys.decision("web", number)).entries for number in (1, 2)}
    shadows = [decode(next(iter(one.values())).value, Decision).batches[0].shadow for one in found.values()]
    assert [(one.scheduler, bool(one.fault)) for one in shadows if one] == [("ending", True), ("last", False)]


def test_a_record_that_is_another_one_by_now_is_left_alone(stage: Stage, declare, until, installed) -> None:
    stage.hosts("a")
    declare(stage.memory, a_cluster(), a_service(desired=1), a_definition())
    loop = stage.scheduler()
    loop.step()
    key = keys.decision("web", 1)
    decision = decode(stage.memory.read(key).entries[key].value, Decision)
    stage.memory.commit([Put(key, encode(Decision(number=9, at="", by="s9", scheduler="default")))])
    with contextlib.closing(Shadowing(stage.memory, "last", loop.journal, deadline=PATIENCE)) as shadowing:
        shadowing.ask("web", decision)
        until("the shadow answered", shadowing.idle)
    assert decode(stage.memory.read(key).entries[key].value, Decision).number == 9


def test_while_it_is_behind_decisions_pass_it_by_and_nobody_waits(stage: Stage, installed, caplog, until) -> None:
    loop = stage.scheduler()
    decision = Decision(number=1, at="", by="s0", scheduler="default")
    with contextlib.closing(Shadowing(stage.memory, "hanging", loop.journal)) as shadowing:
        for _ in range(500):
            shadowing.ask("web", decision)
        until("it said so", lambda: "it is behind" in caplog.text)


def test_a_scheduler_with_a_shadow_of_its_own_name_asks_nothing(stage: Stage, declare) -> None:
    stage.hosts("a")
    declare(stage.memory, a_cluster(), a_service(desired=1), a_definition())
    loop = stage.scheduler(shadow="default", plugins=Plugins([]))
    loop.step()
    assert loop._shadowing is not None and loop._shadowing.idle()
    loop._shadowing.close()
    assert list(stage.tasks()) == ["default-web-1-0"]
