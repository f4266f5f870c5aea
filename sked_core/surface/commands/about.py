"""``sked plugins``, ``sked schema`` and ``sked version``."""

from __future__ import annotations

import click

from sked_core import __version__
from sked_core.surface.commands.plugins_check import check
from sked_core.surface.options import command, global_options, output_option


@click.group("plugins", params=global_options(), invoke_without_command=True)
@output_option
@click.pass_context
def plugins(ctx: click.Context, output: str) -> None:
    """List what is installed, what it offers, and what is wrong with it."""
    if ctx.invoked_subcommand is not None:
        return
    _list(output)


@command("info", "sked plugins info docker")
@click.argument("name")
@output_option
def info(name: str, output: str) -> None:
    """Tell of one plugin: what it offers and needs, where it is from, and what is wrong with it."""
    from dataclasses import asdict

    from sked_core.client.looking.plugin_info import plugin_info
    from sked_core.surface.render import cell, document, out

    found = plugin_info(name)
    if output == "json":
        out(document("PluginList", [asdict(found)]))
    for field, value in asdict(found).items() if output == "table" else ():
        if value:
            out(f"{field + ':':<10}{cell(value)}")


plugins.add_command(info)
plugins.add_command(check)


def _list(output: str) -> None:
    from sked_core.runtime.plugins import Plugins
    from sked_core.surface.render import emit, out, table

    installed = Plugins.load()
    root = click.get_current_context().find_root().command
    if isinstance(root, click.Group):
        installed.add_commands(root)
    rows = installed.rows()
    if output == "json":
        items = [
            {"name": r.name, "package": r.package, "version": r.version, "provides": r.provides, "error": r.error}
            for r in rows
        ]
        return emit("PluginList", items)
    columns = ("name", "package", "version", "provides", "error")
    return out(table(columns, [(r.name, r.package, r.version, r.provides, r.error) for r in rows]))


@command("schema", "sked schema > sked.schema.json")
def schema() -> None:
    """Print the JSON Schema (2020-12) of manifests, with the executors that are installed, for editors.

    In a YAML file:  # yaml-language-server: $schema=sked.schema.json
    """
    import json

    from sked_core.client.looking.manifest_schema import manifest_schema
    from sked_core.client.session import load_plugins
    from sked_core.surface.render import out

    out(json.dumps(manifest_schema(load_plugins().spec_checkers()), indent=2))


@command("version", "sked version")
@output_option
def version(output: str) -> None:
    """Print the version."""
    from sked_core.surface.render import emit, out

    return emit("Version", [{"version": __version__}]) if output == "json" else out(f"sked {__version__}")
