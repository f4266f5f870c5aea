"""Logs come through the API as the agents of their tasks give them, and end with those who read them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.sked import Rig, service
from sked_web.api import logs

from .conftest import Web, serving, tasks_of, until

TALKS = "printf 'hello \\033[31m<b>\\n'; n=0; while true; do n=$((n+1)); echo tick $n; sleep 0.1; done"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(f"sqlite://{tmp_path / 'sked.db'}", tmp_path)
    yield rig
    rig.clean_up()


@pytest.fixture
def live(rig: Rig) -> Iterator[Web]:
    """With an agent that runs two tasks, which write."""
    rig.run("combined", host="h")
    rig.hosts_ready(1)
    rig.apply(service("web", desired=2, start=TALKS))
    rig.until("both healthy", rig.healthy(2))
    with serving(f"sqlite://{rig.folder / 'sked.db'}") as web:
        web.settled()
        yield web


def test_the_last_lines_of_a_task_are_lines_of_json(live: Web) -> None:
    with live.client() as api:
        until(lambda: "tick 3" in api.get("/v1/tasks/default-web-1-0/logs?lines=-1").text)
        answer = api.get("/v1/tasks/default-web-1-0/logs?lines=-1")
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert lines[0]["text"] == "hello \x1b[31m<b>"
        assert b"\x1b" not in answer.content
        assert {line["task"] for line in lines} == {"default-web-1-0"}
        assert len(api.get("/v1/tasks/default-web-1-0/logs?lines=2").text.splitlines()) == 2
        missing = api.get("/v1/tasks/default-web-1-9/logs")
        assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
        assert api.get("/v1/services/web/logs?lines=-2").status_code == 400


def test_a_service_is_followed_over_all_its_tasks_as_they_come(live: Web) -> None:
    seen: set[str] = set()
    scaled = False
    with live.client() as api, api.stream("GET", "/v1/services/web/logs?follow=true&lines=1") as answer:
        for line in answer.iter_lines():
            seen.add(json.loads(line).get("task", ""))
            if {"default-web-1-0", "default-web-1-1"} <= seen and not scaled:
                scaled = api.post("/v1/services/web/scale", json={"count": 3}).status_code == 200
            if "default-web-1-2" in seen:
                break
    assert "default-web-1-2" in seen


def test_readers_that_leave_make_room_for_others(live: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MOST_READERS", 1)
    with live.client() as api:
        for _ in range(3):
            with api.stream("GET", "/v1/tasks/default-web-1-0/logs?follow=true") as first:
                assert first.status_code == 200
                assert api.get("/v1/tasks/default-web-1-1/logs").status_code == 503
            until(lambda: api.get("/v1/tasks/default-web-1-1/logs?lines=1").status_code == 200)


def test_an_agent_that_is_away_is_told_before_any_line(web: Web) -> None:
    web.apply()
    web.host("h0", "h1", "h2")
    web.issue(*tasks_of(1))
    with web.client() as api:
        answer = api.get("/v1/tasks/default-web-1-0/logs")
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert "h0" in answer.json()["detail"]
