"""``sked web``: serve the API and the page."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sked_core.client.session import Session

DEFAULT_LISTEN = "127.0.0.1:8642"
FIRST_READ_SECONDS = 3.0
"""How long to wait for the store before serving: a page that is asked for at once should have something to show."""
_FILE = click.Path(dir_okay=False, path_type=Path)
_EPILOG = """\b
Examples:
  sked web                                      the page for people on this machine, at http://127.0.0.1:8642
  sked web --listen 0.0.0.0:8642 --tokens /etc/sked/tokens --tls-cert web.pem --tls-key web.key
  curl http://127.0.0.1:8642/v1/tasks           the same as `sked tasks -o json`
"""


@click.command("web", epilog=_EPILOG)
@click.option("--listen", metavar="HOST:PORT", default=DEFAULT_LISTEN, show_default=True, help="Where to serve.")
@click.option("--allow-host", "hosts", metavar="NAME", multiple=True, help="A further name that it is called by.")
@click.option("--tokens", metavar="FILE", type=_FILE, help="Who may do what, in lines of NAME ROLE TOKEN.")
@click.option("--tls-cert", metavar="FILE", type=_FILE, help="Certificate, with those that signed it, in PEM.")
@click.option("--tls-key", metavar="FILE", type=_FILE, help="Its key, without a password.")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens and why.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    envvar="SKED_LOG_FORMAT",
    default="text",
    help="Log for people, or one JSON object per line. Default: text. [env: SKED_LOG_FORMAT]",
)
@click.option("--backend", metavar="URL", help="Store: consul://127.0.0.1:8500, … [env: SKED_BACKEND]")
@click.option("--prefix", metavar="TEXT", help="Put all keys of the store below this one. [env: SKED_PREFIX]")
@click.option("--config", metavar="FILE", help="Settings in TOML, before /etc/sked/sked.toml. [env: SKED_CONFIG]")
@click.pass_context
def web(ctx: click.Context, /, **options: Any) -> int:
    """Serve the API and the page until SIGTERM or Ctrl-C.

    On a loopback address everybody on this machine may do everything, unless --tokens is given. Any other address takes
    --tokens, --tls-cert and --tls-key as well.
    """
    from sked_core.client.identity import by_whom
    from sked_core.client.session import open_session
    from sked_core.client.settings import resolve
    from sked_core.serving.logs import log_to_stderr

    before = ctx.find_root().obj
    given = {name: options[name] or getattr(before, name, None) for name in ("backend", "prefix", "config")}
    settings = resolve(**given)
    log_to_stderr(options["log_format"], verbose=options["verbose"])
    with open_session(settings, by_whom()) as sked:
        return _serve(sked, options)


def _serve(sked: Session, options: dict[str, Any]) -> int:
    from sked_core.client.copied.mirror import Mirror
    from sked_core.client.settings import masked
    from sked_core.serving.listening import Listen, open_tcp
    from sked_core.serving.server import HttpServer
    from sked_core.serving.systemd import Systemd
    from sked_core.serving.watching import Metrics
    from sked_web.app import build
    from sked_web.state import State
    from sked_web.watched import Watched

    listener = open_tcp(
        Listen(
            address=options["listen"],
            tokens=options["tokens"],
            tls_cert=options["tls_cert"],
            tls_key=options["tls_key"],
            hosts=tuple(options["hosts"]),
        )
    )
    metrics = Metrics(["web"])
    sked = replace(sked, store=metrics.store(sked.store))
    mirror = Mirror(sked)
    stop, systemd = threading.Event(), Systemd.from_environment()
    try:
        click.echo(f"sked: store {masked(sked.settings.backend.value)}", err=True)
        mirror.start()
        mirror.ready(FIRST_READ_SECONDS)
        watched = Watched(metrics, mirror)
        server = HttpServer(build(State(sked, mirror), watched), [listener])
        if systemd is not None:
            told = partial(systemd.run, stop, ready=lambda: server.alive, pulses=watched.pulses)
            threading.Thread(target=told, name="systemd").start()
        click.echo(f"sked: serving on {listener.url}", err=True)
        return server.run_until_signal()
    finally:
        stop.set()
        mirror.close()
        listener.close()
