"""Schedulers of plugins that do wrong, each in a process that places the services of others as well."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import UNSET

from runtime.stage import Stage
from sked_core.errors import PluginError
from sked_core.logic.batch import place_all
from sked_core.model import keys
from sked_core.model.codec import decode
from sked_core.model.trouble import Trouble
from sked_core.model.types import ANYWHERE, Placement, Presence, ServiceStatus
from sked_core.plugin import Candidate, Demand, Wanted, hookimpl, scored
from sked_core.runtime.journal import utc
from sked_core.runtime.plugins import aside
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.scheduling.loop import SchedulerLoop
from sked_core.testing.builders import a_cluster, a_definition, a_service

Place = Callable[[Demand, int, Sequence[Candidate]], Any]


def a_scheduler(place: Place) -> Any:
    """The factory of a scheduler that places by ``place``."""

    class Wrong:
        def place(self, demand: Demand, count: int, candidates: Sequence[Candidate]) -> Any:
            return place(demand, count, candidates)

    return Wrong


def raising(error: BaseException) -> Place:
    def place(demand: Demand, count: int, candidates: Sequence[Candidate]) -> Any:
        raise error

    return place


def swallowing(demand: Demand, count: int, candidates: Sequence[Candidate]) -> Any:
    """Not to be ended, busy, and yet gone once the test is over."""
    while not OVER.is_set():
        with contextlib.suppress(BaseException):
            OVER.wait(0.01)


OVER = threading.Event()
WRONG: dict[str, tuple[Any, str]] = {
    "raises": (a_scheduler(raising(ValueError("a bug"))), "failed: ValueError: a bug"),
    "exits": (a_scheduler(raising(SystemExit(3))), "failed: SystemExit: 3"),
    "interrupts": (a_scheduler(raising(KeyboardInterrupt())), "failed: KeyboardInterrupt"),
    "stops": (a_scheduler(raising(GeneratorExit())), "failed: GeneratorExit"),
    "nothing": (a_scheduler(lambda *_: None), "failed: TypeError"),
    "numbers": (a_scheduler(lambda *_: [1]), "on 1, where none fits"),
    "endless": (a_scheduler(lambda *_: itertools.repeat("h1")), "more than the 1 tasks it was asked for"),
    "no-scheduler": (lambda: None, "failed: AttributeError"),
    "makes-none": (lambda: sys.exit(3), "failed: SystemExit: 3"),
    "score-raises": (lambda: scored(lambda *_: 1 / 0), "failed: ZeroDivisionError"),
    "score-exits": (lambda: scored(lambda *_: sys.exit(3)), "failed: SystemExit: 3"),
    "score-is-text": (lambda: scored(lambda *_: "high"), "failed: ValueError"),  # type: ignore[arg-type, return-value]
    "waits": (a_scheduler(lambda *_: OVER.wait()), "did not come back within"),
    "busy": (a_scheduler(lambda *_: [None for _ in itertools.count() if False]), "did not come back within"),
    "yields-nothing-for-ever": (a_scheduler(lambda *_: (1 for _ in itertools.count() if False)), "did not come back"),
    "swallows": (a_scheduler(swallowing), "did not come back within"),
    "made-for-ever": (OVER.wait, "did not come back within"),
    "score-waits": (lambda: scored(lambda *_: OVER.wait()), "did not come back within"),
}


def stuck() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("sked-aside: ")]


class Bench(Stage):
    def status(self, service: str) -> str:
        value = self.memory.read(keys.service_status(service)).entries.get(keys.service_status(service))
        return decode(value.value, ServiceStatus).clusters["default"].blocked if value else ""

    def later(self, loop: SchedulerLoop, seconds: float) -> None:
        """Move the clock, and have the loop look at all that stands in the store now."""
        self.clock.advance(seconds)
        loop._keeper.drop()  # the lease lives by the machine's clock
        loop._feed.invalidate()
        loop.step()


@pytest.fixture
def bench(until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(aside, "PATIENCE_SECONDS", 1.0)
    OVER.clear()
    with contextlib.closing(Bench(until)) as bench:
        bench.hosts("h1", "h2")
        yield bench
    OVER.set()
    until("nothing is left of it", lambda: not stuck())


def both(bench: Bench, declare: Any, scheduler: str, desired: int = 1) -> None:
    """Two services of ``scheduler`` around one of the built-in one, in the order in which they are looked at."""
    declare(bench.memory, a_cluster(services=("a", "b", "c")))
    for name, by in (("a", scheduler), ("b", "default"), ("c", scheduler)):
        declare(bench.memory, a_service(name, desired=desired, scheduler=by), a_definition(name))


@pytest.mark.parametrize("wrong", WRONG)
def test_it_is_named_with_its_package_and_services_of_others_are_placed_in_the_same_round(
    bench: Bench, declare: Any, offering: Any, wrong: str
) -> None:
    made, told = WRONG[wrong]
    both(bench, declare, wrong)
    loop = bench.scheduler(plugins=offering(sked_schedulers={wrong: made}))
    bench.until("placed", lambda: loop.step() is not None and list(bench.tasks()) == ["default-b-1-0"])
    for service in ("a", "c"):
        bench.until("told", lambda service=service: loop.step() is not None and bench.status(service))
        assert bench.status(service).startswith(f"scheduler {wrong} of ")
        assert told in bench.status(service)
    figures = loop.figures()
    assert figures is not None and figures.failing == 0
    assert figures.services["a"][4] == 1
    assert bench.memory.read(keys.SERVICE_LOCKS).entries == {}


class Sleeper:
    """Places on whatever is best by now, having slept on it if it is told to."""

    def __init__(self) -> None:
        self.sleeps, self.asked, self.awake = True, 0, threading.Event()

    def score(self, demand: Demand, candidate: Candidate) -> float:
        self.asked += 1
        if self.sleeps:
            while not (self.awake.is_set() or OVER.is_set()):
                with contextlib.suppress(BaseException):  # as what waits in the system, it can't be ended
                    self.awake.wait(0.01)
        return candidate.free_memory


def test_one_that_hung_is_left_alone_for_a_while_and_then_asked_again(
    bench: Bench, declare: Any, offering: Any
) -> None:
    sleeper = Sleeper()
    both(bench, declare, "sleeper")
    loop = bench.scheduler(plugins=offering(sked_schedulers={"sleeper": lambda: scored(sleeper.score)}))
    loop.step()
    assert "it is left alone for 60 s" in bench.status("a") == bench.status("c")
    assert sleeper.asked == 1
    bench.later(loop, 50.0)
    assert sleeper.asked == 1
    bench.later(loop, 15.0)
    assert sleeper.asked == 2
    assert "it is left alone for 120 s" in bench.status("a")
    sleeper.sleeps = False
    sleeper.awake.set()
    bench.later(loop, 121.0)
    assert sorted(bench.tasks()) == ["default-a-1-0", "default-b-1-0", "default-c-1-0"]
    assert bench.status("a") == bench.status("c") == ""


def test_one_that_never_comes_back_is_not_asked_for_ever(bench: Bench, declare: Any, offering: Any) -> None:
    sleeper = Sleeper()
    both(bench, declare, "sleeper")
    loop = bench.scheduler(plugins=offering(sked_schedulers={"sleeper": lambda: scored(sleeper.score)}))
    loop.step()
    for _ in range(6):
        bench.later(loop, 1000.0)
    assert sleeper.asked == aside.MAX_STUCK
    assert "left alone until one of them does" in bench.status("a")
    sleeper.awake.set()
    bench.until("one is back", lambda: not stuck())
    sleeper.sleeps = False
    bench.later(loop, 1000.0)
    assert len(bench.tasks()) == 3


def test_what_wakes_up_too_late_changes_nothing_of_what_is_used_from_then_on(
    bench: Bench, declare: Any, offering: Any
) -> None:
    """It was left in the middle of a plan, and would go on to reserve what it places."""
    sleeper = Sleeper()
    both(bench, declare, "sleeper", desired=3)
    loop = bench.scheduler(plugins=offering(sked_schedulers={"sleeper": lambda: scored(sleeper.score)}))
    loop.step()
    tasks = bench.tasks()
    assert {task.service for task in tasks.values()} == {"b"}
    fleet = loop._view.fleet
    rows = [fleet.candidate(host, Demand("default", "b")) for host in ("h1", "h2")]
    sleeper.sleeps = False
    sleeper.awake.set()
    bench.until("it has ended", lambda: not stuck())
    assert [fleet.candidate(host, Demand("default", "b")) for host in ("h1", "h2")] == rows
    assert sum(row.tasks for row in rows) == 3
    assert bench.tasks() == tasks


def test_room_that_another_thread_is_about_to_fill_is_kept_when_a_scheduler_hangs(
    bench: Bench, declare: Any, offering: Any
) -> None:
    sleeper = Sleeper()
    both(bench, declare, "sleeper")
    loop = bench.scheduler(plugins=offering(sked_schedulers={"sleeper": lambda: scored(sleeper.score)}))
    loop.step()
    view, task = loop._view, next(iter(bench.tasks().values()))
    with view.held([task]):
        view.renew_fleet()
        assert sum(view.fleet.candidate(host, Demand("", "")).tasks for host in ("h1", "h2")) == 2
    assert sum(view.fleet.candidate(host, Demand("", "")).tasks for host in ("h1", "h2")) == 1


def test_one_that_fails_is_asked_again_less_and_less_often(bench: Bench, declare: Any, offering: Any) -> None:
    asked = []

    def place(demand: Demand, count: int, candidates: Sequence[Candidate]) -> Any:
        asked.append(bench.clock.monotonic())
        raise ValueError("a bug")

    declare(bench.memory, a_cluster(), a_service(desired=1, scheduler="wrong"), a_definition())
    loop = bench.scheduler(plugins=offering(sked_schedulers={"wrong": a_scheduler(place)}))
    pause = loop.step()
    for _ in range(60):
        bench.clock.advance(min(max(pause, 0.01), 5.0))
        pause = loop.step()
    assert len(asked) < 20


def spoils(demand: Demand, candidates: Sequence[Any]) -> None:
    """Changes whatever can be changed of what it is given."""
    demand.placement.require.append("zone = nowhere")
    demand.placement.spread.clear()
    for candidate in candidates:
        for name in ("free_memory", "tasks", "memory", "host", "tasks_of_service"):
            with contextlib.suppress(dataclasses.FrozenInstanceError):
                setattr(candidate, name, 10**9)


def spoiling_score(demand: Demand, candidate: Candidate) -> float:
    spoils(demand, [candidate])
    return 1.0


def spoiling_place(demand: Demand, count: int, candidates: Sequence[Candidate]) -> Any:
    hosts = [candidate.host for candidate in candidates]
    spoils(demand, candidates)
    candidates.clear()  # type: ignore[attr-defined]
    return hosts[:count]


@pytest.mark.parametrize("placement", [UNSET, Placement(require=["arch = any"], spread=[])])
@pytest.mark.parametrize("scope", ["service", "size", "host"])
@pytest.mark.parametrize("fewest_first", [True, False])
def test_what_a_score_does_to_hosts_and_demands_is_undone_and_told(
    bench: Bench, declare: Any, offering: Any, scope: Any, fewest_first: bool, placement: Any
) -> None:
    both(bench, declare, "spoils")
    declare(bench.memory, a_service("a", desired=1, scheduler="spoils", placement=placement))
    made = scored(spoiling_score, scope=scope, fewest_first=fewest_first)
    loop = bench.scheduler(plugins=offering(sked_schedulers={"spoils": lambda: made}))
    loop.step()
    assert list(bench.tasks()) == ["default-b-1-0"]
    assert "failed: ValueError: it changes candidates" in bench.status("c")
    rows = {host: loop._view.fleet.candidate(host, Demand("", "")) for host in ("h1", "h2")}
    assert sorted(row.tasks for row in rows.values()) == [0, 1]
    assert {(row.host, row.memory) for row in rows.values()} == {("h1", 8192), ("h2", 8192)}
    assert Placement() == ANYWHERE
    assert loop._view.service("a").placement == placement  # type: ignore[union-attr]


def test_what_a_scheduler_does_to_hosts_and_demands_is_done_to_copies(
    bench: Bench, declare: Any, offering: Any
) -> None:
    both(bench, declare, "spoils")
    loop = bench.scheduler(plugins=offering(sked_schedulers={"spoils": a_scheduler(spoiling_place)}))
    loop.step()
    assert sorted(bench.tasks()) == ["default-a-1-0", "default-b-1-0", "default-c-1-0"]
    assert Placement() == ANYWHERE


def test_one_that_two_plugins_offer_is_told_with_both(bench: Bench, declare: Any) -> None:
    def a_plugin(name: str) -> Any:
        module = SimpleNamespace(sked_schedulers=hookimpl(lambda: {"twice": a_scheduler(lambda *_: [])}))
        module.sked_schedulers.__name__ = "sked_schedulers"
        dist = SimpleNamespace(metadata={"Name": f"sked-{name}", "Version": "1.0"})
        return SimpleNamespace(name=name, value=name, dist=dist, load=lambda: module)

    both(bench, declare, "twice")
    bench.scheduler(plugins=Plugins([a_plugin("one"), a_plugin("two")])).step()
    assert list(bench.tasks()) == ["default-b-1-0"]
    assert "scheduler twice is offered by sked-one 1.0 and by sked-two 1.0" in bench.status("a")


@pytest.mark.parametrize("answer", [itertools.repeat(["h1"]), [itertools.repeat("h1")], [["h1", "h1", "h1"]]])
def test_a_batch_without_an_end_is_no_answer(answer: Any) -> None:
    class Endless:
        def place_batch(self, batch: Any, candidates: Any) -> Any:
            return answer

    candidate = Candidate("h1", 8000, 4000, 0, 8000, 4000, 0, 10, 0, 0)
    with pytest.raises(PluginError, match=r"scheduler endless (placed more than|answered for 2 of 1)"):
        place_all(Endless(), "endless", [Wanted(Demand("default", "web"), 2)], [candidate])  # type: ignore[arg-type]


def test_a_process_whose_rounds_all_fail_says_so_over_and_over(
    bench: Bench, declare: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    both(bench, declare, "default")
    loop = bench.scheduler()
    monkeypatch.setattr(loop._evaluator, "evaluate", lambda *_, **__: 1 / 0)
    for _ in range(41):
        loop.step()
    told = [record.getMessage() for record in caplog.records if "division by zero" in record.getMessage()]
    assert told == [f"round {number} in a row that failed: division by zero; retrying" for number in (1, 21, 41)]
    figures = loop.figures()
    assert figures is not None and figures.failing == 41


def presence(bench: Bench) -> Presence:
    return decode(bench.memory.read(keys.scheduler("s0")).entries[keys.scheduler("s0")].value, Presence)


def test_what_rounds_fail_by_stands_in_the_store_until_they_have_gone_well_for_a_while(
    bench: Bench, declare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    both(bench, declare, "default")
    loop = bench.scheduler()
    evaluate = loop._evaluator._evaluate

    def failing(service: str, *rest: Any, **more: Any) -> Any:
        return 1 / 0 if service == "a" else evaluate(service, *rest, **more)

    with monkeypatch.context() as broken:
        broken.setattr(loop._evaluator, "_evaluate", failing)
        began = utc(bench.clock.wall())
        loop.step()
        assert presence(bench).trouble is None  # one may be bad luck
        bench.clock.advance(3)
        loop.step()
        loop.step()
        assert presence(bench).trouble == Trouble(since=began, why="ZeroDivisionError: division by zero", service="a")
        written = bench.memory.read(keys.scheduler("s0")).entries[keys.scheduler("s0")].revision
        for _ in range(10):
            loop.step()
        assert bench.memory.read(keys.scheduler("s0")).entries[keys.scheduler("s0")].revision == written
    loop.step()
    assert presence(bench).trouble is not None
    bench.clock.advance(11)
    loop._keeper.drop()
    assert loop.step() == 0.0, "it is said at once that it is over"
    loop.step()
    assert presence(bench) == Presence(["default"])


class Unsayable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "said"), [(Unsayable(), "Unsayable"), (KeyError("web"), "KeyError: 'web'"), (PluginError("no"), "no")]
)
def test_an_error_that_says_little_is_told_of_by_its_class(bench: Bench, error: Exception, said: str) -> None:
    loop = bench.scheduler()
    for _ in range(2):
        loop._announced.failed(error)
    loop.step()
    assert (trouble := presence(bench).trouble) is not None and trouble.why == said


def test_a_service_that_its_scheduler_fails_at_says_since_when(bench: Bench, declare: Any, offering: Any) -> None:
    both(bench, declare, "raises")
    loop = bench.scheduler(plugins=offering(sked_schedulers={"raises": WRONG["raises"][0]}))
    began = utc(bench.clock.wall())
    loop.step()
    bench.later(loop, 100)
    bench.later(loop, 100)
    key = keys.service_status("a")
    assert decode(bench.memory.read(key).entries[key].value, ServiceStatus).clusters["default"].since == began
