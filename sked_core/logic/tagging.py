"""How a host would have to be tagged for the constraints of a task to hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import structs

from sked_core.interfaces.scheduler import Demand
from sked_core.model.constraint import Constraint, understood
from sked_core.model.types import Host

MAX_VALUES = 8
"""Of how many values of a tag it is found out what else they would need."""
TAGS = ("=", "in", "!=", "not in", "exists", "not exists")
"""Operators that say of themselves what a host should be tagged."""


def constraints(demand: Demand) -> list[Constraint]:
    """Those that can be understood."""
    return list(filter(None, map(understood, demand.placement.require)))


def choice(demand: Demand, host: Host) -> tuple[str, Sequence[str]]:
    """A tag by which rules count, and the values that ``host`` may be given of it; none where it needs none."""
    for constraint in constraints(demand):
        if constraint.operator == "in" and constraint.name in _counted_by(demand) and not constraint.holds(host):
            return constraint.name, _allowed(demand, constraint, host)[:MAX_VALUES]
    return "", ()


def retagged(demand: Demand, host: Host, chosen: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """What to do with the tags of ``host``, and how they are then; ``chosen``: the values for some of them."""
    texts, tags = [], dict(host.tags)
    for constraint in sorted(constraints(demand), key=lambda one: one.operator not in ("=", "in")):
        name, now = constraint.name, structs.replace(host, tags=tags)
        if constraint.operator not in TAGS or name.startswith("host") or constraint.holds(now):
            continue
        tags = {tag: text for tag, text in tags.items() if tag != name}
        if constraint.operator in ("=", "in"):
            values = [chosen[name]] if name in chosen else _allowed(demand, constraint, host)
            values = values[:1] if name in _counted_by(demand) else values
            texts.append(to_be(name, values))
            tags[name] = values[0]
        else:
            texts.append(tagged(constraint))
            tags |= {name: ""} if constraint.operator == "exists" else {}
    return texts, tags


def to_be(name: str, values: Sequence[str]) -> str:
    return f"tag it {name}={' or '.join(values)}"


def tagged(constraint: Constraint) -> str:
    """What the host would have to be, for ``constraint`` to hold."""
    name, values = constraint.name, " or ".join(constraint.values)
    what = "have" if name.startswith("host.") else "tag it"
    return {
        "=": f"{what} {name}={values}",
        "in": f"{what} {name}={values}",
        "!=": f"{what} {name} other than {values}",
        "not in": f"{what} {name} other than {values}",
        "exists": f"{what} {name}",
        "not exists": f"take its tag {name} away",
    }.get(constraint.operator, f"{what} {constraint.text}")


def _counted_by(demand: Demand) -> set[str]:
    placement = demand.placement
    near_or_apart = {one.per for one in (*placement.near, *placement.apart)}
    return near_or_apart | {one.per for one in placement.at_most} | {per for _, per in demand.shunned_by}


def _allowed(demand: Demand, constraint: Constraint, host: Host) -> list[str]:
    """The values of ``constraint`` with which every other constraint on that tag holds too."""
    others = [one for one in constraints(demand) if one.name == constraint.name]
    hosts = {value: structs.replace(host, tags={**host.tags, constraint.name: value}) for value in constraint.values}
    fit = [value for value, changed in hosts.items() if all(one.holds(changed) for one in others)]
    return fit or list(constraint.values)
