"""How the pages become a site: scripts/build-docs. The pages stay Markdown that a forge shows as well.

The sources are the whole repository, so that links from a page to an example or to the page of a plugin hold in both.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

project = "Sked"
author = "the Sked project"
version = release = re.findall(r'__version__ = "(.+)"', (ROOT / "sked_core" / "__init__.py").read_text())[0]
extensions = ["myst_parser"]
root_doc = "docs/README"
include_patterns = [
    "*.md",
    "docs/**",
    "plugins/*/README.md",
    "examples/README.md",
    "benchmarks/README.md",
]
exclude_patterns = ["**/tests/**"]
nitpicky = True
highlight_language = "none"
myst_heading_anchors = 4
# Pygments knows HCL as Terraform speaks it, which Consul does not.
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = f"Sked {version}"
html_copy_source = False
html_show_sourcelink = False
html_static_path: list[str] = []
html_additional_pages = {"index": "to-the-docs.html"}
templates_path = ["templates"]


def _menus(page: Path) -> str:
    """A menu for each `## ` section of an index page: the pages that its tables link to, in their order."""
    menus = []
    for section in re.split(r"^## ", page.read_text(), flags=re.MULTILINE):
        title, _, body = section.partition("\n")
        links = re.findall(r"^\| \[[^\]]+\]\(([^()#]+)\.md\)", body, re.MULTILINE)
        caption = f":caption: {title}\n" if not title.startswith("#") else ""
        if links:
            menus.append("\n".join(["```{toctree}", f":hidden:\n{caption}", *links, "```"]))
    return "\n\n".join(menus)


def _add_menus(app: Any, docname: str, source: list[str]) -> None:
    """The index pages list their pages in tables, which any forge shows; Sphinx wants them said in its own way too."""
    if docname in ("docs/README", "docs/decisions/README"):
        source[0] += "\n\n" + _menus(ROOT / f"{docname}.md") + "\n"


def setup(app: Any) -> None:
    app.connect("source-read", _add_menus)
