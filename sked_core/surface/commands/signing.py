"""``sked signing``: keys that task records are signed with."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import click

from sked_core.surface.options import command, global_options, session
from sked_core.surface.render import note

signing = click.Group("signing", params=global_options(), help="Make keys, and sign a record by hand.")


@command("new-key", "sked signing new-key /etc/sked/signing.pem")
@click.argument("file", metavar="FILE")
def new_key(file: str) -> None:
    """Make a private key in a new FILE, for its owner alone, and print the public one that policies name."""
    from sked_core.model.signing import spelled
    from sked_core.runtime.signing import new_private

    click.echo(spelled(new_private(Path(file))))
    note(f"made: {file}, for `sked run scheduler --signing-key`; hosts trust it by the line above, in signing.keys")


@command("public-key", "sked signing public-key /etc/sked/signing.pem")
@click.argument("file", metavar="FILE")
def public_key(file: str) -> None:
    """Print the public key that goes with the private one in FILE."""
    from sked_core.runtime.signing import public_of

    click.echo(public_of(Path(file)))


@command("sign", "cat task.json | sked signing sign --key signing.pem --host web-1 -")
@click.option("--key", metavar="FILE", required=True, help="The private key.")
@click.option("--host", metavar="NAME", required=True, help="The host that the record is for, and no other.")
@click.argument("file", metavar="FILE", type=click.File("rb"))
def sign(key: str, host: str, file: BinaryIO) -> None:
    """Print the task record in FILE (- for standard input) with a signature, for this store alone.

    Look at what the record says first: it runs with all that the host allows.
    """
    from msgspec.structs import replace

    from sked_core.clock import SystemClock
    from sked_core.errors import InvalidValue
    from sked_core.model import codec, keys
    from sked_core.model.types import Task
    from sked_core.runtime.signing import Signer
    from sked_core.runtime.state import store_uid

    task = codec.decode(file.read(), Task)
    if task.host not in ("", host):
        raise InvalidValue(f"the record says host {task.host}", hint=f"sign it for that one, or edit it to say {host}")
    signer = Signer(Path(key), SystemClock())
    with session() as sked:
        uid = store_uid(sked.store, create=True)
    signed = signer.signed(replace(task, host=keys.check_host(host)), uid)
    click.echo(codec.encode(signed))


for one in (new_key, public_key, sign):
    signing.add_command(one)
