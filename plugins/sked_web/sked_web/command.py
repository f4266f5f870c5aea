"""``sked web``: serve the API and the page."""

from __future__ import annotations

import click


@click.command("web")
def web() -> None:
    """Serve the API and the page."""
    raise click.UsageError("this version serves nothing yet")
