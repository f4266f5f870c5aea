"""The ``bash`` executor; its code is loaded once somebody needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sked_core.plugin import Executor, ExecutorContext, hookimpl

if TYPE_CHECKING:
    from sked_core.testing.samples import Sample


def bash(context: ExecutorContext) -> Executor:
    """An executor for plain processes."""
    from sked_bash.executor import BashExecutor

    return BashExecutor(context)


@hookimpl
def sked_executors() -> Mapping[str, Callable[[ExecutorContext], Executor]]:
    return {"bash": bash}


@hookimpl
def sked_samples() -> Sequence[Sample]:
    from sked_bash.samples import bash_sample

    return [bash_sample()]
