"""The story of one task, dead or alive: what was decided and what happened, in the order of time.

It is put together from all that is kept: the task's records, the decisions about its service, its roll-outs, events,
and how its runs ended. Each of these is bounded, so that an old story has gaps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from sked_core.client import reading
from sked_core.client.looking import evidence
from sked_core.client.looking.explaining import decisions_of
from sked_core.client.looking.listing import health_of
from sked_core.client.looking.moments import CAUSES, Known, Moment, ago, ahead, moments, placements, told_of
from sked_core.client.looking.rollouts import history
from sked_core.client.session import Session
from sked_core.clock import SystemClock
from sked_core.errors import NotFound
from sked_core.interfaces.store import entry_at
from sked_core.model import keys
from sked_core.model.endings import Ending
from sked_core.model.spec import nearest
from sked_core.model.types import Event, Failure, Health, Rollout, Task, TaskId
from sked_core.model.wording import counted, first_line, natural

MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do next: why, and the command."""

    why: str
    command: str


@dataclass(frozen=True, slots=True)
class Story:
    """``state``: ``healthy``, ``unhealthy``, ``unknown`` (nobody speaks for its health yet), ``failing``, ``rejected``,
    ``stopping``, ``silent`` (the agent of its host is not running) or ``gone``. ``headline``: that in one line, with
    how long ago. ``task``: its record, if there is one. ``moments``: oldest first."""

    id: str
    state: str
    headline: str
    service: str = ""
    cluster: str = ""
    host: str = ""
    task_name: str = ""
    task_version: int | None = None
    task: Task | None = None
    health: Health | None = None
    failure: Failure | None = None
    rollout: Rollout | None = None
    moments: Sequence[Moment] = ()
    endings: Sequence[Ending] = ()
    advice: Sequence[Advice] = ()


def story_json(story: Story) -> dict[str, Any]:
    """The same for programs."""
    return {name: value for name, value in msgspec.to_builtins(story).items() if name != "task"}


def story(sked: Session, name: str) -> Story:
    """The story of task ``name``; as much of its id as is unique will do. Raises NotFound, with what is like it, if
    nothing is kept of such a task; InvalidValue if it can't be the id of one; Unavailable."""
    known = _gathered(sked, name.removeprefix("task/"))
    state, headline = _state(known)
    last = known.endings[-1] if known.endings else None
    version = known.task.task_definition if known.task else None
    placed = placements(known)
    return Story(
        id=known.id,
        state=state,
        headline=headline,
        service=known.service,
        cluster=known.task.cluster.name if known.task else last.cluster if last else placed[0][1] if placed else "",
        host=known.host,
        task_name=version.name if version else last.task_name if last else "",
        task_version=version.version if version else last.task_version if last else None,
        task=known.task,
        health=known.health,
        failure=known.failure,
        rollout=known.rollouts[-1] if known.rollouts else None,
        moments=sorted(moments(known), key=lambda one: one.at),
        endings=known.endings,
        advice=list(_advice(known, state)),
    )


# --- what there is -----------------------------------------------------------------------------------------------


def _gathered(sked: Session, name: str) -> Known:
    store, now = sked.store, SystemClock().wall()
    key = keys.task(name)
    events = _events(sked)
    own = [one for one in events if one.subject == f"task/{name}"]
    found = entry_at(store, key)
    task = reading.value_of(key, found, Task)
    ended = evidence.endings(store, task=name)
    if task is None:  # some tasks stand under the key of their host alone
        every = reading.tasks(store) if not (own or ended) else []
        for host in {one.host for one in own if keys.is_host(one.host)}:
            every += reading.tasks(store, host=host)
        task = next((item.value for item in every if item.value.id == name), None)
        if task is None and not (own or ended or found):
            names = _names(sked, [item.value.id for item in every], events)
            begin_so = [one for one in names if one.startswith(name)]
            if len(begin_so) == 1:
                return _gathered(sked, begin_so[0])
            raise _unknown(sked, name, names, begin_so)
    known = Known(TaskId(name), now, task, own, ended, unreadable=found is not None and task is None)
    failure = reading.value_at(store, keys.failure(name), Failure)
    if task is not None:
        known = replace(
            known,
            health=health_of(sked, [task]).get(task.id),
            failure=failure if failure and failure.host == task.host else None,
            alive=not task.host or entry_at(store, keys.live(task.host)) is not None,
        )
    if not known.service:
        return known
    return replace(
        known,
        decisions=decisions_of(store, known.service),
        rollouts=_rollouts(sked, known),
        others=[one for one in events if _concerns(one, known)],
    )


def _events(sked: Session) -> list[Event]:
    found: list[Event] = []
    for item in reading.items(sked.store.read(keys.EVENTS).entries, list[Event]):
        found += item.value
    return sorted(found, key=lambda one: one.at)


def _concerns(event: Event, known: Known) -> bool:
    """Whether what happened to others is part of the story: its host was lost, say, while the task was there."""
    what, times = event.what, [one.at for one in known.events] + [one.started or one.ended for one in known.endings]
    if event.subject.startswith("host/"):
        return event.host in known.hosts and bool(times) and event.at >= min(times) and what != "agent.adopted"
    return False


def _rollouts(sked: Session, known: Known) -> list[Rollout]:
    """The roll-outs of its service that brought its version, oldest first."""
    name, version = "", None
    if known.task is not None:
        name, version = known.task.task_definition.name, known.task.task_definition.version
    elif known.endings:
        name, version = known.endings[-1].task_name, known.endings[-1].task_version
    active = reading.value_at(sked.store, keys.rollout(known.service), Rollout)
    every = [*(item.value for item in history(sked, known.service)), *([active] if active else [])]
    return [one for one in every if (one.task_name, one.task_version) == (name, version)][-1:]


