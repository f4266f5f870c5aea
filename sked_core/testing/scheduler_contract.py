"""What every scheduler has to pass. To hold one to it, in a test file of your own::

    class TestRoomiest(SchedulerContract):
        sample = ROOMIEST

What is drawn to ask it is the same in every run. A scheduler without ``place_batch`` is asked as core asks it then: for
one demand after the other. One that tells no ``terms`` has that test skipped.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sked_core.interfaces.scheduler import Candidate, Demand, Scheduler
from sked_core.logic.batch import place_all
from sked_core.testing.samples import SchedulerSample
from sked_core.testing.scheduling import (
    Batch,
    Dice,
    Placing,
    a_batch,
    a_placing,
    left_over,
    many_demands,
    many_hosts,
    what_fits,
)
from sked_core.testing.watching import counting, watching

T = TypeVar("T")
ANSWERS = "SKED_KIT_ANSWERS"
"""The file that a run of the tests in another process writes its answers to."""
FIXED_CASES = 40
LINES, LINES_OF_MANY = 200_000, 3_000_000
"""How many lines of Python a scheduler may run for one of the inputs drawn here, and for one with many demands."""
GROWTH = 2.5
"""By how much more than its input the work may grow: sorting does, comparing all with all does not pass."""


class _Drawn:
    """A dice whose throws Hypothesis makes smaller."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def choice(self, of: Sequence[T]) -> T:
        return self._draw(st.sampled_from(of))

    def randint(self, a: int, b: int) -> int:
        return self._draw(st.integers(a, b))

    def sample(self, of: Sequence[T], k: int) -> list[T]:
        return self._draw(st.permutations(of))[:k]


def _holds(check: Callable[[Any], None], case: Callable[[Dice], Any], examples: int, shrinks: bool) -> None:
    """Run ``check`` on many drawn inputs, and show the smallest that fails."""

    @st.composite
    def cases(draw: st.DrawFn) -> Any:
        return case(_Drawn(draw))

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink) if shrinks else (Phase.generate,),
    )
    @given(cases())
    def on_each(case: Any) -> None:
        check(case)

    on_each()


