"""Declaring: checking manifests, and writing what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sked_core.client.acting.changes import against, begin_rollout, commit_changes
from sked_core.client.notices import notice
from sked_core.client.session import Session, repeated
from sked_core.logic.apply import Change, plan_apply, unlisted
from sked_core.model import keys
from sked_core.model.manifest import Manifest
from sked_core.model.spec import plain
from sked_core.model.validate import validate as validated
from sked_core.model.yaml_source import Source
from sked_core.runtime.plugins.asked import spec_checkers
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.state import store_uid


@dataclass(frozen=True, slots=True)
class Applied:
    """What manifests have come to: ``changes`` in the order in which they are written, unchanged objects included.
    ``written`` is false after a dry run."""

    manifest: Manifest
    changes: Sequence[Change]
    written: bool

    @property
    def services(self) -> frozenset[str]:
        """The services that were declared, or that a declared cluster lists."""
        listed = {name for cluster in self.manifest.clusters for name in cluster.services}
        return frozenset(listed | {service.name for service in self.manifest.services})

    @property
    def begun(self) -> dict[str, int]:
        """The numbers of the roll-outs that begin with it, by service."""
        return {change.name: change.begun.number for change in self.changes if change.begun}


def validate(sources: Sequence[Source], plugins: Plugins) -> Manifest:
    """What ``sources`` declare, checked without any store. Raises InvalidManifest with every mistake of every file;
    warnings are noticed. ``model.yaml_source.parse`` makes a source of bytes, ``runtime.sources`` of files."""
    executors, schedulers = spec_checkers(plugins), plugins.names("scheduler")
    manifest = validated(sources, stored=None, executors=executors, schedulers=schedulers)
    _warn(manifest)
    return manifest


def declare(
    sked: Session,
    sources: Sequence[Source],
    why: str,
    *,
    dry_run: bool = False,
    if_revision: int | None = None,
    prune: bool = False,
) -> Applied:
    """Write what ``sources`` declare; all of it is checked first. Declaring the same again changes nothing.

    ``dry_run``: write nothing. ``if_revision``: only if it does what the plan with this number said; else NotAsReviewed
    is raised. ``prune``: also remove services that no cluster lists any more. Raises InvalidManifest, Conflict and
    Unavailable, too. Warnings are noticed.
    """
    journal = sked.journal()

    def attempt() -> Applied:
        if if_revision is not None:
            from sked_core.client.acting.planning import as_reviewed  # on demand: most never need it

            made = as_reviewed(sked, sources, why, if_revision)
            manifest, changes = made.manifest, made.changes
        else:
            entries = sked.store.read(keys.CONFIG).entries
            manifest = against(sked, sources, entries)
            changes = [begin_rollout(sked.store, journal, change, why) for change in plan_apply(manifest, entries)]
            changes += unlisted(manifest, entries) if prune else ()
        if not dry_run:
            store_uid(sked.store, create=True)
            commit_changes(sked.store, journal, changes, why)
        return Applied(manifest, changes, written=not dry_run)

    done = repeated(attempt)
    _warn(done.manifest)
    return done


def _warn(manifest: Manifest) -> None:
    for problem in manifest.warnings:
        notice(plain(str(problem)))
