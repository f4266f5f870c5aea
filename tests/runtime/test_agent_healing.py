"""What an agent does about what died, hangs or came to nothing: bounded, looked at first, and alone with it."""

from __future__ import annotations

from runtime.solo import HOST, Solo
from sked_core.testing.builders import a_task


class TestAlone:
    def test_an_agent_runs_from_one_thread_on_a_clock_and_a_machine_of_the_tests_own(self, solo: Solo) -> None:
        task, taken = a_task(HOST, 0), a_task(HOST, 1, port=20001)
        solo.machine.taken = frozenset({20001})
        solo.issue(task, taken)
        assert solo.engine.starts == []
        solo.settle()
        solo.settle()
        assert solo.engine.running() == [task.id]
        solo.settle()
        assert (solo.mine(taken) or {})["reject_reason"] == "port 20001 is taken on this host (a stranger)"
        assert (solo.raw("config/hosts/h1") or {})["ports"] == [20001]
        solo.withdraw(task)
        solo.settle()
        solo.settle()
        assert (solo.engine.running(), solo.mine(task)) == ([], None)

    def test_a_killed_agent_lets_the_next_one_have_its_folder(self, solo: Solo) -> None:
        task = a_task(HOST, 0)
        solo.issue(task)
        solo.settle()
        solo.settle()
        solo.crash()
        solo.pass_time(60)
        assert (solo.engine.running(), solo.engine.starts) == ([task.id], [task.id])
