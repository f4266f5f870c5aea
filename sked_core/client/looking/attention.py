"""What of an overview needs a person, the worst first, and where to look on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import msgspec

from sked_core.client.looking.overview import Overview, State
from sked_core.model import keys
from sked_core.model.wording import counted

Severity = Literal["critical", "warning"]
_OF_STATES: Mapping[str, Severity] = {
    "unreadable": "critical",
    "failing": "critical",
    "waiting": "critical",
    "not scheduled": "critical",
    "in no cluster": "warning",
}
"""States of services that don't pass by themselves."""


@dataclass(frozen=True, slots=True)
class Attention:
    """One thing. ``severity``: critical where something that is wanted does not run, or is not looked after; warning
    where that is yet to come. ``subject``: ``service/<name>``, ``host/<name>``, ``key/<key>``, ``hosts`` or
    ``schedulers``. ``command``: what tells more. ``stranded``: of a host that is down, how many tasks are there."""

    severity: Severity
    subject: str
    what: str
    command: str
    stranded: int = 0

    def json(self) -> dict[str, str]:
        """The same for programs."""
        return {name: value for name, value in asdict(self).items() if name != "stranded"}


def attention(found: Overview) -> list[Attention]:
    """What needs a person, critical things first."""
    return sorted(_all(found), key=lambda one: one.severity != "critical")


def overview_json(found: Overview) -> dict[str, Any]:
    """What ``sked status -o json`` prints."""
    return {
        "store": found.store,
        "attention": [one.json() for one in attention(found)],
        "hosts": {state: list(names) for state, names in found.groups.items()},
        "schedulers": [
            {"name": name, "schedulers": sorted(one.schedulers), "trouble": msgspec.to_builtins(one.trouble)}
            for name, one in sorted(found.schedulers.items())
        ],
        "tasks": asdict(found.tasks),
        "services": [{"service": one.service, "state": one.state, "why": one.why} for one in found.states],
        "losses": found.losses.json(),
    }


def no_answer(tasks: int) -> str:
    """What is said of hosts that are down, with so many tasks there."""
    return f"no agent answers, {counted(tasks, 'task') if tasks else 'no tasks'} there"


def _all(found: Overview) -> Iterator[Attention]:
    if not any(found.groups.values()):
        yield Attention("critical", "hosts", "there is no host", "sked run agent --help")
    if not found.schedulers:
        said = "no scheduler is there: what runs goes on, but nothing is placed"
        yield Attention("critical", "schedulers", said, "sked run scheduler --help")
    for name, one in sorted(found.schedulers.items()):
        if (trouble := one.trouble) is not None:
            about = f", while looking at service {trouble.service}" if trouble.service else ""
            said = f"rounds of scheduler {name} fail since {trouble.since}{about}: {trouble.why}"
            subject = f"service/{trouble.service}" if trouble.service else "schedulers"
            yield Attention("critical", subject, said, f"sked state get {keys.scheduler(name)}")
    for name in found.groups["down"]:
        tasks = found.stranded.get(name, 0)
        said, told = no_answer(tasks), f"sked describe host/{name}"
        yield Attention("critical" if tasks else "warning", f"host/{name}", said, told, stranded=tasks)
    for name, since in found.silent.items():
        said = f"the agent gives no answer since {since}, though the store counts it as running"
        yield Attention("warning", f"host/{name}", said, f"sked describe host/{name}")
    for state in found.states:
        if state.state == "not scheduled" and not found.schedulers:
            continue  # all of them, for the reason above
        if (severity := _severity(state)) is not None:
            said = f"{state.state}: {state.why}" if state.why else state.state
            yield Attention(severity, f"service/{state.service}", said, state.more)
    services = {f"service {state.service}" for state in found.states if state.state == "unreadable"}
    for key, why in found.faults.items():
        if f"service {key.rpartition('/')[2]}" not in services:
            yield Attention("warning", f"key/{key}", f"can't be read: {why}", f"sked state get {key}")
    worst = found.losses.worst
    alone = sum(map(len, found.groups.values())) == 1  # whoever runs one host knows what its loss means
    if worst is not None and worst.unplaced and not alone:
        count, more = sum(worst.unplaced.values()), len(found.losses.unsafe) - 1
        said = f"losing it would leave {counted(count, 'task')} without a place"
        said += f"; so would losing {counted(more, 'other host')}" if more else ""
        yield Attention("warning", f"host/{worst.host}", said, f"sked simulate --lose {worst.host}")


def _severity(state: State) -> Severity | None:
    if state.state == "rolling out" and ", paused" in state.why:
        return "warning"
    return _OF_STATES.get(state.state)
