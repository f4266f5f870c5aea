"""``sked plugins new`` writes packages that are well before their authors have written a line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rigs.small_plugins import HOOKIMPL, package
from sked_core import __version__
from sked_core.client import outcomes
from sked_core.model.first_party import PACKAGES
from sked_core.surface.cli import run
from sked_core.testing.scaffold import KINDS, MAX_NAME, create

ROOT = Path(__file__).resolve().parents[2]
LONG = {kind: (kind + "-of-a-name-that-is-rather-long")[:MAX_NAME].rstrip("-") for kind in KINDS}
ODD = ("class", "json", "test", "sked-sked", "none", "a1-2b")
"""Keywords, modules of Python, what pytest looks for, and what looks odd: as a part of a name all of it is fine."""
OFFERS = {
    "executor": ["executor my-executor"],
    "scheduler": ["scheduler my-scheduler"],
    "store": ["storage my-store"],
    "health": ["health my-health"],
    "secrets": ["secrets my-secrets"],
}
"""What `sked plugins` says of each; of listeners and commands it says nothing."""


def new(name: str, kind: str, into: Path) -> int:
    return run(["plugins", "new", name, "--kind", kind, "--into", str(into)])


def tool(*command: str | Path, paths: tuple[Path, ...] = (), **options) -> subprocess.CompletedProcess[str]:
    """What came of a command that sees the packages in ``paths``; a failure shows all that it said."""
    known = os.pathsep.join([*map(str, paths), os.environ.get("PYTHONPATH", ""), str(ROOT)])
    env = os.environ | {"PYTHONPATH": known}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=280, env=env, **options)
    assert ran.returncode == 0, f"{command} ended with {ran.returncode}:\n{ran.stdout[-6000:]}\n{ran.stderr[-3000:]}"
    return ran


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """One package of each kind, by its kind."""
    folder = tmp_path_factory.mktemp("packages")
    assert [new(f"my-{kind}", kind, folder) for kind in KINDS] == [0] * len(KINDS)
    return {kind: folder / f"sked-my-{kind}" for kind in KINDS}


@pytest.fixture(scope="module")
def installed(packages, tmp_path_factory):
    """Where all of them are installed, their metadata as well."""
    target = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--target", target]
    tool(sys.executable, "-m", "pip", "install", *options, *packages.values())
    return target


def test_it_says_what_to_do_next_and_prints_where_it_is(tmp_path, capsys):
    assert new("lantern", "store", tmp_path) == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path}/sked-lantern\n"
    for word in ("pip install -e", "sked plugins", "pytest", "Write here"):
        assert word in said.err


@pytest.mark.parametrize("kind", KINDS)
def test_the_package_is_complete(packages, kind):
    folder = packages[kind]
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == f"sked-my-{kind}"
    assert f"sked-core>={__version__}" in project["dependencies"]
    assert project["entry-points"]["sked"] == {f"my-{kind}": f"sked_my_{kind}.plugin"}
    assert project["optional-dependencies"]["test"] == ["sked-core[testing]"]
    assert project["license"] == "MIT"
    module = folder / "src" / f"sked_my_{kind}"
    files = ["README.md", ".gitignore", ".github/workflows/check.yml", f"tests/test_sked_my_{kind}.py"]
    assert [name for name in files if not (folder / name).read_text()] == []
    assert (module / "py.typed").exists()
    assert (module / "plugin.py").exists()
    assert os.access(folder / "check", os.X_OK)
    texts = {path: path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert [
        path for path, text in texts.items() if re.search("(?i)lantern|@@|SKED_CORE_VERSION", text + path.name)
    ] == []
    assert "Write here" in texts[folder / "README.md"]
    assert "Write here" in project["description"]
    assert any("Write here" in text for path, text in texts.items() if module in path.parents)


@pytest.mark.parametrize("name", ["lantern", "sked-lantern", "sked_lantern"])
def test_the_package_is_called_the_same_with_or_without_sked_before_it(tmp_path, name):
    assert new(name, "events", tmp_path) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["sked-lantern"]


@pytest.mark.parametrize(
    "name", ["", "Lantern", "my_lantern", "7up", "a--b", "a-", "-a", "../up", "a/b", "é", "x" * 31, "sked-"]
)
def test_what_can_be_no_package_is_refused_with_a_name_that_can(tmp_path, capsys, name):
    assert run(["plugins", "new", "--kind", "store", "--into", str(tmp_path), "--", name]) == outcomes.USAGE
    said = capsys.readouterr().err
    offered = re.search(r"such as ([a-z0-9-]+)", said)
    assert offered is not None, said
    assert new(offered[1], "store", tmp_path) == 0


@pytest.mark.parametrize(
    ("name", "kind", "why"),
    [
        ("bash", "store", "sked-bash is a package of Sked's own"),
        ("sked-web", "command", "sked-web is a package of Sked's own"),
        ("core", "store", "sked-core is a package of Sked's own"),
        ("default", "scheduler", "Sked itself offers it (kind scheduler)"),
        ("sqlite", "store", "Sked itself offers it (kind store)"),
        ("file", "secrets", "Sked itself offers it (kind secrets)"),
        ("doctor", "command", "Sked itself offers it (kind command)"),
    ],
)
def test_a_name_that_is_taken_is_refused_with_the_reason(tmp_path, capsys, name, kind, why):
    assert new(name, kind, tmp_path) == outcomes.CONFLICT
    assert why in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "kind", "why"),
    [
        ("lamp", "events", "sked-lamp 1.0 is installed here"),
        ("bare", "events", "there is a module sked_bare here"),
        ("brightest", "scheduler", "sked-lamp 1.0 offers it (kind scheduler)"),
    ],
)
def test_what_is_installed_is_not_made_anew(tmp_path, name, kind, why):
    here, into = tmp_path / "here", tmp_path / "into"
    here.mkdir()
    into.mkdir()
    (here / "sked_bare.py").touch()
    offers = "@hookimpl\ndef sked_schedulers():\n    return {'brightest': object}\n"
    package(here, "lamp", HOOKIMPL + offers)
    path = os.pathsep.join([str(here), os.environ.get("PYTHONPATH", ""), str(ROOT)])
    command = [sys.executable, "-m", "sked_core.surface.cli", "plugins", "new", name, "--kind", kind, "--into", into]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=280, env=os.environ | {"PYTHONPATH": path})
    assert (ran.returncode, why in ran.stderr) == (outcomes.CONFLICT, True), ran.stderr
    assert list(into.iterdir()) == []


def test_every_package_of_the_project_is_known_as_such():
    assert {path.parent.name.removeprefix("sked_") for path in ROOT.glob("plugins/*/pyproject.toml")} <= PACKAGES


def test_a_folder_that_is_there_is_left_alone(tmp_path, capsys):
    assert new("lantern", "store", tmp_path) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert new("lantern", "scheduler", tmp_path) == outcomes.CONFLICT
    assert "is there already" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_where_there_is_no_folder_none_is_made(tmp_path, capsys):
    assert new("lantern", "store", tmp_path / "none") == outcomes.NOT_FOUND
    assert "there is no folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_they_are_clean_for_ruff_whatever_their_names(packages, tmp_path):
    for kind in KINDS:
        (tmp_path / kind).mkdir()
        assert new(LONG[kind], kind, tmp_path) == 0
        for name in (kind[:2], *ODD):
            create(name, kind, tmp_path / kind, {})
    for folder in (tmp_path, packages["store"].parent):
        tool(sys.executable, "-m", "ruff", "check", "--no-cache", folder)
        tool(sys.executable, "-m", "ruff", "format", "--no-cache", "--check", folder)


def test_they_are_clean_for_strict_mypy(packages, tmp_path):
    sources = [path / part for path in packages.values() for part in ("src", "tests")]
    tool(sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path, *sources, cwd=tmp_path)


def test_they_are_listed_with_what_they_offer(installed):
    said = tool(sys.executable, "-m", "sked_core.surface.cli", "plugins", "-o", "json", paths=(installed,))
    rows = {row["name"]: row for row in json.loads(said.stdout)["items"]}
    found = {kind: (rows[f"my-{kind}"]["provides"], rows[f"my-{kind}"]["error"]) for kind in KINDS}
    assert found == {kind: (OFFERS.get(kind, []), "") for kind in KINDS}


def test_the_check_of_plugins_asks_for_nothing_but_what_is_left_to_write(installed):
    command = [sys.executable, "-m", "sked_core.surface.cli", "plugins", "check", "sked-my-events", "-o", "json"]
    known = os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", ""), str(ROOT)])
    ran = subprocess.run(command, capture_output=True, text=True, timeout=280, env=os.environ | {"PYTHONPATH": known})
    assert ran.returncode == outcomes.FAILED, ran.stdout + ran.stderr
    (report,) = json.loads(ran.stdout)["items"]
    wrong = [one for one in report["findings"] if one["verdict"] == "wrong"]
    assert [one["what"] for one in wrong] == ["nothing is left to write"]
    for place in ("its readme", "telling.py", "its summary"):
        assert place in wrong[0]["why"]


def test_their_own_tests_pass_kits_and_all(packages, installed):
    """But for those that take most of a minute: scripts/plugin-journey has their kits run."""
    folders = [path / "tests" for kind, path in packages.items() if kind not in ("executor", "store")]
    options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", "--rootdir", packages["store"].parent]
    ran = tool(sys.executable, "-m", "pytest", *options, *folders, paths=(installed,), cwd=packages["store"].parent)
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed is not None, ran.stdout
    assert not re.search("xfailed|xpassed|deselected|error", ran.stdout)
