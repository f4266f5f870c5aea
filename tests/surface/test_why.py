"""``sked why``: what people read of a task's story."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sked_core.clock import SystemClock
from sked_core.interfaces.store import Put
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Event, Failure, Liveness
from sked_core.runtime.journal import utc
from surface.test_stories import ID, an_ending, an_event, tell


@pytest.fixture
def keep(store):
    """``keep(ending, …)``: as the agent of their host would, in the slots from 0."""

    def write(*endings) -> None:
        for slot, one in enumerate(endings):
            store.commit([Put(keys.ending(one.host, slot), encode(one))])

    return write


def test_of_one_that_is_gone_how_it_ended_comes_first_and_then_all_in_order(sked, store, keep, task):
    ending = an_ending(task(), ago=720, log=[f"line {number}" for number in range(6)])
    keep(ending)
    tell(
        store, an_event("task.issued", ago=800, decision=3), an_event("task.started", ago=750, who="agent node-1.local")
    )
    ran = sked("why", ID)
    assert (ran.code, ran.err) == (0, "")
    first, blank, issued, started, ended, *rest = ran.out.splitlines()
    assert first == f"{ID} is gone: exit 137 (out of memory) on node-1.local, 12 min ago, after 4 attempts"
    assert blank == ""
    assert issued.endswith("issued to node-1.local (decision 3) (scheduler s)")
    assert started.endswith("  started on node-1.local")
    assert ended == f"  {ending.ended}  ended on node-1.local: helloworld: out of memory, attempt 4"
    assert rest[:6] == [f"    | line {number}" for number in range(6)]
    assert "  sked explain helloworld" in ran.out


def test_of_earlier_ends_a_few_lines_are_shown_and_all_with_all(sked, keep, task):
    log = [f"line {number}" for number in range(6)]
    keep(an_ending(task(), ago=900, log=log, reason="helloworld: exit 1"), an_ending(task(), ago=720))
    short, full = sked("why", ID), sked("why", ID, "--all")
    assert "    … (3 more lines: --all)\n    | line 3" in short.out
    assert "line 0" not in short.out
    assert "    | line 0\n    | line 1" in full.out


def test_of_a_long_story_the_beginning_and_the_end_are_shown(sked, store, keep, task):
    keep(an_ending(task(), ago=500))
    tell(store, *(an_event("task.healthy", ago=400 - number, why=f"look {number}") for number in range(40)))
    short, full = sked("why", ID).out, sked("why", ID, "--all").out
    assert "  … 27 more, with --all\n" in short
    assert [f"look {number}" in short for number in (0, 20, 39)] == [True, False, True]
    assert all(f"look {number} (scheduler s)\n" in full for number in range(40))


def test_of_one_that_fails_the_next_try_is_told_from_now(sked, store, issue, task):
    store.commit([Put(keys.live("node-1.local"), encode(Liveness("a")))])
    issue(task())
    soon = utc(SystemClock().wall() + 90)
    failure = Failure(host="node-1.local", attempts=2, reason="helloworld: exit 1", next_try=soon)
    store.commit([Put(keys.failure(ID), encode(failure))])
    first = sked("why", ID).out.splitlines()[0]
    assert re.search(r"fails on node-1.local: helloworld: exit 1 \(2 attempts, next try in \d\d s\)$", first)


def test_the_page_shows_the_commands_to_go_on_with_as_they_are_printed(sked, store, keep, issue, task):
    page = Path(__file__).parents[2].joinpath("docs", "why.md").read_text()
    samples = [sample.partition("\n```")[0].splitlines() for sample in page.split("\n$ sked why ")[1:]]
    gone, failing = (task(service="web", version=3, instance=number, host="web-2") for number in (0, 1))
    assert [sample[0] for sample in samples] == [gone.id, failing.id]
    store.commit([Put(keys.live("web-2"), encode(Liveness("a")))])
    issue(failing)
    soon = utc(SystemClock().wall() + 42)
    failure = Failure(host="web-2", attempts=2, reason="web: exit 1", next_try=soon)
    store.commit([Put(keys.failure(failing.id), encode(failure))])
    keep(an_ending(gone), an_ending(failing))
    for sample in samples:
        advice = [line for line in sked("why", sample[0]).out.splitlines() if line.startswith("  sked ")]
        assert [line for line in sample if line.startswith("  sked ")] == advice
    first = sked("why", failing.id).out.splitlines()[0]
    assert re.sub(r"\d+ s\)", "42 s)", first) == samples[1][1]


def test_of_one_that_runs_its_health_comes_first_with_what_its_check_says(sked, store, issue, task):
    store.commit([Put(keys.live("node-1.local"), encode(Liveness("a")))])
    issue(task(), healthy=False)
    ran = sked("why", f"task/{ID}")
    assert ran.out.startswith(f"{ID} is not healthy on node-1.local")
    assert "sked tasks --by-service helloworld --why" in ran.out


def test_no_command_is_made_of_what_is_no_name(sked, store):
    tell(store, an_event("task.failed", ago=10, service="web; rm -rf /"))
    ran = sked("why", ID)
    assert (ran.code, "rm -rf" in ran.out) == (0, False)


def test_each_line_of_a_reason_is_one(sked, keep, task):
    keep(an_ending(task(), reason="policy a: not that\npolicy b: nor that", cause="rejected"))
    ran = sked("why", ID)
    assert "rejected on " in ran.out
    assert "\\n" not in ran.out
    assert "\n    policy b: nor that\n" in ran.out


def test_programs_get_one_item(sked, keep, task):
    keep(an_ending(task()))
    found = json.loads(sked("why", ID, "-o", "json").out)
    assert (found["api"], found["kind"], len(found["items"])) == ("sked/v1", "StoryList", 1)
    assert found["items"][0]["state"] == "gone"
    assert found["items"][0]["endings"][0]["exits"] == {"helloworld": 137}


def test_one_that_never_was_is_not_found_with_the_nearest(sked, keep, task):
    keep(an_ending(task()))
    ran = sked("why", "default-heloworld-4-0")
    assert (ran.code, ran.out) == (4, "")
    assert ran.err == f"sked: no task default-heloworld-4-0, and nothing is kept of one\n  did you mean {ID}?\n"


def test_the_name_of_a_service_leads_to_explain(sked, running):
    running("web", "h1")
    assert "web is a service: sked explain web" in sked("why", "web").err


def test_what_tasks_and_strangers_say_can_not_drive_a_terminal(sked, store, keep, task):
    keep(an_ending(task(), log=["\x1b[2Jgone"], reason="web: \x1b]0;title\x07", output="\x1b[31m"))
    hostile = {"at": "\x1b[1mnow", "who": "\x1b[1mme", "why": "\x1b[5m", "host": "\x9b"}
    tell(store, Event(what="task.failed", subject=f"task/{ID}", **hostile))
    ran = sked("why", ID)
    assert ran.code == 0
    assert "\x1b" not in ran.out and "\x07" not in ran.out and "\x9b" not in ran.out


@pytest.mark.parametrize("by", ["ending", "event"])
def test_explain_of_one_that_is_gone_leads_here(sked, store, keep, task, by):
    if by == "ending":
        keep(an_ending(task()))
    else:
        tell(store, an_event("task.withdrawn", ago=10))
    ran = sked("explain", ID)
    assert ran.code == 4
    assert f"sked why {ID}" in ran.err
    assert f"sked why {ID}" not in sked("explain", f"service/{ID}").err
