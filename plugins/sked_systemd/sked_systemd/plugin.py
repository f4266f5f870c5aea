"""What this package offers."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sked_core.plugin import Executor, ExecutorContext, hookimpl

if TYPE_CHECKING:
    from sked_core.testing.samples import Sample


def _executor(context: ExecutorContext) -> Executor:
    from sked_systemd.executor import SystemdExecutor

    return SystemdExecutor(context)


@hookimpl
def sked_executors() -> Mapping[str, Callable[[ExecutorContext], Executor]]:
    return {"systemd": _executor}


@hookimpl
def sked_samples() -> "Sequence[Sample]":
    from sked_systemd.samples import SYSTEMD

    return [SYSTEMD]
