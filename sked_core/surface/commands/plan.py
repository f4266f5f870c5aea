"""``sked plan``: an apply that is only looked at, with a number by which exactly that can be applied."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence

import click

from sked_core.client import outcomes
from sked_core.client.acting.planning import NotAsReviewed, plan_json, planned, unattended
from sked_core.client.looking.foresight import caveats
from sked_core.client.looking.rollouts import route
from sked_core.logic.review import Review, Reviewed
from sked_core.model.resolve import short
from sked_core.model.spec import plain
from sked_core.runtime.sources import load_sources
from sked_core.surface.courses import course_lines
from sked_core.surface.options import command, files_option, output_option, session
from sked_core.surface.render import emit, note, out


@command(
    "plan",
    "sked plan -f web.yml",
    "sked plan -f manifests/ --exit-code  # 10: changes, 8: some have no place",
)
@files_option()
@click.option("--exit-code", is_flag=True, help="Exit 8 if some task finds no host, else 10 if anything would change.")
@output_option
def plan(files: Sequence[str], exit_code: bool, output: str) -> int:
    """Say what an apply would change and where every task would go. Nothing is written.

    It ends with a number, by which `sked apply --if-revision` does exactly this or nothing.
    """
    sources = load_sources(files, sys.stdin.buffer)
    with session() as sked:
        made = planned(sked, sources, "sked plan")
        alone = unattended(sked, made)
    for problem in made.manifest.warnings:
        note(plain(str(problem)))
    for caveat in caveats(made.review.projection):
        note(plain(f"note: {caveat}"))
    for line in alone:
        note(f"note: {line}")
    again = f"sked apply {' '.join(f'-f {shlex.quote(file)}' for file in files)} --if-revision {made.number}"
    if output == "json":
        emit("Plan", [plan_json(made, again)])
    else:
        for line in lines(made.review):
            out(line)
        out("")
        out(f"revision {made.number}")
        if made.review.pending:
            out(f"apply exactly this:  {again}")
    if not exit_code:
        return 0
    return outcomes.UNPLACED if made.review.unplaced() else outcomes.PENDING if made.review.pending else 0


def lines(found: Review) -> Iterator[str]:
    """A review for people."""
    for one in found.objects:
        against = "" if one.against is None else f" (compared with version {one.against})"
        yield plain(f"{one.change.kind}/{one.change.name} {one.change.outcome}{against}")
        yield from (plain(f"  {line}") for line in _details(one))
    if found.shown:
        yield ""
        yield from course_lines(found.shown)
    if found.elsewhere:
        yield ""
        yield plain(f"not declared here, but changed by it: {', '.join('/'.join(pair) for pair in found.elsewhere)}")


def with_review(refusal: NotAsReviewed) -> NotAsReviewed:
    """``refusal`` with what would happen now among its hints."""
    first, last = refusal.hint.splitlines()
    refusal.hint = "\n".join([first, "now it would be:", *(f"  {line}" for line in lines(refusal.now)), last])
    return refusal


def _details(one: Reviewed) -> Iterator[str]:
    for path, before, after in one.fields:
        if before and after:
            yield f"{path}: {short(before)} -> {short(after)}"
        else:
            yield f"{path}: {short(after)}" if after else f"{path}: {short(before)} is taken away"
    if one.kept is not None:
        yield f"desired: kept at {one.kept}, the manifest says nothing"
    if one.change.begun is not None:
        yield f"begins roll-out {one.change.begun.number}: {route(one.change.begun)}"
