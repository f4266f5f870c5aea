"""From what a manifest says to what is stored: defaults filled in, durations in one form, bounds derived."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from sked_core.errors import Problem
from sked_core.model.duration import to_nanoseconds, to_text
from sked_core.model.spec import without_passwords
from sked_core.model.types import Check, Container, Service, TaskDefinition

MAX_SHOWN_DIFFERENCES = 5
MAX_SHOWN_TEXT = 80


def derived_bounds(desired: int) -> tuple[int, int]:
    """``min`` and ``max`` of a service whose manifest names neither: room for a quarter more, at least for one."""
    return desired, desired + max(1, -(-desired // 4))


def resolve_service(value: Mapping[str, Any], stored: Service | None) -> tuple[Mapping[str, Any], list[Problem]]:
    """The service of a manifest with ``desired``, ``min``, ``max`` and ``auto_bounds`` filled in, and what is wrong
    with its bounds. ``stored``: the service as it was applied before. Counts of a wrong type are left alone.

    Bounds follow ``desired`` only where the manifest names neither of them: naming one pins the other as well.
    """
    kept = "desired" not in value and stored is not None
    desired = stored.desired if kept and stored else _count(value, "desired", default=1)
    if desired is None:
        return value, []
    origin = f"the current count of {desired}" if kept else f"desired, which is {desired}"
    derived = dict(zip(("min", "max"), derived_bounds(desired), strict=True))
    low = _count(value, "min", default=desired)
    high = _count(value, "max", default=derived["max"])
    auto = value.get("auto_bounds") is True or not ("min" in value or "max" in value)
    problems = []
    if auto:
        for name, given in (("min", low), ("max", high)):
            if given is not None and given != derived[name]:
                message = f"with auto_bounds it follows desired and would be {derived[name]}; leave one of them out"
                problems.append(Problem(name, message))
    else:
        if low is not None and low > desired:
            problems.append(Problem("min", f"expected no more than {origin}, got {low}"))
        if high is not None and high < desired:
            problems.append(Problem("max", f"expected no less than {origin}, got {high}"))
    return {**value, "desired": desired, "min": low, "max": high, "auto_bounds": auto}, problems


def normalise(definition: TaskDefinition) -> TaskDefinition:
    """The form in which a task definition is stored and compared. Its durations must be valid.

    ``grace_period`` and ``shutdown_delay`` in nanoseconds, the durations of checks as the shortest text, lists instead
    of null but for ``setup``, where null says that there is nothing to run.
    """
    return replace(
        definition,
        grace_period=to_nanoseconds(definition.grace_period),
        shutdown_delay=UNSET if definition.shutdown_delay is UNSET else to_nanoseconds(definition.shutdown_delay),
        tags=definition.tags or [],
        containers=[_container(container) for container in definition.containers],
    )


def same(one: TaskDefinition, other: TaskDefinition) -> bool:
    """Whether two normalised task definitions have the same content (``1`` and ``true`` differ)."""
    return msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted")


def differences(old: TaskDefinition, new: TaskDefinition) -> str:
    """What changed between two normalised task definitions, field by field in one line."""
    fields = changed_fields(msgspec.to_builtins(old), msgspec.to_builtins(new))
    changed = [f"{path}: {short(before) or 'absent'} -> {short(after) or 'absent'}" for path, before, after in fields]
    more = len(changed) - MAX_SHOWN_DIFFERENCES
    return "; ".join(changed[:MAX_SHOWN_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")


def changed_fields(old: object, new: object) -> list[tuple[str, str, str]]:
    """Where two pieces of plain data differ: the path (``containers[0].executor.image``), and the JSON of what stands
    there in each, ``""`` for nothing."""
    before, after = dict(_flat(old, "")), dict(_flat(new, ""))
    paths = dict.fromkeys([*before, *after])
    return [(p, before.get(p, ""), after.get(p, "")) for p in paths if p and before.get(p) != after.get(p)]


def short(text: str) -> str:
    """``text``, cut where it is too long for a line, and without passwords of URLs."""
    text = without_passwords(text)
    return text if len(text) <= MAX_SHOWN_TEXT else text[:MAX_SHOWN_TEXT] + "…"


def _container(container: Container) -> Container:
    return replace(
        container,
        setup=container.setup or None,
        checks=[_check(check) for check in container.checks or []],
    )


def _check(check: Check) -> Check:
    return replace(check, interval=_text(check.interval), timeout=_text(check.timeout), ttl=_text(check.ttl))


def _text(duration: str | int) -> str:
    return "" if duration == "" else to_text(to_nanoseconds(duration))


def _count(value: Mapping[str, Any], name: str, *, default: int) -> int | None:
    count = value.get(name, default)
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None


def _flat(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _flat(inner, f"{path}[{index}]")
    else:
        yield path, msgspec.json.encode(value).decode()
