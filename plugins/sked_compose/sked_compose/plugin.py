"""What this package offers: the command ``sked compose``."""

from __future__ import annotations

import click

from sked_core.plugin import hookimpl


@hookimpl
def sked_commands(cli: click.Group) -> None:
    from sked_compose.command import compose

    cli.add_command(compose)
