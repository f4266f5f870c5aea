"""What this package offers: the command ``sked web``."""

from __future__ import annotations

import click

from sked_core.plugin import hookimpl


@hookimpl
def sked_commands(cli: click.Group) -> None:
    from sked_web.command import web

    cli.add_command(web)
