"""What is to be said of one plugin that is installed, and of each hook."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib.util import find_spec

from sked_core.interfaces import hookspecs
from sked_core.model.spec import known
from sked_core.runtime.plugins.registry import PluginRow, Plugins
from sked_core.runtime.plugins.requirements import about, mismatch, requires


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """``name``: of its entry point; ``api``, ``state``, ``seconds``, ``warnings``: see PluginRow; ``hooks``: those that
    it has; ``needs``: the packages that it asks for; ``problem``: empty when all is well."""

    name: str
    package: str
    version: str
    api: str
    state: str
    seconds: float
    summary: str
    provides: tuple[str, ...]
    hooks: tuple[str, ...]
    needs: tuple[str, ...]
    home: str
    module: str
    place: str
    problem: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HookInfo:
    """``arguments``: what it may take, in the order of its page; ``plugins``: the names of those that have it."""

    hook: str
    arguments: tuple[str, ...]
    plugins: tuple[str, ...]
    summary: str


def plugin_info(plugins: Plugins, name: str) -> list[PluginInfo]:
    """All of the plugins whose name, or that of their package, is ``name``: more than one where several packages claim
    it. Raises NotFound, with one that is like it."""
    rows = plugins.rows()
    named = [row for row in rows if row.name == name] or [row for row in rows if row.package == name]
    if not named:
        known("plugin", name, [row.name for row in rows])
    return [_info(plugins, row) for row in named]


def hooks(plugins: Plugins) -> list[HookInfo]:
    """Every hook that a plugin may have, by name."""
    rows = plugins.rows()
    specs = {name: spec for name, spec in vars(hookspecs).items() if hasattr(spec, "sked_spec")}
    return [
        HookInfo(
            hook=name,
            arguments=tuple(inspect.signature(spec).parameters),
            plugins=tuple(row.name for row in rows if name in row.hooks),
            summary=" ".join((inspect.getdoc(spec) or "").split()),
        )
        for name, spec in sorted(specs.items())
    ]


def _info(plugins: Plugins, row: PluginRow) -> PluginInfo:
    said, needs = about(row.package), requires(row.package)
    urls = [url.partition(", ")[2] for key, url in said if key == "Project-URL"]
    other = mismatch(row.package, needs)
    return PluginInfo(
        name=row.name,
        package=row.package,
        version=row.version,
        api=row.api,
        state=row.state,
        seconds=row.seconds,
        summary=dict(said).get("Summary", ""),
        provides=row.provides,
        hooks=row.hooks,
        needs=needs,
        home=dict(said).get("Home-page") or next(iter(urls), ""),
        module=row.module,
        place=_place(row.module),
        problem=row.error if other in row.error else "; ".join(filter(None, (row.error, other))),
        warnings=row.warnings,
    )


def _place(module: str) -> str:
    """The file that its code is in, as far as that can be told without running any of it."""
    try:
        found = find_spec(module.partition(":")[0].partition(".")[0])
    except (ImportError, ValueError):
        return ""
    return str(found.origin or "") if found else ""
