"""Lines of several tasks in one order, however they arrive."""

from __future__ import annotations

import random

import pytest

from sked_core.client.afar.logs import Line, in_order
from sked_core.client.notices import noticed


def line(task: int, text: str, at: str = "", container: str = "web", stream: str = "") -> Line:
    return Line(f"default-web-1-{task}", "h", container, stream, at and f"2026-01-01T10:00:{at}Z", text)


def mixed(parts: list[list[Line]], seed: int) -> list[Line]:
    """Those of each part in order, the parts anyhow."""
    order = [number for number, part in enumerate(parts) for _ in part]
    random.Random(seed).shuffle(order)
    left = [iter(part) for part in parts]
    return [next(left[number]) for number in order]


TIMED = [
    [line(10, "b", "00.5"), line(10, "e", "02")],
    [line(2, "a", "00"), line(2, "left out", stream="note"), line(2, "d", "01.25")],
    [line(2, "c", "01", container="side"), line(2, "set back", "00.75", container="side"), line(2, "f", "03", "side")],
]


@pytest.mark.parametrize("seed", range(5))
def test_by_time_where_it_is_known_and_never_against_the_order_of_a_container(seed: int) -> None:
    found = [one.text for one in in_order(iter(mixed(TIMED, seed)))]
    assert found == ["a", "left out", "b", "c", "set back", "d", "e", "f"]


@pytest.mark.parametrize("seed", range(5))
def test_task_by_task_in_natural_order_where_a_time_is_not_known(seed: int) -> None:
    parts = [*TIMED, [line(1, "x"), line(1, "y")]]
    found = [one.text for one in in_order(iter(mixed(parts, seed)))]
    assert found == ["x", "y", "c", "set back", "f", "a", "left out", "d", "b", "e"]


def test_what_is_too_much_to_hold_comes_whole_and_is_said_to_be_in_no_order() -> None:
    lines = [line(number % 3, f"{number} {'x' * 1000}") for number in range(100)]
    notes: list[str] = []
    with noticed(notes.append):
        found = list(in_order(iter(lines), most_bytes=50_000))
    assert sorted(found, key=lines.index) == lines
    assert found[-40:] == lines[-40:]
    assert len(notes) == 1 and "not all in order" in notes[0]
    with noticed(notes.append):
        assert len(list(in_order(iter(lines)))) == 100
    assert len(notes) == 1
