"""Starting and stopping: as often as one likes, from anywhere, with the same outcome."""

from __future__ import annotations

import copy
import os
import signal
import time
from functools import partial
from typing import Any

import pytest

from sked_core.errors import ExecutorError, Rejected
from sked_core.interfaces.executor import Handle, State
from sked_core.model.codec import digest
from sked_core.model.types import TaskId
from sked_core.testing.executor_contract.base import CONTAINER, KitBase, Rig, need, together


class StartTests(KitBase):
    """What ``start``, ``stop`` and ``inspect`` promise."""

    def test_what_is_started_runs_and_what_is_stopped_is_gone(self, rig: Rig, executor: Any) -> None:
        handle = rig.start(executor, rig.task())
        assert rig.seen(executor, handle).state is State.RUNNING
        rig.once("after a start")
        executor.stop(handle, 1.0)
        rig.nothing_left("after a stop")
        assert rig.seen(executor, handle).state is State.ABSENT
        assert executor.recover() == {}

    def test_a_handle_says_of_what_it_is(self, rig: Rig, executor: Any) -> None:
        task = rig.task()
        handle = rig.start(executor, task)
        assert (handle.task_id, handle.container) == (task.id, CONTAINER)
        assert handle.digest == digest(task), "the digest is that of the task, by sked_core.plugin.digest"
        assert handle.ref, "the ref is empty"
        assert isinstance(handle.ref, str)

    def test_starting_again_gives_the_one_that_runs(self, rig: Rig, executor: Any) -> None:
        task = rig.task()
        handle = rig.start(executor, task)
        assert rig.start(executor, task) == handle
        assert rig.start(executor, rig.task(tags=["changed"])) == handle, "it runs already, from the task as it was"
        assert dict(rig.recovered(executor, task)) == {handle: rig.seen(executor, handle)}
        rig.once("after three starts")

    def test_another_instance_of_the_executor_gives_the_one_that_runs(self, rig: Rig, executor: Any) -> None:
        task = rig.task()
        handle = rig.start(executor, task)
        assert rig.start(rig.executor(), task) == handle
        rig.once("after a start by each of two instances")

    def test_threads_that_start_one_task_at_once_start_it_once(self, rig: Rig, executor: Any) -> None:
        """Five times: threads that don't see one another need not meet the first time."""
        task = rig.task()
        for _ in range(5):
            started = together(*[lambda: rig.start(executor, task)] * 8)
            assert len({repr(one) for one in started}) == 1, f"they got different answers: {started}"
            assert list(rig.recovered(rig.executor(), task)) == started[:1]
            rig.once("after eight starts at once")
            executor.stop(started[0], 0)

    def test_two_instances_that_start_one_task_at_once_start_it_once(self, rig: Rig, executor: Any) -> None:
        """As an agent may meet the one before, which is about to end. One of the two may have to try again."""
        task = rig.task()
        together(lambda: rig.start(executor, task), lambda: rig.start(rig.executor(), task))
        last = rig.executor()
        handle = rig.start(last, task)
        assert list(rig.recovered(last, task)) == [handle]
        rig.once("after a start by each of two instances at once")

    def test_stopping_again_or_what_is_unknown_is_fine(self, rig: Rig, executor: Any) -> None:
        handle = rig.start(executor, rig.task())
        other = rig.start(executor, rig.task(instance=1))
        for _ in range(3):
            executor.stop(handle, 0)
        rig.executor().stop(handle, 0)
        for unknown in (
            Handle(TaskId(f"{rig.token}-s-1-9"), CONTAINER, handle.ref, handle.digest),
            Handle(other.task_id, CONTAINER, "unknown", other.digest),
            Handle(other.task_id, "other", "unknown", other.digest),
        ):
            executor.stop(unknown, 0)
            assert executor.inspect([unknown]) == {unknown: rig.seen(executor, handle)}
        assert rig.seen(executor, other).state is State.RUNNING, "stopping others stopped this one"

    def test_threads_that_stop_one_at_once_all_return_once_it_is_gone(self, rig: Rig, executor: Any) -> None:
        handle = rig.start(executor, rig.task())
        answers = together(*[lambda: executor.stop(handle, 1.0)] * 4)
        assert answers == [None] * 4
        assert rig.seen(executor, handle).state is State.ABSENT
        rig.nothing_left("after four stops at once")

    def test_a_new_one_has_a_ref_of_its_own_which_the_old_handle_can_not_stop(self, rig: Rig, executor: Any) -> None:
        task = rig.task()
        old = rig.start(executor, task)
        executor.stop(old, 0)
        new = rig.start(executor, task)
        assert new.ref != old.ref
        for one in (executor, rig.executor()):
            one.stop(old, 0)
            states = {handle: seen.state for handle, seen in one.inspect([old, new]).items()}
            assert states == {old: State.ABSENT, new: State.RUNNING}
        rig.once("after a stop with the handle of the one before")

    def test_containers_and_tasks_are_told_apart(self, rig: Rig, executor: Any) -> None:
        handles = [rig.start(executor, rig.task(instance=number)) for number in range(3)]
        assert len({handle.ref for handle in handles}) == 3
        executor.stop(handles[1], 0)
        assert set(executor.recover()) == {handles[0], handles[2]}
        states = [seen.state for seen in executor.inspect(handles).values()]
        assert states == [State.RUNNING, State.ABSENT, State.RUNNING]

    def test_all_that_was_asked_is_told_and_nothing_is_nothing(self, rig: Rig, executor: Any) -> None:
        handle = rig.start(executor, rig.task())
        assert executor.inspect([]) == {}
        assert set(executor.inspect(iter([handle, handle]))) == {handle}

    def test_what_it_is_given_stays_as_it_was(self, rig: Rig, executor: Any) -> None:
        task = rig.task()
        container = task.task_definition.containers[0]
        env = {**rig.env(), "OTHER": "x"}
        before = copy.deepcopy((container.executor, env))
        executor.start(task, container, env)
        assert (container.executor, env) == before, "start changed its arguments"

    def test_what_no_host_can_start_is_an_error_and_leaves_nothing(self, rig: Rig, executor: Any) -> None:
        need(self.sample, "unstartable")
        assert not [one for one in executor.validate(self.sample.unstartable) if not one.warning]
        for _ in range(2):
            with pytest.raises((Rejected, ExecutorError)):
                rig.start(executor, rig.task(self.sample.unstartable))
            assert executor.recover() == {}
            rig.nothing_left("after a start that failed")

    def test_a_dead_one_is_replaced_with_all_that_it_left_running(self, rig: Rig, executor: Any) -> None:
        task = rig.task(rig.script("sleep 1000 & exit 3"))
        dead = rig.start(executor, task)
        rig.until(lambda: rig.seen(executor, dead).state is not State.RUNNING or rig.seen(executor, dead).exit_code, "")
        new = rig.start(executor, rig.task())
        assert new.ref != dead.ref
        states = {handle: seen.state for handle, seen in executor.inspect([dead, new]).items()}
        assert states == {dead: State.ABSENT, new: State.RUNNING}
        assert list(rig.recovered(rig.executor(), task)) == [new]
        rig.once("after a start in place of one that had ended")

    def test_nothing_that_it_started_runs_on_after_a_stop(self, rig: Rig, executor: Any) -> None:
        """Neither what does not react to being asked, nor what went away from its parent."""
        deaf, apart = f"{rig.token}=deaf", f"{rig.token}=apart"
        script = (
            f"(trap '' TERM INT HUP; while :; do env {deaf} sleep 1; done) & setsid env {apart} sleep 1000 &"
            " (sleep 1000 &) ; sleep 1000"
        )
        handle = rig.shell(executor, script)
        if rig.visible(executor, handle):  # asked before that, they would all end
            for one in (deaf, apart):
                rig.until(partial(rig.processes, one.encode()), "a child that does not react to being asked")
        executor.stop(handle, 1.0)
        assert rig.seen(executor, handle).state is State.ABSENT
        rig.nothing_left("after a stop")

    def test_it_is_asked_first_and_not_waited_for_once_it_has_ended(self, rig: Rig, executor: Any) -> None:
        """What is asked turns into a process that this test can see, and then ends."""
        asked, ready = f"{rig.token}=asked", f"{rig.token}=ready"
        script = f"trap 'exec env {asked} sleep 1000' TERM; export {ready}; while :; do sleep 0.1; done"
        handle = rig.shell(executor, script)
        if not rig.visible(executor, handle):
            pytest.skip("the processes of containers can't be looked at from here")
        rig.until(lambda: rig.processes(ready.encode()), "the shell has set its trap")

        def let_go() -> bool:
            """Ended politely: it was asked. What is ended by force is never seen so."""
            pids = rig.processes(asked.encode())
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            return bool(pids)

        begun = time.monotonic()
        stopped, seen = together(
            lambda: executor.stop(handle, 2 * self.patience),
            lambda: rig.until(let_go, "a container that is stopped is asked to end first (SIGTERM)"),
        )
        assert seen is True, f"{seen}; the stop gave {stopped!r}"
        assert time.monotonic() - begun < 1.5 * self.patience, "it was waited for after it had ended"
        rig.nothing_left("after a stop")
