"""``sked status``: all of it on one screen, and whether it would survive the loss of a host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from sked_core.client import moving, reading
from sked_core.client.foresight import live_world, schedulers_of, unreadable
from sked_core.client.listing import verdicts, why
from sked_core.client.rollouts import headline
from sked_core.client.wording import counted, first_line, natural
from sked_core.interfaces.store import Store
from sked_core.logic.moves import superseded
from sked_core.logic.plan import WAITING_FOR, Issued
from sked_core.logic.survival import Loss, Survival
from sked_core.logic.world import Pair, World, runs
from sked_core.model import keys
from sked_core.model.spec import plain
from sked_core.model.types import ClusterStatus, Failure, Presence, Service, ServiceStatus, TaskId
from sked_core.surface.options import command, output_option, session
from sked_core.surface.render import document, note, out

MAX_WORK = 500_000
"""How many hosts may have to be looked at to work out the loss of every host, some seconds' worth: more than that is
only done for whoever asks."""
MAX_VERDICTS = 3
MAX_LINES = 12
"""How many lines services get, so that it all fits on a screen."""
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
    """How a service is. ``why``: what there is to say if it is not well."""

    service: str
    state: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Losses:
    """What the loss of each host would come to: of the ``worst`` one, with reasons; ``unsafe``: those that would leave
    tasks without a place; ``left_out``: why that was not worked out."""

    hosts: int = 0
    unsafe: Sequence[str] = ()
    worst: Loss | None = None
    left_out: str = ""


@command("status")
@click.option("--losses", is_flag=True, help="Work out the loss of each host however long it takes.")
@output_option
def status(losses: bool, output: str) -> None:
    """Show how all of it is on one screen: hosts, schedulers, services that need somebody and why.

    And whether every task would find another place if any one host were lost, and which is the worst to lose.
    """
    with session() as sked:
        backend = sked.settings.backend.value
        world = live_world(sked).world
        present = _present(sked.store)
        statuses = reading.by_name(sked.store, keys.SERVICE_STATUS, ServiceStatus)
        failures = reading.by_name(sked.store, keys.FAILURES, Failure)
        survival = Survival(world, schedulers_of(sked, world))
    for line in unreadable(world):
        note(f"note: {line}")
    states = _states(world, statuses, failures, {name for offered in present.values() for name in offered})
    found = _losses(survival, however_long=losses)
    if output == "json":
        return out(document("Status", [_json(backend, world, present, states, found)]))
    for name, lines in (
        ("store", [backend]),
        ("hosts", [_hosts_line(world)]),
        ("schedulers", _scheduler_lines(present)),
        ("tasks", [_tasks_line(world)]),
        ("services", list(_service_lines(states))),
        ("survives the loss of any one host", list(_loss_lines(found))),
    ):
        width = 12 if len(name) < 12 else len(name) + 1
        out(plain(f"{name + ':':<{width}} {lines[0]}"))
        for line in lines[1:]:
            out(plain(f"  {line}"))
    return None


def _present(store: Store) -> dict[str, Sequence[str]]:
    """Living scheduler processes, with what they place by."""
    return {name: sorted(one.schedulers) for name, one in reading.by_name(store, keys.SCHEDULERS, Presence).items()}


# --- services ------------------------------------------------------------------------------------------------------


def _states(
    world: World,
    statuses: Mapping[str, ServiceStatus],
    failures: Mapping[str, Failure],
    schedulers: Collection[str],
) -> list[State]:
    """The services, those first that need somebody."""
    there, clusters = world.tasks(), _clusters(world)
    found = []
    broken = {
        key.removeprefix(keys.SERVICES): why for key, why in world.faults.items() if key.startswith(keys.SERVICES)
    }
    for name in {*world.services, *(service for _, service in there), *broken}:
        service, status = world.services.get(name), statuses.get(name)
        tasks = {pair: there.get(pair, []) for pair in clusters.get(name, ())}
        if name in broken:
            found.append(State(name, "unreadable", f"{keys.service(name)}: {broken[name]}; its tasks stay as they are"))
        elif service is None:
            found.append(State(name, "stopping", "it is not declared any more"))
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
    if rollout is not None and rollout.state == "failed":
        return State(name, "failing", first_line(headline(name, rollout)).partition(": ")[2])
    for one in (one for issued in tasks.values() for one in issued):
        failure = failures.get(one.id)
        if one.task.rejected:
            return State(name, "failing", f"{one.task.host} rejected {one.id}: {first_line(one.task.reject_reason)}")
        if failure is not None and failure.host == one.task.host:
            return State(name, "failing", f"{one.id} on {failure.host}: {first_line(failure.reason)}")
    clusters, moves = status.clusters if status else {}, world.moves.get(name)
    if moves is not None and (not moves.moves or superseded(moves, service, rolling=rollout is not None)):
        moves = None
    for cluster, _ in tasks:
        said = clusters.get(cluster, ClusterStatus())
        on_the_way = rollout is not None or (moves is not None and said.blocked.startswith(WAITING_FOR))
        if said.waiting or (said.blocked and not on_the_way):
            counts = f"{said.waiting} of {counted(said.desired, 'task')} in {cluster}" if said.waiting else cluster
            return State(name, "waiting", f"{counts}: {_short(said)}")
    if service.scheduler not in schedulers:
        return State(name, "not scheduled", f"no process is there that places by {service.scheduler}")
    if rollout is not None:
        return State(name, "rolling out", headline(name, rollout).partition(": ")[2])
    if moves is not None:
        return State(name, "moving", moving.said(moves.moves))
    if not tasks:
        return State(name, "in no cluster")
    well = min(sum(_well(world, one) for one in issued) for issued in tasks.values())
    if well < service.desired:
        return State(name, "starting", f"{well} of {counted(service.desired, 'task')} healthy")
    return State(name, "ok")


def _short(said: ClusterStatus) -> str:
    parts = why(said).split(" | ")
    more = len(parts) - MAX_VERDICTS
    return " | ".join(parts[:MAX_VERDICTS]) + (f" | and {more} more such reasons" if more > 0 else "")


def _well(world: World, one: Issued) -> bool:
    health = world.health.get(one.id)
    return runs(one.task) and health is not None and health.healthy


# --- losses --------------------------------------------------------------------------------------------------------


def _losses(survival: Survival, *, however_long: bool) -> Losses:
    hosts = survival.hosts
    if survival.work > MAX_WORK and not however_long:
        return Losses(len(hosts), left_out=f"not worked out for {len(hosts)} hosts: sked status --losses")
    losses = [survival.loss(host) for host in hosts]
    worst = max(losses, key=lambda loss: (loss.severity, [-ord(c) for c in loss.host]), default=None)
    unsafe = [loss.host for loss in losses if loss.unplaced]
    return Losses(len(hosts), unsafe, survival.loss(worst.host, explain=True) if worst else None)


def _loss_lines(found: Losses) -> Iterator[str]:
    worst = found.worst
    if worst is None:
        yield found.left_out or "yes, no host has any tasks"
    elif not worst.unplaced:
        yield f"yes; the most to move are those of {worst.host}: {counted(worst.tasks, 'task')}"
    else:
        parts = [f"{count} of {service} in {cluster}" for (cluster, service), count in worst.unplaced.items()]
        missed = f"{sum(worst.unplaced.values())} of its {counted(worst.tasks, 'task')} without a place"
        yield f"no: losing {worst.host} leaves {missed}: {', '.join(parts)}"
        for (cluster, service), refusals in worst.refusals.items():
            said = verdicts(refusals)
            more = [f"and {len(said) - MAX_VERDICTS} more such reasons"] if len(said) > MAX_VERDICTS else []
            yield f"{cluster}/{service}: {' | '.join([*said[:MAX_VERDICTS], *more])}"
        if others := [host for host in found.unsafe if host != worst.host]:
            yield f"losing any of these leaves some as well: {_some(others, 10)}"


# --- the rest ------------------------------------------------------------------------------------------------------


def _groups(world: World) -> dict[str, list[str]]:
    """Hosts by state, those that are ready first."""
    found: dict[str, list[str]] = {"ready": [], "down": [], "draining": [], "cordoned": []}
    for name in sorted(world.hosts, key=natural):
        view = world.hosts[name]
        found["down" if not view.alive else view.mark or "ready"].append(name)
    return found


def _hosts_line(world: World) -> str:
    groups = _groups(world)
    parts = [f"{len(groups.pop('ready'))} ready"]
    parts += [f"{len(names)} {state} ({_some(names)})" for state, names in groups.items() if names]
    return f"{len(world.hosts)}: {', '.join(parts)}" if world.hosts else "none: start an agent with `sked run agent`"


def _scheduler_lines(present: Mapping[str, Sequence[str]]) -> list[str]:
    if not present:
        return ["none: what runs goes on, but nothing is placed"]
    return [f"{len(present)}", *(f"{name} places by {', '.join(offered)}" for name, offered in sorted(present.items()))]


def _tasks_line(world: World) -> str:
    tasks = list(world.issued.values())
    stopping = sum(not one.task.scheduled for one in tasks)
    rejected = sum(one.task.rejected for one in tasks)
    parts = [f"{sum(_well(world, one) for one in tasks)} healthy"]
    parts += [f"{count} {what}" for count, what in ((stopping, "stopping"), (rejected, "rejected")) if count]
    return f"{len(tasks)}: {', '.join(parts)}"


def _service_lines(states: Sequence[State]) -> Iterator[str]:
    counts = Counter(one.state for one in states)
    yield f"{len(states)}" + (": " if states else "") + ", ".join(f"{counts[s]} {s}" for s in STATES if counts[s])
    alike: dict[tuple[str, str], list[str]] = {}
    for one in states:
        if one.state != "ok":
            alike.setdefault((one.state, one.why), []).append(one.service)
    said = [f"{_some(names)} {state}: {why}".removesuffix(": ") for (state, why), names in alike.items()]
    yield from said[:MAX_LINES]
    if len(said) > MAX_LINES:
        yield f"and {len(said) - MAX_LINES} more such lines: -o json has all services"


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _json(
    backend: str,
    world: World,
    present: Mapping[str, Sequence[str]],
    states: Sequence[State],
    found: Losses,
) -> dict[str, Any]:
    worst, issued = found.worst, list(world.issued.values())
    tasks: dict[TaskId, bool] = {one.id: _well(world, one) for one in issued}
    return {
        "store": backend,
        "hosts": _groups(world),
        "schedulers": [{"name": name, "schedulers": offered} for name, offered in sorted(present.items())],
        "tasks": {
            "issued": len(tasks),
            "healthy": sum(tasks.values()),
            "rejected": sum(one.task.rejected for one in issued),
            "stopping": sum(not one.task.scheduled for one in issued),
        },
        "services": [{"service": one.service, "state": one.state, "why": one.why} for one in states],
        "losses": {
            "worked_out": not found.left_out,
            "survived": None if found.left_out else not found.unsafe,
            "hosts": found.hosts,
            "unsafe": list(found.unsafe),
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
        },
    }
