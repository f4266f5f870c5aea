"""What `sked explain` knows: the live state of a service, and the decisions about it that are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sked_core.client import reading
from sked_core.client.looking.foresight import live_world, with_scheduler
from sked_core.client.looking.listing import verdicts as verdicts_of
from sked_core.client.looking.overview import schedulers_there
from sked_core.client.naming import one_of
from sked_core.client.session import Session
from sked_core.errors import NotFound, PluginError
from sked_core.interfaces.scheduler import Demand, Scheduler
from sked_core.interfaces.store import Store
from sked_core.logic.explanation import Question, Verdict, explain, less, nearest
from sked_core.logic.fleet import Fleet
from sked_core.logic.plan import Goal, demand_of
from sked_core.logic.presence import Rejections
from sked_core.logic.world import World, runs, unreadable_service
from sked_core.model import keys
from sked_core.model.decisions import Batch, Decision
from sked_core.model.types import ClusterStatus, Failure, ServiceStatus, Task
from sked_core.model.wording import natural
from sked_core.runtime.plugins import aside


@dataclass(frozen=True, slots=True)
class Found:
    """A task of the service where it is now, and why it is there. ``decision``: the one that put it there, if that is
    kept, with its ``batch`` and the task's ``number`` in it. ``silent``: the agent of its host is not running;
    ``leaving``: it is to be replaced."""

    task: Task
    healthy: bool
    silent: bool = False
    leaving: bool = False
    failure: Failure | None = None
    decision: Decision | None = None
    batch: Batch | None = None
    number: int = 0

    @property
    def terms(self) -> Mapping[str, float]:
        """The score that its host had when it was chosen, if that is kept."""
        batch = self.batch
        return batch.terms[self.number] if batch is not None and self.number < len(batch.terms) else {}


@dataclass(frozen=True, slots=True)
class Explained:
    """What is to be said of one service in one cluster. ``note``: why no host is looked at, where that is so."""

    goal: Goal
    cluster: str
    status: ClusterStatus
    tasks: Sequence[Found] = ()
    demand: Demand | None = None
    verdicts: Sequence[Verdict] = ()
    nearest: str = ""
    less: str = ""
    note: str = ""

    @property
    def placed(self) -> int:
        """How many tasks are to run and are not rejected."""
        return sum(runs(one.task) for one in self.tasks)

    @property
    def silent(self) -> int:
        """How many of those are on hosts whose agents are not running."""
        return sum(runs(one.task) and one.silent for one in self.tasks)

    @property
    def leaving(self) -> int:
        """How many of those are to be replaced: they are of another version, or may not stay on their hosts."""
        return sum(runs(one.task) and one.leaving for one in self.tasks)

    @property
    def waiting(self) -> int:
        """How many more are desired, or found no host when a scheduler looked last."""
        return max(0, self.goal.service.desired - self.placed, self.status.waiting)


def told_apart(store: Store, name: str) -> tuple[str, str]:
    """``("service", name)`` or ``("task", id)``. What names both is taken for the service, unless ``task/`` stands
    before it; as much of a name as is unique will do. Raises NotFound, with what is like it."""
    kind, slash, rest = name.partition("/")
    wanted = kind if slash and kind in ("service", "task") else ""
    bare = rest if wanted else name
    services = {keys.last_segment(key) for key in store.read(keys.SERVICES).entries}
    if wanted != "task" and bare in services:
        return "service", bare
    tasks = {keys.last_segment(key) for key in store.read(keys.TASKS).entries}
    if wanted != "service" and bare in tasks:
        return "task", bare
    known = {"service": services, "task": tasks}.get(wanted, services | tasks)
    try:
        found = one_of(wanted or "service or task", bare, known)
    except NotFound as error:
        if wanted != "service" and _is_remembered(store, bare):
            error.hint = f"there was one, and this tells how it ended: sked why {bare}"
        raise
    return "service" if found in services and wanted != "task" else "task", found


def _is_remembered(store: Store, task: str) -> bool:
    """Whether anything is kept of a task that is gone."""
    subject = f'"task/{task}"'.encode()
    if any(subject in entry.value for entry in store.read(keys.EVENTS).entries.values()):
        return True
    return any(f'"{task}"'.encode() in entry.value for entry in store.read(keys.ENDINGS).entries.values())


def decisions_of(store: Store, service: str) -> list[Decision]:
    """The decisions about the service that are kept, oldest first. What can't be read is named on stderr."""
    found = reading.items(store.read(keys.decisions(service)).entries, Decision)
    return sorted((item.value for item in found), key=lambda one: one.number)


def one_decision(kept: Sequence[Decision], service: str, number: int) -> Decision:
    """That of ``kept``, the decisions about ``service``. Raises NotFound, with the numbers of those."""
    for decision in kept:
        if decision.number == number:
            return decision
    hint = f"those that can be read: {', '.join(str(one.number) for one in kept) or 'none'}"
    raise NotFound(f"no decision {number} about {service}", hint=hint)


