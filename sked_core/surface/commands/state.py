"""``sked state dump`` and ``restore``: all that a store holds, as a file and back, between any two kinds of store."""

from __future__ import annotations

import os
import secrets
import sys
import time
from pathlib import Path

import click

import sked_core
from sked_core.client.settings import masked
from sked_core.client.wording import counted
from sked_core.clock import SystemClock
from sked_core.errors import InvalidManifest, Problem
from sked_core.model.spec import plain
from sked_core.runtime import dump as dumps
from sked_core.surface.options import command, global_options, session
from sked_core.surface.render import note

MAX_BYTES = 1024**3

state = click.Group("state", params=global_options(), help="Dump everything, or restore it into another store.")


@command(
    "dump",
    "sked state dump > sked.json",
    "sked state dump --output sked.json",
)
@click.option("--output", metavar="FILE", help="Write there, for its owner alone, rather than to standard output.")
def dump(output: str | None) -> None:
    """Write all state as one JSON document, to move to another store or to keep.

    It holds everything in clear, secrets in manifests included.
    """
    with session() as sked:
        made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(SystemClock().wall()))
        found, living = dumps.take(sked.store, sked=sked_core.__version__, made=made)
    data = found.encode()
    if output is None:
        click.echo(data, nl=False)
    else:
        _write(Path(output), data)
    note(f"dumped: {counted(len(found.items), 'key')} of store {plain(found.store_uid)}")
    if living:
        note(
            f"warning: {counted(len(living), 'scheduler')} of it still running; what they write from now on is not in"
            " this dump. To move to another store, stop them first"
        )


@command("restore", "sked --backend etcd://127.0.0.1:2379 state restore sked.json")
@click.argument("file", metavar="FILE")
def restore(file: str) -> None:
    """Write a dump (- for standard input) into an empty store. Cut short, it can be called again."""
    found = dumps.parse(_read(file), file)
    with session() as sked:
        written = dumps.put(sked.store, found)
        url = plain(masked(sked.settings.backend.value))
    if not written:
        note(f"unchanged: {url} holds all of it")
        return
    note(f"restored: {counted(written, 'key')}; {url} is now store {plain(found.store_uid)}")
    note("next: restart every agent with this --backend, look at `sked hosts`, and start the schedulers last")
    note("the store that the dump is from must not be used any more: agents and schedulers left there go their own way")


def _write(path: Path, data: bytes) -> None:
    """Replace the file in one step, readable by its owner only."""
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise click.UsageError(f"{path} is no plain file; without --output the dump goes to standard output")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise click.UsageError(f"{path} can't be written: there is no folder {target.parent} that you may write to")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _read(file: str) -> bytes:
    try:
        if file == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(file).open("rb") as stream:
                data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidManifest([Problem("", f"can't be read: {error.strerror}", file)]) from None
    if len(data) > MAX_BYTES:
        raise InvalidManifest([Problem("", f"is larger than {MAX_BYTES} bytes", file)])
    return data


state.add_command(dump)
state.add_command(restore)
