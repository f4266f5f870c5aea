"""The documentation site: built without a warning, and nothing in it is fetched from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc="([^"]*)"|<link\b[^>]*\bhref="([^"]*)\""""
)
FETCHED_BY_STYLE = re.compile(r"""(?:url\(|@import\s+)["']?((?:https?:)?//[^"')]+)""")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built as anybody builds it; links that lead nowhere and pages in no menu fail that."""
    folder = tmp_path_factory.mktemp("site")
    command = [ROOT / "scripts" / "build-docs", folder]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    return folder


def test_every_page_of_the_docs_is_built_and_in_the_menu(site) -> None:
    menu = (site / "docs" / "README.html").read_text()
    for page in (ROOT / "docs").glob("**/*.md"):
        built = page.relative_to(ROOT).with_suffix(".html")
        assert (site / built).exists(), built
        if page.parent.name == "docs" and page.name != "README.md":
            assert f'href="{built.name}"' in menu, built


def test_nothing_is_fetched_from_elsewhere(site) -> None:
    outside = []
    for page in site.glob("**/*.html"):
        found = (match[1] or match[2] for match in FETCHED.finditer(page.read_text()))
        outside += [f"{page.relative_to(site)}: {url}" for url in found if re.match(r"(https?:)?//", url)]
    for style in site.glob("**/*.css"):
        outside += [f"{style.relative_to(site)}: {url}" for url in FETCHED_BY_STYLE.findall(style.read_text())]
    assert outside == []
    assert len(list(site.glob("**/*.html"))) > 30


def test_the_pictures_are_those_that_are_drawn() -> None:
    command = [sys.executable, ROOT / "scripts" / "draw", "--check"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr


def test_its_front_leads_to_the_docs(site) -> None:
    assert 'url=docs/README.html"' in (site / "index.html").read_text()
