"""``sked scale``: the count of a service, and the bounds that follow it."""

from __future__ import annotations

import click

from sked_core.client.acting import scaling
from sked_core.model.spec import plain
from sked_core.surface.completing import services
from sked_core.surface.options import command, session
from sked_core.surface.render import out


@command("scale", "sked scale web 5")
@click.argument("service", shell_complete=services)
@click.argument("count", metavar="N")
def scale(service: str, count: str) -> None:
    """Change how many tasks of SERVICE should run in each of its clusters. N is a decimal number: 010 is ten."""
    if not (count.isascii() and count.isdecimal() and len(count) <= 20):
        raise click.UsageError(f"expected a whole number such as 10, got {plain(count[:40])!r}")
    with session() as sked:
        done = scaling.scale(sked, service, int(count))
    out(f"service/{service} scaled to {done.after}" if done.changed else f"service/{service} unchanged")
