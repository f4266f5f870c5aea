"""All that one wants to know of one object: what is stored, how it is, what goes with it, and what happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from sked_core.client import reading
from sked_core.client.looking import evidence, happenings, listing
from sked_core.client.looking.explaining import decisions_of
from sked_core.client.looking.listing import HostRow, TaskRow
from sked_core.client.looking.rollouts import details, headline, known_rollouts, look
from sked_core.client.looking.stories import story, story_json
from sked_core.client.naming import names_of, one_of, split
from sked_core.client.session import Session
from sked_core.errors import NotFound
from sked_core.interfaces.store import entry_at
from sked_core.model import keys
from sked_core.model.endings import Ending
from sked_core.model.spec import known, nearest, without_passwords
from sked_core.model.types import Check, Mark, Moves, Placement, Service, Task, TaskDefinition, UpdatePolicy
from sked_core.model.wording import counted, first_line, natural

MAX_TASKS, MAX_EVENTS, MAX_ENDINGS = 20, 10, 5
"""How many of each a description for people shows, so that it fits on a screen."""


@dataclass(frozen=True, slots=True)
class Part:
    """A titled part of a description: a table, or ``rows`` of one cell where ``columns`` is empty. ``note``: what is
    left out."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Described:
    """``facts``: what is said of the object in a line each; ``parts``: what goes with it; ``item``: all of it for
    programs; ``more``: commands that tell the rest."""

    kind: str
    name: str
    facts: Sequence[tuple[str, object]]
    parts: Sequence[Part]
    item: Mapping[str, Any]
    more: Sequence[str] = field(default=())


def describe(sked: Session, target: str) -> Described:
    """``target``: service/NAME, cluster/NAME, host/NAME, task/ID, task_definition/NAME[/VERSION] or rollout/SERVICE,
    or a name alone, of any of the first four; as much of a name as is unique will do. Raises InvalidValue for anything
    else, NotFound with what is like it, Unavailable."""
    kind, name = told_apart(sked, target)
    return KINDS[kind](sked, name)


def told_apart(sked: Session, target: str) -> tuple[str, str]:
    """The kind and the whole name of ``target``. Raises as ``describe`` does."""
    kind, slash, name = target.partition("/")
    if slash:
        split(target, KINDS)
    if kind == "task_definition" and slash:
        return kind, name
    if slash:
        names = names_of(sked.store, "service" if kind == "rollout" else kind)
        # Of tasks and roll-outs something may be kept when they are gone; they are told of by their whole names.
        kept = kind in ("task", "rollout") and not any(one.startswith(name) for one in names)
        return kind, name if kept else one_of(kind, name, names)
    known_names = {one: names_of(sked.store, one) for one in ("service", "task", "host", "cluster")}
    for one, names in known_names.items():
        if target in names:
            return one, target
    every = [name for names in known_names.values() for name in names]
    found = one_of("service or task or host or cluster", target, every)
    return next((one, found) for one, names in known_names.items() if found in names)


# --- pieces ------------------------------------------------------------------------------------------------------


def _tasks(rows: Sequence[TaskRow], *, of: str = "host") -> Part:
    """``of``: what of each task is not plain from what is described."""
    columns = ("task", of, "version", "healthy", "port", "why")
    cells = []
    worst_first = sorted(rows, key=lambda one: one.healthy)
    for one in worst_first[:MAX_TASKS]:
        task, where = one.task, one.task.host if of == "host" else one.task.service
        version = f"{task.task_definition.name}@{task.task_definition.version}"
        why = task.reject_reason if task.rejected else one.failure.reason if one.failure else ""
        state = "rejected" if task.rejected else "stopping" if not task.scheduled else one.healthy
        cells.append((task.id, where, version, state, task.port or "", first_line(why)))
    more = len(rows) - MAX_TASKS
    return Part("tasks", columns, cells, f"and {counted(more, 'more task')}: sked tasks" if more > 0 else "")


