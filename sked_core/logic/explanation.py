"""Why each host would or would not take one more task, and the smallest change after which it would.

Reasons, scores and the order of hosts are those of the fleet that schedulers use. What would help is found from them:
amounts are what is missing and not one less, and what is said to help by moving tasks was tried on the fleet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from msgspec import structs

from sked_core.interfaces.scheduler import Demand, Scheduler
from sked_core.logic.decision import scene_of, terms_of
from sked_core.logic.fleet import Fleet, HostView
from sked_core.logic.tagging import choice, constraints, retagged, tagged, to_be
from sked_core.logic.world import PortsOf, no_ports
from sked_core.model.constraint import HOST
from sked_core.model.decisions import Batch
from sked_core.model.ports import counted, port_name
from sked_core.model.types import Task, TaskId

MAX_ORDERED = 50
"""Of how many hosts that would take a task the order is found out."""
MAX_MOVED = 4
"""What needs more tasks to move away than that is no small change."""
EFFORT = {"wait": 0, "uncordon": 1, "agent": 2, "port": 2, "move": 2, "more": 3, "tag": 3, "cluster": 3, "rule": 3}
EFFORT |= {"executor": 4}
"""How much is asked of people, roughly: which of several ways is named first."""
MEMORY, CPU, DISK, PORTS = "memory", "cpu", "disk", "ports"
UNITS = {MEMORY: "MB", CPU: "units", DISK: "MB"}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to change. ``kind``: of EFFORT; ``amount`` and ``resource`` of what there has to be more of; ``tasks``:
    those that have to move away."""

    kind: str
    text: str
    resource: str = ""
    amount: int = 0
    share: float = 0.0
    """The amount, as a part of what the host has."""
    tasks: tuple[TaskId, ...] = ()


@dataclass(frozen=True, slots=True)
class Way:
    """All that has to change for a host to take one more task."""

    steps: tuple[Step, ...]

    @property
    def effort(self) -> tuple[float, float]:
        """The smaller, the nearer: what is asked of people, then how large the amounts are."""
        effort = sum(EFFORT[step.kind] * max(1, len(step.tasks)) for step in self.steps)
        return effort, sum(step.share for step in self.steps)

    def __str__(self) -> str:
        return ", ".join(step.text for step in self.steps)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of one host. ``reasons``: why it takes no more, empty if it would; ``place``: 1 for the host
    that would be chosen, 2 for the one after it, 0 for those beyond and those that don't fit; ``tasks``: those of the
    service that it has; ``ways``: what would help, the nearest first."""

    host: str
    reasons: tuple[str, ...] = ()
    place: int = 0
    terms: Mapping[str, float] = field(default_factory=dict)
    tasks: tuple[TaskId, ...] = ()
    ways: tuple[Way, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """Where one more task of ``demand`` would go. ``tasks``: all that are issued, by host; ``name``: the scheduler's;
    ``ports_of``: as for the fleet. The rest as for ``Fleet.place``."""

    fleet: Fleet
    scheduler: Scheduler
    name: str
    demand: Demand
    allowed: Collection[str] | None
    avoid: Mapping[str, str]
    tasks: Mapping[str, Sequence[Task]] = field(default_factory=dict)
    ports_of: PortsOf = no_ports

    def here(self, host: str) -> list[Task]:
        """The tasks that take something of the host."""
        return sorted((task for task in self.tasks.get(host, ()) if not task.rejected), key=lambda task: task.id)

    def reasons(self, host: str) -> tuple[str, ...]:
        return self.fleet.refusal(host, self.demand, self.allowed, self.avoid)


def question_then(batch: Batch, service: str, scheduler: Scheduler, name: str, number: int) -> Question:
    """Where one more task would have gone before task ``number`` of ``batch``, counted from 0, was placed. The figures
    of hosts have to be kept. Raises InvalidValue where they can't be true."""
    assert batch.seen is not None
    scene = scene_of(batch.asked, batch.seen, batch.cluster, service)
    for placed, host in enumerate(batch.hosts[:number]):
        scene.place(host, placed)
    return Question(scene.fleet, scheduler, name, scene.demand, scene.allowed, scene.avoid)


