"""What this package offers: it tells webhooks of events, and the command ``sked notify``."""

from __future__ import annotations

import click

from sked_core.plugin import Event, hookimpl


@hookimpl
def sked_event(event: Event) -> None:
    from sked_notify.telling import tell

    tell(event)


@hookimpl
def sked_commands(cli: click.Group) -> None:
    from sked_notify.command import notify

    cli.add_command(notify)
