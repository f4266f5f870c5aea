"""What can be wrong with the ``placement`` of a service, in itself and beside other services."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sked_core.errors import InvalidValue, Problem
from sked_core.model.constraint import (
    HOST,
    Constraint,
    attribute_problem,
    contradiction,
    parse,
    possible_values,
    tag_problem,
)
from sked_core.model.rules import mappings, texts
from sked_core.model.spec import show

NEIGHBOURS = ("near", "apart")


def placement_problems(value: Mapping[str, Any], *, counted: bool) -> Iterator[Problem]:
    """What is wrong with ``placement`` in a service whose counts are filled in; values of wrong types are passed over.

    ``counted``: whether the manifest itself says ``desired``; a count that somebody set since is no contradiction.
    """
    placement = value.get("placement")
    if not isinstance(placement, Mapping):
        return
    required: list[Constraint] = []
    for index, text in texts(placement.get("require")):
        parsed, problems = _parsed(text, f"placement.require[{index}]")
        yield from problems
        required += parsed
        if parsed and (found := contradiction(required)) is not None and found[0] == len(required) - 1:
            yield Problem(f"placement.require[{index}]", f"{show(text)} {found[1]}: no host can satisfy it")
            required.pop()
    yield from _counting_problems(placement, required, value.get("desired"), counted=counted)
    yield from _neighbour_problems(placement, value.get("name"))
    for index, one in mappings(placement.get("prefer")):
        yield from _preference_problems(one, f"placement.prefer[{index}]")
    yield from _spread_problems(placement)


def named_services(placement: object) -> Iterator[tuple[str, str]]:
    """The services that ``placement`` refers to, each with the path of the reference."""
    if isinstance(placement, Mapping):
        for kind in (*NEIGHBOURS, "prefer"):
            for index, one in mappings(placement.get(kind)):
                if isinstance(one.get("service"), str) and one["service"]:
                    yield f"placement.{kind}[{index}].service", one["service"]


def circle_of(service: str, near: Mapping[str, Sequence[str]]) -> list[str]:
    """A way from ``service`` over the services that each wants to be near, back to ``service``; empty if there is
    none. None of a circle can be the first to run."""
    ways, seen = [[service]], {service}
    while ways:
        way = ways.pop()
        for other in near.get(way[-1], ()):
            if other == service:
                return [*way, service]
            if other not in seen:
                seen.add(other)
                ways.append([*way, other])
    return []


def _counting_problems(
    placement: Mapping[str, Any], required: Sequence[Constraint], desired: object, *, counted: bool
) -> Iterator[Problem]:
    limits = [(f"placement.at_most[{index}]", one) for index, one in mappings(placement.get("at_most"))]
    seen: dict[str, str] = {}
    if placement.get("distinct_hosts") is True:
        seen[HOST] = "placement.distinct_hosts"
        yield from _too_many("placement.distinct_hosts", HOST, 1, required, desired, counted=counted)
    for path, one in limits:
        per, count = one.get("per", HOST), one.get("count")
        if not isinstance(per, str):
            continue
        yield from _tag_problems(per, f"{path}.per")
        if per in seen:
            yield Problem(f"{path}.per", f"{show(per)} is limited already, by {seen[per]}")
        elif isinstance(count, int) and count > 0:
            yield from _too_many(f"{path}.count", per, count, required, desired, counted=counted)
        seen.setdefault(per, path)


def _too_many(
    path: str, per: str, count: int, required: Sequence[Constraint], desired: object, *, counted: bool
) -> Iterator[Problem]:
    values = possible_values(required, "host.name" if per == HOST else per)
    if values and isinstance(desired, int) and desired > count * len(values):
        room = count * len(values)
        most = f"{count} per {per} allows {room} task{'s' * (room != 1)} on {', '.join(sorted(values))}"
        yield Problem(path, f"{most}, but {desired} are desired", warning=not counted)


def _neighbour_problems(placement: Mapping[str, Any], own: object) -> Iterator[Problem]:
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    for kind in NEIGHBOURS:
        for index, one in mappings(placement.get(kind)):
            path, service, per = f"placement.{kind}[{index}]", one.get("service"), one.get("per", HOST)
            if not isinstance(service, str) or not isinstance(per, str):
                continue
            yield from _tag_problems(per, f"{path}.per")
            if service == own and kind == "near":
                yield Problem(f"{path}.service", "a service can't be near itself: its first task would have no place")
            elif service == own:
                advice = "distinct_hosts" if per == HOST else f"at_most: [{{count: 1, per: {per}}}]"
                yield Problem(f"{path}.service", f"to keep its own tasks apart write {advice}")
            else:
                # The same host is the same zone as well, so who is near by host can't be apart by anything.
                other = seen.get((service, per)) or (seen.get((service, HOST)) if kind == "apart" else None)
                if other is not None and other[0] != kind:
                    yield Problem(path, f"{service} can't be near and apart at once: {other[1]} says near")
                elif other is not None and (service, per) in seen:
                    yield Problem(path, f"is said already, by {other[1]}", warning=True)
            seen.setdefault((service, per), (kind, path))


def _preference_problems(one: Mapping[str, Any], path: str) -> Iterator[Problem]:
    host, service, per = one.get("host", ""), one.get("service", ""), one.get("per", HOST)
    if bool(host) == bool(service):
        yield Problem(path, f"exactly one of host and service, got {'both' if host else 'none'}")
    if host and isinstance(host, str):
        yield from _parsed(host, f"{path}.host")[1]
        if "per" in one:
            yield Problem(f"{path}.per", "says nothing beside host: only services are counted per tag", warning=True)
    if isinstance(per, str):
        yield from _tag_problems(per, f"{path}.per")
    if one.get("weight") == 0:
        yield Problem(f"{path}.weight", "0 makes no difference: expected 1 to 100, or -1 to -100 to avoid it")


def _spread_problems(placement: Mapping[str, Any]) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for index, one in mappings(placement.get("spread")):
        path, over, shares = f"placement.spread[{index}]", one.get("over"), one.get("shares")
        if isinstance(over, str):
            yield from _tag_problems(over, f"{path}.over")
            if over in seen:
                yield Problem(f"{path}.over", f"{show(over)} is spread over already, by spread[{seen[over]}]")
            seen.setdefault(over, index)
        if isinstance(shares, Mapping) and shares and not any(shares.values()):
            yield Problem(f"{path}.shares", "expected at least one share above 0")


def _tag_problems(name: str, path: str) -> Iterator[Problem]:
    if name != HOST and (wrong := tag_problem(name)):
        yield Problem(path, wrong, warning=not wrong.startswith("expected"))


def _parsed(text: str, path: str) -> tuple[list[Constraint], list[Problem]]:
    try:
        constraint = parse(text)
    except InvalidValue as error:
        return [], [Problem(path, str(error))]
    unknown = attribute_problem(constraint.name)
    return [constraint], [Problem(path, unknown, warning=True)] if unknown else []
