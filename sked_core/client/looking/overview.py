"""How all of it is: hosts, schedulers, services and what is wrong with them, and the loss of a host."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any

from sked_core.client import reading
from sked_core.client.looking.foresight import live_world, schedulers_of, thought_out
from sked_core.client.looking.listing import why
from sked_core.client.looking.moves import progress
from sked_core.client.looking.rollouts import headline
from sked_core.client.session import Session
from sked_core.errors import PluginError
from sked_core.interfaces.scheduler import Scheduler
from sked_core.logic.moves import superseded
from sked_core.logic.plan import WAITING_FOR, Issued
from sked_core.logic.survival import Loss, Survival
from sked_core.logic.world import Pair, World, runs
from sked_core.model import keys
from sked_core.model.types import ClusterStatus, Failure, Presence, Service, ServiceStatus
from sked_core.model.wording import counted, first_line, natural

MAX_WORK = 500_000
"""How many hosts may have to be looked at to work out the loss of every host, some seconds' worth: more than that is
only done for whoever asks."""
LOSSES_SECONDS, LONGEST_SECONDS = 10.0, 3600.0
"""How long schedulers of plugins may take to say what the loss of hosts comes to, and where somebody asks for it."""
MAX_VERDICTS = 3
STATES = (
    "unreadable",
    "failing",
    "waiting",
    "not scheduled",
    "rolling out",
    "moving",
    "starting",
    "stopping",
    "in no cluster",
    "ok",
)
"""Of a service, those first that need somebody."""


@dataclass(frozen=True, slots=True)
class State:
    """How a service is. ``why``: what there is to say if it is not well; ``more``: the command that tells the rest."""

    service: str
    state: str
    why: str = ""
    more: str = ""


@dataclass(frozen=True, slots=True)
class Losses:
    """What the loss of each host would come to: of the ``worst`` one, with reasons; ``unsafe``: those that would leave
    tasks without a place; ``left_out``: why that was not worked out."""

    hosts: int = 0
    unsafe: Sequence[str] = ()
    worst: Loss | None = None
    left_out: str = ""

    def json(self) -> dict[str, Any]:
        """The same for programs."""
        worst = self.worst
        return {
            "worked_out": not self.left_out,
            "survived": None if self.left_out else not self.unsafe,
            "hosts": self.hosts,
            "unsafe": list(self.unsafe),
            "worst": worst
            and {
                "host": worst.host,
                "tasks": worst.tasks,
                "unplaced": [
                    {
                        "cluster": pair[0],
                        "service": pair[1],
                        "tasks": count,
                        "refusals": {host: list(reasons) for host, reasons in worst.refusals[pair].items()},
                    }
                    for pair, count in worst.unplaced.items()
                ],
            },
        }


@dataclass(frozen=True, slots=True)
class Counts:
    """Of tasks."""

    issued: int
    healthy: int
    rejected: int
    stopping: int


@dataclass(frozen=True, slots=True)
class Overview:
    """All of it at one moment. ``store``: its URL, as it was given; ``groups``: names of hosts by state (ready, down,
    draining, cordoned), in natural order; ``schedulers``: living scheduler processes, with what they place by;
    ``states``: of services, those first that need somebody; ``faults``: keys that can't be read, with the reasons;
    ``stranded``: of each host that is down, how many tasks are there; ``silent``: see ``Session.silent``."""

    store: str
    groups: Mapping[str, Sequence[str]]
    schedulers: Mapping[str, Presence]
    tasks: Counts
    states: Sequence[State]
    losses: Losses
    faults: Mapping[str, str]
    stranded: Mapping[str, int]
    silent: Mapping[str, str]


def overview(sked: Session, *, however_long: bool = False) -> Overview:
    """All of it as it is now. ``however_long``: the loss of each host is worked out also where that takes more than
    some seconds. Raises Unavailable."""
    world = live_world(sked).world
    present = reading.by_name(sked.store, keys.SCHEDULERS, Presence)
    statuses = reading.by_name(sked.store, keys.SERVICE_STATUS, ServiceStatus)
    failures = reading.by_name(sked.store, keys.FAILURES, Failure)
    schedulers = schedulers_of(sked, world)
    return Overview(
        store=sked.settings.backend.value,
        groups=_groups(world),
        schedulers=present,
        tasks=_counts(world),
        states=states(world, statuses, failures, {name for one in present.values() for name in one.schedulers}),
        losses=_losses(sked, world, schedulers, however_long=however_long),
        faults=world.faults,
        stranded={
            name: sum(one.task.host == name for one in world.issued.values())
            for name, view in world.hosts.items()
            if not view.alive
        },
        silent=sked.silent(),
    )


def schedulers_there(sked: Session) -> dict[str, Sequence[str]]:
    """Living scheduler processes, with what they place by."""
    found = reading.by_name(sked.store, keys.SCHEDULERS, Presence)
    return {name: sorted(one.schedulers) for name, one in found.items()}


def _groups(world: World) -> dict[str, list[str]]:
    """Hosts by state, those that are ready first."""
    found: dict[str, list[str]] = {"ready": [], "down": [], "draining": [], "cordoned": []}
    for name in sorted(world.hosts, key=natural):
        view = world.hosts[name]
        found["down" if not view.alive else view.mark or "ready"].append(name)
    return found


def _counts(world: World) -> Counts:
    issued = world.issued.values()
    return Counts(
        issued=len(issued),
        healthy=sum(_well(world, one) for one in issued),
        rejected=sum(one.task.rejected for one in issued),
        stopping=sum(not one.task.scheduled for one in issued),
    )


# --- services ------------------------------------------------------------------------------------------------------


def states(
    world: World,
    statuses: Mapping[str, ServiceStatus],
    failures: Mapping[str, Failure],
    schedulers: Collection[str],
) -> list[State]:
    """The services, those first that need somebody. ``schedulers``: those that somebody places by."""
    there, clusters = world.tasks(), _clusters(world)
    found = []
    broken = {
        key.removeprefix(keys.SERVICES): why for key, why in world.faults.items() if key.startswith(keys.SERVICES)
    }
    for name in {*world.services, *(service for _, service in there), *broken}:
        service, status = world.services.get(name), statuses.get(name)
        tasks = {pair: there.get(pair, []) for pair in clusters.get(name, ())}
        if name in broken:
            said = f"{keys.SERVICES}{name}: {broken[name]}; its tasks stay as they are"
            found.append(State(name, "unreadable", said, f"sked explain {quote(name)}"))
        elif service is None and status is not None and status.scheduler not in schedulers:
            said = f"it is not declared any more, and no process is there that places by {status.scheduler}"
            found.append(State(name, "not scheduled", said, f"sked tasks --by-service {name}"))
        elif service is None:
            found.append(State(name, "stopping", "it is not declared any more", f"sked tasks --by-service {name}"))
        else:
            found.append(_state(service, tasks, status, world, failures, schedulers))
    return sorted(found, key=lambda one: (STATES.index(one.state), natural(one.service)))


def _clusters(world: World) -> dict[str, list[Pair]]:
    found: dict[str, list[Pair]] = {}
    for cluster in world.clusters.values():
        for name in cluster.services:
            found.setdefault(name, []).append((cluster.name, name))
    return found


def _state(
    service: Service,
    tasks: Mapping[Pair, Sequence[Issued]],
    status: ServiceStatus | None,
    world: World,
    failures: Mapping[str, Failure],
    schedulers: Collection[str],
) -> State:
    name, rollout = service.name, world.rollouts.get(service.name)
    rolling, explained = f"sked rollout status {name}", f"sked explain {name}"
    if rollout is not None and rollout.state == "failed":
        return State(name, "failing", first_line(headline(name, rollout)).partition(": ")[2], rolling)
    for one in (one for issued in tasks.values() for one in issued):
        failure, told = failures.get(one.id), f"sked why {one.id}"
        if one.task.rejected:
            said = f"{one.task.host} rejected {one.id}: {first_line(one.task.reject_reason)}"
            return State(name, "failing", said, told)
        if failure is not None and failure.host == one.task.host:
            return State(name, "failing", f"{one.id} on {failure.host}: {first_line(failure.reason)}", told)
    clusters, moves = status.clusters if status else {}, world.moves.get(name)
    if moves is not None and (not moves.moves or superseded(moves, service, rolling=rollout is not None)):
        moves = None
    for cluster, _ in tasks:
        said_of = clusters.get(cluster, ClusterStatus())
        on_the_way = rollout is not None or (moves is not None and said_of.blocked.startswith(WAITING_FOR))
        if said_of.waiting or (said_of.blocked and not on_the_way):
            tasks_said = f"{said_of.waiting} of {counted(said_of.desired, 'task')} in {cluster}"
            since = f" (since {said_of.since})" if said_of.since else ""
            said = f"{tasks_said if said_of.waiting else cluster}: {_short(said_of)}{since}"
            return State(name, "waiting", said, explained)
    if service.scheduler not in schedulers:
        said = f"no process is there that places by {service.scheduler}"
        return State(name, "not scheduled", said, f"sked describe service/{name}")
    if rollout is not None:
        return State(name, "rolling out", headline(name, rollout).partition(": ")[2], rolling)
    if moves is not None:
        return State(name, "moving", progress(moves.moves), f"sked events --by-service {name}")
    if not tasks:
        return State(name, "in no cluster", more=f"sked describe service/{name}")
    well = min(sum(_well(world, one) for one in issued) for issued in tasks.values())
    if well < service.desired:
        said = f"{well} of {counted(service.desired, 'task')} healthy"
        return State(name, "starting", said, f"sked tasks --by-service {name}")
    return State(name, "ok")


def _short(said: ClusterStatus) -> str:
    parts = why(said).split(" | ")
    more = len(parts) - MAX_VERDICTS
    return " | ".join(parts[:MAX_VERDICTS]) + (f" | and {more} more such reasons" if more > 0 else "")


def _well(world: World, one: Issued) -> bool:
    health = world.health.get(one.id)
    return runs(one.task) and health is not None and health.healthy


# --- losses --------------------------------------------------------------------------------------------------------


def _losses(sked: Session, world: World, schedulers: Mapping[str, Scheduler], *, however_long: bool) -> Losses:
    def work() -> Losses:
        return losses(Survival(world, schedulers), however_long=however_long)

    try:
        return thought_out(sked, schedulers, work, LONGEST_SECONDS if however_long else LOSSES_SECONDS)
    except PluginError as error:
        return Losses(left_out=f"not known: {error}")


def losses(survival: Survival, *, however_long: bool = False) -> Losses:
    """What the loss of each host would come to."""
    hosts = survival.hosts
    if survival.work > MAX_WORK and not however_long:
        return Losses(len(hosts), left_out=f"not worked out for {len(hosts)} hosts: sked status --losses")
    if survival.unasked and not hosts:
        return Losses(left_out="not known: what places the tasks is not installed here")
    found = [survival.loss(host) for host in hosts]
    worst = max(found, key=lambda loss: (loss.severity, [-ord(c) for c in loss.host]), default=None)
    unsafe = [loss.host for loss in found if loss.unplaced]
    return Losses(len(hosts), unsafe, survival.loss(worst.host, explain=True) if worst else None)