def explain(question: Question) -> list[Verdict]:
    """A verdict on every host: those that would take it in the order in which they would be chosen, then the others by
    name. Raises PluginError if the scheduler fails."""
    refused = question.fleet.refusals(question.demand, question.allowed, question.avoid)
    ordered = list(_ordered(question))
    places = {host: number for number, host in enumerate(ordered, 1)}
    rest = sorted(host for host in question.fleet.hosts if host not in refused and host not in places)
    verdicts = [_takes(question, host, places.get(host, 0)) for host in [*ordered, *rest]]
    return [*verdicts, *(_takes_not(question, host, refused[host]) for host in sorted(refused))]


def _ordered(question: Question) -> Iterator[str]:
    """The hosts that would take it, the one that would be chosen first; each is the choice without those before."""
    avoid = dict(question.avoid)
    for _ in range(MAX_ORDERED):
        chosen = question.fleet.place(
            question.scheduler, question.name, question.demand, 1, question.allowed, dict(avoid)
        )
        host = next(iter(chosen), None)
        if host is None:
            return
        yield host
        avoid[host] = "comes before"


def _own(question: Question, host: str) -> tuple[TaskId, ...]:
    wanted = (question.demand.cluster, question.demand.service)
    return tuple(
        task.id for task in question.here(host) if (task.cluster.name, task.service) == wanted and task.scheduled
    )


def _takes(question: Question, host: str, place: int) -> Verdict:
    wishes = question.fleet.wishes(host, question.demand, question.allowed)
    terms = terms_of(question.scheduler, question.demand, question.fleet.candidate(host, question.demand))
    return Verdict(host, (), place, {**wishes, **terms}, _own(question, host))


def _takes_not(question: Question, host: str, reasons: tuple[str, ...]) -> Verdict:
    ways = sorted(ways_to(question, host), key=lambda way: way.effort)
    return Verdict(host, reasons, tasks=_own(question, host), ways=tuple(ways))


def nearest(verdicts: Sequence[Verdict]) -> tuple[str, Way] | None:
    """The host that the smallest change would make take one more task, and that change."""
    ways = [(way.effort, verdict.host, way) for verdict in verdicts for way in verdict.ways[:1]]
    if not ways:
        return None
    _, host, way = min(ways, key=lambda one: one[:2])
    return host, way


def less(question: Question, verdicts: Sequence[Verdict]) -> tuple[str, str] | None:
    """The host that would take a task that asks for less of one thing alone, and for how much: the largest such."""
    found = []
    for verdict in verdicts:
        only = [step for way in verdict.ways for step in way.steps if way.steps == (step,) and step.kind == "more"]
        for step in (one for one in only if one.resource != PORTS):
            need = _needs(question)[step.resource]
            fits = _most(question, verdict.host, step.resource)
            if 0 < fits < need:
                found.append((-fits / need, verdict.host, f"{step.resource} {fits} {UNITS[step.resource]}"))
    return min(found)[1:] if found else None


def ways_to(question: Question, host: str) -> Iterator[Way]:
    """What would make ``host`` take one more task: what no room can mend, and with it either more room, or tasks that
    move away. Each of them is enough by itself, and was tried: on the host as it would be then, with each value of a
    tag that rules count by. Of these ways, those that need more than another one are left out."""
    name, values = choice(question.demand, question.fleet.hosts[host].host)
    found: dict[tuple[Step, ...], tuple[Way, list[str]]] = {}
    for value in values:
        for way in _ways_to(question, host, {name: value}):
            rest = tuple(step for step in way.steps if step.text != to_be(name, [value]))
            found.setdefault(rest, (way, []))[1].append(value)
    for rest, (way, same) in found.items():
        if not any(set(other) < set(rest) for other in found):
            given = Step("tag", to_be(name, same))
            yield Way(tuple(given if step.text == to_be(name, same[:1]) else step for step in way.steps))
    if not values:
        yield from _ways_to(question, host, {})


def _ways_to(question: Question, host: str, chosen: Mapping[str, str]) -> Iterator[Way]:
    """The ways, where tags get the values that were ``chosen`` for them."""
    view = question.fleet.hosts[host]
    fixed, mended = _mended(question, view, chosen)
    asked = replace(question, allowed=None, avoid={})
    question.fleet.update({host: mended})
    try:
        held = tuple(_held(asked, host))
        with question.fleet.trial():
            for task in _named(asked, host, held):
                question.fleet.release(task)
            more, ruled = tuple(_more(asked, host)), tuple(_ruled(asked, host))
            accepted = {step.reason for step in ruled}
            if _heads(asked, host) <= accepted | {step.resource for step in more}:
                yield Way((*fixed, *(step.step for step in ruled), *held, *more))
        for move in _moves(asked, host, accepted) if more else ():
            with question.fleet.trial():
                for task in _named(asked, host, (move,)):
                    question.fleet.release(task)
                left = tuple(step.step for step in _ruled(asked, host))
            yield Way((*fixed, *left, move))
    finally:
        question.fleet.update({host: view})