class SchedulerContract:
    """``sample`` says which scheduler. ``examples``: how many inputs each test draws. ``shrinks``: whether the smallest
    that fails is looked for."""

    sample: ClassVar[SchedulerSample]
    examples: ClassVar[int] = 100
    shrinks: ClassVar[bool] = True

    @pytest.fixture
    def scheduler(self) -> Scheduler:
        return self.sample.make()

    # --- one demand

    def test_it_takes_whatever_it_is_asked_and_places_only_where_it_fits(self, scheduler: Scheduler) -> None:
        def check(case: Placing) -> None:
            for candidates in (list(case.candidates), tuple(case.candidates)):
                _refuse_too_much(case, _place(scheduler, case, candidates))

        _holds(check, a_placing, self.examples, self.shrinks)

    def test_no_task_is_left_out_while_a_candidate_has_room(self, scheduler: Scheduler) -> None:
        def check(case: Placing) -> None:
            placed = _place(scheduler, case)
            assert len(placed) == min(case.count, what_fits(case)), f"placed on {placed}"

        _holds(check, a_placing, self.examples, self.shrinks)

    def test_the_order_of_the_candidates_is_nothing(self, scheduler: Scheduler) -> None:
        def check(case: Placing) -> None:
            placed = _place(scheduler, case)
            for other in _orders(case.candidates):
                assert _place(scheduler, case, other) == placed

        _holds(check, a_placing, self.examples, self.shrinks)

    def test_the_same_input_gives_the_same_plan_whatever_was_asked_before(self, scheduler: Scheduler) -> None:
        cases = [*_fixed(a_placing), *_fixed(a_placing)[::-1]]
        answers = [_place(scheduler, case) for case in cases]
        assert answers == [_place(self.sample.make(), case) for case in cases]
        assert answers == answers[::-1]

    def test_what_it_is_given_stays_as_it_is(self, scheduler: Scheduler) -> None:
        def check(case: Placing) -> None:
            before, candidates = copy.deepcopy(case), list(case.candidates)
            _place(scheduler, case, candidates)
            assert case == before
            assert candidates == list(before.candidates)

        _holds(check, a_placing, self.examples, self.shrinks)

    def test_a_plan_that_is_read_half_is_the_beginning_of_the_whole(self, scheduler: Scheduler) -> None:
        for case in _fixed(a_placing):
            whole = _place(scheduler, case)
            half = list(itertools.islice(scheduler.place(case.demand, case.count, list(case.candidates)), 1))
            assert half == whole[:1]

    # --- what it may know, and how long it may take

    def test_it_looks_at_nothing_but_its_input(self, scheduler: Scheduler) -> None:
        if self.sample.unseen:
            pytest.skip(f"what {self.sample.name} looks at is not seen: {self.sample.unseen}")
        cases, batches = _fixed(a_placing), _fixed(a_batch)
        _answers(scheduler, self.sample, cases, batches)  # what is imported the first time is read from files
        with watching() as seen:
            _answers(scheduler, self.sample, cases, batches)
        assert not seen, "\n".join(["it asked for what is not in its input:", *seen])

    def test_its_work_grows_no_faster_than_hosts_and_tasks(self, scheduler: Scheduler) -> None:
        def work(hosts: int, tasks: int) -> int:
            demand = Demand("default", "web", memory=10, cpu_units=10)
            return _counted(lambda: list(scheduler.place(demand, tasks, many_hosts(hosts, room=tasks))))

        _grows(work(20, 20), work(160, 20), 8, "hosts")
        _grows(work(20, 20), work(20, 160), 8, "tasks")

    # --- many demands at once

    def test_of_many_demands_whatever_they_are_none_overloads_a_host(self, scheduler: Scheduler) -> None:
        """Core looks at each plan itself, and raises PluginError."""

        def check(case: Batch) -> None:
            _place_all(scheduler, self.sample, case)

        _holds(check, a_batch, self.examples, self.shrinks)

    def test_of_many_demands_no_task_is_left_out_while_a_host_has_room(self, scheduler: Scheduler) -> None:
        def check(case: Batch) -> None:
            chosen = _place_all(scheduler, self.sample, case)
            left, ports = left_over(case, chosen)
            for wanted, hosts in zip(case.wanted, chosen, strict=True):
                if len(hosts) < wanted.count:
                    for candidate in left.values():
                        assert (
                            not candidate.fits(wanted.demand)
                            or (wanted.hosts is not None and candidate.host not in wanted.hosts)
                            or wanted.demand.fixed_ports & ports[candidate.host]
                        ), f"a task of {wanted.demand.service} would still fit on {candidate.host}: {chosen}"

        _holds(check, a_batch, self.examples, self.shrinks)

    def test_of_many_demands_neither_order_is_anything(self, scheduler: Scheduler) -> None:
        def check(case: Batch) -> None:
            plan = _by_service(case, _place_all(scheduler, self.sample, case))
            for wanted, candidates in zip(_orders(case.wanted), _orders(case.candidates), strict=True):
                other = Batch(tuple(wanted), tuple(candidates))
                assert _by_service(other, _place_all(scheduler, self.sample, other)) == plan

        _holds(check, a_batch, self.examples, self.shrinks)

    def test_many_demands_are_answered_alike_each_time_and_stay_as_they_are(self, scheduler: Scheduler) -> None:
        cases = [*_fixed(a_batch), *_fixed(a_batch)[::-1]]
        before = copy.deepcopy(cases)
        answers = [_place_all(scheduler, self.sample, case) for case in cases]
        assert answers == answers[::-1]
        assert cases == before

    def test_the_work_of_many_demands_is_bounded(self, scheduler: Scheduler) -> None:
        def work(hosts: int, services: int) -> int:
            case = many_demands(services, many_hosts(hosts, room=20))
            return _counted(lambda: _place_all(scheduler, self.sample, case))

        _grows(work(20, 20), work(160, 20), 8, "hosts")
        _grows(work(20, 20), work(20, 160), 8, "services")

    # --- for people who ask why

    def test_the_terms_are_what_it_decides_by(self, scheduler: Scheduler) -> None:
        terms, rank = getattr(scheduler, "terms", None), getattr(scheduler, "rank", None)
        if terms is None:
            pytest.skip(f"{self.sample.name} tells no terms: nobody can be told why it chose a host")

        def check(case: Placing) -> None:
            sums = {}
            for candidate in case.candidates:
                found = terms(case.demand, candidate)
                for name, value in found.items():
                    assert isinstance(name, str) and name.strip(), f"{name!r} is no name"
                    assert math.isfinite(value), f"{name} is {value} of {candidate}"
                sums[candidate.host] = sum(found.values())
                if rank is not None:  # made by ``scored``
                    first, score = rank(case.demand, candidate)
                    assert sums[candidate.host] == pytest.approx(-first - score, rel=1e-6, abs=1e-9), found
            if rank is None and case.candidates and case.count:
                chosen = _place(scheduler, case)[0]
                assert sums[chosen] >= max(sums.values()) - 1e-6, f"{chosen} was chosen, of {sums}"

        _holds(check, a_placing, self.examples, self.shrinks)

    # --- last, as it takes longest

    def test_another_process_comes_to_the_same_plans(
        self, scheduler: Scheduler, request: pytest.FixtureRequest, tmp_path: Path
    ) -> None:
        """With another PYTHONHASHSEED: sets of texts are gone through in another order there."""
        answers = _answers(scheduler, self.sample, _fixed(a_placing), _fixed(a_batch))
        told = os.environ.get(ANSWERS)
        if told:
            Path(told).write_text(json.dumps(answers))
            return
        seed, written = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1", tmp_path / "answers"
        ran = _run_again(request, {ANSWERS: str(written), "PYTHONHASHSEED": seed})
        assert written.exists(), f"it did not run by itself:\n{ran}"
        assert json.loads(written.read_text()) == answers, f"with PYTHONHASHSEED={seed}"


