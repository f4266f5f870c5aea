"""Crashes: whenever the process dies that uses an executor, the next one finds one container, or starts one, or none is
left."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from sked_core.interfaces.executor import Handle, State
from sked_core.model.types import Task
from sked_core.testing.executor_contract.adopting import need_outliving
from sked_core.testing.executor_contract.base import KitBase, Rig
from sked_core.testing.executor_contract.victims import Victim, chosen, told

DRAWN = 8
"""How many moments are drawn by a seed, beside those that are looked for."""


class CrashTests(KitBase):
    """A process is killed at each step of what it does, as far as ``kills`` allows."""

    def test_killed_at_any_step_of_a_start_there_is_one_afterwards_and_none_after_its_stop(self, rig: Rig) -> None:
        need_outliving(rig)
        first = rig.task(instance=0)
        points = Victim(rig).passes(lambda executor: rig.start(executor, first))
        assert len(points) > 1, f"none of its code was seen to run: {points}"
        self.one_then_none(rig, first, "when it was not killed at all")
        for number, point in enumerate(chosen(points, self.kills), 1):
            task = rig.task(instance=number)
            Victim(rig).dies(lambda executor, task=task: rig.start(executor, task), point)  # type: ignore[misc]
            self.one_then_none(rig, task, told(point))

    def test_killed_at_any_step_of_a_stop_the_next_one_ends_it(self, rig: Rig) -> None:
        need_outliving(rig)
        stubborn = "trap '' TERM INT HUP; while :; do sleep 1; done"  # so that it has to be ended by force as well
        spec = self.sample.script(stubborn) if self.sample.script else None

        def prepared(number: int) -> tuple[Task, Handle]:
            executor = rig.executor()
            task = rig.task(spec, number)
            handle = rig.start(executor, task)
            executor.close()
            return task, handle

        _, handle = prepared(0)
        points = Victim(rig).passes(lambda executor: executor.stop(handle, 0.2))
        for number, point in enumerate(chosen(points, self.kills), 1):
            task, handle = prepared(number)
            Victim(rig).dies(lambda executor, handle=handle: executor.stop(handle, 0.2), point)  # type: ignore[misc]
            self.stopped(rig, task, handle, told(point))

    def test_killed_at_moments_that_are_drawn_it_is_the_same(self, rig: Rig) -> None:
        """What an engine does meanwhile shows in no line of the executor."""
        need_outliving(rig)
        begun = time.monotonic()
        handle = Victim(rig).does(lambda executor: rig.start(executor, rig.task()))
        assert isinstance(handle, Handle), handle
        took = time.monotonic() - begun
        rig.executor().stop(handle, 0)
        draw = random.Random(1)  # noqa: S311  a seed, so that it is the same ones again
        for number in range(1, DRAWN + 1):
            task, seconds = rig.task(instance=number), draw.uniform(0, took)
            Victim(rig).dies_after(lambda executor, task=task: rig.start(executor, task), seconds)  # type: ignore[misc]
            self.one_then_none(rig, task, f"killed after {seconds:.4f} s")

    def test_a_start_whose_answer_is_lost_has_started_it_once(self, rig: Rig, executor: Any) -> None:
        if self.sample.lost_answers is None:
            pytest.skip("the sample has no `lost_answers`")
        task = rig.task()
        with self.sample.lost_answers():
            try:
                rig.start(rig.executor(), task)
            except Exception as error:  # noqa: BLE001  Guarded looks at what it is
                assert type(error).__name__ != "AssertionError", error
        self.one_then_none(rig, task, "the answer was lost")

    def one_then_none(self, rig: Rig, task: Task, situation: str) -> None:
        """What the next agent does, and finds."""
        executor, later = rig.executor(), rig.executor()
        found = rig.recovered(executor, task)
        assert len(found) <= 1, f"{situation}: it is found twice: {found}"
        running = [handle for handle, seen in found.items() if seen.state is State.RUNNING]
        handle = rig.start(executor, task)
        assert not running or handle == running[0], f"{situation}: it ran, and was started once more"
        now = {one: seen.state for one, seen in rig.recovered(executor, task).items()}
        assert now == {handle: State.RUNNING}, f"{situation}, and started again: {now}"
        rig.once(f"{situation}, and started again")
        executor.stop(handle, 0)
        assert rig.recovered(executor, task) == {}, f"{situation}, started again and stopped: it is found still"
        assert rig.recovered(later, task) == {}, f"{situation}, and stopped: the next one finds it still"
        for one in (executor, later):
            one.close()
        rig.nothing_left(f"{situation}, started again and stopped")

    def stopped(self, rig: Rig, task: Task, handle: Handle, situation: str) -> None:
        """The next agent stops it as well, since nobody told it that it is stopped."""
        executor = rig.executor()
        found = rig.recovered(executor, task)
        assert set(found) <= {handle}, f"{situation}: {found} is found, which is not {handle}"
        executor.stop(handle, 0)
        assert rig.seen(executor, handle).state is State.ABSENT, situation
        assert rig.recovered(executor, task) == {}, f"{situation}, and stopped again: it is found still"
        rig.nothing_left(f"{situation}, and stopped again")
        executor.close()
