"""Which endings of a host are kept: a bounded number, and no kind of end takes away what others left."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sked_core.logic.keeping import FOR_STOPS, MAX_BYTES, MOST_OF_ONE_TASK, bounded, place
from sked_core.model.codec import encode
from sked_core.model.endings import Ending
from sked_core.model.keys import KEPT_ENDINGS


def an_end(task: str = "c-web-1-0", number: int = 0, **fields) -> Ending:
    given = {"cause": "crashed", "reason": f"web: exit {number}", "ended": f"2026-11-29T16:20:{number:02}Z"}
    return Ending(task=task, cluster="c", service="web", task_name="web", task_version=1, host="h1", **given | fields)


def kept(*endings: Ending) -> dict[int, Ending]:
    slots: dict[int, Ending] = {}
    for one in endings:
        slot, what = place(slots, one)
        slots[slot] = what
    return slots


def test_the_same_end_again_is_counted_in_its_slot():
    first, last = an_end(reason="x", attempts=1), an_end(number=9, reason="x", attempts=2, log=["second"])
    assert kept(first, an_end("c-web-1-1"), last)[0] == replace(last, times=2, first=first.ended)
    assert set(kept(first, last)) == {0}


def test_an_end_that_stands_there_already_is_not_counted_again():
    first = an_end()
    slots = kept(first)
    assert place(slots, first) == (0, first)
    many = replace(an_end(number=5, reason="x"), times=3, first=first.ended)
    assert place(kept(many), many) == (0, many)


@pytest.mark.parametrize("change", [{"cause": "unhealthy"}, {"reason": "other"}, {"exits": {"web": 2}}])
def test_another_end_of_the_same_task_has_a_slot_of_its_own(change):
    assert len(kept(an_end(), an_end(number=0, attempts=7, **change))) == 2


def test_ends_that_were_counted_elsewhere_add_up():
    one, more = replace(an_end(reason="x"), times=2), replace(an_end(number=8, reason="x"), times=3, first="earlier")
    assert (kept(one, more)[0].times, kept(one, more)[0].first) == (5, one.ended)


def test_the_oldest_gives_way_and_never_more_are_kept():
    slots = kept(*(an_end(f"c-web-1-{number}", number) for number in range(50)))
    assert len(slots) == KEPT_ENDINGS - FOR_STOPS
    assert {one.ended[-3:-1] for one in slots.values()} == {str(number) for number in range(26, 50)}


def test_one_task_whose_words_change_takes_a_few_slots_only():
    loop = [an_end("c-loop-1-0", number) for number in range(40)]
    slots = kept(an_end("c-web-1-0"), *loop)
    assert sum(one.task == "c-loop-1-0" for one in slots.values()) == MOST_OF_ONE_TASK
    assert slots[0].task == "c-web-1-0"
    assert loop[-1] in slots.values()


def test_stops_of_everything_take_away_nothing_of_what_crashed_and_the_other_way_round():
    crashed = [an_end(f"c-web-1-{number}", number) for number in range(30)]
    stopped = [an_end(f"c-web-2-{number}", number, cause="stopped", reason="withdrawn") for number in range(30)]
    both, alone = kept(*crashed, *stopped), kept(*stopped)
    assert len(both) == KEPT_ENDINGS
    assert len(alone) == FOR_STOPS
    assert {slot: one for slot, one in both.items() if one.cause == "stopped"} == alone


@pytest.mark.parametrize(
    "fields",
    [
        {"log": ["x" * 500] * 40},
        {"log": ["ü" * 500] * 40, "output": "ü" * 5000, "reason": "ü" * 5000},
        {"exits": {f"container-{number}": 1 for number in range(900)}, "log": ["line"]},
        {"log": ['"\\' * 250] * 40},
    ],
)
def test_whatever_it_says_it_fits(fields):
    found = bounded(an_end(**fields))
    assert len(encode(found)) <= MAX_BYTES
    assert found.task == "c-web-1-0"


def test_of_a_long_log_the_last_lines_are_kept_in_order():
    log = [f"{number:0500}" for number in range(40)]
    found = bounded(an_end(log=log))
    assert 10 < len(found.log) < 17
    assert found.log == log[-len(found.log) :]
    assert bounded(an_end(log=log[:5])).log == log[:5]
