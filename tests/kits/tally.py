"""A plugin that counts events and has a command, as an author might write one. It is right as it stands: ``bugs`` puts
bugs into it, line by line."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from pathlib import Path

import click

from sked_core.plugin import Event, hookimpl

COUNTS: Counter[str] = Counter()
KINDS = ("task", "rollout", "move", "service", "cluster", "task_definition", "host", "agent", "shadow", "events")
LOCAL, SYSTEM, LOGGING, OPENED = threading.local(), os, logging, []
LOCAL.owner = threading.current_thread()


@hookimpl
def sked_event(event: Event) -> None:
    kind, _, what = event.what.partition(".")
    COUNTS[kind] += 1
    COUNTS[what] += len(event.why) > 0


@click.group("tally")
def tally() -> None:
    """Events that were counted."""


@tally.command("show")
@click.option("--most", default=10, help="How many kinds to show.")
def show(most: int) -> None:
    """Show the commonest kinds of events."""
    for kind, count in COUNTS.most_common(most):
        click.echo(f"{kind} {count}")


@hookimpl
def sked_commands(cli: click.Group) -> None:
    cli.add_command(tally)


def here() -> Path:
    return Path(__file__)
