"""``sked plugins``, ``sked schema`` and ``sked version``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sked_core import __version__
from sked_core.surface.commands.plugins_check import check
from sked_core.surface.commands.plugins_new import new
from sked_core.surface.options import command, global_options, output_option

if TYPE_CHECKING:
    from sked_core.runtime.plugins.registry import PluginRow, Plugins


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
    """Tell of one plugin: what it offers and needs, where it is from, and what is wrong with it.

    NAME is that of the plugin, or of its package.
    """
    from dataclasses import asdict

    from sked_core.client.looking.plugin_info import plugin_info
    from sked_core.surface.render import cell, emit, out

    found = plugin_info(_installed(), name)
    if output == "json":
        return emit("PluginList", [asdict(one) for one in found])
    for number, one in enumerate(found):
        if number:
            out("")
        for field, value in asdict(one).items():
            if value:
                out(f"{field + ':':<10}{cell(value)}")
    return None


@command("hooks", "sked plugins hooks")
@output_option
def hooks(output: str) -> None:
    """List the hooks that a plugin may have, what each is given, and which plugins have it."""
    from dataclasses import asdict

    from sked_core.client.looking.plugin_info import hooks as of
    from sked_core.surface.render import emit, out, table

    found = of(_installed())
    if output == "json":
        return emit("HookList", [asdict(one) for one in found])
    columns = ("hook", "arguments", "plugins", "for")
    return out(table(columns, [(one.hook, one.arguments, one.plugins, one.summary) for one in found]))


plugins.add_command(info)
plugins.add_command(hooks)
plugins.add_command(check)
plugins.add_command(new)


def _installed() -> Plugins:
    """What is installed, with its commands added, so that it is known which of those are taken."""
    from sked_core.runtime.plugins.registry import Plugins
    from sked_core.surface.options import current_settings

    installed = Plugins.load(current_settings().plugins)
    root = click.get_current_context().find_root().command
    if isinstance(root, click.Group):
        installed.add_commands(root)
    return installed


def _list(output: str) -> None:
    from sked_core.surface.render import emit, note, out, table

    found = _installed()
    rows = found.rows()
    if output == "json":
        fields = ("name", "package", "version", "api", "state", "seconds", "provides", "error", "warnings")
        return emit("PluginList", [{name: getattr(row, name) for name in fields} for row in rows])
    columns = ("name", "package", "version", "api", "state", "seconds", "provides", "error")
    out(table(columns, [[*(getattr(row, name) for name in columns[:6]), _offers(row), row.error] for row in rows]))
    for row in rows:
        for warning in row.warnings:
            note(f"warning: {row.name}: {warning}")
    for line in (*found.lacking(), *found.unmatched()):
        note(f"warning: {line}")
    return None


def _offers(row: PluginRow) -> list[str]:
    """What it provides by names, and what it does without any."""
    more = {"sked_commands": "commands", "sked_event": "events"}
    return [*row.provides, *(word for hook, word in more.items() if hook in row.hooks)]


@command("schema", "sked schema > sked.schema.json")
def schema() -> None:
    """Print the JSON Schema (2020-12) of manifests, with the executors that are installed, for editors.

    In a YAML file:  # yaml-language-server: $schema=sked.schema.json
    """
    import json

    from sked_core.client.looking.manifest_schema import manifest_schema
    from sked_core.runtime.plugins.asked import spec_checkers
    from sked_core.surface.options import installed
    from sked_core.surface.render import out

    out(json.dumps(manifest_schema(spec_checkers(installed())), indent=2))


@command("version", "sked version")
@output_option
def version(output: str) -> None:
    """Print the version."""
    from sked_core.surface.render import emit, out

    return emit("Version", [{"version": __version__}]) if output == "json" else out(f"sked {__version__}")
