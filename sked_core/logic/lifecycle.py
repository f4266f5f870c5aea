"""What an agent does next about one task: a pure function of what is issued, what runs, and the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from msgspec import UNSET, UnsetType

from sked_core.logic import backoff
from sked_core.model import duration
from sked_core.model.types import Task, TaskId
from sked_core.model.wording import counted

HEALTHY_FOR_SECONDS = 60.0
"""A task that ran (and was healthy) for this long has its count of starts reset."""
STEADY_SECONDS = 5.0
"""A task that ran for this long before it died is restarted at once; a faster death waits for the back-off."""
GAVE_UP, UNHEALTHY_AGAIN = "gave up", "unhealthy again after a restart"
"""How the reasons of rejections begin that are the task's own fault, on whichever host."""
UNSEEN_SECONDS = 15.0
"""A task whose health was not known for this long has not been unhealthy all the time: it may have been well."""
BRAKE_SHARE = 0.3
BRAKE_COUNT = 3
BRAKE_SECONDS = 10.0


class Step(Enum):
    """The next move. Each leads to a state in which ``decide`` answers something else, or waits."""

    NONE = "none"
    START = "start"
    """Remove what is left of it, start all its containers, register its health."""
    EXAMINE = "examine"
    """It ended, or is given up: deregister it, and see what it said last, before anything of it is removed."""
    LEAVE = "leave"
    """Deregister it: it runs on for its shutdown delay, and is stopped then."""
    STOP = "stop"
    """Deregister it and stop what is left of it; it may be started anew afterwards."""
    RESTART = "restart"
    """As STOP, counted as a failure: the back-off applies before the next start."""
    RETIRE = "retire"
    """It was asked to stop and nothing of it is left: remove its two keys."""
    REJECT = "reject"
    """Write into both keys that this host won't run it."""
    FORGET = "forget"
    """Neither issued nor running: remove the key that may be left of it, and what is remembered of it."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A step with its reason for people; ``due``: when to decide again if nothing changes (monotonic seconds)."""

    step: Step
    reason: str = ""
    due: float = float("inf")


_NOTHING = Decision(Step.NONE)


@dataclass(slots=True)
class Local:
    """What an agent remembers of one task. Times are monotonic seconds.

    ``containers`` counts the handles that exist by whether they run; ``unknown``: an executor could not say.
    """

    id: TaskId
    running: int = 0
    dead: int = 0
    unknown: bool = False
    digest: str = ""
    """Of the record that its containers were started from."""
    renew: str = ""
    """Why what runs is to be started anew, though its record is the same."""
    attempts: int = 0
    """Starts since it was last well."""
    started_at: float | None = None
    """When it last came up, as far as this agent process knows; adoption counts as coming up."""
    next_try: float = 0.0
    registered: bool = False
    """Whether the health provider may know it."""
    left_at: float | None = None
    """When it was deregistered because it is to be stopped."""
    healthy: bool | None = None
    """None: not known."""
    seen_at: float = float("-inf")
    """When its health was read last."""
    healthy_since: float | None = None
    unhealthy_since: float | None = None
    unhealthy_restarts: int = 0
    """Restarts because it was unhealthy for too long, since it was last well."""
    check_output: str = ""
    """Last output of the check that made it unhealthy, for people."""
    next_stop: float = 0.0
    """When a stop that failed may be tried again."""
    stops_failed: int = 0
    next_write: float = 0.0
    """When a rejection or retirement may be written again."""
    last_error: str = ""
    log: list[str] = field(default_factory=list)
    """What its containers wrote last before it failed last."""
    verdict: str = ""
    """Why this host won't run it; set until the rejection is written."""

    @property
    def exists(self) -> bool:
        return self.running + self.dead > 0

    @property
    def up(self) -> bool:
        """Whether all that exists of it runs."""
        return self.running > 0 and not self.dead


def decide(local: Local, issued: Task | None, *, digest: str, grace: float, now: float, delay: float = 0.0) -> Decision:
    """The next step for one task.

    ``issued``: the record that stands under this host's keys, None where an authoritative read showed none.
    ``digest`` is that of ``issued``; ``grace``: its grace period in seconds; ``delay``: how long the one that runs goes
    on after it was deregistered, in seconds.
    """
    decision = _decide(local, issued, digest=digest, grace=grace, now=now, delay=delay)
    if decision.step in (Step.RETIRE, Step.REJECT, Step.FORGET) and now < local.next_write:
        return Decision(Step.NONE, "waiting to write it again", due=local.next_write)
    if decision.step in (Step.STOP, Step.RESTART) and now < local.next_stop:
        return Decision(Step.NONE, "waiting to try to stop it again", due=local.next_stop)
    return decision


def _decide(local: Local, issued: Task | None, *, digest: str, grace: float, now: float, delay: float) -> Decision:
    if local.unknown:
        return Decision(Step.NONE, "its executor does not answer")
    if issued is None:
        return _wind_down(local, "no longer issued", delay, now) if local.exists else Decision(Step.FORGET)
    if not issued.scheduled:
        return _wind_down(local, "withdrawn", delay, now) if local.exists else Decision(Step.RETIRE, "withdrawn")
    if issued.rejected:
        return Decision(Step.STOP, "rejected") if local.exists else _NOTHING
    if local.verdict:
        return Decision(Step.REJECT, local.verdict)  # what is left of it is stopped once that is written
    if local.exists and local.digest != digest:
        return _wind_down(local, "its record changed", delay, now)
    if local.up and local.renew:
        return _wind_down(local, local.renew, delay, now)
    if local.up and local.running == len(issued.task_definition.containers):
        return _watch_over(local, grace, now)
    return _bring_up(local, issued, now)


