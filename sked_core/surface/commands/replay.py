"""``sked replay``: run kept decisions again, by the same scheduler or by another one."""

from __future__ import annotations

from collections.abc import Sequence

import click

from sked_core.client.looking.replaying import Run
from sked_core.client.looking.replaying import replay as run_again
from sked_core.client.outcomes import FAILED
from sked_core.logic.replay import OTHER_ORDER
from sked_core.model.spec import plain
from sked_core.model.wording import counted
from sked_core.surface.completing import services
from sked_core.surface.options import command, output_option, session
from sked_core.surface.render import emit, note, out


@command(
    "replay",
    "sked replay web",
    "sked replay web --decision all --scheduler binpack",
)
@click.argument("service", metavar="SERVICE", shell_complete=services)
@click.option("--decision", "which", metavar="N|all", default="", help="Which one. Default: the last.")
@click.option("--scheduler", "name", metavar="NAME", default="", help="Ask another scheduler, and compare.")
@output_option
def replay(service: str, which: str, name: str, output: str) -> int:
    """Run decisions about a service again, from what was kept of them. Nothing changes.

    Exit code 1 if any comes to something else than it did, or can't be run again. With --scheduler it is no failure
    that another scheduler chooses other hosts.
    """
    number = _number(which) if which not in ("", "all") else None
    with session() as sked:
        found = run_again(sked, service, number=number, every=which == "all", scheduler=name)
    if output == "json":
        emit("ReplayList", [one.json() for one in found.runs])
    else:
        for one in found.runs:
            for line in _lines(one, name):
                out(line)
    for decision in found.empty:
        note(f"sked: decision {decision.number} of {plain(decision.at)} holds nothing to run again")
    return FAILED if found.failed else 0


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise click.BadParameter(f"expected a number or all, got {text}", param_hint="--decision")
    return int(text)


def _lines(one: Run, name: str) -> Sequence[str]:
    batch, found = one.batch, one.replayed
    placed = len(batch.hosts) + batch.omitted
    what = f"{batch.task_name}@{batch.task_version} in {batch.cluster}: placed {placed}, waiting {batch.waiting}"
    head = f"decision {one.decision.number} of {one.decision.at} ({what})"
    if found.problem:
        return [f"{head}: {plain(found.problem)}"]
    if found.same:
        return [f"{head}: the same{f' by {name}' if name else ', byte for byte'}"]
    by = f"{name} differs" if name else "differs"
    gain = f", by its own score better by {found.gain:.4g}" if name and found.gain else ""
    if name and found.differences == (OTHER_ORDER,):
        return [f"{head}: {OTHER_ORDER} by {name}"]
    moved = f": {counted(found.moved, 'task')} elsewhere" if found.moved else ""
    return [f"{head}: {by}{moved}{gain}", *(f"  {plain(line)}" for line in found.differences)]
