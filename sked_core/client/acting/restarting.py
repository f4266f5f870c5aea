"""Restarting tasks, one where it is or all of a service step by step; and stopping one for good.

A restart of one task is a number in its record: its agent stops and starts what was started from another one, also if
that agent comes only later. A restart of a service is moves of its tasks to where they are: any scheduler goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sked_core.client import reading
from sked_core.client.looking.foresight import live_world, with_scheduler
from sked_core.client.looking.listing import failures_of, health_of
from sked_core.client.outcomes import CONFLICT, FAILED, Ended
from sked_core.client.session import Session, repeated
from sked_core.errors import InvalidValue, NotFound, PluginError
from sked_core.interfaces.scheduler import Scheduler
from sked_core.interfaces.store import Check, Entry, Op, Put, Revision, Store, entry_at
from sked_core.logic.fleet import Fleet
from sked_core.logic.plan import Goal, demand_of
from sked_core.logic.world import Pair, World, runs
from sked_core.model import keys
from sked_core.model.codec import decode, encode, patch
from sked_core.model.spec import known
from sked_core.model.types import Event, Moves, Service, Task, TaskId, TaskMove
from sked_core.model.wording import counted
from sked_core.runtime.journal import Journal
from sked_core.runtime.scheduling.live_world import Live
from sked_core.runtime.state import decode_task, marker

MAX_RESTARTS = 500
"""So many stand in one record with room to spare, however long the names."""


@dataclass(frozen=True, slots=True)
class ServiceRestart:
    """What schedulers were asked for. ``left_out``: tasks that are not restarted, and why; ``since``: the events that
    were there before."""

    service: str
    moves: Sequence[TaskMove]
    left_out: Sequence[tuple[str, str]]
    since: frozenset[str]


@dataclass(frozen=True, slots=True)
class TaskRestart:
    """A restart that its agent was asked for. ``alive``: whether the agent is there to make it now; ``since``: the
    events that were there before."""

    task: Task
    alive: bool
    since: frozenset[str]


@dataclass(frozen=True, slots=True)
class Stopped:
    """A task that its agent was asked to stop. ``replaced_by``: the scheduler that places another one, if that is still
    wanted; ``changed`` is false where it was being stopped already."""

    task: Task
    replaced_by: str
    changed: bool


def kind_of(sked: Session, name: str) -> tuple[str, str]:
    """``("service", name)`` or ``("task", id)``: what is meant by ``name``, which may say so (``task/…``).

    Raises NotFound with what is like it, and InvalidValue where it is both.
    """
    kind, slash, rest = name.partition("/")
    services = [keys.last_segment(key) for key in sked.store.read(keys.SERVICES).entries]
    tasks = [item.value.id for item in reading.tasks(sked.store)]
    if slash:
        if kind not in ("service", "task"):
            raise InvalidValue(f"expected service/NAME or task/ID, got {name!r:.80}")
        return kind, known(kind, rest, services if kind == "service" else tasks)
    if name in services and name in tasks:
        raise InvalidValue(f"{name} is a service and a task: say service/{name} or task/{name}")
    return ("service" if known("service or task", name, [*services, *tasks]) in services else "task"), name


def restart_service(sked: Session, service: str, *, why: str = "sked restart") -> ServiceRestart:
    """Have every task of a service replaced where it is, step by step within `min` and `max`, and while all is healthy.

    A task beside which its host takes no other one, where `min` does not let it go first, is replaced on another host
    if one can take it, and left out if none can. Raises NotFound, Ended with code 5 where moves or a roll-out are under
    way or `min` and `max` leave no room, Conflict, Unavailable.
    """
    return repeated(lambda: _ask(sked, live_world(sked), service, why))


def restart_task(sked: Session, task_id: str, *, why: str = "sked restart") -> TaskRestart:
    """Have the agent of a task stop it and start it again on the same host; that goes below `min` if it has to.

    Each call restarts it once more. Raises NotFound, Ended with code 5 where it is being stopped or was rejected,
    Conflict, Unavailable.
    """
    journal = sked.journal()
    since = frozenset(sked.store.read(keys.EVENTS).entries)
    task = repeated(lambda: restart_in_place(sked.store, journal, task_id, why))
    return TaskRestart(task, alive=entry_at(sked.store, keys.live(task.host)) is not None, since=since)


def stop_task(sked: Session, task_id: str, *, why: str = "sked stop") -> Stopped:
    """Have the agent of a task stop it and remove it. Its scheduler places another one if the service still wants it.

    Raises NotFound, Conflict, Unavailable.
    """
    journal = sked.journal()
    task, changed = repeated(lambda: stop_in_place(sked.store, journal, task_id, why))
    return Stopped(task, _replaced_by(sked.store, task), changed)


def restart_in_place(store: Store, journal: Journal, task_id: str, why: str) -> Task:
    """Ask for a restart in the record of the task, as it is now; returns that. Raises as ``restart_task`` does."""
    task, entries = _task(store, task_id)
    if not task.scheduled:
        raise Ended(f"{task_id} is being stopped", code=CONFLICT, hint="what comes of it:  sked events")
    if task.rejected:
        hint = f"its scheduler places it anew; where, and why not:  sked explain {task.service}"
        raise Ended(f"{task.host} rejected {task_id}: {task.reject_reason}", code=CONFLICT, hint=hint)
    _edit(journal, task, entries, "task.restarted", why, restarts=(task.restarts or 0) + 1)
    return task


def stop_in_place(store: Store, journal: Journal, task_id: str, why: str) -> tuple[Task, bool]:
    """Ask for an end in the record of the task; returns it as it was, and whether that changed anything."""
    task, entries = _task(store, task_id)
    if task.scheduled:
        _edit(journal, task, entries, "task.withdrawn", why, scheduled=False)
    return task, task.scheduled


def is_restarted(sked: Session, done: TaskRestart) -> bool:
    """Whether the agent has started the task since, and it is healthy. Raises Ended with code 5 where it is gone, or is
    to go, and with code 1 where its agent has given it up; Unavailable."""
    found = [item for item in reading.tasks(sked.store, host=done.task.host) if item.value.id == done.task.id]
    if not found or not found[0].value.scheduled:
        raise Ended(f"{done.task.id} was taken away from {done.task.host} meanwhile", code=CONFLICT)
    if found[0].value.rejected:
        raise Ended(f"{done.task.host} rejected {done.task.id}: {found[0].value.reject_reason}", code=FAILED)
    if not any(event.what == "task.started" for event in _events(sked.store, done)):
        return False
    health = health_of(sked, [done.task]).get(done.task.id)
    return health is not None and health.healthy


def why_not_yet(sked: Session, done: TaskRestart) -> str:
    """Why it does not run well, as far as that is known."""
    found = [item for item in reading.tasks(sked.store, host=done.task.host) if item.value.id == done.task.id]
    failure = failures_of(sked, found).get(done.task.id)
    if failure is not None:
        return "\n".join([failure.reason, *failure.output.splitlines(), *failure.log])
    return "" if done.alive else f"the agent of {done.task.host} does not run"


# --- one task ------------------------------------------------------------------------------------------


def _task(store: Store, task_id: str) -> tuple[Task, dict[str, Entry]]:
    """The task with the keys under which it stands: both, or that of its host alone. Raises NotFound, InvalidValue."""
    key = keys.task(task_id)
    entry = entry_at(store, key)
    if entry is None:
        found = [item for item in reading.tasks(store) if item.value.id == task_id]
        if not found:
            known("task", task_id, [item.value.id for item in reading.tasks(store)])
            raise NotFound(f"no task {task_id}")
        return found[0].value, {found[0].key: found[0].entry}
    task = decode_task(key, entry).task
    other = keys.host_task(task.host, task_id)
    theirs = entry_at(store, other)
    return task, {key: entry} | ({other: theirs} if theirs else {})


def _edit(journal: Journal, task: Task, entries: dict[str, Entry], what: str, why: str, **changes: object) -> None:
    """Each key keeps what it says: nothing of ``state/tasks/``, which all agents may write, gets to a host's key that
    would be started there."""
    first = next(iter(entries.values()))
    written = (
        [*entries] if keys.task(task.id) not in entries else [keys.task(task.id), keys.host_task(task.host, task.id)]
    )
    if changes.get("scheduled", True) and not entries.keys() >= set(written):
        hint = "see:  sked state check"
        raise Ended(f"the key of {task.host} for {task.id} is not there: nothing to restart", code=CONFLICT, hint=hint)
    guards = [Check(key, entries[key].revision if key in entries else Revision(0)) for key in written]
    event = journal.event(what, f"task/{task.id}", service=task.service, host=task.host, why=why)
    puts = [Put(key, patch(entries.get(key, first).value, **changes)) for key in written]
    journal.commit([*guards, *puts, marker(task.service, journal.who)], [event])


def _replaced_by(store: Store, task: Task) -> str:
    """The scheduler of the task's service, if that still wants tasks in this cluster."""
    entries = store.read(keys.CONFIG).entries
    service, cluster = entries.get(keys.service(task.service)), entries.get(keys.cluster(task.cluster.name))
    if service is None or cluster is None or task.service not in decode(cluster.value, dict).get("services", ()):
        return ""
    declared = decode(service.value, Service)
    return declared.scheduler if declared.desired else ""


