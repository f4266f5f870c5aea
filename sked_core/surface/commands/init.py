"""``sked init``: a first manifest to start from."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from sked_core.surface.options import command
from sked_core.surface.render import note, out


@command(
    "init",
    "sked init",
    "sked init web.yml --executor docker",
    "sked init - > hello.yml",
)
@click.argument("file", default="hello.yml", metavar="[FILE]")
@click.option("--executor", metavar="TYPE", default="", help="bash or docker; the first that is installed by default.")
def init(file: str, executor: str) -> None:
    """Write a hello-world manifest to FILE (hello.yml), for an executor that is installed here; - for standard output.

    A file that is there already is left alone: exit code 5.
    """
    from sked_core.client import outcomes
    from sked_core.client.acting.starting import hello
    from sked_core.surface.options import installed

    text = hello(installed().names("executor"), executor, file="hello.yml" if file == "-" else shlex.quote(file))
    if file == "-":
        return out(text.rstrip("\n"))
    try:
        with Path(file).open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        hint = "give another name: sked init FILE"
        raise outcomes.Ended(f"{file} is there already", code=outcomes.CONFLICT, hint=hint) from None
    note(f"written: {file}")
    note("  run it on this machine:  sked run combined --policy development")
    note(f"  then, elsewhere:         sked apply -f {shlex.quote(file)} --wait && sked status")
    return None
