"""What `sked plugins check` tries programs with: files beside them, ``executor-NAME.json``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from sked_bridge.executor import BridgedExecutor
from sked_bridge.programs import Program
from sked_bridge.scheduler import BridgedScheduler
from sked_core.plugin import PluginError, decode, open_trusted
from sked_core.testing.samples import ExecutorSample, Sample, SchedulerSample

Spec = dict[str, Any]
UNSEEN = "it is a program of its own"


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of an ExecutorSample. In ``script`` the text ``$SCRIPT``, and in ``listens`` ``$PORT``, stands for
    what is to be filled in."""

    stays: Spec
    wrong: list[Spec] = []
    script: Spec | None = None
    unstartable: Spec | None = None
    listens: Spec | None = None


def samples(executors: Sequence[Program], schedulers: Sequence[Program]) -> list[Sample]:
    """One for each scheduler, and for each executor with a file."""
    found: list[Sample] = [*map(scheduler_sample, schedulers)]
    return found + [executor_sample(one) for one in executors if one.path.with_suffix(".json").exists()]


def scheduler_sample(program: Program) -> SchedulerSample:
    """It is tried as it is asked."""
    make = partial(BridgedScheduler, program)
    return SchedulerSample(name=program.name, make=make, unseen=UNSEEN)


def executor_sample(program: Program) -> ExecutorSample:
    """The sample in the file beside the program. Raises PluginError, or InvalidValue for what can't be one."""
    path = program.path.with_suffix(".json")
    try:
        with os.fdopen(open_trusted(path), "rb") as stream:
            file = decode(stream.read(), _File)
    except OSError as error:
        raise PluginError(f"{path}: {error.strerror}") from None
    return ExecutorSample(
        type=program.name,
        make=partial(BridgedExecutor, program),
        stays=file.stays,
        wrong=file.wrong,
        script=_filled(file.script, "$SCRIPT"),
        unstartable=file.unstartable,
        listens=_filled(file.listens, "$PORT"),
        unseen=UNSEEN,
    )


def _filled(spec: Spec | None, mark: str) -> Callable[[Any], Spec] | None:
    return None if spec is None else lambda value: _replaced(spec, mark, value)


def _replaced(one: Any, mark: str, value: Any) -> Any:
    """``one`` with ``value`` for each text that is the mark, and as text within others."""
    if isinstance(one, dict):
        return {name: _replaced(inner, mark, value) for name, inner in one.items()}
    if isinstance(one, list):
        return [_replaced(inner, mark, value) for inner in one]
    if one == mark:
        return value
    return one.replace(mark, str(value)) if isinstance(one, str) else one
