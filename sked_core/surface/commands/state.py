"""``sked state``: all that a store holds, as a file and back, and its keys one by one."""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
from pathlib import Path

import click

import sked_core
from sked_core.client.outcomes import FAILED
from sked_core.client.settings import masked
from sked_core.clock import SystemClock
from sked_core.errors import InvalidManifest, Problem
from sked_core.model.spec import plain
from sked_core.model.wording import counted
from sked_core.runtime import dump as dumps
from sked_core.surface.options import command, global_options, output_option, session
from sked_core.surface.render import document, json_line, note, out, table

MAX_BYTES = 1024**3

state = click.Group("state", params=global_options(), help="Look at keys, check them all, dump and restore.")


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


@command("ls", "sked state ls", "sked state ls state/hosts/web-1/")
@click.argument("below", metavar="[PREFIX]", default="")
@output_option
def ls(below: str, output: str) -> None:
    """List the keys below PREFIX (all, if none is given), with the revision of their last change and their size."""
    from sked_core.client import raw

    with session() as sked:
        found = raw.listed(sked.store, below)
    if output == "json":
        fields = ("key", "revision", "size", "lease")
        items = [{name: one[name] for name in fields} for one in (raw.entry_json(key, entry) for key, entry in found)]
        return out(document("KeyList", items))
    rows = [(key, entry.revision, len(entry.value), "leased" if entry.lease else "") for key, entry in found]
    return out(table(("key", "revision", "bytes", "lease"), rows))


@command("get", "sked state get config/services/web")
@click.argument("key")
@output_option
def get(key: str, output: str) -> None:
    """Print what stands under KEY, JSON in lines. Whatever it holds, nothing of it can drive a terminal."""
    from sked_core.client import raw

    with session() as sked:
        entry = raw.got(sked.store, key)
    out(document("KeyList", [raw.entry_json(key, entry)]) if output == "json" else raw.pretty(entry.value))


@command("watch", "sked state watch scheduling/", "sked state watch | jq .key")
@click.argument("below", metavar="[PREFIX]", default="")
def watch(below: str) -> None:
    """Print each change of a key below PREFIX as a line of JSON, until Ctrl-C.

    A key that changes several times within moments comes once, as it is then.
    """
    from sked_core.client import raw

    with session() as sked:
        for change in raw.changes(sked.store, below, threading.Event()):
            out(json_line(raw.change_json(change)))


@command("check", "sked state check")
@output_option
def check(output: str) -> int:
    """Look through all that the store holds: whether it can be read, fits together and keeps its bounds.

    Ends with 1 if anything is wrong, and says what to do about it.
    """
    from dataclasses import asdict

    from sked_core.client.looking.linting import lint

    with session() as sked:
        entries = sked.store.read("").entries
    found = lint(entries)
    if output == "json":
        out(document("FindingList", [asdict(one) for one in found]))
    for one in found if output == "table" else ():
        out(f"{plain(one.key)}: {plain(one.what)}")
        out(f"  {plain(one.remedy)}")
    note(f"{counted(len(entries), 'key')}, {counted(len(found), 'finding')}")
    return FAILED if found else 0


for _command in (ls, get, watch, check):
    state.add_command(_command)
state.add_command(dump)
state.add_command(restore)
