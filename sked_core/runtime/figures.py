"""What loops know of themselves, counted when somebody asks: their own work costs nothing more for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sked_core.logic.lifecycle import Step
from sked_core.runtime.local_tasks import Engines, LocalTasks, Slot
from sked_core.runtime.pulse import Pulse
from sked_core.runtime.scheduler_view import View

MAX_SERVICES = 1000
"""How many services are told one by one: what collects the figures has to keep each of them. The rest are summed up
under ``OTHERS``."""
OTHERS = "(others)"


@dataclass(frozen=True, slots=True)
class AgentFigures:
    """``tasks`` by (cluster, service, state, health); ``ends`` of runs by (service, cause); ``look_age``: seconds since
    what is issued was last read, None if it never was."""

    pulses: Mapping[str, Pulse]
    tasks: Mapping[tuple[str, ...], int]
    ends: Mapping[tuple[str, str], int]
    engines: Engines
    frozen: bool
    look_age: float | None
    under_way: int


@dataclass(frozen=True, slots=True)
class SchedulerFigures:
    """``count``: of services. ``services``: (desired, issued, waiting, rejected, blocked) by name. ``oldest``: for how
    many seconds the service that waits longest for its turn has been due. ``faults``: keys that can't be read."""

    pulses: Mapping[str, Pulse]
    count: int
    services: Mapping[str, tuple[int, int, int, int, int]]
    hosts: Mapping[str, int]
    rollouts: Mapping[str, int]
    due: int
    oldest: float
    faults: int
    schedulers: int
    failing: int


def local_tasks(tasks: LocalTasks) -> Counter[tuple[str, ...]]:
    """How many tasks there are by (cluster, service, state, health). Callable from any thread: works on a copy."""
    found: Counter[tuple[str, ...]] = Counter()
    for slot in list(tasks.slots.values()):
        if slot.record is None and not slot.local.exists:
            continue  # just to be forgotten
        task = slot.record.task if slot.record is not None else slot.task
        of = (task.cluster.name, task.service) if task is not None else ("", "")
        found[(*of, *_state(slot))] += 1
    return found


def _state(slot: Slot) -> tuple[str, str]:
    local = slot.local
    if slot.busy in (Step.STOP, Step.RESTART, Step.LEAVE) or (slot.going and local.exists):
        return "stopping", ""
    if slot.busy is Step.START and not local.up:
        return "starting", ""
    if local.unknown:
        return "unknown", ""
    if local.up:
        return "running", {True: "healthy", False: "unhealthy", None: "unknown"}[local.healthy]
    return ("failing" if local.attempts else "waiting"), ""


def services(view: View) -> dict[str, tuple[int, int, int, int, int]]:
    """(desired, issued, waiting, rejected, blocked) of each service. The caller holds what guards ``view``."""
    found: dict[str, tuple[int, int, int, int, int]] = {}
    rejected = Counter(one.task.service for one in view.rejected.values())
    rest = [0, 0, 0, 0, 0]
    for name in sorted(view.names() | view.issued.keys()):
        status = view.status(name)
        clusters = status.clusters.values() if status is not None else ()
        row = (
            sum(cluster.desired for cluster in clusters),
            sum(len(tasks) for tasks in view.issued.get(name, {}).values()),
            sum(cluster.waiting for cluster in clusters),
            rejected[name],
            int(any(cluster.blocked for cluster in clusters)),
        )
        if len(found) < MAX_SERVICES:
            found[name] = row
        else:
            rest = [one + more for one, more in zip(rest, row, strict=True)]
            found[OTHERS] = (rest[0], rest[1], rest[2], rest[3], rest[4])
    return found


def of_scheduler(
    view: View, due: Iterable[float], now: float, *, pulses: Mapping[str, Pulse], schedulers: int, failing: int
) -> SchedulerFigures:
    """The caller holds what guards ``view`` and ``due``, the times at which services are to be looked at."""
    late = [now - one for one in due if one <= now]
    states = Counter(
        "lost" if one.lost else "down" if not one.alive else one.mark or "ready" for one in view.fleet.hosts.values()
    )
    rollouts = Counter(rollout.state for rollout in view.rollouts.objects.values())
    return SchedulerFigures(
        pulses=pulses,
        count=len(view.names()),
        services=services(view),
        hosts={state: states[state] for state in ("ready", "cordoned", "draining", "down", "lost")},
        rollouts={state: rollouts[state] for state in ("running", "paused", "failed")},
        due=len(late),
        oldest=max(late, default=0.0),
        faults=len(view.faults()),
        schedulers=schedulers,
        failing=failing,
    )
