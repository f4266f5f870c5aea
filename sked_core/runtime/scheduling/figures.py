"""What a scheduler knows of itself, counted when somebody asks: its work costs nothing more for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sked_core.runtime.pulse import Pulse
from sked_core.runtime.scheduling.view import View

MAX_SERVICES = 1000
"""How many services are told one by one: what collects the figures has to keep each of them. The rest are summed up
under ``OTHERS``."""
OTHERS = "(others)"


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
