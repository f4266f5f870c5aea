"""``sked validate`` and ``sked apply``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from sked_core.interfaces.store import Store
from sked_core.logic.apply import Change, plan_apply
from sked_core.model import keys
from sked_core.model.manifest import Manifest, StoredConfig
from sked_core.model.spec import plain
from sked_core.model.validate import validate as validated
from sked_core.model.yaml_source import Source
from sked_core.runtime.sources import load_sources
from sked_core.runtime.state import batches, store_uid
from sked_core.surface.options import Session, command, load_plugins, repeated, session, timeout_option
from sked_core.surface.render import note, out

F = TypeVar("F", bound=Callable[..., Any])


def _files_option(function: F) -> F:
    return click.option(
        "-f", "--file", "files", metavar="FILE", multiple=True, required=True, help="File, folder, or - ; repeatable."
    )(function)


@command("validate")
@_files_option
def validate(files: Sequence[str]) -> None:
    """Check manifests without asking any store, and report every mistake of every file."""
    plugins = load_plugins()
    manifest = validated(
        _sources(files), stored=None, executors=plugins.spec_checkers(), schedulers=plugins.names("scheduler")
    )
    _warn(manifest)
    objects = (*manifest.clusters, *manifest.services, *manifest.task_definitions)
    note(f"valid: {len(objects)} object{'' if len(objects) == 1 else 's'}")


@command("apply")
@_files_option
@click.option("--dry-run", is_flag=True, help="Say what would change; write nothing.")
@click.option("--wait", is_flag=True, help="Return once every task of the services is healthy.")
@timeout_option("5m")
def apply(files: Sequence[str], dry_run: bool, wait: bool, timeout: float) -> None:
    """Declare what manifests say. All of it is checked first; on any mistake nothing is written."""
    sources = _sources(files)
    with session() as sked:
        manifest, changes = _declare(sked, sources, dry_run=dry_run)
        for change in changes:
            out(f"{change.kind}/{change.name} {change.outcome}" + (" (dry run)" if dry_run else ""))
        if wait and not dry_run:
            from sked_core.surface.waiting import wait_until_healthy

            wait_until_healthy(sked, manifest, timeout=timeout, again=f"sked apply -f {' -f '.join(files)} --wait")


def _sources(files: Sequence[str]) -> tuple[Source, ...]:
    return load_sources(files, sys.stdin.buffer)


def _warn(manifest: Manifest) -> None:
    for problem in manifest.warnings:
        note(plain(str(problem)))


def _declare(sked: Session, sources: Sequence[Source], *, dry_run: bool) -> tuple[Manifest, Sequence[Change]]:
    executors, schedulers = sked.plugins.spec_checkers(), sked.plugins.names("scheduler")

    def attempt() -> tuple[Manifest, Sequence[Change]]:
        entries = sked.store.read(keys.CONFIG).entries
        stored = StoredConfig.from_values({key: entry.value for key, entry in entries.items()})
        manifest = validated(sources, stored=stored, executors=executors, schedulers=schedulers)
        changes = plan_apply(manifest, entries)
        if not dry_run:
            _commit(sked.store, changes)
        return manifest, changes

    manifest, changes = repeated(attempt)
    _warn(manifest)
    return manifest, changes


def _commit(store: Store, changes: Sequence[Change]) -> None:
    """One transaction where the store takes that many operations; else several, what is referred to first."""
    store_uid(store, create=True)
    for batch in batches((change.ops for change in changes if change.ops), max_ops=store.max_ops):
        store.commit(batch)
