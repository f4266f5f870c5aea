"""What the programs of this host are offered as. Their folder is listed, and none of them is started."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from sked_bridge.programs import Program, found, problems
from sked_core.plugin import Executor, ExecutorContext, Scheduler, SecretContext, SecretProvider, hookimpl

if TYPE_CHECKING:
    from sked_core.testing.samples import Sample


@hookimpl
def sked_executors() -> Mapping[str, Callable[[ExecutorContext], Executor]]:
    return {program.name: partial(_executor, program) for program in found("executor")}


@hookimpl
def sked_schedulers() -> Mapping[str, Callable[[], Scheduler]]:
    return {program.name: partial(_scheduler, program) for program in found("scheduler")}


@hookimpl
def sked_secrets() -> Mapping[str, Callable[[SecretContext], SecretProvider]]:
    return {program.name: partial(_secrets, program) for program in found("secrets")}


@hookimpl
def sked_problems() -> Sequence[str]:
    return problems()


@hookimpl
def sked_samples() -> "Sequence[Sample]":
    from sked_bridge.samples import samples

    return samples(found("executor"), found("scheduler"))


def _executor(program: Program, context: ExecutorContext) -> Executor:
    from sked_bridge.executor import BridgedExecutor

    return BridgedExecutor(program, context)


def _scheduler(program: Program) -> Scheduler:
    from sked_bridge.scheduler import BridgedScheduler

    return BridgedScheduler(program)


def _secrets(program: Program, context: SecretContext) -> SecretProvider:
    from sked_bridge.secrets import BridgedSecrets

    return BridgedSecrets(program, context)
