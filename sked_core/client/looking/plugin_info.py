"""What is to be said of one plugin that is installed."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points, metadata
from importlib.util import find_spec

from sked_core import __version__
from sked_core.model.spec import known
from sked_core.runtime.plugins import GROUP, Plugins

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?\s*\(?(?P<rules>[^;)]*)")
_RULE = re.compile(r"(?P<how>[<>=!]=|[<>])\s*(?P<what>[0-9][0-9.]*)")
_HOLDS = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """``name``: of its entry point; ``needs``: the packages that it asks for; ``problem``: empty when all is well."""

    name: str
    package: str
    version: str
    summary: str
    provides: tuple[str, ...]
    needs: tuple[str, ...]
    home: str
    module: str
    place: str
    problem: str


def plugin_info(name: str) -> PluginInfo:
    """All of the plugin ``name``. Raises NotFound, with one that is like it."""
    rows = {row.name: row for row in Plugins.load().rows()}
    row = rows[known("plugin", name, rows)]
    module = next((one.value for one in entry_points(group=GROUP) if one.name == name), "sked_core")
    about, needs = _about(row.package), requires(row.package)
    urls = [url.partition(", ")[2] for key, url in about if key == "Project-URL"]
    return PluginInfo(
        name=row.name,
        package=row.package,
        version=row.version,
        summary=dict(about).get("Summary", ""),
        provides=row.provides,
        needs=needs,
        home=dict(about).get("Home-page") or next(iter(urls), ""),
        module=module,
        place=_place(module),
        problem="; ".join(filter(None, (row.error, mismatch(row.package, needs)))),
    )


def mismatch(package: str, requires: Sequence[str], core: str = __version__) -> str:
    """What is to be said of a plugin that asks for another version of the core; empty if nothing is."""
    for line in requires:
        found = _REQUIREMENT.match(line)
        if found is None or found["name"].replace("_", "-").lower() != "sked-core" or "extra ==" in line:
            continue
        wrong = [rule for rule in _RULE.finditer(found["rules"]) if not _HOLDS[rule["how"]](*_both(core, rule["what"]))]
        if wrong:
            asked = ",".join(rule[0] for rule in wrong)
            return f"{package} asks for sked-core{asked}, installed is {core}"
    return ""


def requires(package: str) -> tuple[str, ...]:
    """What a package says that it needs; nothing where it can't be told."""
    return tuple(value for key, value in _about(package) if key == "Requires-Dist")


def _about(package: str) -> list[tuple[str, str]]:
    """The metadata of a package, field by field; nothing of what was put there without an installer, or is damaged."""
    try:
        return [(key, str(value)) for key, value in metadata(package).items()]  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - a package without readable metadata still has a plugin to tell of
        return []


def _place(module: str) -> str:
    """The file that its code is in, as far as that can be told without running any of it."""
    try:
        found = find_spec(module.partition(":")[0].partition(".")[0])
    except (ImportError, ValueError):
        return ""
    return str(found.origin or "") if found else ""


def _both(first: str, second: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    one, two = ([int(part) for part in re.findall(r"\d+", text.partition("+")[0])[:3]] for text in (first, second))
    longest = max(len(one), len(two))
    return tuple(one + [0] * (longest - len(one))), tuple(two + [0] * (longest - len(two)))
