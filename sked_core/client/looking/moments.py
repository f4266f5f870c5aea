"""What happened to one task, moment by moment, told from all that is kept of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sked_core.client.looking.rollouts import route
from sked_core.model import keys
from sked_core.model.decisions import Decision
from sked_core.model.endings import Ending
from sked_core.model.types import Event, Failure, Health, Rollout, Task, TaskId, task_id
from sked_core.model.wording import first_line

SAME_SECONDS = 3.0
"""An event and an ending of one task on one host, no further apart than that, tell of the same."""
_ENDS = {"task.failed", "task.stopped", "task.rejected"}
CAUSES = {
    "crashed": "ended",
    "unhealthy": "stopped, being unhealthy",
    "start_failed": "did not start",
    "rejected": "rejected",
    "stopped": "stopped",
}


@dataclass(frozen=True, slots=True)
class Moment:
    """One thing that happened. ``what``: ``placed``, ``ended``, ``rollout`` or the name of an event; ``text`` tells it
    in a line; ``details``: the last words of its check and of its containers."""

    at: str
    what: str
    text: str
    who: str = ""
    host: str = ""
    details: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """All that the store holds of one task. ``now``: seconds since the epoch; ``alive``: its host's agent is there."""

    id: TaskId
    now: float
    task: Task | None
    events: Sequence[Event]
    """Of the task itself."""
    endings: Sequence[Ending]
    health: Health | None = None
    failure: Failure | None = None
    alive: bool = True
    unreadable: bool = False
    """Whether something stands under its key that is no task."""
    decisions: Sequence[Decision] = ()
    rollouts: Sequence[Rollout] = ()
    others: Sequence[Event] = field(default=())
    """Of its service and its hosts."""

    @property
    def service(self) -> str:
        """As far as it is a name: whoever writes events may write anything."""
        named = [self.task.service] if self.task else []
        named += [one.service for one in self.endings] + [one.service for one in self.events]
        return next(filter(keys.is_name, named), "")

    @property
    def host(self) -> str:
        """Where it is, or was last."""
        if self.task is not None:
            return self.task.host
        seen = [(one.ended, one.host) for one in self.endings] + [(one.at, one.host) for one in self.events if one.host]
        return max(seen, default=("", ""))[1]

    @property
    def hosts(self) -> set[str]:
        names = {one.host for one in self.endings} | {one.host for one in self.events}
        names |= {self.task.host} if self.task else set()
        return names - {""}


def placements(known: Known) -> list[tuple[Decision, str, str]]:
    """The decisions that put it somewhere, with its cluster and the host."""
    return [
        (decision, batch.cluster, host)
        for decision in known.decisions
        for batch in decision.batches
        for instance, host in zip(batch.instances, batch.hosts, strict=False)
        if task_id(batch.cluster, known.service, batch.task_version, instance) == known.id
    ]


def moments(known: Known) -> Iterator[Moment]:
    for rollout in known.rollouts:
        why = f": {first_line(rollout.why)}" if rollout.why else ""
        yield Moment(rollout.at, "rollout", f"roll-out {rollout.number} ({route(rollout)}) began{why}", who=rollout.by)
        if rollout.ended:
            reason = f": {first_line(rollout.reason)}" if rollout.reason else ""
            said = f"roll-out {rollout.number} ended: {rollout.result.replace('_', ' ')}{reason}"
            yield Moment(rollout.ended, "rollout", said)
    issued = {one.decision for one in known.events if one.what == "task.issued"}
    for decision, _, host in placements(known):
        if decision.number not in issued:
            said = f"placed on {host} (decision {decision.number}, {decision.scheduler})"
            yield Moment(decision.at, "placed", said, who=decision.by, host=host)
    starts = [one for one in known.events if one.what == "task.started"]
    for ending in known.endings:
        if ending.started and not any(_same(one, ending.host, ending.started) for one in starts):
            yield Moment(ending.started, "started", f"started on {ending.host}", host=ending.host)
        yield Moment(ending.ended, "ended", _ended(ending), host=ending.host, details=list(details_of(ending)))
    for event in (*known.events, *known.others):
        of_ending = event.what in _ENDS and any(_same(event, one.host, one.ended) for one in known.endings)
        if not of_ending:
            yield Moment(event.at, event.what, told_of(event), who=event.who, host=event.host)


def _same(event: Event, host: str, at: str) -> bool:
    return event.host == host and abs(seconds_of(event.at) - seconds_of(at)) <= SAME_SECONDS  # never of what is no time


def _ended(one: Ending) -> str:
    reason = f": {first_line(one.reason)}" if one.reason else ""
    tries = f", attempt {one.attempts}" if one.attempts > 1 and one.cause != "stopped" else ""
    times = f", for the {_ordinal(one.times)} time in this way since {one.first}" if one.times > 1 else ""
    return f"{CAUSES[one.cause]} on {one.host}{reason}{tries}{times}"


def _ordinal(number: int) -> str:
    last = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else last}"


def details_of(one: Ending) -> Iterator[str]:
    """The rest of the reason, what the check said last, and the last lines of the log (``| `` before each)."""
    yield from one.reason.splitlines()[1:]
    if one.output and one.output not in one.reason:
        yield from (f"check: {line}" for line in one.output.splitlines())
    yield from (f"| {line}" for line in one.log)


def told_of(event: Event) -> str:
    """An event in a line, for whoever reads a story."""
    why = f": {first_line(event.why)}" if event.why else ""
    match event.what:
        case "task.issued":
            decision = f" (decision {event.decision})" if isinstance(event.decision, int) else ""
            return f"issued to {event.host or event.after}{decision}{why}"
        case "task.withdrawn":
            return f"withdrawn from {event.host}{why}" if event.host else f"withdrawn{why}"
        case "task.failed":
            return f"failed on {event.host}{why}" + "".join(f", {one}" for one in (event.before, event.after) if one)
        case _:
            subject, _, what = event.what.partition(".")
            change = f" ({event.before} -> {event.after})" if event.before or event.after else ""
            name = event.subject.partition("/")[2]
            about = f"{subject} {name} " if subject not in ("task",) else ""
            place = f" on {event.host}" if subject == "task" and event.host else ""
            return f"{about}{what.replace('_', ' ')}{place}{why}{change}"


def ago(now: float, at: str) -> str:
    """``12 min ago``, for a time as events have it; the text itself if it is none."""
    past = max(0.0, now - seconds_of(at))
    if math.isnan(now - seconds_of(at)):
        return f"at {at}"
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if past >= 2 * length or (past >= length and length == 60):
            return f"{past / length:.0f} {unit} ago"
    return f"{past:.0f} s ago"


def ahead(now: float, at: str) -> str:
    """``in 8 s``, ``now`` for what is past; the text itself if it is no time."""
    left = seconds_of(at) - now
    return f"at {at}" if math.isnan(left) else f"in {left:.0f} s" if left >= 1 else "now"


def seconds_of(at: str) -> float:
    """Seconds since the epoch; not a number for a text that is no time."""
    try:
        return datetime.fromisoformat(at).timestamp()
    except (ValueError, OverflowError):
        return math.nan
