"""The docs are true: links lead somewhere, manifests are valid, tables and signatures are those of the code."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import sked_core
from sked_core.interfaces import hookspecs
from sked_core.model import codec, decisions, endings, keys, types
from sked_core.model.spec import check_spec

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path for pattern in ("*.md", "docs/**/*.md", "plugins/*/*.md", "benchmarks/*.md", "examples/*.md")
    for path in ROOT.glob(pattern)
)  # fmt: skip
SKED = Path(sys.executable).with_name("sked")
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^()\s]+)\)")
MANIFESTS = (path for path in ROOT.glob("examples/**/*") if "monitoring" not in path.parts)
EXAMPLES = sorted(path for path in MANIFESTS if path.suffix in (".yml", ".yaml", ".json"))
MANIFEST_KEYS = ("clusters:", "services:", "task_definitions:")
KINDS = vars(types) | vars(decisions) | vars(endings)
"""Everything that stands in the store."""


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _fences(page: Path, language: str) -> list[str]:
    return [body for found, body in FENCE.findall(page.read_text()) if found == language]


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_relative_link_leads_somewhere(page):
    broken = []
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(target)
    assert not broken


def test_every_page_of_the_docs_is_in_the_index():
    for folder in (ROOT / "docs", ROOT / "docs" / "decisions"):
        index = folder / "README.md"
        linked = set(LINK.findall(index.read_text()))
        assert {page.name for page in folder.glob("*.md")} - {"README.md"} <= linked, _name(index)


def _manifests() -> Iterator[object]:
    for page in PAGES:
        for number, body in enumerate(_fences(page, "yaml")):
            if re.search(rf"^({'|'.join(MANIFEST_KEYS)})", body, re.MULTILINE):
                yield pytest.param(body, id=f"{_name(page)}-{number}")


def _validate(path: Path, state: Path) -> None:
    command = [SKED, "--backend", f"sqlite://{state / 'sked.db'}", "validate", "-f", path]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr + ran.stdout


@pytest.mark.parametrize("manifest", list(_manifests()))
def test_every_manifest_in_the_docs_is_valid(manifest, tmp_path):
    (tmp_path / "manifest.yml").write_text(manifest)
    _validate(tmp_path / "manifest.yml", tmp_path)


@pytest.mark.parametrize("example", EXAMPLES, ids=_name)
def test_every_example_is_valid(example, tmp_path):
    _validate(example, tmp_path)


def test_there_are_examples():
    assert {"hello-world-cluster.yml", "hello-world-bash.yml"} <= {path.name for path in ROOT.glob("examples/*")}


def _rows(text: str, cell: str) -> list[list[str]]:
    return [[part.strip().strip("`") for part in re.split(cell, line.strip("| "))] for line in text.splitlines()]


def test_the_key_table_is_that_of_the_code():
    documented = [
        row for row in _rows((ROOT / "docs" / "keys.md").read_text(), r"\|") if len(row) == 3 and "/" in row[0]
    ]
    coded = _rows(re.split(r"^=[= ]+\n", keys.__doc__ or "", flags=re.MULTILINE)[2].strip(), r"\s{2,}")
    assert len(coded) > 10
    assert documented == coded


def _documented_objects() -> Iterator[object]:
    sections = re.split(r"^## ", (ROOT / "docs" / "keys.md").read_text(), flags=re.MULTILINE)
    for section in sections[1:]:
        title, _, body = section.partition("\n")
        yield pytest.param(title.strip(), FENCE.search(body)[2], id=title.strip())


@pytest.mark.parametrize(("name", "text"), list(_documented_objects()))
def test_the_json_of_each_object_shows_every_field_and_is_read_as_it_stands(name, text):
    kind = KINDS[name]
    assert check_spec(json.loads(text), kind) == []
    assert list(json.loads(text)) == [field.encode_name for field in msgspec.structs.fields(kind)]
    assert json.loads(codec.encode(codec.decode(text.encode(), kind))) == json.loads(text)


def test_every_object_of_the_table_has_its_json():
    table = keys.__doc__ or ""
    named = {name for name in re.findall(r"\b[A-Z]\w+\b", table) if isinstance(KINDS.get(name), type)}
    shown = set(re.findall(r"^## (\w+)$", (ROOT / "docs" / "keys.md").read_text(), re.MULTILINE))
    assert named <= shown


def test_every_hook_is_documented_with_its_arguments():
    text = (ROOT / "docs" / "writing-a-plugin.md").read_text()
    hooks = {name: function for name, function in vars(hookspecs).items() if hasattr(function, "sked_spec")}
    assert len(hooks) >= 5
    missing = [
        signature
        for name, function in hooks.items()
        if (signature := f"`{name}({', '.join(inspect.signature(function).parameters)})`") not in text
    ]
    assert not missing


def test_every_name_that_plugins_may_import_is_documented():
    from sked_core import plugin

    text = (ROOT / "docs" / "writing-a-plugin.md").read_text()
    assert [name for name in plugin.__all__ if f"`{name}`" not in text] == []


def test_the_glossary_is_in_order_and_says_each_word_once():
    words = re.findall(r"^\| \*\*(.+?)\*\* \|", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    assert words == sorted(set(words))


def test_the_changelog_has_the_current_version():
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == sked_core.__version__


def test_every_guarantee_names_tests_that_exist():
    named = re.findall(r"`(tests/[^`:]+)(?:::(\w+))?`", (ROOT / "docs" / "guarantees.md").read_text())
    assert len(named) > 8
    for path, test in named:
        assert (ROOT / path).exists(), path
        assert not test or f"def {test}(" in (ROOT / path).read_text(), test
