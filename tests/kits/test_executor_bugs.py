"""The kit of executors finds each of a list of deliberate bugs, by the test that docs/kits.md names."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kits.executor_bugs import BUGS, table

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "sked_core" / "scaffold" / "executor" / "src" / "sked_lantern"
"""The executor that `sked plugins new` writes."""
WORST = ["failure", "error", "skipped", "passed"].index
CASES = """
import contextlib
from dataclasses import replace
from unittest import mock

from sked_core.testing.executors import ExecutorContract
from {package} import engine
from {package}.samples import EXECUTOR


class Test{number}(ExecutorContract):
    sample = replace(EXECUTOR, hung_engine=lambda: mock.patch.object(engine, "_processes", side_effect=TimeoutError))
    patience = {patience}
    kills = 12
"""


def package(folder: Path, name: str, changes: tuple[tuple[str, str], ...]) -> None:
    """The sample plugin, changed in places of which there is exactly one."""
    files = {path.name.removesuffix(".in"): path.read_text() for path in SAMPLE.glob("*.py.in")} | {"__init__.py": ""}
    for before, after in changes:
        (where,) = [file for file, text in files.items() if before in text]
        assert files[where].count(before) == 1, before
        files[where] = files[where].replace(before, after)
    (folder / name).mkdir()
    for file, text in files.items():
        (folder / name / file).write_text(text.replace("sked_lantern", name))


@pytest.fixture
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    """What became of each test that was run, by its class and name: the sound one is Test0."""
    folder = tmp_path_factory.mktemp("bugs")
    chosen = []
    for number, changes in enumerate([(), *(bug.changes for bug in BUGS)]):
        name = f"sked_lantern{number}"
        package(folder, name, changes)
        # What a bug keeps from ever coming true is waited for in vain.
        text = CASES.format(package=name, number=number, patience=6 if changes else 120)
        (folder / f"test_{number}.py").write_text(text)
        tests = [BUGS[number - 1].found_by] if number else dict.fromkeys(bug.found_by for bug in BUGS)
        chosen += [f"{folder}/test_{number}.py::Test{number}::{test}" for test in tests]
    report, mark = folder / "report.xml", secrets.token_hex(8)
    options = [
        "-q",
        "-n",
        "4",
        "-p",
        "no:cacheprovider",
        f"--rootdir={folder}",
        f"--junitxml={report}",
        "--timeout=200",
    ]
    environment = {**os.environ, "LANG": mark, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    try:
        subprocess.run(
            [sys.executable, "-m", "pytest", *options, *chosen], cwd=folder, env=environment, timeout=550, check=False
        )
    finally:
        end_marked(mark)
    found: dict[tuple[str, str], str] = {}
    for case in ElementTree.parse(report).iter("testcase"):  # of one that leaves something behind there are two
        key = case.attrib["classname"].rpartition(".")[2], case.attrib["name"]
        found[key] = (
            found.get(key, "passed") if len(case) == 0 else min(case[0].tag, found.get(key, "passed"), key=WORST)
        )
    return found


def end_marked(mark: str) -> None:
    """End what bugs left running: it has a variable of this test."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"LANG={mark}".encode() in path.read_bytes().split(b"\0"):
                os.kill(int(path.parent.name), signal.SIGKILL)
        except OSError:
            continue  # it has ended by itself, or is somebody else's


@pytest.mark.timeout(600)
def test_the_kit_finds_each_and_nothing_in_the_sound_one(outcomes: dict[tuple[str, str], str]) -> None:
    sound = {bug.found_by: outcomes["Test0", bug.found_by] for bug in BUGS}
    assert sound == dict.fromkeys(sound, "passed")
    found = {bug.wrong: outcomes[f"Test{number}", bug.found_by] for number, bug in enumerate(BUGS, 1)}
    assert found == dict.fromkeys(found, "failure")
    assert len(found) == len(BUGS) >= 20


def test_the_page_has_them_all() -> None:
    part = (ROOT / "docs" / "kits.md").read_text().partition("\n## Executors\n")[2].partition("\n## ")[0]
    assert table() in part


SLOW = """
from dataclasses import replace

from sked_core.testing.executors import ExecutorContract
from sked_lantern.samples import EXECUTOR, script


class TestSlow(ExecutorContract):
    sample = replace(EXECUTOR, script=lambda text: script("sleep 1; " + text))
    patience = 30
"""


def test_a_container_that_is_slow_to_begin_is_not_taken_for_one_that_was_not_asked(tmp_path: Path) -> None:
    package(tmp_path, "sked_lantern", ())
    (tmp_path / "test_slow.py").write_text(SLOW)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "it_is_asked_first",
        "test_slow.py",
    ]
    path = os.pathsep.join(filter(None, (str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH"))))
    ran = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=280, env={**os.environ, "PYTHONPATH": path}
    )
    assert "1 passed" in ran.stdout, ran.stdout[-3000:]
