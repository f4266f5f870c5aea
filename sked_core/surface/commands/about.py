"""``sked plugins`` and ``sked version``."""

from __future__ import annotations

import click

from sked_core import __version__
from sked_core.surface.options import command, output_option


@command("plugins", "sked plugins")
@output_option
def plugins(output: str) -> None:
    """List what is installed, what it offers, and what is wrong with it."""
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


@command("version", "sked version")
@output_option
def version(output: str) -> None:
    """Print the version."""
    from sked_core.surface.render import emit, out

    return emit("Version", [{"version": __version__}]) if output == "json" else out(f"sked {__version__}")
