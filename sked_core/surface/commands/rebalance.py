"""``sked rebalance``: which tasks had better run elsewhere, what that gains and costs; and having it done."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import click

from sked_core.client import moving, outcomes
from sked_core.client.foresight import live_world, schedulers_of
from sked_core.client.session import Session, repeated
from sked_core.client.wording import counted
from sked_core.logic.rebalance import DEFAULT_MOST, Proposal
from sked_core.logic.rebalance import rebalance as proposed
from sked_core.model.spec import known, plain
from sked_core.runtime.live_world import Live
from sked_core.surface import moves_shown
from sked_core.surface.options import command, output_option, session, timeout_option
from sked_core.surface.render import document, note, out, table

MAX_LEFT_OUT = 20


@command("rebalance")
@click.argument("services", metavar="[SERVICE]...", nargs=-1)
@click.option("--host", "hosts", metavar="HOST", multiple=True, help="Only moves from or to this host; repeatable.")
@click.option(
    "--max-moves",
    "most",
    type=click.IntRange(1),
    default=DEFAULT_MOST,
    show_default=True,
    help="At most so many moves.",
)
@click.option("--apply", "carry_out", is_flag=True, help="Have it done.")
@click.option("--if-revision", type=click.IntRange(0), metavar="N", help="With --apply: only what was shown under N.")
@click.option("--cancel", is_flag=True, help="Give up the moves that are under way; what has been moved stays there.")
@click.option("--wait", is_flag=True, help="Return once all moves are made; alone: those that are under way.")
@timeout_option("10m")
@click.option("--why", default="sked rebalance", help="Kept with the moves, for people.", show_default=True)
@output_option
def rebalance(
    services: Sequence[str],
    hosts: Sequence[str],
    most: int,
    carry_out: bool,
    if_revision: int | None,
    cancel: bool,
    wait: bool,
    timeout: float,
    why: str,
    output: str,
) -> int:
    """Say which tasks of services (of all, if none is named) had better run on other hosts, and what that gains.

    Nothing is moved without --apply. Each task is then replaced as in a roll-out: within `min` and `max`, and only
    while all is healthy.
    """
    if cancel and (carry_out or if_revision is not None or hosts):
        raise click.UsageError("--cancel goes with services and --wait alone")
    if if_revision is not None and not carry_out:
        raise click.UsageError("--if-revision goes with --apply")
    with session() as sked:
        if cancel:
            for line in repeated(lambda: moving.cancel(sked, services)) or ["no moves are under way"]:
                out(line)
        elif carry_out or not wait:
            made = repeated(lambda: _made(sked, services, hosts, most, why, carry_out, if_revision))
            options = _options(services, hosts, most)
            services = sorted({move.task.service for move in made[0].moves}) or services
            alone = moving.unattended(sked, services) if carry_out and made[0].moves else []
            _print(*made, options, carry_out, output, alone)
            wait = wait and bool(made[0].moves)
        else:
            for line in moving.unattended(sked, services):
                note(line)
        if wait:
            moves_shown.follow(sked, services, timeout=timeout)
    return 0


def _made(
    sked: Session,
    services: Collection[str],
    hosts: Collection[str],
    most: int,
    why: str,
    carry_out: bool,
    if_revision: int | None,
) -> tuple[Proposal, Live]:
    """The proposal as things are now, asked for if that is wanted. Raises Conflict, Ended, InvalidValue, NotFound,
    Unavailable."""
    live = live_world(sked)
    for service in services:
        live.world.declared(service)
    for host in hosts:
        known("host", host, live.world.hosts)
    schedulers = schedulers_of(sked, live.world)
    found = proposed(live.world, schedulers, most=most, services=services, hosts=hosts)
    if if_revision is not None and not found.same(if_revision):
        lines = ["now it would be:", *(f"  {line}" for line in _lines(found)), "review that:  sked rebalance"]
        message = f"what was reviewed as {if_revision} is not what would be moved now"
        raise outcomes.Ended(message, code=outcomes.CONFLICT, hint="\n".join(lines))
    if carry_out and found.moves:
        moving.write(sked, live, found, why)
    return found, live


def _options(services: Collection[str], hosts: Collection[str], most: int) -> str:
    """What has to be typed again to ask for the same."""
    parts = [*services, *(word for host in hosts for word in ("--host", host))]
    return shlex.join(parts + (["--max-moves", str(most)] if most != DEFAULT_MOST else []))


def _print(
    found: Proposal, live: Live, options: str, carried_out: bool, output: str, unattended: Sequence[str]
) -> None:
    """``unattended``: what there is to say of services whose moves nobody would make."""
    for line in unattended:
        note(line)
    number = found.number(live.since)
    again = " ".join(filter(None, ("sked rebalance", options, f"--apply --if-revision {number}")))
    if output == "json":
        out(document("Rebalance", [_json(found, number, again, carried_out)]))
        return
    for line in _lines(found):
        out(line)
    for pair, why in list(found.left_out.items())[:MAX_LEFT_OUT]:
        note(plain(f"left out: {'/'.join(pair)}: {why}"))
    if len(found.left_out) > MAX_LEFT_OUT:
        note(f"left out: {len(found.left_out) - MAX_LEFT_OUT} more services: -o json has them all")
    if not found.moves:
        return
    out("")
    if carried_out:
        out(f"asked for: schedulers make these moves {'once they are there' if unattended else 'now'}")
    else:
        out(f"revision {number}")
        out(f"do exactly this:  {again}")


def _lines(found: Proposal) -> Iterator[str]:
    if not found.moves:
        yield "nothing to gain" + (" with so few moves: --max-moves" if found.more else ": every task may stay")
        return
    rows = [(move.task.id, move.task.host, move.to, move.why) for move in found.moves]
    yield from table(("task", "from", "to", "why"), rows).splitlines()
    yield ""
    for what, before, after in gains(found):
        yield f"{what}: {before} -> {after}"
    for (cluster, service), effort in found.efforts.items():
        steps = f"{effort.steps} step{'' if effort.steps == 1 else 's'}"
        yield plain(
            f"{cluster}/{service}: {effort.moves} of {counted(effort.tasks, 'task')} moved in {steps} of "
            f"{effort.seconds:g} s at most; never fewer than {effort.fewest} healthy"
        )
    if found.more:
        yield "there is more to gain with more moves: --max-moves"


def gains(found: Proposal) -> Iterator[tuple[str, str, str]]:
    """What the moves change, in words and numbers: what, before, after."""
    before, after = found.before, found.after

    def said(name: str, one: Any) -> str:
        if name == "tasks":
            return f"{one.tasks[0]} and {one.tasks[1]}"
        value = getattr(one, name)
        return f"{value:.0%}" if isinstance(value, float) else str(value)

    for name, what in (
        ("broken", "tasks that break a rule"),
        ("wishes", "weight of the wishes that are met"),
        ("difference", "largest difference between hosts in tasks of one service"),
        ("tasks", "tasks on a host, most and fewest"),
        ("memory", "memory of the fullest host given away"),
        ("cpu", "cpu of the fullest host given away"),
        ("used", "hosts with tasks"),
    ):
        spread = name == "used" and after.used > before.used  # what spreads is out for nothing else
        if said(name, before) != said(name, after) and not spread:
            yield what, said(name, before), said(name, after)


def _json(found: Proposal, number: int, again: str, carried_out: bool) -> dict[str, Any]:
    return {
        "revision": str(number),  # more digits than many readers of JSON keep of a number
        "apply": again if found.moves and not carried_out else "",
        "applied": carried_out and bool(found.moves),
        "moves": [
            {
                "task": move.task.id,
                "cluster": move.task.cluster.name,
                "service": move.task.service,
                "from": move.task.host,
                "to": move.to,
                "why": move.why,
            }
            for move in found.moves
        ],
        "before": asdict(found.before),
        "after": asdict(found.after),
        "services": [
            {"cluster": cluster, "service": service, **asdict(effort)}
            for (cluster, service), effort in found.efforts.items()
        ],
        "left_out": [
            {"cluster": cluster, "service": service, "why": why} for (cluster, service), why in found.left_out.items()
        ],
        "more": found.more,
    }