def placements(kept: Sequence[Decision], task: Task) -> Iterator[tuple[Decision, Batch, int]]:
    """The decisions that put ``task`` where it is, the last one first, with its batch and its number in that."""
    wanted = (task.cluster.name, task.task_definition.name, task.task_definition.version)
    for decision in reversed(kept):
        for batch in decision.batches:
            if (batch.cluster, batch.task_name, batch.task_version) == wanted:
                for number, found in enumerate(zip(batch.instances, batch.hosts, strict=False)):
                    if found == (task.instance, task.host):
                        yield decision, batch, number


def live(sked: Session, service: str) -> list[Explained]:
    """The service as it stands now, cluster by cluster. Raises InvalidValue if what is declared can't be read."""
    world = live_world(sked).world
    if fault := world.faults.get(keys.service(service)):
        more = "until then its tasks stay as they are; `sked explain TASK` tells of one of them"
        raise unreadable_service(service, fault, more)
    goals = {pair[0]: goal for pair, goal in world.goals().items() if pair[1] == service and goal.cluster is not None}
    status = reading.by_name(sked.store, keys.SERVICE_STATUS, ServiceStatus).get(service)
    failures = reading.by_name(sked.store, keys.FAILURES, Failure)
    kept = decisions_of(sked.store, service)
    found = []
    for cluster, goal in sorted(goals.items()):
        own = [one.task for one in world.tasks().get((cluster, service), ())]
        said = status.clusters.get(cluster, ClusterStatus()) if status else ClusterStatus()
        tasks = [_found(world, goal, task, failures, kept) for task in sorted(own, key=lambda one: natural(one.id))]
        found.append(_judged(sked, world, Explained(goal, cluster, said, tasks)))
    return found


def task_now(sked: Session, task: Task) -> Found:
    """``task`` as it stands now, whatever can be read of its service."""
    failures = reading.by_name(sked.store, keys.FAILURES, Failure)
    world = live_world(sked).world
    goal = world.goals().get((task.cluster.name, task.service))
    return _found(world, goal, task, failures, decisions_of(sked.store, task.service))


def _found(
    world: World, goal: Goal | None, task: Task, failures: Mapping[str, Failure], kept: Sequence[Decision]
) -> Found:
    health, failure = world.health.get(task.id), failures.get(task.id)
    view = world.hosts.get(task.host)
    found = Found(
        task,
        health is not None and health.healthy,
        silent=view is not None and not view.alive,
        leaving=(goal is not None and not goal.wants(task)) or (view is not None and view.mark == "draining"),
        failure=failure if failure and failure.host == task.host else None,
    )
    for decision, batch, number in placements(kept, task):
        return replace(found, decision=decision, batch=batch, number=number)
    return found


def _judged(sked: Session, world: World, found: Explained) -> Explained:
    """With a verdict on every host, as far as one can be had."""
    goal = found.goal
    if goal.definition is None:
        return replace(found, note=f"there is no task definition {goal.service.task_name}/{goal.service.task_version}")
    found = replace(found, demand=demand_of(goal, goal.definition, goal.fixed_ports))

    def judge(scheduler: Scheduler, called: str) -> tuple[Question, list[Verdict]]:
        question = question_of(world, goal, scheduler, called)
        return question, explain(question)

    try:
        question, verdicts = with_scheduler(sked, goal.service.scheduler, judge, aside.PATIENCE_SECONDS)
    except PluginError as error:
        if str(error) == found.status.blocked:  # it fails here just as it does where it places
            return found
        name = goal.service.scheduler
        elsewhere = any(name in offered for offered in schedulers_there(sked).values())
        said = "; ".join(verdicts_of(found.status.hosts)) if found.status.waiting else ""
        more = f"{'another process' if elsewhere else 'and no process that runs'} places by it"
        return replace(found, note=f"{error}; {more}{f', and says: {said}' if said else ''}")
    best, smaller = nearest(verdicts), less(question, verdicts)
    return replace(
        found,
        verdicts=verdicts,
        nearest=f"{best[0]}: {best[1]}" if best else "",
        less=f"ask for no more than {smaller[1]}: {smaller[0]} has that" if smaller else "",
    )


def question_of(world: World, goal: Goal, scheduler: Scheduler, called: str) -> Question:
    """Where one more task of ``goal``, which has a cluster and a definition, would go in ``world``."""
    assert goal.definition is not None and goal.cluster is not None
    by_host: dict[str, list[Task]] = {}
    for one in world.issued.values():
        by_host.setdefault(one.task.host, []).append(one.task)
    rejections = Rejections()
    rejections.update(world.issued.values(), 0.0)
    # Only schedulers know for how long a host has been away; that it is away everybody sees.
    views = [replace(view, lost=False) for view in world.hosts.values()]
    return Question(
        fleet=Fleet(views, (one.task for one in world.issued.values()), world.ports_of),
        scheduler=scheduler,
        name=called,
        demand=demand_of(goal, goal.definition, goal.fixed_ports),
        allowed=goal.cluster.hosts,
        avoid=rejections.avoided(goal.service.name, goal.definition, 0.0),
        tasks=by_host,
        ports_of=world.ports_of,
    )
