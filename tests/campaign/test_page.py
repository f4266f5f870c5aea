"""The pages about the campaign and the soak say what was recorded, and nothing else."""

from __future__ import annotations

import re

import pytest

from campaign import page, resources
from campaign.rows import load
from rigs.needs import ROOT


def test_the_pages_and_drawings_are_made_from_the_records() -> None:
    stale = [str(path.relative_to(ROOT)) for path, text in page.wanted().items() if path.read_text() != text]
    assert not stale, f"{stale} say something else than the records: scripts/campaign --table"


def test_every_row_of_the_matrix_has_a_play() -> None:
    assert {int(re.sub(r"\D", "", name)) for name in load()} == set(range(1, 51))


def test_records_are_of_rows_that_exist() -> None:
    assert {line["row"] for line in page.records()} <= load().keys()


@pytest.mark.parametrize(
    ("points", "is_flat"),
    [
        ([10.0] * 100, True),
        ([30.0] * 10 + [10.0] * 90, True),
        ([float(number) for number in range(100)], False),
        ([10.0] * 75 + [40.0] * 25, False),
        ([10.0, 14.0] * 50, True),
    ],
)
def test_what_grows_is_not_flat_and_what_swings_is(points: list[float], is_flat: bool) -> None:
    assert resources.flat(points, slack=4) is is_flat


def test_what_rises_by_design_is_held_against_its_bound() -> None:
    rising = [float(number) for number in range(900)]
    assert resources.judged({"machine events": rising, "machine keys": rising}) == {
        "machine events": True,
        "machine keys": False,
    }
    assert not resources.judged({"machine events": [2000.0] * 20})["machine events"]


def test_a_process_that_begins_anew_is_held_against_the_one_that_lives_on() -> None:
    grows = [10.0] * 50 + [30.0] * 50
    assert resources.judged({"a threads": [30.0] * 100, "c threads": grows})["c threads"]
    assert not resources.judged({"a threads": [10.0] * 100, "c threads": grows})["c threads"]