def _events(store: Store, done: TaskRestart) -> Iterator[Event]:
    for key, entry in store.read(keys.EVENTS).entries.items():
        if key not in done.since:
            try:
                yield from (one for one in decode(entry.value, list[Event]) if one.subject == f"task/{done.task.id}")
            except InvalidValue:
                continue


# --- a service -----------------------------------------------------------------------------------------


def _ask(sked: Session, live: Live, name: str, why: str) -> ServiceRestart:
    world = live.world
    service = world.declared(name)
    _check(world, service)
    found: dict[Pair, Goal] = {pair: goal for pair, goal in world.goals().items() if pair[1] == name}
    fleet, tasks = world.fleet(), world.tasks()
    wanted = [
        (goal, one.task, _refusal(fleet, goal, one.task))
        for pair, goal in found.items()
        for one in sorted(tasks.get(pair, ()), key=lambda one: one.task.instance)
        if goal.cluster is not None and goal.definition is not None and goal.wants(one.task) and runs(one.task)
    ]
    full = [(goal, task) for goal, task, refusal in wanted if refusal and task.host in fleet.hosts]
    others, fault = _elsewhere(sked, fleet, service, full) if full else ({}, "")
    moves: list[TaskMove] = []
    left_out: list[tuple[str, str]] = []
    for _, task, refusal in wanted:
        if to := others.get(task.id, "") if refusal else task.host:
            moves.append(TaskMove(task=task.id, cluster=task.cluster.name, source=task.host, to=to))
        else:
            left_out.append((task.id, f"{refusal}; {fault}" if fault else refusal))
    if not moves:
        hint = "\n".join(f"{task}: {refusal}" for task, refusal in left_out)
        raise Ended(f"no task of {name} can be restarted", code=CONFLICT, hint=hint or f"sked explain {name}")
    if len(moves) > MAX_RESTARTS:
        hint = "raise the version of its task definition: a roll-out replaces any number of them"
        raise Ended(f"{name} has more than {MAX_RESTARTS} tasks to restart", code=FAILED, hint=hint)
    since = frozenset(sked.store.read(keys.EVENTS).entries)
    _write(sked, live, service, moves, why)
    return ServiceRestart(name, moves, left_out, since)


