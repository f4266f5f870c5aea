"""What this package offers: the command ``sked prometheus``."""

from __future__ import annotations

import click

from sked_core.plugin import hookimpl


@hookimpl
def sked_commands(cli: click.Group) -> None:
    from sked_prometheus.command import prometheus

    cli.add_command(prometheus)
