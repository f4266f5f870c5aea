"""Whether the hosts that are known today could run what a service asks for, were they empty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from sked_core.errors import Problem
from sked_core.model.constraint import HOST, parse, refusals, value_of
from sked_core.model.spec import did_you_mean, plain
from sked_core.model.types import Host, Placement, Service, TaskDefinition
from sked_core.model.wording import counted

SHOWN = 5
"""How many values of a tag a message names."""
LATER = "tasks wait until one joins that does"


def unplaceable(
    service: Service, definition: TaskDefinition, hosts: Sequence[Host], *, fixed_port: bool
) -> Iterator[Problem]:
    """Warnings about a service that ``hosts``, those that its cluster may use, could not run even if they were empty.
    Its constraints must be valid. ``fixed_port``: whether a task takes host ports that are the same for each."""
    placement = service.placement_rules
    yield from _unknown_names(placement, hosts)
    fit = [host for host in hosts if not refusals(placement.require, host)]
    if not fit:
        yield _no_host(placement, hosts)
        return
    needs = (
        ("memory", "MB", definition.total_memory, [_share(host.memory, placement) for host in fit]),
        ("cpu", "units", definition.total_cpu_units, [_share(host.cpu_units, placement) for host in fit]),
        ("disk", "MB", definition.total_disk, [host.disk for host in fit]),
    )
    kinds = {container.type for container in definition.containers}
    room = {host.name: 0 if kinds - set(host.executors) else service.desired for host in fit}
    for _, _, need, available in needs:
        for host, amount in zip(fit, available, strict=True):
            room[host.name] = min(room[host.name], amount // need if need else service.desired)
    if not any(room.values()):
        too_small = [
            f"{what} {need} {unit}, the most is {max(available)} {unit}"
            for what, unit, need, available in needs
            if need > max(available)
        ]
        too_small += [f"executor {kind}" for kind in sorted(kinds) if not any(kind in host.executors for host in fit)]
        why = "; ".join(too_small) or "none has the room, the disk and the executors all at once"
        asked = " that satisfies placement.require" if placement.require else ""
        yield Problem("task_name", f"no host of today{asked} has what one task needs ({why}): {LATER}", warning=True)
        return
    yield from _too_few(service, [host for host in fit if room[host.name]], room, fixed_port=fixed_port)


def _share(amount: int, placement: Placement) -> int:
    return amount - -(-amount * placement.leave_free // 100)


def _unknown_names(placement: Placement, hosts: Sequence[Host]) -> Iterator[Problem]:
    """What no host has though something is to go by it: a tag that is misspelt, or not given yet."""
    named = [(f"placement.spread[{index}].over", one.over) for index, one in enumerate(placement.spread)]
    for kind in ("at_most", "near", "apart", "prefer"):
        named += [(f"placement.{kind}[{index}].per", one.per) for index, one in enumerate(getattr(placement, kind))]
    likes = ((f"placement.prefer[{index}].host", one.host) for index, one in enumerate(placement.prefer))
    named += [(path, parse(text).name) for path, text in likes if text]
    for path, name in named:
        if all(value_of(host, name) is None for host in hosts):
            yield Problem(path, f"no host of today has {name}{_nearest(name, hosts)}", warning=True)


def _nearest(name: str, hosts: Sequence[Host]) -> str:
    attributes = {f"host.{one}" for host in hosts for one in host.attributes}
    if f"host.{name}" in attributes:
        return f', did you mean "host.{name}"?'
    return did_you_mean(name, sorted(attributes.union(*(host.tags for host in hosts))))


def _no_host(placement: Placement, hosts: Sequence[Host]) -> Problem:
    for index, text in enumerate(placement.require):
        if any(not refusals([text], host) for host in hosts):
            continue
        name = parse(text).name
        known = Counter(value_of(host, name) for host in hosts)
        values = sorted((plain(value[:40]), count) for value, count in known.items() if value is not None)
        said = [f"{value} on {counted(count, 'host')}" for value, count in values[:SHOWN]]
        said += [f"{len(values) - SHOWN} more values"] if len(values) > SHOWN else []
        said += [f"not set on {counted(known[None], 'host')}"] if known[None] else []
        nearest = "" if values else _nearest(name, hosts)
        message = f"no host of today satisfies it ({name}: {', '.join(said)}): {LATER}{nearest}"
        return Problem(f"placement.require[{index}]", message, warning=True)
    message = f"no host of today satisfies all of it, though each by itself is satisfied: {LATER}"
    return Problem("placement.require", message, warning=True)


def _too_few(service: Service, hosts: Sequence[Host], room: dict[str, int], *, fixed_port: bool) -> Iterator[Problem]:
    """That rules about how many tasks may be where leave room for fewer than there are to be."""
    placement = service.placement_rules
    limits = [(one.count, one.per, f"placement.at_most[{index}]") for index, one in enumerate(placement.at_most)]
    limits += [(1, HOST, "placement.distinct_hosts")] if placement.distinct_hosts else []
    limits += [(1, HOST, "task_name")] if fixed_port else []
    most, path, per = sum(room[host.name] for host in hosts), "desired", ""
    for count, tag, where in sorted(limits, key=lambda limit: limit[1] != HOST):
        below: Counter[str] = Counter()
        for host in hosts:
            if (value := value_of(host, tag)) is not None:
                below[value] += room[host.name]
        if tag == HOST:
            room = {name: min(count, has) for name, has in room.items()}
        allowed = sum(min(count, has) for has in below.values())
        if allowed < most:
            most, path, per = allowed, where, f"{count} per {tag}"
    why = "its port is there once on each of " if path == "task_name" else f"{per} on " if per else "they fill "
    there = counted(len(hosts), "host")
    if most < service.desired:
        message = f"{service.desired} tasks are desired, there is room for {most} today ({why}{there})"
        yield Problem(path, f"{message}: the others wait until more hosts join", warning=True)
    elif per and most <= service.min:
        message = f"with {why}{there} there is room for {most} tasks and min is {service.min}"
        advice = f"a version change will be blocked unless min is below {most}"
        yield Problem("min" if path == "task_name" else path, f"{message}: {advice}", warning=True)
