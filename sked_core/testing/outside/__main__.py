"""``python -m sked_core.testing.outside``: whether a scheduler outside of Sked does all that one has to."""

from __future__ import annotations

import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path

import click

from sked_core.errors import Unavailable
from sked_core.testing.outside.bench import Bench
from sked_core.testing.outside.checks import CHECKS


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--backend", required=True, envvar="SKED_BACKEND", help="The store; the kit keeps to a prefix of its own."
)
@click.option("--prefix", default=None, help="This one instead; empty for a store that holds nothing else.")
@click.option("--only", multiple=True, type=click.Choice(list(CHECKS)), help="This check; may be given several times.")
@click.option("--patience", default=120.0, help="Seconds within which everything has to have happened.")
@click.argument("command", nargs=-1, required=True)
def main(backend: str, prefix: str | None, only: tuple[str, ...], patience: float, command: tuple[str, ...]) -> None:
    """Try the scheduler that COMMAND starts, with real agents, and say of each check whether it holds.

    {name} in COMMAND stands for the name that services give as their scheduler. Its environment says SKED_BACKEND,
    SKED_PREFIX, and LOST_AFTER: after how many seconds without its agent a host's tasks are to be replaced. Ends with 1
    if anything is wrong. The commands `sked run agent` and those of bash have to work here.
    """
    failed = 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all that was started is ended
    with tempfile.TemporaryDirectory(prefix="sked-kit-") as folder:
        prefix = f"sked-kit-{secrets.token_hex(3)}" if prefix is None else prefix
        bench = Bench(command, backend, Path(folder), prefix=prefix, patience=patience)
        try:
            bench.open()
            for name in only or CHECKS:
                begun = time.monotonic()
                try:
                    CHECKS[name](bench)
                    bench.judge()
                    said = ""
                except AssertionError as error:
                    failed, said = failed + 1, f"\n{error}"
                except Unavailable:
                    raise
                except Exception as error:  # noqa: BLE001  a check may stumble over what the scheduler has written
                    failed, said = failed + 1, f"\n{type(error).__name__}: {error}{bench.told()}"
                click.echo(
                    f"{'FAIL' if said else 'ok'}  {name.replace('_', ' ')} ({time.monotonic() - begun:.1f} s){said}"
                )
                if said:
                    bench.begin_anew()
        finally:
            bench.close()
    click.echo(f"{failed} of {len(only or CHECKS)} checks have failed" if failed else "all is well")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