def _heads(question: Question, host: str) -> set[str]:
    """The reasons against the host, without their numbers."""
    return {PORTS if why.startswith("no free port") else why.partition(": ")[0] for why in question.reasons(host)}


def _mended(question: Question, view: HostView, chosen: Mapping[str, str]) -> tuple[tuple[Step, ...], HostView]:
    """What has to change of the host itself, and the host once that has been done."""
    demand, host = question.demand, view.host
    steps: list[Step] = []
    if question.allowed is not None and host.name not in question.allowed:
        steps.append(Step("cluster", f"add it to the hosts of cluster {demand.cluster}"))
    if view.lost or not view.alive:
        steps.append(Step("agent", "start its agent"))
    if view.mark:
        steps.append(Step("uncordon", "uncordon it"))
    missing = sorted(demand.executors - set(host.executors))
    steps += [Step("executor", f"give it executor {executor} (docs/policy.md)") for executor in missing]
    wanted, tags = retagged(demand, host, chosen)
    steps += [Step("tag", text) for text in wanted]
    strangers = sorted(demand.fixed_ports & set(host.ports))
    steps += [Step("port", f"free port {port}") for port in strangers if not question.fleet.taken(host.name, port)]
    if host.name in question.avoid:
        steps.append(Step("wait", "wait until it is tried again"))
    ports = [port for port in host.ports if port not in strangers or question.fleet.taken(host.name, port)]
    better = structs.replace(host, executors=[*host.executors, *missing], tags=tags, ports=ports)
    return tuple(steps), HostView(better)


@dataclass(frozen=True, slots=True)
class _Ruled:
    """A step, and the beginning of the reason that it would do away with."""

    reason: str
    step: Step


def _ruled(question: Question, host: str) -> Iterator[_Ruled]:
    """What has to change where something else than the host and its room is against it."""
    for constraint in constraints(question.demand):
        if why := constraint.refusal(question.fleet.hosts[host].host):
            yield _Ruled(why.partition(": ")[0], Step("tag", tagged(constraint)))
    rules = question.fleet.rules(question.demand, question.allowed)
    for reason in dict.fromkeys(rules.reasons(question.fleet.candidate(host, question.demand))):
        rule, _, found = reason.partition(": ")
        if found.startswith("has no "):
            yield _Ruled(rule, Step("tag", f"tag it with a {found.removeprefix('has no ')} ({rule})"))
        elif rule.startswith("near "):
            service, per, tag = rule.removeprefix("near ").partition(" per ")
            yield _Ruled(rule, Step("rule", f"run a task of {service} there first{f' (per {tag})' if per else ''}"))
        elif rule not in (MEMORY, CPU):
            yield _Ruled(rule, Step("rule", f'give up "{rule}" for {question.demand.service}'))


def _held(question: Question, host: str) -> Iterator[Step]:
    """The tasks that hold fixed ports of the demand, or that are to be apart from it, one step each."""
    demand, placement = question.demand, question.demand.placement
    apart = {one.service for one in placement.apart if one.per == HOST}
    apart |= {service for service, per in demand.shunned_by if per == HOST}
    for task in question.here(host) if demand.fixed_ports or apart else ():
        ports = sorted({*map(counted, demand.fixed_ports)} & {*map(counted, _ports(question, task))})
        if ports:
            said = f"free port {' and '.join(map(port_name, ports))}, held by {task.id}"
            yield Step("move", said, tasks=(task.id,))
        elif task.service in apart:
            yield Step("move", f"move {task.id} away", tasks=(task.id,))


def _ports(question: Question, task: Task) -> frozenset[int]:
    return question.ports_of(task.task_definition) | ({task.port} if task.port else frozenset())


def _named(question: Question, host: str, steps: Collection[Step]) -> list[Task]:
    ids = {name for step in steps for name in step.tasks}
    return [task for task in question.here(host) if task.id in ids]


