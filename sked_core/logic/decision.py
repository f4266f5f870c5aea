"""Decisions that can be run again: what a placement depended on, taken down, and the fleet made from that.

What is taken down is enough for any scheduler to decide the same batch, and no more: amounts, not tasks; tags that
rules name, not all; how many ports are free, not which. The port itself is picked afterwards, and is no part of it.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from sked_core.errors import InvalidValue
from sked_core.interfaces.scheduler import Candidate, Demand, Scheduler
from sked_core.logic.fleet import Fleet, HostView
from sked_core.model.amount import LAST_PORT
from sked_core.model.decisions import Asked, Batch, Seen, Texts
from sked_core.model.ports import counted
from sked_core.model.spec import plain
from sked_core.model.types import ANYWHERE, Cluster, Container, Host, Task, TaskDefinition, TaskId

T = TypeVar("T")
ATTRIBUTE = "host."
"""Before the name of what agents report of their hosts, among the tags that rules name."""
RANGE = "{}-{}"
_PORTS = re.compile(r"([0-9]{1,5})-([0-9]{1,5})")
OTHERS, PLACED = "=", "+"
"""No names that anything could have: of what stands in for tasks of which only the number counts, and of what is
placed."""
NOTHING = TaskDefinition(name=OTHERS, version=0)
_ENCODER = msgspec.json.Encoder(order="sorted")


def asked_of(demand: Demand, count: int) -> Asked:
    """What is kept of ``count`` times ``demand``."""
    return Asked(
        count=count,
        memory=demand.memory,
        cpu_units=demand.cpu_units,
        disk=demand.disk,
        provide_port=demand.provide_port,
        fixed_ports=sorted(demand.fixed_ports),
        executors=sorted(demand.executors),
        desired=demand.desired,
        placement=demand.placement,
        shunned_by=sorted(demand.shunned_by),
    )


def demand_from(asked: Asked, cluster: str, service: str) -> Demand:
    """The demand of which ``asked`` was kept."""
    return Demand(
        cluster=cluster,
        service=service,
        memory=asked.memory,
        cpu_units=asked.cpu_units,
        disk=asked.disk,
        provide_port=asked.provide_port,
        fixed_ports=frozenset(asked.fixed_ports),
        executors=frozenset(asked.executors),
        desired=asked.desired,
        placement=asked.placement,
        shunned_by=tuple(asked.shunned_by),
    )


def seen_of(fleet: Fleet, demand: Demand, allowed: Collection[str] | None, avoid: Mapping[str, str]) -> Seen:
    """All of ``fleet`` that the placement of ``demand`` depends on, before any of it is placed."""
    facts = fleet.remembered.get(__name__)
    if not isinstance(facts, Seen):
        facts = fleet.remembered[__name__] = _facts(fleet)
    names, found = facts.hosts, fleet.candidates_now(facts.hosts)
    counts = {service: fleet.tasks_by_host(service) for service in _others(demand)}
    counts[demand.service] = fleet.tasks_by_host(demand.service, demand.cluster)
    services = {service: [there.get(name, 0) for name in names] for service, there in sorted(counts.items()) if there}
    ports = sorted(demand.fixed_ports)
    held = {str(port): [name for name in names if fleet.taken(name, port)] for port in ports}
    views = [fleet.hosts[name] for name in names] if ports or depends_on_tags(demand) else []
    in_use = {str(port): [view.host.name for view in views if port in view.host.ports] for port in ports}
    return replace(
        facts,
        reserved_memory=_column([one.memory - one.free_memory for one in found]),
        reserved_cpu_units=_column([one.cpu_units - one.free_cpu_units for one in found]),
        reserved_disk=_column([one.disk - one.free_disk for one in found]),
        tasks=_column([one.tasks for one in found]),
        services={service: _column(column) for service, column in services.items() if any(column)},
        tags=_tags(demand, views) if views else {},
        free_ports=_column([one.free_ports for one in found]),
        foreign=[name for name in names if name not in allowed] if allowed is not None else [],
        avoid={name: avoid[name] for name in names if name in avoid} if avoid else {},
        lacks={one: hosts for one in sorted(demand.executors) if (hosts := _lacking(fleet, facts, one))},
        held={port: hosts for port, hosts in held.items() if hosts},
        in_use={port: hosts for port, hosts in in_use.items() if hosts},
    )


def _facts(fleet: Fleet) -> Seen:
    """What hosts are by themselves, and for everybody."""
    names = sorted(fleet.hosts)
    views = [fleet.hosts[name] for name in names]
    return Seen(
        hosts=names,
        memory=_column([view.host.memory for view in views]),
        cpu_units=_column([view.host.cpu_units for view in views]),
        disk=_column([view.host.disk for view in views]),
        port_range=_column([RANGE.format(*view.host.port_range) for view in views]),
        lost=[view.host.name for view in views if view.lost],
        down=[view.host.name for view in views if not view.alive],
        marks={view.host.name: view.mark for view in views if view.mark},
    )


def _lacking(fleet: Fleet, facts: Seen, executor: str) -> list[str]:
    """The hosts that do not have the executor."""
    key = f"{__name__} {executor}"
    if key not in fleet.remembered:
        fleet.remembered[key] = [name for name in facts.hosts if executor not in fleet.hosts[name].host.executors]
    found = fleet.remembered[key]
    return found if isinstance(found, list) else []


def depends_on_tags(demand: Demand) -> bool:
    """Whether tags or attributes of hosts may matter to the demand."""
    return demand.placement is not ANYWHERE or bool(demand.shunned_by)


def _others(demand: Demand) -> list[str]:
    """The other services on whose tasks it depends where one of ``demand`` may go, or had better go."""
    rules = demand.placement
    named = {one.service for one in (*rules.near, *rules.apart)} | {one.service for one in rules.prefer}
    return sorted(named.union(service for service, _ in demand.shunned_by) - {demand.service, ""})


def _tags(demand: Demand, views: Sequence[HostView]) -> dict[str, Texts]:
    """The tags, and the attributes as ``host.NAME``, whose names stand in a rule of ``demand``."""
    rules = demand.placement
    texts = [*rules.require, *(one.over for one in rules.spread), *(one.per for one in rules.at_most)]
    texts += [text for one in rules.prefer for text in (one.host, one.per)]
    texts += [one.per for one in (*rules.near, *rules.apart)]
    said = "\n".join([*texts, *(per for _, per in demand.shunned_by)])
    known = [view.host.tags | {ATTRIBUTE + name: text for name, text in view.host.attributes.items()} for view in views]
    named = sorted(name for name in set().union(*known) if name in said)
    return {name: _column([tags.get(name) for tags in known]) for name in named}


def _column(values: list[T]) -> T | list[T]:
    """``values``, or the one that all of them are."""
    return values[0] if values and values.count(values[0]) == len(values) else values


def _whole(column: T | list[T], count: int) -> list[T]:
    """The values of a column for ``count`` hosts. Raises InvalidValue if it has another number of them."""
    if not isinstance(column, list):
        return [column] * count
    if len(column) != count:
        raise InvalidValue(f"a column of {len(column)} values for {count} hosts")
    return column


@dataclass(frozen=True, slots=True)
class Scene:
    """A batch as it can be decided again: the fleet as it was, and what was asked of it."""

    fleet: Fleet
    demand: Demand
    count: int
    allowed: frozenset[str] | None
    avoid: Mapping[str, str]
    freed: Sequence[str]

    def place(self, host: str, number: int) -> None:
        """Task ``number`` of the batch, counted from 0, is placed on ``host``."""
        demand, cluster, service = self.demand, self.demand.cluster, self.demand.service
        if number < len(self.freed) and self.freed[number]:
            self.fleet.release(_stand_in(self.freed[number], cluster, service, NOTHING))
        definition = TaskDefinition(
            name=PLACED,
            version=0,
            provide_port=demand.provide_port,
            memory=demand.memory,
            cpu_units=demand.cpu_units,
            containers=[Container(name=PLACED, type=PLACED, disk_use=demand.disk)],
        )
        port = self.fleet.pick_port(host, TaskId(PLACED)) if demand.provide_port else 0
        self.fleet.reserve(replace(_stand_in(host, cluster, service, definition), port=port))


def scene_of(asked: Asked, seen: Seen, cluster: str, service: str) -> Scene:
    """The scene that ``asked`` and ``seen`` were taken down from. Raises InvalidValue where they can't be a scene."""
    demand, count = demand_from(asked, cluster, service), len(seen.hosts)
    rows = zip(*(_whole(column, count) for column in _columns(seen)), strict=True)
    of_tag = {name: _whole(column, count) for name, column in seen.tags.items()}
    of_service = {name: _whole(column, count) for name, column in seen.services.items()}
    held = {name: {int(port) for port, hosts in seen.held.items() if name in hosts} for name in seen.hosts}
    held[PLACED] = set(asked.fixed_ports)
    fleet = Fleet((), (), lambda definition: frozenset(held.get(definition.name, ())))
    views = {}
    for number, (name, row) in enumerate(zip(seen.hosts, rows, strict=True)):
        memory, cpu_units, disk, *reserved, tasks, free_ports, ports = row
        in_use = {int(port) for port, hosts in seen.in_use.items() if name in hosts}
        first, last = _range(ports)
        strangers = in_use | _taken(first, last, free_ports, {*map(counted, held[name])} | in_use)
        tags = {tag: text for tag, column in of_tag.items() if (text := column[number]) is not None}
        host = Host(
            name=name,
            memory=memory,
            cpu_units=cpu_units,
            disk=disk,
            ports=sorted(strangers),
            port_range=(first, last),
            executors=[one for one in asked.executors if name not in seen.lacks.get(one, ())],
            tags={tag: text for tag, text in tags.items() if not tag.startswith(ATTRIBUTE)},
            attributes={tag.removeprefix(ATTRIBUTE): text for tag, text in tags.items() if tag.startswith(ATTRIBUTE)},
        )
        views[name] = HostView(host, name not in seen.down, name in seen.lost, seen.marks.get(name, ""))
        counts = {other: column[number] for other, column in of_service.items()}
        for task in _stand_ins(name, cluster, counts, tasks, reserved):
            fleet.reserve(task)
    fleet.update(views)
    foreign = set(seen.foreign)
    allowed = frozenset(name for name in seen.hosts if name not in foreign) if foreign else None
    return Scene(fleet, demand, asked.count, allowed, seen.avoid, seen.freed)