def _events(sked: Session, **about: str) -> tuple[Part, list[dict[str, Any]]]:
    found, _ = happenings.past(sked.store, happenings.filtered(**about), lines=MAX_EVENTS)
    rows = [
        (one.event.at, one.event.what, one.event.subject, one.event.host, first_line(one.event.why)) for one in found
    ]
    return Part("events", ("at", "what", "subject", "host", "why"), rows), [one.json() for one in found]


def _endings(found: Sequence[Ending]) -> Part:
    rows = [(one.ended, one.task, one.host, one.cause, one.times, first_line(one.reason)) for one in found]
    return Part("ends of tasks", ("ended", "task", "host", "cause", "times", "reason"), rows[-MAX_ENDINGS:])


def _definition(one: TaskDefinition) -> list[tuple[str, object]]:
    port = "a free one for each task" if one.provide_port else one.port or "none"
    facts: list[tuple[str, object]] = [
        ("asks for", f"memory {one.total_memory} MB, cpu {one.total_cpu_units}, disk {one.total_disk} MB"),
        ("port", port),
    ]
    facts += [("tags", one.tags)] if one.tags else []
    for container in one.containers:
        spec = without_passwords(msgspec.json.encode(container.executor).decode())
        facts.append((f"container {container.name}", f"{container.type} {spec}"))
        facts += [("  setup", command) for command in container.setup or ()]
        facts += [("  check", _check(check)) for check in container.checks or ()]
    return facts


def _check(check: Check) -> str:
    kind = next((name for name in ("http", "tcp", "script", "ttl") if getattr(check, name)), "none")
    every = f" every {check.interval}" if check.interval else ""
    return f"{kind} {getattr(check, kind, '')}{every}"


def _said(value: Placement | UpdatePolicy) -> str:
    """What was declared otherwise than by default."""
    fields = msgspec.to_builtins(value)
    usual = msgspec.to_builtins(type(value)())
    found = [f"{name} {msgspec.json.encode(one).decode()}" for name, one in fields.items() if one != usual[name]]
    return ", ".join(found) or "as usual"


# --- kinds -------------------------------------------------------------------------------------------------------


def _service(sked: Session, name: str) -> Described:
    item = reading.declared(sked.store, name)
    service: Service = item.value
    (view,) = look(sked, [name])
    rows = listing.task_rows(sked, service=name)
    places = listing.places_of(sked, [name])[name]
    kept = decisions_of(sked.store, name)
    holder = entry_at(sked.store, keys.service_lock(name))
    moves = reading.by_name(sked.store, keys.MOVES, Moves).get(name)
    ends = evidence.endings(sked.store, service=name)
    events, told = _events(sked, service=name)
    bounds = f"min {service.min}, max {service.max}{' (follow the count)' if service.auto_bounds else ''}"
    facts: list[tuple[str, object]] = [
        ("runs", f"{service.task_name}@{service.task_version}"),
        ("desired", f"{service.desired} in each cluster; {bounds}"),
        ("scheduler", service.scheduler),
        ("placement", _said(service.placement_rules)),
        ("update", _said(service.update_policy)),
    ]
    facts += [("roll-out", headline(name, view.active.value))] if view.active else []
    facts += [("moves", counted(len(moves.moves), "task"))] if moves else []
    facts += [("locked by", holder.value.decode("utf-8", "replace"))] if holder else []
    if kept:
        facts.append(("last decision", f"{kept[-1].number}, {kept[-1].at}, by {kept[-1].by}"))
    clusters = [(one.cluster, one.issued, one.healthy, one.waiting, one.why) for one in places]
    parts = [
        Part("clusters", ("cluster", "issued", "healthy", "waiting", "why"), clusters),
        _tasks(rows),
        *([Part("failing", (), [(line,) for line in details(view.failing)])] if view.failing else []),
        _endings(ends),
        events,
    ]
    found = {"name": name, "service": item.stored(), "clusters": places, "rollout": view.json()}
    found |= {"tasks": [one.json() for one in rows], "endings": ends[-MAX_ENDINGS:], "events": told}
    more = [f"sked explain {name}", f"sked rollout history {name}", f"sked events --by-service {name}"]
    return Described("service", name, facts, parts, found, more)


