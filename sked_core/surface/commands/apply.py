"""``sked validate`` and ``sked apply``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from sked_core.client.acting.declaring import Applied, declare
from sked_core.client.acting.declaring import validate as validated
from sked_core.client.session import Session
from sked_core.logic.apply import Change
from sked_core.model.wording import counted
from sked_core.model.yaml_source import Source
from sked_core.runtime.sources import load_sources
from sked_core.surface.commands.delete import confirm
from sked_core.surface.options import command, files_option, installed, session, timeout_option
from sked_core.surface.render import note, out


@command(
    "validate",
    "sked validate -f web.yml",
    "cat web.yml | sked validate -f -",
)
@files_option()
def validate(files: Sequence[str]) -> None:
    """Check manifests without asking any store, and report every mistake of every file."""
    plugins = installed()
    manifest = validated(load_sources(files, sys.stdin.buffer), plugins)
    objects = (*manifest.clusters, *manifest.services, *manifest.task_definitions)
    note(f"valid: {counted(len(objects), 'object')}")


@command(
    "apply",
    "sked apply -f web.yml",
    "sked apply -f manifests/ --wait --timeout 5m",
    "sked apply -f web.yml --dry-run",
    "sked apply -f manifests/ --prune  # asks before services are removed",
    "sked apply -f web.yml --if-revision 8567849880  # exactly what `sked plan` showed",
)
@files_option()
@click.option("--dry-run", is_flag=True, help="Say what would change; write nothing.")
@click.option("--wait", is_flag=True, help="Return once every task of the services is healthy.")
@timeout_option("5m")
@click.option("--if-revision", metavar="N", type=int, help="Only if it does what `sked plan` said under this number.")
@click.option("--prune", is_flag=True, help="Remove services, too, that no cluster lists any more. Asks first.")
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@click.option("--why", default="sked apply", help="Kept with the roll-outs that begin, for people.", show_default=True)
def apply(files: Sequence[str], wait: bool, timeout: float, if_revision: int | None, yes: bool, **how: Any) -> None:
    """Declare what manifests say. All of it is checked first; on any mistake nothing is written.

    A service that gets another version is rolled out.
    """
    dry_run: bool = how["dry_run"]
    if how["prune"] and if_revision is not None:
        raise click.UsageError("--if-revision does what `sked plan` said, which says nothing of --prune")
    if how["prune"] and not dry_run:
        confirm("remove services that no cluster lists then (which: --dry-run)?", yes)
    sources = load_sources(files, sys.stdin.buffer)
    with session() as sked:
        done = _declared(sked, sources, if_revision, **how)
        for change in done.changes:
            out(f"{change.kind}/{change.name} {change.outcome}{_more(change, dry_run)}")
        if wait and not dry_run:
            from sked_core.surface.waiting import wait_until_healthy

            names, begun = done.services, done.begun
            again = f"sked apply -f {' -f '.join(files)} --wait"
            if begun.keys() == names and len(names) == 1:  # applying again would begin anew what was rolled back
                again = f"sked rollout status {next(iter(names))} -w"
            wait_until_healthy(sked, names, begun, timeout=timeout, again=again)


def _declared(sked: Session, sources: Sequence[Source], if_revision: int | None, **how: Any) -> Applied:
    if if_revision is None:
        return declare(sked, sources, **how)
    from sked_core.client.acting.planning import NotAsReviewed

    try:
        return declare(sked, sources, if_revision=if_revision, **how)
    except NotAsReviewed as refusal:
        from sked_core.surface.commands.plan import with_review

        raise with_review(refusal) from None


def _more(change: Change, dry_run: bool) -> str:
    """What stands in brackets behind a change: whether it is one, and the roll-out that begins with it."""
    parts = ["dry run"] if dry_run else []
    if change.begun:
        from sked_core.client.looking.rollouts import route

        began = "would begin" if dry_run else "began"
        parts.append(f"{began} roll-out {change.begun.number}: {route(change.begun)}")
    return f" ({', '.join(parts)})" if parts else ""
