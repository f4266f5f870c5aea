"""What executors answered, and whether it is an answer at all: what else a plugin gives is a failure of its own, and
must not get any further into an agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sked_core.errors import ExecutorError
from sked_core.interfaces.executor import Handle, Observation, State
from sked_core.model.types import TaskId


def handle_of(answer: Any, kind: str, task_id: TaskId) -> Handle:
    """What a start of ``task_id`` gave. Raises ExecutorError if that is no handle of it."""
    if not _is_handle(answer) or answer.task_id != task_id:
        raise ExecutorError(f"executor {kind} gave {_told(answer)} for a start, not a handle of {task_id}")
    handle: Handle = answer
    return handle


def observations_of(answer: Any, kind: str) -> Mapping[Handle, Observation]:
    """What a look gave. Raises ExecutorError if it tells of anything but handles and what became of them."""
    if not isinstance(answer, Mapping):
        raise ExecutorError(f"executor {kind} gave {_told(answer)} for a look, not a mapping of handles")
    for handle, seen in answer.items():
        if not _is_handle(handle) or not _is_observation(seen):
            raise ExecutorError(f"executor {kind} tells of {_told(handle)} with {_told(seen)}")
    return answer


def _is_handle(answer: Any) -> bool:
    return isinstance(answer, Handle) and all(
        isinstance(one, str) for one in (answer.task_id, answer.container, answer.ref, answer.digest)
    )


def _is_observation(answer: Any) -> bool:
    return isinstance(answer, Observation) and isinstance(answer.state, State) and isinstance(answer.detail, str)


def _told(answer: Any) -> str:
    """Never its value, which may hold what the task was given in secret."""
    return f"an object of type {type(answer).__name__}"
