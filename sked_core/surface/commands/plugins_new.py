"""``sked plugins new``: a package to start from."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from sked_core.surface.options import command, current_settings
from sked_core.surface.render import note, out
from sked_core.testing.scaffold import KINDS, create


@command(
    "new",
    "sked plugins new lantern --kind executor        # the package sked-lantern, in ./sked-lantern",
    "sked plugins new sked-lantern --kind store --into ~/src",
)
@click.argument("name")
@click.option("--kind", required=True, type=click.Choice(list(KINDS)), help="What it is to offer.")
@click.option("--into", metavar="FOLDER", default=".", help="Where its folder is made.", show_default=True)
def new(name: str, kind: str, into: str) -> None:
    """Write a plugin to start from: a whole package that works, with tests that try it as Sked demands.

    Nothing is fetched. What only its author can write is marked "Write here". A name or folder that is taken already is
    left alone: exit code 5.
    """
    from sked_core.runtime.plugins.registry import Plugins

    of_kind = "storage" if kind == "store" else kind
    plugins = Plugins.load(current_settings().plugins)
    taken = {one: f"{plugins.origin(of_kind, one)} offers it (kind {kind})" for one in plugins.names(of_kind)}
    own = Plugins(()).names(of_kind)
    if kind == "command":
        root = click.get_current_context().find_root()
        own = tuple(root.command.list_commands(root)) if isinstance(root.command, click.Group) else ()
    target = create(name, kind, Path(into), taken | dict.fromkeys(own, f"Sked itself offers it (kind {kind})"))
    out(str(target))
    note(f"  install it here:  pip install -e {shlex.quote(f'{target}[test]')}")
    note("  see it:           sked plugins")
    note(f"  try it:           python -m pytest {shlex.quote(str(target))}")
    note(f"  go on:            grep -rn 'Write here' {shlex.quote(str(target))}")