def _range(text: str) -> tuple[int, int]:
    """Raises InvalidValue for what is no range of ports."""
    found = _PORTS.fullmatch(text)
    if not found or int(found[2]) > LAST_PORT:
        raise InvalidValue(f'expected a range of ports such as "20000-29999", got "{plain(text[:40])}"')
    return int(found[1]), int(found[2])


def _columns(seen: Seen) -> tuple[Any, ...]:
    return (
        *(seen.memory, seen.cpu_units, seen.disk),
        *(seen.reserved_memory, seen.reserved_cpu_units, seen.reserved_disk),
        *(seen.tasks, seen.free_ports, seen.port_range),
    )


def _taken(first: int, last: int, free: int, known: Collection[int]) -> set[int]:
    """So many ports of the range that ``free`` ones are left, with those that are ``known`` to be taken."""
    missing = last - first + 1 - free - sum(first <= port <= last for port in known)
    others = (port for port in range(first, last + 1) if port not in known)
    return set(itertools.islice(others, max(0, missing)))


def _stand_in(host: str, cluster: str, service: str, definition: TaskDefinition) -> Task:
    return Task(cluster=Cluster(name=cluster), task_definition=definition, service=service, host=host)


def _stand_ins(
    host: str, cluster: str, counts: Mapping[str, int], tasks: int, reserved: Sequence[int]
) -> Iterator[Task]:
    """As many tasks as were on ``host``, which together take what was ``reserved`` (memory, cpu units, disk). The first
    one takes all of it, and the ports."""
    memory, cpu_units, disk = reserved
    container = Container(name=OTHERS, type=OTHERS, disk_use=disk)
    definition = TaskDefinition(name=host, version=0, memory=memory, cpu_units=cpu_units, containers=[container])
    services = [service for service, count in counts.items() for _ in range(count)]
    for service in [*services, *[OTHERS] * (tasks - len(services))]:
        yield _stand_in(host, cluster, service, definition)
        definition = NOTHING