def _cluster(sked: Session, name: str) -> Described:
    every = {one.cluster.name: one for one in listing.cluster_rows(sked)}
    row = every[known("cluster", name, every)]
    names = row.cluster.services
    places = listing.places_of(sked, names)
    hosts = "every host" if row.cluster.hosts is None else row.cluster.hosts
    facts: list[tuple[str, object]] = [("hosts", hosts), ("tasks", row.tasks)]
    facts += [("datacenter", row.cluster.datacenter)] if row.cluster.datacenter else []
    here = [(service, one) for service in names for one in places[service] if one.cluster == name]
    cells = [(service, one.issued, one.healthy, one.waiting, one.why) for service, one in here]
    part = Part("services", ("service", "issued", "healthy", "waiting", "why"), cells)
    item = {"name": name, "cluster": row.json(), "services": dict(here)}
    return Described("cluster", name, facts, [part], item, [f"sked tasks --by-cluster {name}"])


def _host(sked: Session, name: str) -> Described:
    every = {one.host.name: one for one in listing.host_rows(sked)}
    row: HostRow = every[known("host", name, every)]
    host, rows = row.host, listing.task_rows(sked, host=name)
    ends = evidence.endings(sked.store, host=name)
    events, told = _events(sked, host=name)
    facts: list[tuple[str, object]] = [("state", row.state), *_marked(row.mark)]
    facts += [("address", host.address)] if host.address else []
    facts += [
        ("memory", f"{row.memory} of {host.memory} MB reserved"),
        ("cpu", f"{row.cpu_units} of {host.cpu_units} reserved"),
        ("disk", f"{row.disk} of {host.disk} MB reserved"),
        ("executors", host.executors or "none"),
        ("ports", f"{host.port_range[0]}-{host.port_range[1]} for tasks; others hold {len(host.ports)}"),
        ("tags", [f"{key}={value}" for key, value in sorted(host.tags.items())] or "none"),
        ("attributes", [f"{key}={value}" for key, value in sorted(host.attributes.items())] or "none"),
    ]
    item: dict[str, Any] = {"name": name, "host": row.json(), "tasks": [one.json() for one in rows]}
    item |= {"endings": ends[-MAX_ENDINGS:], "events": told}
    more = [f"sked events --by-host {name}", f"sked simulate --lose {name}"]
    return Described("host", name, facts, [_tasks(rows, of="service"), _endings(ends), events], item, more)


def _marked(mark: Mark | None) -> list[tuple[str, object]]:
    if mark is None:
        return []
    return [("mark", f"{mark.state} by {mark.by or 'somebody'} {mark.at}{f': {mark.why}' if mark.why else ''}")]


def _task(sked: Session, name: str) -> Described:
    told = story(sked, name)
    task: Task | None = told.task
    facts: list[tuple[str, object]] = [("is", told.headline), ("service", told.service), ("cluster", told.cluster)]
    facts += [("runs", f"{told.task_name}@{told.task_version}")] if told.task_name else []
    if task is not None:
        asked = [fact for fact in _definition(task.task_definition) if fact[0] != "port"]
        facts += [("host", task.host), ("port", task.port or "none"), *asked]
    if told.health is not None and told.health.output:
        facts.append(("check says", told.health.output))
    rows = [(one.at, one.text) for one in told.moments[-MAX_EVENTS:]]
    parts = [Part("what happened", ("at", "what"), rows), _endings(told.endings)]
    item = story_json(told) | {"name": told.id, "task": msgspec.to_builtins(task)}
    more = [f"sked why {told.id}", *([f"sked explain task/{told.id}", f"sked logs {told.id}"] if task else [])]
    return Described("task", told.id, facts, parts, item, more)


