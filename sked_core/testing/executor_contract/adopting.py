"""Adoption: what runs outlives the agent, is found again by the next one, and by no other."""

from __future__ import annotations

from typing import Any

import pytest

from sked_core.interfaces.executor import Handle, State
from sked_core.testing.executor_contract.base import KitBase, Rig
from sked_core.testing.executor_contract.victims import Victim


class AdoptionTests(KitBase):
    """What ``recover`` promises."""

    def test_where_nothing_was_started_nothing_is_found(self, rig: Rig, executor: Any) -> None:
        assert executor.recover() == {}
        assert not (rig.folder / "state").exists() or not rig.recovered(executor, rig.task())

    def test_the_next_instance_finds_what_runs_and_stops_it(self, rig: Rig, executor: Any) -> None:
        handles = {rig.start(executor, rig.task(instance=number)) for number in range(2)}
        executor.close()
        later = rig.executor()
        assert {handle: seen.state for handle, seen in later.recover().items()} == dict.fromkeys(handles, State.RUNNING)
        for handle in handles:
            later.stop(handle, 0)
        assert later.recover() == {}
        assert rig.executor().recover() == {}
        rig.nothing_left("after stops by the next instance")

    def test_an_instance_that_never_asked_knows_a_handle_as_well(self, rig: Rig, executor: Any) -> None:
        handle = rig.start(executor, rig.task())
        assert rig.seen(rig.executor(), handle).state is State.RUNNING
        rig.executor().stop(handle, 0)
        assert rig.seen(rig.executor(), handle).state is State.ABSENT
        assert rig.seen(executor, handle).state is not State.RUNNING
        rig.nothing_left("after a stop by an instance that never recovered")

    def test_what_one_process_started_is_found_by_the_next(self, rig: Rig) -> None:
        need_outliving(rig)
        task = rig.task()
        handle = Victim(rig).does(lambda executor: rig.start(executor, task))
        assert isinstance(handle, Handle), handle
        again = Victim(rig).does(lambda executor: list(executor.recover()))
        assert again == [handle]
        executor = rig.executor()
        assert {one: seen.state for one, seen in executor.recover().items()} == {handle: State.RUNNING}
        assert rig.start(executor, task) == handle
        rig.once("after starts by two processes")
        executor.stop(handle, 0)
        assert Victim(rig).does(lambda executor: list(executor.recover())) == []
        rig.nothing_left("after a stop by another process than started it")

    @pytest.mark.parametrize("other", ["host", "store"])
    def test_what_others_started_is_neither_seen_nor_stopped(self, rig: Rig, executor: Any, other: str) -> None:
        task = rig.task()
        mine = rig.start(executor, task)
        named: dict[str, Any] = {"host": f"{rig.token}.other"} if other == "host" else {"store": f"{rig.token}-other"}
        folders = [rig.folder / "theirs", None]  # of another agent's folder, or in the same one
        for folder in folders:
            stranger = rig.executor(**named, folder=folder)
            assert stranger.recover() == {}, f"what one {other} started is another one's"
            theirs = rig.start(stranger, task)
            assert theirs.ref != mine.ref, f"start handed out the container of another {other}"
            assert list(stranger.recover()) == [theirs]
            assert list(executor.recover()) == [mine]
            assert list(rig.executor().recover()) == [mine]
            stranger.stop(theirs, 0)
            assert stranger.recover() == {}
            assert rig.seen(executor, mine).state is State.RUNNING, f"another {other} stopped it"

    def test_one_that_has_ended_is_found_as_well(self, rig: Rig, executor: Any) -> None:
        handle = rig.shell(executor, "exit 4")
        assert rig.ended(executor, handle).exit_code == 4
        executor.close()
        later = rig.executor()
        assert {one: seen.state for one, seen in later.recover().items()} == {handle: State.EXITED}
        later.stop(handle, 0)
        assert later.recover() == {}
        rig.nothing_left("after a stop of one that had ended")


def need_outliving(rig: Rig) -> None:
    if not rig.sample.outlives:
        pytest.skip("the sample says that containers end with the process that started them (`outlives`)")
