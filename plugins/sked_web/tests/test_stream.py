"""The stream tells what changes, in order, and goes on where its reader left off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from sked_core.client.copied.feed import Feed
from sked_web.api import stream as streams

from .conftest import Web, tasks_of


@contextmanager
def opened(
    api: httpx.Client, path: str = "/v1/stream", last: str = ""
) -> Iterator[Iterator[tuple[str, dict[str, Any]]]]:
    """The messages of a stream, one by one: their kind, and their data."""
    headers = {"last-event-id": last} if last else {}
    with api.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")

        def messages() -> Iterator[tuple[str, dict[str, Any]]]:
            fields: dict[str, str] = {}
            for line in answer.iter_lines():
                if not line:
                    if "data" in fields:
                        data = json.loads(fields["data"])
                        assert data["position"] == fields["id"]
                        yield fields["event"], data
                    fields = {}
                elif not line.startswith(":"):
                    name, _, value = line.partition(": ")
                    fields[name] = value

        yield messages()


def changed(messages: Iterator[tuple[str, dict[str, Any]]], count: int) -> list[dict[str, Any]]:
    """The next ``count`` changes."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        kind, data = next(messages)
        assert kind == "changes"
        found += data["changes"]
    return found


def test_changes_are_told_as_they_happen(web: Web, api: httpx.Client) -> None:
    web.apply()
    with opened(api) as messages:
        assert next(messages)[0] == "hello"
        web.issue(*tasks_of(2))
        assert changed(messages, 2) == [
            {"kind": "task", "name": f"default-web-1-{number}", "service": "web", "host": f"h{number}"}
            for number in range(2)
        ]
        web.withdraw(*tasks_of(1))
        assert changed(messages, 1)[0]["gone"] is True


def test_a_reader_that_comes_back_misses_nothing(web: Web, api: httpx.Client) -> None:
    web.apply()
    position = api.get("/v1/tasks").headers["sked-position"]
    web.issue(*tasks_of(3))
    for path, last in ((f"/v1/stream?since={position}", ""), ("/v1/stream", position)):
        with opened(api, path, last) as messages:
            assert next(messages)[0] == "hello"
            assert len(changed(messages, 3)) == 3


def test_whoever_is_too_far_behind_or_from_before_is_told_to_read_all(
    web: Web, api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.apply()
    position = api.get("/v1/tasks").headers["sked-position"]
    monkeypatch.setattr(web.state.mirror.feed, "_kept", 2)
    web.issue(*tasks_of(5))
    epoch, _, _ = position.partition("-")
    for since in (position, "0123456789ab-3", f"{epoch}-999999"):
        with opened(api, f"/v1/stream?since={since}") as messages:
            assert [next(messages)[0], next(messages)[0]] == ["hello", "reset"]
    assert isinstance(web.state.mirror.feed, Feed)
    assert api.get("/v1/stream?since=nonsense").status_code == 400


def test_kinds_and_services_can_be_chosen(web: Web, api: httpx.Client) -> None:
    web.apply()
    with opened(api, "/v1/stream?kind=host") as hosts, opened(api, "/v1/stream?service=web&kind=task") as tasks:
        assert (next(hosts)[0], next(tasks)[0]) == ("hello", "hello")
        web.issue(*tasks_of(1))
        web.host("h7")
        assert changed(hosts, 1) == [{"kind": "host", "name": "h7"}]
        assert changed(tasks, 1)[0]["name"] == "default-web-1-0"
    assert api.get("/v1/stream?kind=planet").status_code == 400


def test_a_quiet_stream_beats(web: Web, api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.05)
    with api.stream("GET", "/v1/stream") as answer:
        lines = answer.iter_lines()
        for _ in range(2):
            assert "event: beat" in lines
            assert f"{web.state.mirror.epoch}-{web.state.look().number}" in next(lines)


def test_two_hundred_streams_are_told_and_no_more_than_there_is_room_for(
    web: Web, api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MOST_STREAMS", 200)
    web.apply()
    limits = httpx.Limits(max_connections=None)
    with httpx.Client(base_url=web.url, timeout=60, limits=limits, trust_env=False) as many:
        answers = [many.send(many.build_request("GET", "/v1/stream"), stream=True) for _ in range(200)]
        assert {answer.status_code for answer in answers} == {200}
        refused = api.get("/v1/stream")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        web.issue(*tasks_of(1))
        for answer in answers:
            assert any("default-web-1-0" in line for line in answer.iter_lines())
            answer.close()