def _wind_down(local: Local, reason: str, delay: float, now: float) -> Decision:
    """What runs and may be in use leaves first, so that whoever sends it requests has time to notice."""
    if local.up and delay > 0:
        if local.registered:
            return Decision(Step.LEAVE, reason)
        if local.left_at is not None and now < local.left_at + delay:
            return Decision(Step.NONE, f"{reason}: running on for its shutdown delay", due=local.left_at + delay)
    return Decision(Step.STOP, reason)


def _watch_over(local: Local, grace: float, now: float) -> Decision:
    if local.healthy is not False or local.unhealthy_since is None:
        return _NOTHING
    patience = max(local.unhealthy_since, local.started_at or now) + grace
    if now < patience:
        return Decision(Step.NONE, due=patience)
    if local.seen_at < patience:
        return Decision(Step.NONE, "its health is not known any more")
    said = f": {local.check_output}" if local.check_output else ""
    if not local.unhealthy_restarts:
        return Decision(Step.RESTART, f"unhealthy for longer than its grace period of {grace:g} s{said}")
    # A restart did not help: another host may.
    return Decision(Step.EXAMINE if local.registered else Step.REJECT, f"{UNHEALTHY_AGAIN}{said}")


def _bring_up(local: Local, issued: Task, now: float) -> Decision:
    if local.registered:
        return Decision(Step.EXAMINE, local.last_error)
    if local.attempts >= issued.task_definition.max_attempts:
        reason = f"{GAVE_UP} after {counted(local.attempts, 'start')}: {local.last_error or 'it keeps ending'}"
        reason += f"; it last wrote: {local.log[-1]}" if local.log else ""
        return Decision(Step.REJECT, reason)
    if now < local.next_try:
        return Decision(Step.NONE, "waiting for the next try", due=local.next_try)
    return Decision(Step.START)


def failed(local: Local, error: str, now: float) -> None:
    """Take note that it died, could not be started, or was unhealthy for too long; sets when to try next."""
    ran = now - local.started_at if local.started_at is not None else 0.0
    well = local.healthy_since is None or now - local.healthy_since >= HEALTHY_FOR_SECONDS
    if ran >= HEALTHY_FOR_SECONDS and local.healthy is not False and well:
        local.attempts = local.unhealthy_restarts = 0
    if ran >= STEADY_SECONDS and local.attempts <= 1:
        local.next_try = now
    else:
        local.next_try = now + backoff.delay(max(1, local.attempts), local.id)
    local.last_error = error
    local.started_at = local.healthy_since = local.unhealthy_since = None
    local.healthy = None


def observe_health(local: Local, healthy: bool, now: float, output: str = "") -> None:
    """Take note of its health as the provider reports it, with the output of the check that decided."""
    if now - local.seen_at > UNSEEN_SECONDS:
        local.healthy_since = local.unhealthy_since = None
    local.healthy, local.seen_at = healthy, now
    if not healthy:
        local.unhealthy_since = now if local.unhealthy_since is None else local.unhealthy_since
        local.healthy_since, local.check_output = None, output
    else:
        local.healthy_since = now if local.healthy_since is None else local.healthy_since
        local.unhealthy_since, local.check_output = None, ""
        if now - local.healthy_since >= HEALTHY_FOR_SECONDS:
            local.attempts, local.unhealthy_restarts = min(local.attempts, 1), 0


def shutdown_delay(task: Task | None) -> float:
    """How long what was started from ``task`` runs on after it was deregistered, in seconds. Raises InvalidValue."""
    wanted = task.task_definition.shutdown_delay if task is not None else UNSET
    return 0.0 if isinstance(wanted, UnsetType) else duration.to_seconds(wanted)


def is_well(local: Local, issued: Task, now: float) -> bool:
    """Whether an earlier failure is behind it: it passes its checks and did not die at once, or, where nothing tells
    of its health, has run for a while."""
    if not local.up or local.healthy is False or local.started_at is None:
        return False
    checked = local.healthy and any(container.checks for container in issued.task_definition.containers)
    return now - local.started_at >= (STEADY_SECONDS if checked else HEALTHY_FOR_SECONDS)


def held_back(
    absent_since: Mapping[TaskId, float], running: int, now: float, *, held: frozenset[TaskId] = frozenset()
) -> frozenset[TaskId]:
    """Which of the running tasks that are absent from the store must not be stopped yet.

    A few are stopped at once. If many are gone at a time, more likely the store lost them than a person removed
    them: each then has to be absent for BRAKE_SECONDS, over at least two reads (reliability.md A10). Those in
    ``held``, the answer before this one, stay held for that long also while others come back one by one.
    """
    young = frozenset(task for task, since in absent_since.items() if now - since < BRAKE_SECONDS)
    return young if len(absent_since) > max(BRAKE_COUNT, int(running * BRAKE_SHARE)) else young & held
