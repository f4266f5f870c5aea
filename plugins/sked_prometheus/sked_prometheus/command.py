"""``sked prometheus targets``: print them, keep them in a file, or serve them."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

import click

from sked_core.plugin import Invocation, Reading, plain
from sked_prometheus.serving import Server
from sked_prometheus.targets import groups, written

_EPILOG = """\b
Examples:
  sked prometheus targets                                               print them once
  sked prometheus targets --write /etc/prometheus/sked.json --watch     for file_sd_configs
  sked prometheus targets --listen 127.0.0.1:9469                       for http_sd_configs
"""


@click.group("prometheus")
def prometheus() -> None:
    """Have Prometheus find tasks."""


@prometheus.command("targets", epilog=_EPILOG)
@click.option(
    "--tag", metavar="NAME", default="prometheus", show_default=True, help="Tag of tasks: NAME or NAME:/path."
)
@click.option("--healthy", is_flag=True, help="Only tasks that are healthy.")
@click.option("--write", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Into a file.")
@click.option("--watch", is_flag=True, help="Keep the file true until Ctrl-C.")
@click.option("--listen", metavar="HOST:PORT", help="Serve them over HTTP on this machine until Ctrl-C.")
@click.pass_obj
def targets(sked: Invocation, tag: str, healthy: bool, write: Path | None, watch: bool, listen: str | None) -> None:
    """The tasks that Prometheus is to scrape: those with the tag, at their port.

    Each is a group with the labels cluster, service, task, host and version.
    """
    if watch and write is None:
        raise click.UsageError("--watch keeps a file true: --write FILE")

    def look(seen: Reading) -> str:
        return written(groups(seen.tasks(), seen.hosts(), tag=tag, healthy=healthy))

    with ExitStack() as stack:
        server = Server(listen) if listen is not None else None
        if server is not None:
            stack.callback(server.server_close)
        reading = stack.enter_context(sked.reading())
        if not watch and server is None:
            found = look(reading)
            click.echo(found, nl=False) if write is None else put(write, found)
            return
        before, away = None, False
        for seen in reading.looks():
            if bool(seen.stale) != away:
                away = not away
                said = f"{plain(seen.stale)}; trying again" if away else "the store answers again"
                click.echo(f"sked: {said}", err=True)
            if seen.stale:
                continue
            found = look(seen)
            if write is not None and found != before:
                put(write, found)
            if server is not None:
                server.text = found
                if before is None:
                    server.start()
                    stack.callback(server.stop)
                    click.echo(f"sked: serving on {server.url}", err=True)
            before = found


def put(path: Path, text: str) -> None:
    """Have the file hold ``text``: whoever reads it sees all of what it was or of what it is."""
    try:
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        with os.fdopen(handle, "w") as opened:
            os.fchmod(opened.fileno(), 0o644)  # Prometheus is another user
            opened.write(text)
        Path(draft).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(draft).unlink()
        raise
