"""``sked plan``: an apply that is only looked at, with a number by which exactly that can be applied."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import click

from sked_core.client import outcomes, reading
from sked_core.client.declaring import begin_rollout
from sked_core.client.foresight import caveats, course_json, live_world, schedulers_of
from sked_core.client.rollouts import route
from sked_core.client.session import Session
from sked_core.logic.apply import Change, plan_apply
from sked_core.logic.review import Review, Reviewed, changed_since, counted_services, review, since
from sked_core.model.manifest import Manifest, StoredConfig
from sked_core.model.resolve import short
from sked_core.model.spec import plain
from sked_core.model.validate import validate
from sked_core.model.yaml_source import Source
from sked_core.runtime.live_world import Live
from sked_core.runtime.sources import load_sources
from sked_core.surface.courses import course_lines
from sked_core.surface.options import command, files_option, output_option, session
from sked_core.surface.render import document, note, out

MAX_CHANGED = 10
"""How many of the keys that have changed since a review are named."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A manifest, the changes that it comes to, their review, and the state that all of it was made from."""

    manifest: Manifest
    changes: Sequence[Change]
    review: Review
    live: Live

    @property
    def number(self) -> int:
        return self.review.number(self.live.since)


def planned(sked: Session, sources: Sequence[Source], why: str) -> Planned:
    """What ``sources`` would do now. Raises InvalidManifest, Unavailable."""
    live = live_world(sked)
    executors, schedulers = sked.plugins.spec_checkers(), sked.plugins.names("scheduler")
    stored = StoredConfig.from_values({key: entry.value for key, entry in live.config.items()})
    manifest = validate(sources, stored=stored, executors=executors, schedulers=schedulers)
    journal = sked.journal()
    changes = [begin_rollout(sked.store, journal, change, why) for change in plan_apply(manifest, live.config)]
    found = review(
        changes,
        manifest,
        world=live.world,
        config=live.config,
        counted=counted_services([document.data for source in sources for document in source.documents]),
        schedulers=schedulers_of(sked, live.world, manifest.services),
    )
    return Planned(manifest, changes, found, live)


def as_reviewed(sked: Session, sources: Sequence[Source], why: str, number: int) -> Planned:
    """The same, if it is what the review with this number said. Raises Ended with code 5, and what differs, if not."""
    made = planned(sked, sources, why)
    if made.review.same(number):
        return made
    changed = changed_since(made.live.revisions, number)
    more = f" and {len(changed) - MAX_CHANGED} more" if len(changed) > MAX_CHANGED else ""
    written = f"written since: {', '.join(changed[:MAX_CHANGED])}{more}"
    if not changed:
        written = "nothing that it rests on was written since: something was removed, or the files are others"
    raise outcomes.Ended(
        f"what was reviewed as {number} is not what would happen now",
        code=outcomes.CONFLICT,
        hint="\n".join(
            [
                written
                if since(number) <= made.live.since
                else "the files are others, or that number is from another store",
                "now it would be:",
                *(f"  {line}" for line in lines(made.review)),
                "review that:  sked plan -f …",
            ]
        ),
    )


@command("plan")
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
        alone = reading.unattended(sked.store, made.manifest.services) if made.review.pending else []
    for problem in made.manifest.warnings:
        note(plain(str(problem)))
    for caveat in caveats(made.review.projection):
        note(plain(f"note: {caveat}"))
    for line in alone:
        note(f"note: {line}")
    again = f"sked apply {' '.join(f'-f {shlex.quote(file)}' for file in files)} --if-revision {made.number}"
    if output == "json":
        out(document("Plan", [_json(made, again)]))
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
        yield plain(f"{one.change.kind}/{one.change.name} {one.change.outcome}{_against(one)}")
        yield from (plain(f"  {line}") for line in _details(one))
    if found.shown:
        yield ""
        yield from course_lines(found.shown)
    if found.elsewhere:
        yield ""
        yield plain(f"not declared here, but changed by it: {', '.join('/'.join(pair) for pair in found.elsewhere)}")


def _against(one: Reviewed) -> str:
    return "" if one.against is None else f" (compared with version {one.against})"


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


def _json(made: Planned, again: str) -> dict[str, Any]:
    found = made.review
    return {
        "revision": str(made.number),  # more digits than many readers of JSON keep of a number
        "apply": again,
        "pending": found.pending,
        "unplaced": found.unplaced(),
        "complete": found.projection.ended,
        "objects": [
            {
                "kind": one.change.kind,
                "name": one.change.name,
                "outcome": one.change.outcome,
                "fields": [{"path": path, "before": before, "after": after} for path, before, after in one.fields],
                "compared_with": one.against,
                "kept": one.kept,
                "rollout": one.change.begun.number if one.change.begun else None,
            }
            for one in found.objects
        ],
        "services": [
            course_json(pair, course) | {"declared": pair in found.named} for pair, course in found.shown.items()
        ],
        "warnings": [str(problem) for problem in made.manifest.warnings],
        "notes": list(caveats(found.projection)),
    }