@dataclass(frozen=True, slots=True)
class Answer:
    """What a scheduler made of a scene: ``hosts`` in the order of placement, how many more tasks are ``waiting``, and
    why each host took none of those. The reasons of lost hosts whose tasks were replaced are no part of it: what those
    tasks had reserved is not kept."""

    hosts: tuple[str, ...]
    waiting: int
    refusals: Mapping[str, tuple[str, ...]]

    def encoded(self) -> bytes:
        """The same bytes for the same answer, and for no other."""
        return _ENCODER.encode((self.hosts, self.waiting, self.refusals))

    def digest(self) -> str:
        """sha256 of it."""
        return hashlib.sha256(self.encoded()).hexdigest()


def answer_of(batch: Batch) -> Answer:
    """What was decided about ``batch``, as far as it stands there."""
    freed = batch.seen.freed if batch.seen is not None else ()
    refusals = {host: tuple(found) for host, found in batch.refusals.items() if host not in freed}
    return Answer(tuple(batch.hosts), batch.waiting, refusals)


def inputs_digest(batch: Batch, service: str) -> str:
    """sha256 of all that ``batch`` of ``service`` was decided on."""
    return hashlib.sha256(_ENCODER.encode((batch.cluster, service, batch.asked, batch.seen))).hexdigest()


def terms_of(scheduler: Scheduler, demand: Demand, candidate: Candidate) -> dict[str, float]:
    """The score that ``scheduler`` gives ``candidate``, term by term; empty for one that has no score, or fails to say:
    that is for people to read, and nothing depends on it."""
    terms = getattr(scheduler, "terms", None)
    try:
        found = {str(name): float(value) + 0.0 for name, value in terms(demand, candidate).items()} if terms else {}
    except Exception:  # noqa: BLE001 - whatever a plugin raises
        return {}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def decide(scene: Scene, scheduler: Scheduler, name: str) -> Answer:
    """What ``scheduler``, called ``name``, makes of the scene. Raises PluginError if it fails or overdoes it."""
    fleet, demand = scene.fleet, scene.demand
    chosen: list[str] = []
    with fleet.trial():
        for host in fleet.place(scheduler, name, demand, scene.count, scene.allowed, scene.avoid):
            scene.place(host, len(chosen))
            chosen.append(host)
        waiting = scene.count - len(chosen)
        refusals = fleet.unplaced(name, demand, scene.allowed, scene.avoid) if waiting else {}
    return Answer(tuple(chosen), waiting, {host: why for host, why in refusals.items() if host not in scene.freed})
