"""``sked replay``: run kept decisions again, by the same scheduler or by another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import click

from sked_core.client import explaining
from sked_core.client.outcomes import FAILED
from sked_core.client.wording import counted
from sked_core.errors import NotFound
from sked_core.logic.replay import OTHER_ORDER, Replayed
from sked_core.logic.replay import replay as run_again
from sked_core.model.decisions import Batch, Decision
from sked_core.model.spec import known, plain
from sked_core.surface.options import command, output_option, session
from sked_core.surface.render import document, note, out


@command("replay")
@click.argument("service", metavar="SERVICE")
@click.option("--decision", "which", metavar="N|all", default="", help="Which one. Default: the last.")
@click.option("--scheduler", "name", metavar="NAME", default="", help="Ask another scheduler, and compare.")
@output_option
def replay(service: str, which: str, name: str, output: str) -> int:
    """Run decisions about a service again, from what was kept of them. Nothing changes.

    Exit code 1 if any comes to something else than it did, or can't be run again. With --scheduler it is no failure
    that another scheduler chooses other hosts.
    """
    with session() as sked:
        kept = explaining.decisions_of(sked.store, service)
        if not kept:
            raise NotFound(f"no decision about {service} is kept", hint="`sked services` lists the services")
        if which not in ("", "all"):
            kept = [explaining.one_decision(kept, service, _number(which))]
        elif not which:
            kept = kept[-1:]
        if name:
            known("scheduler", name, sked.plugins.names("scheduler"))
        schedulers = {one: explaining.scheduler_named(sked, one) for one in {name or each.scheduler for each in kept}}
    found = [
        _Run(decision, batch, run_again(batch, service, schedulers[by], by))
        for decision in kept
        for by in (name or decision.scheduler,)
        for batch in decision.batches
    ]
    if output == "json":
        out(document("ReplayList", [_plain(one, name) for one in found]))
    else:
        for one in found:
            for line in _lines(one, name):
                out(line)
    empty = [decision for decision in kept if not decision.batches]
    for decision in empty:
        note(f"sked: decision {decision.number} of {plain(decision.at)} holds nothing to run again")
    return FAILED if empty or any(one.replayed.problem or not (name or one.replayed.same) for one in found) else 0


@dataclass(frozen=True, slots=True)
class _Run:
    decision: Decision
    batch: Batch
    replayed: Replayed


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise click.BadParameter(f"expected a number or all, got {text}", param_hint="--decision")
    return int(text)


def _lines(one: _Run, name: str) -> Sequence[str]:
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


def _plain(one: _Run, name: str) -> dict[str, object]:
    found = one.replayed
    return {
        "decision": one.decision.number,
        "cluster": one.batch.cluster,
        "scheduler": name or one.decision.scheduler,
        "same": found.same,
        "problem": found.problem,
        "hosts_then": one.batch.hosts,
        "hosts": found.answer.hosts if found.answer else None,
        "waiting_then": one.batch.waiting,
        "waiting": found.answer.waiting if found.answer else None,
        "moved": found.moved,
        "gain": found.gain,
        "differences": found.differences,
    }
