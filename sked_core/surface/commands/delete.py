"""``sked delete``: take a declaration away; tasks that came of it are stopped by whoever runs them."""

from __future__ import annotations

import sys

import click

from sked_core.client import outcomes
from sked_core.client.acting import deleting
from sked_core.surface.completing import declared
from sked_core.surface.options import command, session
from sked_core.surface.render import note


@command(
    "delete",
    "sked delete service/web --cascade",
    "sked delete task_definition/web/3 -y",
)
@click.argument("target", metavar="KIND/NAME", shell_complete=declared)
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@click.option("--cascade", is_flag=True, help="Take a service out of the clusters that list it.")
def delete(target: str, yes: bool, cascade: bool) -> None:
    """Remove service/NAME, cluster/NAME, task_definition/NAME (every version) or task_definition/NAME/VERSION.

    What others refer to is not removed. The tasks of a service or cluster are stopped.
    """
    can_ask(yes)
    with session() as sked:
        ops = deleting.removal(sked, target, cascade=cascade)
        confirm(f"delete {target}?", yes)
        deleting.commit(sked, target, ops)
    note(f"deleted: {target}")


def can_ask(yes: bool) -> None:
    """Raises UsageError where ``confirm`` would have to ask, and nobody is there."""
    if not yes and not (sys.stdin and sys.stdin.isatty()):
        raise click.UsageError("not on a terminal, so nobody can be asked: add -y")


def confirm(question: str, yes: bool) -> None:
    """Ask, unless ``yes``. Raises Ended for no, UsageError where nobody can be asked."""
    can_ask(yes)
    if not yes and not click.confirm(question, err=True):
        raise outcomes.Ended("nothing was done", code=outcomes.FAILED)
