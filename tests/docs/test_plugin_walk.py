"""The package that docs/writing-a-plugin.md builds: written down from the page, installed, listed, used, broken."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE = re.compile(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The files of the page in a folder of their own, as its reader would have them."""
    folder = tmp_path_factory.mktemp("sked-toy")
    for name, text in FILE.findall((ROOT / "docs" / "writing-a-plugin.md").read_text()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def toybox(project, wheels, build, environment, tmp_path_factory):
    """An environment with core, a plugin of the workspace, and the toy."""
    box = environment(tmp_path_factory.mktemp("toybox") / "venv")
    build(box.folder / "dist", project)
    mine = [wheel for wheel in wheels if wheel.name.startswith(("sked_core-", "sked_binpack-"))]
    box.install(*mine, *(f"{wheel}[test]" for wheel in (box.folder / "dist").glob("*.whl")))
    return box


def _rows(box) -> dict[str, dict]:
    return {row["name"]: row for row in json.loads(box.run("sked", "plugins", "-o", "json").stdout)["items"]}


def test_the_plugin_is_listed_with_what_it_offers(toybox):
    row = _rows(toybox)["toy"]
    assert (row["package"], row["version"], row["error"]) == ("sked-toy", "0.1.0", "")
    assert set(row["provides"]) == {"executor page", "scheduler roomiest", "secrets jsonfile", "storage jsonfile"}


def test_its_own_tests_pass_contract_and_all(toybox, project):
    ran = toybox.run("python", "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", project / "tests")
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed is not None
    assert int(passed[1]) > 60
    assert not re.search(r"xfailed|deselected", ran.stdout)
    reasons = set(re.findall(r"^SKIPPED \[\d+\] \S+: (.+)$", ran.stdout, re.MULTILINE))
    kits = ("the sample has no `", "the executor offers no `", "the processes of containers can't be looked at")
    assert [reason for reason in reasons if not reason.startswith(kits)] == []


def test_it_is_usable_at_once(toybox, project):
    store = f"jsonfile://{toybox.folder}/store.json"
    toybox.run("sked", "--backend", store, "apply", "-f", project / "greeting.yml")
    (service,) = json.loads(toybox.run("sked", "--backend", store, "services", "-o", "json").stdout)["items"]
    assert (service["name"], service["scheduler"], service["desired"]) == ("greeting", "roomiest", 2)


def test_its_mistakes_are_reported_with_their_places(toybox, project, tmp_path):
    text = (project / "greeting.yml").read_text().replace("text: Good morning", "text: 5")
    (tmp_path / "bad.yml").write_text(text)
    sked = toybox.folder / "bin" / "sked"
    ran = subprocess.run([sked, "validate", "-f", tmp_path / "bad.yml"], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 3
    assert re.search(r"bad\.yml:9:\d+: .*executor\.text", ran.stdout + ran.stderr)


def test_broken_it_is_an_error_and_everything_else_works(toybox, project, build, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(project, broken)
    with (broken / "sked_toy" / "plugin.py").open("a") as source:
        source.write('\nraise RuntimeError("out of order")\n')
    build(tmp_path / "dist", broken)
    toybox.install("--no-deps", "--force-reinstall", *(tmp_path / "dist").glob("*.whl"))
    rows = _rows(toybox)
    assert "out of order" in rows["toy"]["error"]
    assert not any(row["error"] for name, row in rows.items() if name != "toy")
    assert rows["binpack"]["provides"] == ["scheduler binpack"]
    store = f"sqlite://{tmp_path}/sked.db"
    assert json.loads(toybox.run("sked", "--backend", store, "services", "-o", "json").stdout)["items"] == []
    command = [toybox.folder / "bin" / "sked", "--backend", "jsonfile:///tmp/none.json", "services"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert "jsonfile" in refused.stderr
    assert "sked plugins" in refused.stderr
