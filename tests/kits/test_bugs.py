"""The kits find the bugs that docs/kits.md says they find, and nothing where there is none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kits.bugs import SUBJECTS, Subject, table

pytestmark = pytest.mark.timeout(600)  # on a busy machine a kit takes minutes
ROOT = Path(__file__).resolve().parents[2]
TRIAL = Path(__file__).with_name("trial.py")
RIGHT_ELSEWHERE = {"Stores", "Health providers", "Providers of secrets"}
"""Of which what the bugs are put into is Sked's own, and passes the kit in the tests of that."""


def outcomes(subject: Subject, folder: Path, *tests: str) -> dict[tuple[str, str], str]:
    """How each test of the trial ended, by its class and name: ``passed``, ``failed``, ``skipped`` or ``error``, the
    worst of its parameters. In a process of its own: bugs leave threads and change what they share."""
    told = folder / "told.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={told}", "--timeout=120"]
    variables = {**os.environ, "KITS_SUBJECT": subject.title, "HYPOTHESIS_STORAGE_DIRECTORY": str(folder)}
    ran = subprocess.run(
        [*command, *(f"{TRIAL}::{test}" for test in tests)],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr  # whatever else it is, it did not come to its end
    found: dict[tuple[str, str], str] = {}
    for case in ElementTree.parse(told).getroot().iter("testcase"):
        key = case.get("classname", "").rpartition(".")[2], case.get("name", "").partition("[")[0]
        ends = {"failure": "failed", "error": "error", "skipped": "skipped"}
        end = next((ends[child.tag] for child in case if child.tag in ends), "passed")
        if found.get(key, "passed") == "passed":
            found[key] = end
    return found


@pytest.mark.parametrize("title", SUBJECTS)
def test_each_bug_is_found_by_the_test_that_the_page_names(title, tmp_path):
    subject = SUBJECTS[title]
    asked = {(f"TestBug{number}", bug.found_by): bug.what for number, bug in enumerate(subject.bugs)}
    found = outcomes(subject, tmp_path, *("::".join(key) for key in asked))
    assert {asked[key]: found.get(key) for key in asked} == dict.fromkeys(asked.values(), "failed")


@pytest.mark.parametrize("title", [title for title in SUBJECTS if title not in RIGHT_ELSEWHERE])
def test_nothing_is_found_where_there_is_no_bug(title, tmp_path):
    found = outcomes(SUBJECTS[title], tmp_path, "TestRight")
    assert len(found) > 9
    assert set(found.values()) == {"passed"}


@pytest.mark.parametrize("title", SUBJECTS)
def test_the_page_has_the_table_of_bugs(title):
    page = (ROOT / "docs" / "kits.md").read_text()
    section = re.split(rf"^## {title}$", page, flags=re.MULTILINE)[1].partition("\n## ")[0]
    assert table(SUBJECTS[title]) in section