def _check(world: World, service: Service) -> None:
    name = service.name
    if fault := world.faults.get(keys.moves(name)):
        raise Ended(f"{keys.moves(name)} can't be read: {fault}", code=FAILED, hint="repair or remove it")
    if name in world.moves:
        hint = f"wait for them:  sked rebalance {name} --wait\ngive them up:   sked rebalance {name} --cancel"
        raise Ended(f"moves or a restart of {name} are under way", code=CONFLICT, hint=hint)
    if name in world.rollouts:
        hint = f"see:  sked rollout status {name}"
        raise Ended(f"a roll-out of {name} is under way, which replaces its tasks", code=CONFLICT, hint=hint)
    if service.min == service.max:
        room = f"raise max to {service.max + 1}, or lower min"
        hint = f"{room}; or, one by one and below min:  sked restart TASK"
        raise Ended(f"min and max of {name} are both {service.min}: no task can be replaced", code=CONFLICT, hint=hint)


def _refusal(fleet: Fleet, goal: Goal, task: Task) -> str:
    """Why the replacement of ``task`` can't go where that is; empty if it can."""
    service, definition = goal.service, goal.definition
    assert definition is not None and goal.cluster is not None
    if task.host not in fleet.hosts:
        return f"nothing is known of {task.host}"
    demand, allowed = demand_of(goal, definition, goal.fixed_ports), goal.cluster.hosts
    refusal = "; ".join(fleet.refusal(task.host, demand, allowed, {}))
    with fleet.trial():
        fleet.release(task)
        alone = "; ".join(fleet.refusal(task.host, demand, allowed, {}))
    if (not refusal and service.max > service.desired) or (not alone and service.min < service.desired):
        return ""
    return f"{task.host} can't take another one beside it: {refusal or 'max leaves no room'}"


def _elsewhere(
    sked: Session, fleet: Fleet, service: Service, tasks: Sequence[tuple[Goal, Task]]
) -> tuple[dict[TaskId, str], str]:
    """Where the replacements of ``tasks`` go, whose own hosts have no room for them; with the fault of the scheduler,
    if it failed. ``fleet`` must not be used any more: one that hangs may still change it."""

    def places(scheduler: Scheduler, called: str) -> dict[TaskId, str]:
        found = {}
        for goal, task in tasks:
            assert goal.definition is not None and goal.cluster is not None
            demand = demand_of(goal, goal.definition, goal.fixed_ports)
            with fleet.trial():
                others = fleet.place(scheduler, called, demand, 1, goal.cluster.hosts, {task.host: ""})
                found[task.id] = next(iter(others), "")
        return found

    try:
        return with_scheduler(sked, service.scheduler, places), ""
    except PluginError as error:
        return {}, str(error)


def _write(sked: Session, live: Live, service: Service, moves: Sequence[TaskMove], why: str) -> None:
    """Guarded by the service and the absence of other moves alone, since a commit may have fewer operations than there
    are tasks: schedulers give a move up whose task is not as it was when they come to it."""
    journal, key = sked.journal(), keys.moves(service.name)
    record = Moves(moves=list(moves), desired=service.desired, by=journal.who, why=why, at=journal.now())
    said = f"{counted(len(moves), 'task')}: {why}"
    event = journal.event("service.restarted", f"service/{service.name}", service=service.name, why=said)
    declared = keys.service(service.name)
    guards: list[Op] = [Check(key, Revision(0)), Check(declared, live.revisions[declared])]
    journal.commit([*guards, Put(key, encode(record))], [event])
