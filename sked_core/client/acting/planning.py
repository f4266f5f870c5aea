"""A review before anything is written: what an apply would do, with a number by which exactly that can be applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sked_core.client import reading
from sked_core.client.acting.changes import against, begin_rollout
from sked_core.client.looking.foresight import caveats, course_json, live_world, schedulers_of, thought_out
from sked_core.client.outcomes import CONFLICT, Ended
from sked_core.client.session import Session
from sked_core.logic.apply import Change, plan_apply
from sked_core.logic.review import Review, changed_since, counted_services, review, since
from sked_core.model.manifest import Manifest
from sked_core.model.yaml_source import Source
from sked_core.runtime.scheduling.live_world import Live

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
        """By which ``declare(if_revision=…)`` does exactly this or nothing."""
        return self.review.number(self.live.since)


class NotAsReviewed(Ended):
    """What was reviewed is not what would happen now. ``now`` is: what surfaces show between the lines of the hint."""

    def __init__(self, message: str, *, now: Review, changed: str) -> None:
        super().__init__(message, code=CONFLICT, hint=f"{changed}\nreview that:  sked plan -f …")
        self.now = now


def planned(sked: Session, sources: Sequence[Source], why: str) -> Planned:
    """What ``sources`` would do now. Raises InvalidManifest, PluginError, Unavailable."""
    live, journal = live_world(sked), sked.journal()
    manifest = against(sked, sources, live.config)
    changes = [begin_rollout(sked.store, journal, change, why) for change in plan_apply(manifest, live.config)]
    schedulers = schedulers_of(sked, live.world, manifest.services)
    found = thought_out(
        sked,
        schedulers,
        lambda: review(
            changes,
            manifest,
            world=live.world,
            config=live.config,
            counted=counted_services([document.data for source in sources for document in source.documents]),
            schedulers=schedulers,
        ),
    )
    return Planned(manifest, changes, found, live)


def as_reviewed(sked: Session, sources: Sequence[Source], why: str, number: int) -> Planned:
    """The same, if it is what the review with this number said. Raises NotAsReviewed if not."""
    made = planned(sked, sources, why)
    if made.review.same(number):
        return made
    changed = changed_since(made.live.revisions, number)
    more = f" and {len(changed) - MAX_CHANGED} more" if len(changed) > MAX_CHANGED else ""
    written = f"written since: {', '.join(changed[:MAX_CHANGED])}{more}"
    if not changed:
        written = "nothing that it rests on was written since: something was removed, or the files are others"
    if since(number) > made.live.since:
        written = "the files are others, or that number is from another store"
    raise NotAsReviewed(f"what was reviewed as {number} is not what would happen now", now=made.review, changed=written)


def unattended(sked: Session, made: Planned) -> list[str]:
    """A line for each service of ``made`` that nobody would place, if it changes anything."""
    return reading.unattended(sked.store, made.manifest.services) if made.review.pending else []


def plan_json(made: Planned, again: str) -> dict[str, Any]:
    """A review for programs; ``again``: the command that applies exactly this."""
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