def _names(sked: Session, ids: Sequence[str], events: Sequence[Event]) -> list[str]:
    """The ids of all tasks that are there or of which something is kept."""
    names = {*ids, *(one.task for one in evidence.endings(sked.store))}
    names |= {one.subject.removeprefix("task/") for one in events if one.subject.startswith("task/")}
    return sorted(names, key=natural)


def _unknown(sked: Session, name: str, names: Sequence[str], begin_so: Sequence[str]) -> NotFound:
    near = nearest(name, names)
    services = {keys.last_segment(key) for key in sked.store.read(keys.SERVICES).entries}
    if name in services:
        hint = f"{name} is a service: sked explain {name}"
    elif begin_so:
        more = f" and {len(begin_so) - MAX_NAMED} more" if len(begin_so) > MAX_NAMED else ""
        hint = f"several begin so: {', '.join(begin_so[:MAX_NAMED])}{more}"
    else:
        hint = f"did you mean {near}?" if near else "`sked tasks` lists what there is, `sked events` what happened"
    return NotFound(f"no task {name}, and nothing is kept of one", hint=hint)


# --- now ---------------------------------------------------------------------------------------------------------


def _state(known: Known) -> tuple[str, str]:
    task, name = known.task, known.id
    if known.unreadable:
        return "unknown", f"{name} is issued, but its record can't be read"
    if task is None:
        return "gone", _gone(known)
    place = f"on {task.host}" if task.host else "on no host"
    if task.rejected:
        return "rejected", f"{name} was rejected by {task.host}: {first_line(task.reject_reason) or 'no reason given'}"
    if not known.alive:
        return "silent", f"{name} is {place}, whose agent is not running: nobody knows how it is"
    if not task.scheduled:
        return "stopping", f"{name} is being stopped {place}"
    if known.failure is not None and not (known.health and known.health.healthy):
        failure = known.failure
        again = f", next try {ahead(known.now, failure.next_try)}" if failure.next_try else ", no further try"
        said = first_line(failure.reason or failure.output) or "no reason given"
        return "failing", f"{name} fails {place}: {said} ({counted(failure.attempts, 'attempt')}{again})"
    since = _since(known)
    if known.health is None:
        return "unknown", f"{name} is {place}{since}; nobody has said yet how it is"
    if known.health.healthy:
        before = f"; it failed before that: {first_line(known.failure.reason)}" if known.failure else ""
        return "healthy", f"{name} is healthy {place}{since}{before}"
    said = f": {first_line(known.health.output)}" if known.health.output else ""
    return "unhealthy", f"{name} is not healthy {place}{since}{said}"


def _since(known: Known) -> str:
    starts = [one.at for one in known.events if one.what == "task.started"]
    placed = [one.at for one in known.events if one.what == "task.issued"] + [one[0].at for one in placements(known)]
    if starts:
        return f", started {ago(known.now, max(starts))}"
    return f", issued {ago(known.now, max(placed))}" if placed else ""


def _gone(known: Known) -> str:
    last = next((one for one in reversed(known.endings) if one.cause != "rejected"), None)
    last = last or (known.endings[-1] if known.endings else None)
    if last is None:
        event = known.events[-1]
        return f"{known.id} is gone: {told_of(event)}, {ago(known.now, event.at)}"
    tries = f", after {counted(last.attempts, 'attempt')}" if last.attempts > 1 and last.cause != "stopped" else ""
    if last.cause in ("crashed", "unhealthy"):
        how = f"{_exit(last)} on {last.host}"
    else:
        how = f"{CAUSES[last.cause]} on {last.host}"
    why = f": {first_line(last.reason)}" if last.cause != "crashed" and last.reason else ""
    return f"{known.id} is gone: {how}, {ago(known.now, last.ended)}{tries}{why}"


def _exit(ending: Ending) -> str:
    """``exit 137 (out of memory)``: the first code that is not 0 with what is said of it, else the reason."""
    if ending.cause == "unhealthy":
        return "unhealthy for too long"
    failed = {name: code for name, code in ending.exits.items() if code} or ending.exits
    for name, code in failed.items():
        parts = [part.partition(": ")[2] for part in ending.reason.split("; ") if part.startswith(f"{name}: ")]
        said = parts[0] if parts else ""
        plainly = f"exit {code}"
        if said.startswith(plainly) or not said:
            return said or plainly
        return f"{plainly}, {said}" if "(" in said else f"{plainly} ({said})"
    return first_line(ending.reason) or "it ended"


def _advice(known: Known, state: str) -> Iterator[Advice]:
    task, service = known.task, known.service
    if state == "gone":
        if service:
            yield Advice("how its service is now", f"sked explain {service}")
            yield Advice("what else happened to the service", f"sked events --by-service {service}")
        return
    if task is None:
        yield Advice("what is wrong with its record", "sked state check")
        return
    if state == "silent":
        yield Advice("start the agent there, or wait until the host is lost", f"sked events --by-host {task.host}")
    if known.failure is not None and known.endings:
        yield Advice("what the run before wrote", f"sked logs {known.id} --previous")
    elif state == "unhealthy":
        yield Advice("what it writes", f"sked logs {known.id}")
    if state in ("failing", "rejected"):
        active = [one for one in known.rollouts if not one.ended]
        if active:
            yield Advice("go back to the version before", f"sked rollout undo {service}")
        yield Advice("what the hosts say to one more task", f"sked explain {service}")
    if state in ("unhealthy", "unknown"):
        yield Advice("what its checks say", f"sked tasks --by-service {service} --why")
    yield Advice("why it is on this host", f"sked explain task/{known.id}")