def _place(scheduler: Scheduler, case: Placing, candidates: Sequence[Candidate] | None = None) -> list[str]:
    """What it yields, and one more than it may at most."""
    given_ = list(case.candidates) if candidates is None else candidates
    with counting(LINES):
        return list(itertools.islice(scheduler.place(case.demand, case.count, given_), case.count + 1))


def _place_all(scheduler: Scheduler, sample: SchedulerSample, case: Batch) -> list[list[str]]:
    with counting(LINES_OF_MANY):
        return place_all(scheduler, sample.name, list(case.wanted), list(case.candidates))


def _refuse_too_much(case: Placing, placed: Sequence[object]) -> None:
    assert len(placed) <= case.count, f"placed {len(placed)} tasks or more where {case.count} were wanted"
    left = {candidate.host: candidate for candidate in case.candidates}
    for host in placed:
        assert isinstance(host, str), f"{host!r} is no name of a host"
        assert host in left, f"{host} is no candidate"
        assert left[host].fits(case.demand), f"{host} has no room for one more: {left[host]}, placed on {placed}"
        left[host] = left[host].after(case.demand)


def _orders(things: Sequence[Any]) -> Iterator[list[Any]]:
    """Three other orders of ``things``."""
    yield list(things)[::-1]
    yield [*things[1:], *things[:1]]
    yield random.Random(7).sample(list(things), len(things))  # noqa: S311 - nothing to keep secret


def _by_service(case: Batch, chosen: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    return {wanted.demand.service: list(hosts) for wanted, hosts in zip(case.wanted, chosen, strict=True)}


def _fixed(draw: Callable[[Dice], Any]) -> list[Any]:
    """Some inputs, the same in every process."""
    return [draw(random.Random(seed)) for seed in range(FIXED_CASES)]  # noqa: S311 - nothing to keep secret


def _answers(
    scheduler: Scheduler, sample: SchedulerSample, cases: Sequence[Placing], batches: Sequence[Batch]
) -> list[Any]:
    return [
        *(list(scheduler.place(case.demand, case.count, list(case.candidates))) for case in cases),
        *(place_all(scheduler, sample.name, list(case.wanted), list(case.candidates)) for case in batches),
    ]


def _counted(action: Callable[[], object]) -> int:
    """How many lines of Python ``action`` runs."""
    with counting(100 * LINES, always=True) as counted:
        action()
    return counted.lines


def _grows(small: int, large: int, times: int, what: str) -> None:
    assert large <= GROWTH * times * small, f"{times} times the {what} are {large / small:.0f} times the work"


def _run_again(request: pytest.FixtureRequest, variables: dict[str, str]) -> str:
    """Run the test that asks for it by itself, in a process of its own; what that wrote."""
    node, config = request.node, request.config
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts="]
    command += [f"--import-mode={config.getoption('importmode')}", f"--rootdir={config.rootpath}"]
    command += ["-c", str(config.inipath)] if config.inipath else []
    command += ["::".join([str(node.path), *node.nodeid.split("::")[1:]])]
    told = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **variables}
    ran = subprocess.run(
        command, env=told, cwd=config.invocation_params.dir, capture_output=True, text=True, timeout=120
    )
    return ran.stdout + ran.stderr
