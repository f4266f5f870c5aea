"""docs/guarantees.md says what holds, by which tests, and which deliberate bugs are found: it must be all true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sim.mutations import IN_PLUGINS, INVARIANTS, MUTATIONS

ROOT = Path(__file__).resolve().parents[2]
ROWS = {
    cells[0]: cells[1:]
    for line in (ROOT / "docs" / "guarantees.md").read_text().splitlines()
    if re.match(r"\| [AB]\d", line) and (cells := [cell.strip() for cell in line.strip("|").split("|")])
}


def test_every_invariant_has_a_row() -> None:
    assert tuple(ROWS) == INVARIANTS
    assert all(all(cells) and len(cells) == 3 for cells in ROWS.values())


@pytest.mark.parametrize("invariant", INVARIANTS)
def test_the_tests_of_each_row_are_there(invariant: str) -> None:
    named = re.findall(r"`([a-z_/0-9.]+)(?:::(\w+))?`", ROWS[invariant][1])
    assert named
    for path, test in named:
        assert (ROOT / path).exists(), path
        assert not test or f"def {test}(" in (ROOT / path).read_text(), f"{path}::{test}"


@pytest.mark.parametrize("invariant", INVARIANTS)
def test_the_bugs_of_each_row_are_those_that_are_looked_for(invariant: str) -> None:
    bugs = {**MUTATIONS, **IN_PLUGINS}
    wanted = "; ".join(f"`{name}`: {bug.bug}" for name, bug in bugs.items() if bug.invariant == invariant)
    assert wanted
    assert ROWS[invariant][2] == wanted


@pytest.mark.parametrize("name", IN_PLUGINS)
def test_a_bug_in_a_plugin_has_its_test_in_the_row(name: str) -> None:
    bug = IN_PLUGINS[name]
    assert f"`{bug.test}`" in ROWS[bug.invariant][1]
