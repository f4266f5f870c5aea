"""What an agent has checked is what runs, never what a record says that nobody has started."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from runtime.solo import HOST, Solo
from sked_core.errors import ExecutorError
from sked_core.interfaces.executor import Handle
from sked_core.model.types import Check, Task
from sked_core.testing.builders import a_container, a_definition, a_task
from sked_core.testing.fakes import FakeExecutor

TASK = a_task(HOST, 0)
OTHER = a_definition(containers=[a_container(checks=[Check(http="http://127.0.0.1:1/")])])


def lose_notes(solo: Solo) -> None:
    """The agent is killed, and what it kept of its tasks is lost."""
    for file in (solo.folder / "state" / "notes").iterdir():
        file.unlink()
    solo.crash()


def go_on(solo: Solo) -> None:
    solo.crash()


@pytest.mark.parametrize(
    "begin_anew", [lambda solo: None, go_on, lose_notes], ids=["agent lives", "new one", "no notes"]
)
def test_while_what_runs_cannot_be_stopped_no_check_of_its_new_record_is_made(
    solo: Solo, begin_anew: Callable[[Solo], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    solo.issue(TASK)
    solo.pass_time(2)
    assert solo.health.tasks[TASK.id].task_definition == TASK.task_definition
    registered: list[Task] = []
    honest = solo.health.register
    monkeypatch.setattr(solo.health, "register", lambda task: (registered.append(task), honest(task))[1])

    def fails(self: FakeExecutor, handle: Handle, grace: float) -> None:
        raise ExecutorError("the engine is busy")

    with monkeypatch.context() as patched:
        patched.setattr(FakeExecutor, "stop", fails)
        solo.issue(replace(TASK, task_definition=OTHER))
        begin_anew(solo)
        solo.pass_time(60)
        assert [one for one in registered if one.task_definition == OTHER] == []
    solo.pass_time(60)
    assert solo.health.tasks[TASK.id].task_definition == OTHER