def _needs(question: Question) -> dict[str, int]:
    demand = question.demand
    return {MEMORY: demand.memory, CPU: demand.cpu_units, DISK: demand.disk}


def _has(question: Question, host: str) -> dict[str, tuple[int, int, int]]:
    """Of each resource: what the host has, what is free of it, and the percent that has to stay free."""
    one, spare = question.fleet.candidate(host, question.demand), question.demand.placement.leave_free
    return {
        MEMORY: (one.memory, one.free_memory, spare),
        CPU: (one.cpu_units, one.free_cpu_units, spare),
        DISK: (one.disk, one.free_disk, 0),
    }


def _more(question: Question, host: str) -> Iterator[Step]:
    """The least that the host lacks of each resource, where it lacks any."""
    for resource, (total, free, spare) in _has(question, host).items():
        need = _needs(question)[resource]
        if (need or spare) and (amount := _missing(total, free - need, spare)) > 0:
            text = f"give it {amount} {UNITS[resource]} more {resource}"
            yield Step("more", text, resource=resource, amount=amount, share=amount / max(1, total))
    if question.demand.provide_port and question.fleet.candidate(host, question.demand).free_ports < 1:
        yield Step("more", "widen its port range", resource=PORTS, amount=1)


def _missing(total: int, left: int, spare: int) -> int:
    """How much more a host of ``total`` has to have, ``left`` of which would be left, for ``spare`` percent of it to be
    left."""
    short = -(-total * spare // 100) - left
    if short <= 0:
        return 0
    amount = short * 100 // (100 - spare)  # of what is added, a part has to stay free as well
    while left + amount < -(-(total + amount) * spare // 100):
        amount += 1
    while amount > 1 and left + amount - 1 >= -(-(total + amount - 1) * spare // 100):
        amount -= 1
    return amount


def _most(question: Question, host: str, resource: str) -> int:
    """The most of a resource that a task may ask for and still fit."""
    total, free, spare = _has(question, host)[resource]
    return free - -(-total * spare // 100)


def _moves(question: Question, host: str, reasons: Collection[str]) -> Iterator[Step]:
    """The tasks that would have to leave for nothing but ``reasons`` to remain: one alone, the smallest that will do;
    else as few as will do. Those that are being stopped go first: it is only a matter of time."""
    here = question.here(host)
    wanted = (question.demand.cluster, question.demand.service)
    others = [task for task in here if task.scheduled and (task.cluster.name, task.service) != wanted]
    leaving = [task for task in here if not task.scheduled]
    if leaving and _enough(question, host, leaving, reasons):
        ids = tuple(task.id for task in leaving)
        yield Step("wait", f"wait until {', '.join(ids)} has stopped", tasks=ids)
        return
    total = {resource: max(1, has[0]) for resource, has in _has(question, host).items()}

    def size(task: Task) -> tuple[float, str]:
        return sum(amount / total[resource] for resource, amount in _takes_of(task).items()), task.id

    ascending = sorted(others, key=size)
    moved = next(([task] for task in ascending if _enough(question, host, [task], reasons)), None)
    if moved is None:
        moved = ascending[-MAX_MOVED:]
        if not moved or not _enough(question, host, moved, reasons):
            return
        for task in list(moved):
            fewer = [one for one in moved if one is not task]
            if _enough(question, host, fewer, reasons):
                moved = fewer
    said = ", ".join(f"{task.id}{_said(question, task)}" for task in moved)
    yield Step("move", f"move {said} away", tasks=tuple(task.id for task in moved))


def _enough(question: Question, host: str, gone: Sequence[Task], reasons: Collection[str]) -> bool:
    with question.fleet.trial():
        for task in gone:
            question.fleet.release(task)
        return _heads(question, host) <= set(reasons)


def _takes_of(task: Task) -> dict[str, int]:
    one = task.task_definition
    return {MEMORY: one.total_memory, CPU: one.total_cpu_units, DISK: one.total_disk}


def _said(question: Question, task: Task) -> str:
    """What of the task is of interest: what it takes of the resources that the demand asks for."""
    takes = {resource: amount for resource, amount in _takes_of(task).items() if amount and _needs(question)[resource]}
    said = ", ".join(f"{resource} {amount} {UNITS[resource]}" for resource, amount in takes.items())
    return f" ({said})" if said else f" (port {task.port})" if task.port else ""
