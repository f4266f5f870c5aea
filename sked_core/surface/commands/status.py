"""``sked status``: all of it on one screen, and whether it would survive the loss of a host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import click

from sked_core.client.looking.attention import Attention, attention, no_answer, overview_json
from sked_core.client.looking.listing import verdicts
from sked_core.client.looking.overview import MAX_VERDICTS, STATES, Counts, Losses, Overview, State, overview
from sked_core.model.spec import plain
from sked_core.model.types import Presence
from sked_core.model.wording import counted
from sked_core.surface.listings import coloured, wrapped
from sked_core.surface.options import command, listing_option, session, watch_option
from sked_core.surface.presenting import present_lines, print_lines
from sked_core.surface.render import emit, in_colour, note, out

MAX_LINES = 12
"""How many lines services get, and how many things that need somebody are told, so that it all fits on a screen."""
LOOKS = {"critical": "bad", "warning": "warn"}


@command(
    "status",
    "sked status",
    "sked status -w",
    "sked status -o json | jq '.items[0].attention'",
    "sked status -o name | xargs -n1 sked describe",
)
@click.option("--losses", is_flag=True, help="Work out the loss of each host however long it takes.")
@watch_option
@listing_option
def status(losses: bool, watch: bool, output: str) -> None:
    """Show how all of it is on one screen. The first line says whether all is well, or how many things need somebody;
    they follow, each with the command that tells more.

    Then come hosts, schedulers, services that are on their way, and whether every task would find another place if any
    one host were lost, and which is the worst to lose.
    """
    if watch and output == "name":
        raise click.UsageError("names of what needs somebody can't be watched: -o jsonl")
    with session() as sked:
        if watch:
            return present_lines(
                sked,
                "Status",
                lambda seen: [overview_json(overview(seen, however_long=losses))],
                lambda seen: _lines(overview(seen, however_long=losses), every=False, colour=False),
                output,
                watch=True,
            )
        found = overview(sked, however_long=losses)
    if found.faults:
        note(f"note: left out, since it can't be read: {plain(', '.join(sorted(found.faults)))}")
    if output == "json":
        return emit("Status", [overview_json(found)])
    if output == "name":
        for subject in dict.fromkeys(one.subject for one in attention(found) if "/" in one.subject):
            out(plain(subject))
        return None
    return print_lines(_lines(found, every=output == "wide"))


def _lines(found: Overview, *, every: bool, colour: bool | None = None) -> Iterator[str]:
    wanted = in_colour() if colour is None else colour
    urgent = attention(found)
    yield coloured(_headline(found, urgent), "" if not wanted else LOOKS[urgent[0].severity] if urgent else "good")
    groups = _alike(urgent)
    for one, subjects in groups if every else groups[:MAX_LINES]:
        what = plain(f"{_some(subjects)}: {one.what}")
        yield from wrapped(what, "  ", "    ", LOOKS[one.severity] if wanted else "")
        yield plain(f"    {one.command}")
    if len(groups) > MAX_LINES and not every:
        yield f"  and {len(groups) - MAX_LINES} more: sked status -o wide"
    told = {one.subject for one in urgent}
    on_the_way = [one for one in found.states if f"service/{one.service}" not in told]
    for name, lines in (
        ("store", [found.store]),
        ("hosts", [_hosts_line(found.groups)]),
        ("schedulers", _scheduler_lines(found.schedulers)),
        ("tasks", [_tasks_line(found.tasks)]),
        ("services", list(_service_lines(found.states, on_the_way, every=every))),
        ("survives the loss of any one host", list(_loss_lines(found.losses))),
    ):
        width = 12 if len(name) < 12 else len(name) + 1
        yield from wrapped(plain(f"{name + ':':<{width}} {lines[0]}"), "", "  ")
        for line in lines[1:]:
            yield from wrapped(plain(line), "  ", "    ")


def _headline(found: Overview, urgent: Sequence[Attention]) -> str:
    if not urgent:
        counts = Counter(one.state for one in found.states if one.state != "ok")
        said = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
        return f"all is well; {said}" if said else "all is well"
    critical = sum(one.severity == "critical" for one in urgent)
    at_once = f", {critical} of them at once" if critical and critical < len(urgent) else ""
    return f"{counted(len(urgent), 'thing')} need{'s' * (len(urgent) == 1)} somebody{at_once}:"


def _alike(urgent: Sequence[Attention]) -> list[tuple[Attention, list[str]]]:
    """Those of which the same is to be said share a line, which tells of hosts that are down what is on all of them."""
    found: dict[tuple[str, str, str], list[Attention]] = {}
    for one in urgent:
        kind = one.subject.partition("/")[0]
        found.setdefault((one.severity, kind, "" if one.stranded else one.what), []).append(one)
    return [(_together(alike), [one.subject for one in alike]) for alike in found.values()]


def _together(alike: Sequence[Attention]) -> Attention:
    first, stranded = alike[0], sum(one.stranded for one in alike)
    return replace(first, what=f"{no_answer(stranded)} in all") if stranded and len(alike) > 1 else first


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
            said = verdicts(refusals) or ["there is no other host"]
            more = [f"and {len(said) - MAX_VERDICTS} more such reasons"] if len(said) > MAX_VERDICTS else []
            yield f"{cluster}/{service}: {' | '.join([*said[:MAX_VERDICTS], *more])}"
        if others := [host for host in found.unsafe if host != worst.host]:
            yield f"losing any of these leaves some as well: {_some(others, 10)}"


def _hosts_line(groups: Mapping[str, Sequence[str]]) -> str:
    total = sum(map(len, groups.values()))
    parts = [f"{len(groups['ready'])} ready"]
    parts += [f"{len(names)} {state} ({_some(names)})" for state, names in groups.items() if names and state != "ready"]
    return f"{total}: {', '.join(parts)}" if total else "none: start an agent with `sked run agent`"


def _scheduler_lines(present: Mapping[str, Presence]) -> list[str]:
    if not present:
        return ["none: what runs goes on, but nothing is placed"]
    said = (f"{name} places by {', '.join(sorted(one.schedulers))}" for name, one in sorted(present.items()))
    return [f"{len(present)}", *said]


def _tasks_line(counts: Counts) -> str:
    parts = [f"{counts.healthy} healthy"]
    parts += [f"{n} {what}" for n, what in ((counts.stopping, "stopping"), (counts.rejected, "rejected")) if n]
    return f"{counts.issued}: {', '.join(parts)}"


def _service_lines(states: Sequence[State], on_the_way: Sequence[State], *, every: bool) -> Iterator[str]:
    counts = Counter(one.state for one in states)
    yield f"{len(states)}" + (": " if states else "") + ", ".join(f"{counts[s]} {s}" for s in STATES if counts[s])
    alike: dict[tuple[str, str], list[str]] = {}
    for one in on_the_way:
        if one.state != "ok":
            alike.setdefault((one.state, one.why), []).append(one.service)
    said = [f"{_some(names)} {state}: {why}".removesuffix(": ") for (state, why), names in alike.items()]
    yield from said if every else said[:MAX_LINES]
    if len(said) > MAX_LINES and not every:
        yield f"and {len(said) - MAX_LINES} more such lines: -o wide"


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
