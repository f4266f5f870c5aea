"""``sked cordon``, ``uncordon`` and ``drain``: the mark of a host, which no agent ever writes."""

from __future__ import annotations

from collections.abc import Sequence

import click

from sked_core.client.acting import marking
from sked_core.surface import completing
from sked_core.surface.draining import wait_until_empty
from sked_core.surface.options import command, duration, session, timeout_option
from sked_core.surface.render import note

why_option = click.option("--why", metavar="TEXT", default="", help="The reason, for others to read.")


@command("cordon", "sked cordon web-1 --why 'new disk'")
@click.argument("hosts", metavar="HOST...", nargs=-1, required=True, shell_complete=completing.hosts)
@why_option
def cordon(hosts: Sequence[str], why: str) -> None:
    """Place no further tasks on hosts; what runs there goes on."""
    with session() as sked:
        marking.cordon(sked, hosts, why=why)
    note(f"cordoned: {' '.join(hosts)}")


@command("uncordon", "sked uncordon web-1 web-2")
@click.argument("hosts", metavar="HOST...", nargs=-1, required=True, shell_complete=completing.hosts)
@why_option
def uncordon(hosts: Sequence[str], why: str) -> None:
    """Place tasks on hosts again; ends a drain too."""
    with session() as sked:
        marking.uncordon(sked, hosts, why=why)
    note(f"ready: {' '.join(hosts)}")


@command(
    "drain",
    "sked drain web-1 web-2 --wait",
    "sked drain web-1 --deadline 10m --why 'new kernel'",
)
@click.argument("hosts", metavar="HOST...", nargs=-1, required=True, shell_complete=completing.hosts)
@click.option("--deadline", metavar="TIME", callback=duration, help="After so long go below `min` to end it.")
@click.option("--force", is_flag=True, help="Go below `min` at once.")
@why_option
@click.option("--wait", is_flag=True, help="Return once no task is left on them.")
@timeout_option("10m")
def drain(hosts: Sequence[str], deadline: float | None, force: bool, why: str, wait: bool, timeout: float) -> None:
    """Move all tasks away from hosts. All are marked at once, so that tasks don't hop from one to the next.

    A task leaves once its replacement elsewhere is healthy, where that keeps its service at `min`. `sked uncordon`
    ends a drain. The same drain again changes nothing; with other options it changes the drain.
    """
    if force and deadline is not None:
        raise click.UsageError("--force means now, --deadline means later: give one of them")
    if deadline is not None and deadline <= 0:
        raise click.UsageError("--deadline has to be more than 0; for no delay at all:  --force")
    names = list(dict.fromkeys(hosts))
    with session() as sked:
        marking.drain(sked, names, force=force, deadline=deadline or 0.0, why=why)
        note(f"draining: {' '.join(names)} (undo: sked uncordon {' '.join(names)})")
        if wait:
            option = " --force" if force else f" --deadline {deadline:g}s" if deadline else ""
            wait_until_empty(sked.store, names, timeout, again=f"sked drain {' '.join(names)}{option} --wait")
            note(f"empty: {' '.join(names)}")
