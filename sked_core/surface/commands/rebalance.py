"""``sked rebalance``: which tasks had better run elsewhere, what that gains and costs; and having it done."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Sequence

import click

from sked_core.client.acting import rebalancing
from sked_core.client.acting.rebalancing import NotAsProposed, Rebalance, gains, rebalance_json
from sked_core.client.looking.moves import unattended
from sked_core.logic.rebalance import DEFAULT_MOST, Proposal
from sked_core.model.spec import plain
from sked_core.model.wording import counted
from sked_core.surface import completing, moves_shown
from sked_core.surface.options import command, output_option, session, timeout_option
from sked_core.surface.render import emit, note, out, table

MAX_LEFT_OUT = 20


@command(
    "rebalance",
    "sked rebalance",
    "sked rebalance web --max-moves 3",
    "sked rebalance --apply --if-revision 8567849880 --wait  # exactly what was shown",
    "sked rebalance --cancel",
)
@click.argument("services", metavar="[SERVICE]...", nargs=-1, shell_complete=completing.services)
@click.option(
    "--host",
    "hosts",
    metavar="HOST",
    multiple=True,
    shell_complete=completing.hosts,
    help="Only moves from or to this host; repeatable.",
)
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
            for line in rebalancing.cancel(sked, services) or ["no moves are under way"]:
                out(line)
        elif carry_out or not wait:
            try:
                made = rebalancing.rebalance(
                    sked,
                    services=services,
                    hosts=hosts,
                    most=most,
                    apply=carry_out,
                    if_revision=if_revision,
                    why=why,
                )
            except NotAsProposed as refusal:
                raise _refused(refusal) from None
            options = _options(services, hosts, most)
            services = made.services or services
            alone = unattended(sked, services) if made.applied else []
            _print(made, options, output, alone)
            wait = wait and bool(made.proposal.moves)
        else:
            for line in unattended(sked, services):
                note(line)
        if wait:
            moves_shown.follow(sked, services, timeout=timeout)
    return 0


def _refused(refusal: NotAsProposed) -> NotAsProposed:
    refusal.hint = "\n".join(["now it would be:", *(f"  {line}" for line in _lines(refusal.now)), refusal.hint])
    return refusal


def _options(services: Collection[str], hosts: Collection[str], most: int) -> str:
    """What has to be typed again to ask for the same."""
    parts = [*services, *(word for host in hosts for word in ("--host", host))]
    return shlex.join(parts + (["--max-moves", str(most)] if most != DEFAULT_MOST else []))


def _print(made: Rebalance, options: str, output: str, alone: Sequence[str]) -> None:
    """``alone``: what there is to say of services whose moves nobody would make."""
    for line in alone:
        note(line)
    found = made.proposal
    again = " ".join(filter(None, ("sked rebalance", options, f"--apply --if-revision {made.number}")))
    if output == "json":
        emit("Rebalance", [rebalance_json(made, again)])
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
    if made.applied:
        out(f"asked for: schedulers make these moves {'once they are there' if alone else 'now'}")
    else:
        out(f"revision {made.number}")
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
        steps = counted(effort.steps, "step")
        yield plain(
            f"{cluster}/{service}: {effort.moves} of {counted(effort.tasks, 'task')} moved in {steps} of "
            f"{effort.seconds:g} s at most; never fewer than {effort.fewest} healthy"
        )
    if found.more:
        yield "there is more to gain with more moves: --max-moves"
