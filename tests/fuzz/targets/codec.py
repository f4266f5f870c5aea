"""Records of the store: every kind of object out of any bytes, and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from fuzz.examples import records
from fuzz.mutating import mutated
from sked_core.client.looking.linting import KINDS, lint
from sked_core.errors import InvalidValue
from sked_core.interfaces.store import Entry, Revision
from sked_core.logic.lifecycle import shutdown_delay
from sked_core.model import codec, duration, keys
from sked_core.model.environment import task_environment, with_port
from sked_core.model.manifest import StoredConfig
from sked_core.model.spec import check_spec, plain
from sked_core.model.types import Task, TaskDefinition
from sked_core.runtime.scheduling.task_records import TaskRecords

MAX_BYTES = 8192
_ALL = {kind.of for kind in KINDS.values() if kind.of is not None}
_TASK = "default-web-1-0"


def seeds() -> Iterator[bytes]:
    """An object of every kind."""
    return records()


def mutate(data: bytes, seed: int) -> bytes:
    return mutated(data, seed)


def judge(data: bytes) -> None:
    """Raises AssertionError where something decodes to what can't be written again, a message could drive a terminal,
    or readers of the store do not agree; anything but SkedError escapes."""
    for kind in _ALL:
        try:
            value = codec.decode(data, kind)
        except InvalidValue as error:
            _one_line(error)
        else:
            _survives(value, kind)
            if isinstance(value, Task):
                _as_a_task(value, data)
            elif isinstance(value, TaskDefinition):
                _as_a_definition(value)
    for prefix in KINDS:
        _stored(prefix, data)
    try:
        _one_line(codec.patch(data, scheduled=False).decode())
    except InvalidValue as error:
        _one_line(error)


def _survives(value: Any, kind: Any) -> None:
    try:
        written = codec.encode(value)
    except InvalidValue as error:  # larger than what may be written
        return _one_line(error)
    again = codec.decode(written, kind)
    assert codec.encode(again) == written
    assert again == value
    if isinstance(value, msgspec.Struct):
        for problem in check_spec(msgspec.json.decode(written), kind):
            _one_line(problem)
    return None


def _as_a_task(task: Task, data: bytes) -> None:
    """What an agent and a scheduler make of it, who read the very same bytes by different ways."""
    digest = codec.digest(task)
    assert len(digest) == 16 and digest == codec.digest(msgspec.structs.replace(task))
    assert all("\0" not in value for value in task_environment(task).values())
    for work in (shutdown_delay, lambda one: duration.to_seconds(one.task_definition.grace_period)):
        try:
            assert 0 <= work(task) < 10**9
        except InvalidValue as error:
            _one_line(error)
    assert task.task_definition.total_memory >= 0
    records, entry = TaskRecords(), Entry(data, Revision(1))
    key = keys.TASKS + task.id
    records.take({key: entry})
    if key in records.objects:
        assert records.objects[key].task == task
    else:
        _one_line(records.faults[key])
        raise AssertionError(f"an agent takes it, a scheduler does not: {records.faults[key]}")


def _as_a_definition(definition: TaskDefinition) -> None:
    for container in definition.containers:
        for check in container.checks or ():
            for text in (check.http, check.tcp, check.script):
                with_port(text, 80)


def _stored(prefix: str, data: bytes) -> None:
    """It stands under a key of its kind, and among others."""
    key = prefix + {2: "web/1", 1: _TASK}.get(KINDS[prefix].parts, "web")
    good = Entry(codec.encode({"name": "web", "services": []}), Revision(1))
    for finding in lint({key: Entry(data, Revision(1)), keys.cluster("good"): good}):
        _one_line(plain(finding.what))
        _one_line(finding.remedy)
    found = StoredConfig.from_values({key: data})
    for fault in found.broken.values():
        _one_line(fault)


def _one_line(text: object) -> None:
    text = str(text)
    assert len(text) < 2_000_000
    if not isinstance(text, str) or len(text) > 1500:
        return
    assert "\n" not in text and "\x1b" not in text, text
