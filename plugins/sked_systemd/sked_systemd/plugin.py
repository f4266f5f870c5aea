"""What this package offers."""

from collections.abc import Callable, Mapping

from sked_core.plugin import Executor, ExecutorContext, hookimpl


def _executor(context: ExecutorContext) -> Executor:
    from sked_systemd.executor import SystemdExecutor

    return SystemdExecutor(context)


@hookimpl
def sked_executors() -> Mapping[str, Callable[[ExecutorContext], Executor]]:
    return {"systemd": _executor}