def _task_definition(sked: Session, target: str) -> Described:
    name, _, wanted = target.partition("/")
    found = reading.items(sked.store.read(keys.task_definition_versions(name)).entries, TaskDefinition)
    versions = {str(one.value.version): one for one in found}
    if not versions:
        there = sked.store.read(keys.TASK_DEFINITIONS).entries
        names = sorted({key.removeprefix(keys.TASK_DEFINITIONS).partition("/")[0] for key in there})
        near = nearest(name, names)
        hint = f"did you mean {near}?" if near else f"there are: {', '.join(names) or 'none'}"
        raise NotFound(f"no task definition {name}", hint=hint)
    if wanted and wanted not in versions:
        others = ", ".join(sorted(versions, key=natural))
        raise NotFound(f"no version {wanted} of task_definition {name}", hint=f"there is {others}")
    item = versions[wanted or max(versions, key=natural)]
    one: TaskDefinition = item.value
    users = [s.value for s in reading.services(sked.store) if s.value.task_name == name]
    running = Counter(
        task.value.task_definition.version
        for task in reading.tasks(sked.store)
        if task.value.task_definition.name == name
    )
    cells = [
        (version, running[int(version)], [user.name for user in users if str(user.task_version) == version])
        for version in sorted(versions, key=natural)
    ]
    facts = [("version", one.version), *_definition(one)]
    facts += [("grace period", f"{_seconds(one.grace_period)}"), ("max attempts", one.max_attempts)]
    data: dict[str, Any] = {
        "name": name,
        "task_definition": item.stored(),
        "versions": [int(v) for v in sorted(versions, key=natural)],
    }
    data |= {"services": [user.name for user in users], "tasks": running[one.version]}
    parts = [Part("versions", ("version", "tasks", "services"), cells)]
    return Described("task_definition", name, facts, parts, data, [f"sked describe service/{u.name}" for u in users])


def _seconds(period: int | str) -> str:
    return period if isinstance(period, str) else f"{period / 1e9:g} s"


def _rollout(sked: Session, service: str) -> Described:
    rollouts = known_rollouts(sked, service)
    last = rollouts[-1][1] if rollouts else None
    views = look(sked, [service])
    facts: list[tuple[str, object]] = [("is", headline(service, last) if last else "no roll-out yet")]
    if last is not None:
        facts += [("began", f"{last.at} by {last.by}{f': {last.why}' if last.why else ''}")]
        facts += [("ended", last.ended)] if last.ended else [("promoted", last.promoted)]
    lines = [(line,) for view in views for line in (*view.lines(times=True, failing=False), *details(view.failing))]
    past = [(one.number, one.kind, one.task_version, one.result or one.state, one.at, one.by) for _, one in rollouts]
    events, told = _events(sked, service=service)
    parts = [
        Part("now", (), lines),
        Part("roll-outs", ("number", "kind", "to", "result", "at", "by"), past),
        events,
    ]
    item = {"name": service, "rollouts": [fields for fields, _ in rollouts], "status": [one.json() for one in views]}
    item |= {"events": told}
    more = [f"sked rollout status {service} -w", f"sked rollout undo {service}"]
    return Described("rollout", service, facts, parts, item, more)


KINDS: Mapping[str, Callable[[Session, str], Described]] = {
    "service": _service,
    "cluster": _cluster,
    "host": _host,
    "task": _task,
    "task_definition": _task_definition,
    "rollout": _rollout,
}


def described_json(one: Described) -> dict[str, Any]:
    """The same for programs. ``kind`` says which fields the rest has."""
    found: dict[str, Any] = msgspec.to_builtins({"kind": one.kind} | dict(one.item))
    return found
