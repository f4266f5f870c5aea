"""What an agent knows of itself, counted when somebody asks: its work costs nothing more for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sked_core.logic.lifecycle import Step
from sked_core.runtime.agent.local_tasks import Engines, LocalTasks, Slot
from sked_core.runtime.pulse import Pulse


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
