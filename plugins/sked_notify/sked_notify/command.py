"""``sked notify``: which hooks there are, and whether they take a message."""

from __future__ import annotations

import time

import click

from sked_core.plugin import Event, NotFound, SkedError, plain
from sked_notify.config import SYSTEM_FILE, VARIABLE, Config, load
from sked_notify.messages import Gathered, message
from sked_notify.posting import post

SAMPLE = Event(
    at="2026-01-01T00:00:00Z",
    who="sked notify test",
    what="task.failed",
    subject="task/example-web-1-0",
    service="web",
    host="example",
    why="this is a test: nothing has happened",
)


@click.group("notify")
def notify() -> None:
    """Tell webhooks what happens."""


@notify.command("show")
def show() -> None:
    """List the hooks of this host, without what is secret about them."""
    for hook in _config().hooks:
        click.echo(f"{plain(hook.name)}: {hook.format} to {plain(hook.place)}")
        for name in ("events", "clusters", "services", "hosts", "subjects"):
            if getattr(hook, name) != ["*"]:
                click.echo(f"  {name}: {plain(', '.join(getattr(hook, name)))}")
        if hook.headers:
            click.echo(f"  headers: {plain(', '.join(hook.headers))}")
        click.echo(f"  one message in {hook.group} at most")


@notify.command("test")
@click.option("--hook", "only", metavar="NAME", help="Only this one.")
def test(only: str | None) -> int:
    """Send each hook a sample, and say what came of it. Ends with 1 if one did not take it."""
    config, failed = _config(), False
    hooks = [hook for hook in config.hooks if only in (None, hook.name)]
    if only is not None and not hooks:
        raise NotFound(f"no hook {plain(only[:80])}", hint="`sked notify show` lists them")
    for hook in hooks:
        gathered = Gathered()
        gathered.add(SAMPLE)
        begun = time.monotonic()
        outcome = post(hook, *message(config, hook, gathered))
        took = time.monotonic() - begun
        failed = failed or bool(outcome.why)
        click.echo(f"{plain(hook.name)}: {plain(outcome.why) or f'took it ({outcome.status}) in {took:.2f} s'}")
    return int(failed)


def _config() -> Config:
    config = load()
    if config.file is None:
        raise SkedError(f"there is no {SYSTEM_FILE}", hint=f"write one, or name a file by {VARIABLE}")
    return config
