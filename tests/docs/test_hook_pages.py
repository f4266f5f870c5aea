"""The pages of the hooks say what the code says."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

from sked_core.interfaces import hookspecs

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "hook-pages"


@pytest.fixture(scope="module")
def pages():
    loader = SourceFileLoader("hook_pages", str(SCRIPT))
    spec = spec_from_loader("hook_pages", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_every_hook_has_its_page_and_every_page_is_what_the_code_says():
    ran = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stdout + ran.stderr


def test_a_hook_with_another_argument_makes_its_page_wrong(pages, monkeypatch):
    def sked_event(event: object, again: bool) -> None:
        """Something was decided."""

    before = pages.page("sked_event")
    monkeypatch.setattr(hookspecs, "sked_event", sked_event)
    assert "def sked_event(event: object, again: bool) -> None" in pages.page("sked_event")
    assert pages.page("sked_event") != before


def test_the_index_lists_every_hook(pages):
    index = (ROOT / "docs" / "plugins" / "README.md").read_text()
    assert [hook for hook in pages.hooks() if f"](hooks/{hook}.md)" not in index] == []
