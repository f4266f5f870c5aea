"""What this package offers: it tells webhooks of events, and the command ``sked notify``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from sked_core.plugin import Event, InvalidManifest, hookimpl


@hookimpl
def sked_event(event: Event) -> None:
    from sked_notify.telling import tell

    tell(event)


@hookimpl
def sked_problems() -> Sequence[str]:
    from sked_notify.config import load

    try:
        load()
    except InvalidManifest as error:
        return [str(one) for one in error.problems]
    return []


@hookimpl
def sked_commands(cli: click.Group) -> None:
    from sked_notify.command import notify

    cli.add_command(notify)
