"""``sked status``: all of it on one screen, and whether it would survive the loss of a host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import click

from sked_core.client.listing import verdicts
from sked_core.client.overview import MAX_VERDICTS, STATES, Counts, Losses, State, overview
from sked_core.client.wording import counted
from sked_core.model.spec import plain
from sked_core.surface.options import command, output_option, session
from sked_core.surface.render import document, note, out

MAX_LINES = 12
"""How many lines services get, so that it all fits on a screen."""


@command(
    "status",
    "sked status",
    "sked status -o json | jq '.items[0].attention'",
)
@click.option("--losses", is_flag=True, help="Work out the loss of each host however long it takes.")
@output_option
def status(losses: bool, output: str) -> None:
    """Show how all of it is on one screen: hosts, schedulers, services that need somebody and why.

    And whether every task would find another place if any one host were lost, and which is the worst to lose.
    """
    with session() as sked:
        found = overview(sked, however_long=losses)
    if found.faults:
        note(f"note: left out, since it can't be read: {plain(', '.join(sorted(found.faults)))}")
    if output == "json":
        return out(document("Status", [found.json()]))
    for name, lines in (
        ("store", [found.store]),
        ("hosts", [_hosts_line(found.groups)]),
        ("schedulers", _scheduler_lines(found.schedulers)),
        ("tasks", [_tasks_line(found.tasks)]),
        ("services", list(_service_lines(found.states))),
        ("survives the loss of any one host", list(_loss_lines(found.losses))),
    ):
        width = 12 if len(name) < 12 else len(name) + 1
        out(plain(f"{name + ':':<{width}} {lines[0]}"))
        for line in lines[1:]:
            out(plain(f"  {line}"))
    return None


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


def _hosts_line(groups: Mapping[str, Sequence[str]]) -> str:
    total = sum(map(len, groups.values()))
    parts = [f"{len(groups['ready'])} ready"]
    parts += [f"{len(names)} {state} ({_some(names)})" for state, names in groups.items() if names and state != "ready"]
    return f"{total}: {', '.join(parts)}" if total else "none: start an agent with `sked run agent`"


def _scheduler_lines(present: Mapping[str, Sequence[str]]) -> list[str]:
    if not present:
        return ["none: what runs goes on, but nothing is placed"]
    return [f"{len(present)}", *(f"{name} places by {', '.join(offered)}" for name, offered in sorted(present.items()))]


def _tasks_line(counts: Counts) -> str:
    parts = [f"{counts.healthy} healthy"]
    parts += [f"{n} {what}" for n, what in ((counts.stopping, "stopping"), (counts.rejected, "rejected")) if n]
    return f"{counts.issued}: {', '.join(parts)}"


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
