"""Conduct: what an executor does to the process that it is in, and what it says when it can't know."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from sked_core.errors import ExecutorError, Rejected
from sked_core.interfaces.executor import ExecRequest, Handle, LogQuery, State, Stop
from sked_core.testing.executor_contract.base import KitBase, Rig, capabilities, need


class ConductTests(KitBase):
    """Threads, files, output, folders, and engines that hang."""

    def test_what_it_offers_is_told(self, executor: Any, record_property: Callable[[str, object], None]) -> None:
        """For reports: what is not offered or not in the sample is skipped elsewhere."""
        for name, there in capabilities(self.sample).items():
            record_property(name, there)
        for name in ("validate", "ports", "start", "stop", "inspect", "recover", "watch", "close"):
            assert callable(getattr(executor.inner, name, None)), f"there is no {name}"

    def test_attributes_are_texts(self, executor: Any) -> None:
        need(self.sample, "attributes")
        found = executor.attributes()
        assert all(isinstance(one, str) for pair in found.items() for one in pair), found
        assert executor.attributes() == found

    def test_no_thread_and_no_file_is_left_when_it_is_closed(self, rig: Rig) -> None:
        def life(number: int) -> None:
            executor = rig.executor()
            executor.watch(lambda: None)
            handle = rig.start(executor, rig.task(instance=number))
            executor.inspect([handle])
            executor.recover()
            if hasattr(executor, "tail"):
                executor.tail(handle, 3)
            executor.stop(handle, 0)
            executor.close()
            executor.close()

        life(0)  # what is opened once for all is not counted
        before, files = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        for number in range(1, 6):
            life(number)
        rig.until(
            lambda: not [one for one in threading.enumerate() if one not in before],
            f"its threads end with it, of which there are {set(threading.enumerate()) - before}",
        )
        rig.until(lambda: len(os.listdir("/proc/self/fd")) < files + 5, "its files and connections are closed with it")  # noqa: PTH208

    def test_closed_it_leaves_its_containers_running(self, rig: Rig, executor: Any) -> None:
        handle = rig.start(executor, rig.task())
        executor.close()
        executor.close()
        assert rig.seen(rig.executor(), handle).state is State.RUNNING

    def test_watching_returns_at_once(self, rig: Rig, executor: Any) -> None:
        (answer,) = self.soon(lambda: executor.watch(lambda: None))
        assert answer is None

    def test_nothing_is_written_to_stdout(self, rig: Rig, capfd: pytest.CaptureFixture[str]) -> None:
        """It is for what commands print: `-o json` would be no JSON any more."""
        capfd.readouterr()
        executor = rig.executor()
        executor.validate(self.sample.stays)
        for spec in [{}, *self.sample.wrong]:
            executor.validate(spec)
        executor.ports(self.sample.stays, 20000)
        executor.watch(lambda: None)
        task = rig.task(self.sample.script("echo from-the-container; sleep 1000") if self.sample.script else None)
        handle = rig.start(executor, task)
        rig.start(executor, task)
        executor.inspect([handle])
        executor.recover()
        if hasattr(executor, "tail"):
            executor.tail(handle, 3)
        executor.stop(handle, 0)
        executor.stop(handle, 0)
        executor.close()
        assert capfd.readouterr().out == ""

    def test_a_folder_that_is_not_there_yet_is_made(self, rig: Rig) -> None:
        executor = rig.executor(folder=rig.folder / "not" / "there" / "yet")
        assert executor.recover() == {}
        handle = rig.start(executor, rig.task())
        assert list(executor.recover()) == [handle]
        executor.stop(handle, 0)
        rig.nothing_left("after a stop")

    def test_where_its_folder_can_not_be_written_it_says_so_or_goes_without(self, rig: Rig) -> None:
        (rig.folder / "file").write_text("in the way")
        executor = rig.executor(folder=rig.folder / "file" / "state")
        assert executor.validate(self.sample.stays) == executor.validate(self.sample.stays)
        for call in (executor.recover, lambda: rig.start(executor, rig.task())):
            try:
                found = call()
            except (Rejected, ExecutorError) as error:
                assert str(error)
                continue
            if isinstance(found, Handle):
                assert list(executor.recover()) == [found]
                executor.stop(found, 0)
        rig.nothing_left("after a start without a folder")

    def test_an_engine_that_hangs_is_an_error_soon_and_never_an_absence(self, rig: Rig, executor: Any) -> None:
        if self.sample.hung_engine is None:
            pytest.skip("the sample has no `hung_engine`")
        task = rig.task()
        handle = rig.start(executor, task)
        other = rig.task(instance=1)
        with self.sample.hung_engine():
            fresh = rig.executor()
            calls: list[Callable[[], object]] = []
            for one in (executor, fresh):
                calls += [
                    lambda one=one: one.inspect([handle]),  # type: ignore[misc]
                    lambda one=one: one.stop(handle, 0),  # type: ignore[misc]
                    lambda one=one: one.recover(),  # type: ignore[misc]
                    lambda one=one: rig.start(one, other),  # type: ignore[misc]
                ]
            tails = [partial(one.tail, handle, 3) for one in (executor, fresh) if hasattr(one, "tail")]
            answers = self.soon(*calls, *tails)  # what a container wrote may be known without the engine
            closing = self.soon(fresh.close)
        for answer in answers[: len(calls)]:
            assert isinstance(answer, (Rejected, ExecutorError)), f"of an engine that hangs is told {answer!r:.300}"
        assert closing == [None]
        later = rig.executor()
        for one in (task, other):
            rig.until(partial(self.settled, rig, later, one), "it goes on once the engine answers again")

    def settled(self, rig: Rig, executor: Any, task: Any) -> bool:
        """Whether the executor gets on with what came of a time without an engine."""
        try:
            handle = rig.start(executor, task)
            assert list(rig.recovered(executor, task)) == [handle]
            executor.stop(handle, 0)
            return not rig.recovered(executor, task)
        except ExecutorError:
            return False

    def test_logs_and_commands_of_a_hung_engine_are_errors_too(self, rig: Rig, executor: Any) -> None:
        need(self.sample, "hung_engine", "logs", "exec")
        assert self.sample.hung_engine is not None
        handle = rig.start(executor, rig.task())
        with self.sample.hung_engine():
            answers = self.soon(
                lambda: list(executor.inner.logs(handle, LogQuery(), Stop())),
                lambda: executor.exec(handle, ExecRequest(("true",))),
            )
        assert all(isinstance(answer, ExecutorError) for answer in answers), answers

    def soon(self, *calls: Callable[[], object]) -> list[object]:
        """What each of ``calls`` returned or raised, all of them at once and within ``patience``."""
        answers: list[object] = [None] * len(calls)

        def ask(number: int) -> None:
            try:
                answers[number] = calls[number]()
            except Exception as error:  # noqa: BLE001  looked at by the test
                answers[number] = error

        threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(len(calls))]
        deadline = time.monotonic() + self.patience
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            assert not thread.is_alive(), f"a call has not ended within {self.patience:g} s"
        return answers
