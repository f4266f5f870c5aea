"""The ``bash`` executor; its code is loaded once somebody needs it."""

from collections.abc import Callable, Mapping

from sked_core.plugin import Executor, ExecutorContext, hookimpl


def bash(context: ExecutorContext) -> Executor:
    """An executor for plain processes."""
    from sked_bash.executor import BashExecutor

    return BashExecutor(context)


@hookimpl
def sked_executors() -> Mapping[str, Callable[[ExecutorContext], Executor]]:
    return {"bash": bash}
