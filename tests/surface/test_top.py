"""``sked top``: what is reserved, the largest first."""

from __future__ import annotations

import json

import pytest


def rows(text: str) -> list[list[str]]:
    return [line.split("     ") for line in text.splitlines()[2:]]


def first_cells(ran) -> list[str]:
    return [line.split()[0] for line in ran.out.splitlines()[2:]]


@pytest.fixture
def filled(up, running):
    """h2 is the fuller one."""
    up(h1=1000, h2=1000, h3=4000)
    running("web", "h1", "h2", "h2", memory=400)
    running("small", "h3", memory=100)


def test_hosts_stand_by_the_share_that_is_reserved(sked, filled):
    ran = sked("top")
    assert (ran.code, first_cells(ran)) == (0, ["h2", "h1", "h3"])
    assert "800/1000 MB 80%" in ran.out
    assert first_cells(sked("top", "hosts", "--by", "tasks"))[0] == "h2"


def test_tasks_stand_by_the_share_of_their_host(sked, filled):
    ran = sked("top", "tasks")
    assert first_cells(ran)[:3] == ["of-web-web-1-0", "of-web-web-1-1", "of-web-web-1-2"]
    assert "400 MB" in ran.out and "40%" in ran.out


def test_programs_get_numbers(sked, filled):
    found = json.loads(sked("top", "-o", "json").out)
    assert found["kind"] == "HostUseList"
    assert found["items"][0]["memory"] == {"reserved": 800, "total": 1000, "share": 0.8}
    tasks = json.loads(sked("top", "tasks", "--by", "cpu", "-o", "json").out)
    assert {one["memory"]["reserved"] for one in tasks["items"]} == {400, 100}
    assert sked("top", "-o", "name").out.splitlines()[0] == "host/h2"


def test_a_host_that_says_nothing_of_itself_divides_by_nothing(sked, up):
    up(h1=0)
    ran = sked("top")
    assert (ran.code, "0/0 MB 0%" in ran.out) == (0, True)


def test_its_help_says_what_it_does_not_know():
    from sked_core.surface.commands.top import top

    assert "not what processes use at this moment" in (top.help or "")
