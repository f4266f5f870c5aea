"""Plugins as small as they get, as real packages on a path of their own: a module, and what pip writes about it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

HOOKIMPL = "from sked_core.plugin import hookimpl\n\n\n"


def package(
    folder: Path,
    name: str,
    source: str,
    *,
    version: str = "1.0",
    groups: Sequence[str] = ("sked",),
    requires: Sequence[str] = (),
    module: str = "",
) -> Path:
    """Install ``sked-NAME`` into ``folder``, whose plugin NAME is a module with ``source``; returns the module."""
    module = module or f"sked_{name}"
    path = folder / f"{module}.py"
    path.write_text(textwrap.dedent(source))
    info = folder / f"sked_{name}-{version}.dist-info"
    info.mkdir()
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: sked-{name}\nVersion: {version}\n{needs}")
    (info / "entry_points.txt").write_text("".join(f"[{group}]\n{name} = {module}\n\n" for group in groups))
    return path
