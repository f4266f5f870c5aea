"""The description is that of the API: every route is in it, and every answer is as it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import msgspec
import pytest

from sked_core.interfaces.store import Put
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Failure, Mark, Rollout
from sked_core.serving.tokens import Role
from sked_web.api.openapi import description
from sked_web.api.stream import Message
from sked_web.app import table

from .conftest import MANIFEST, Web, tasks_of


@pytest.fixture
def full(web: Web) -> Web:
    """With something of everything."""
    web.apply()
    web.host("h0", "h1", "h2")
    tasks = tasks_of(4)
    web.issue(*tasks)
    web.store.commit([Put(keys.failure(tasks[0].id), encode(Failure(host="h0", reason="exit code 1", log=["x"])))])
    web.store.commit([Put(keys.mark("h2"), encode(Mark("cordoned", by="me", why="test")))])
    web.store.commit([Put(keys.rollout("web"), encode(Rollout(number=2, task_name="web", task_version=1)))])
    web.settled()
    return web


@pytest.fixture
def described(api: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = api.get("/v1/openapi.json").json()
    return found


def operations(described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def valid(described: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", "components": described["components"], **schema}
    jsonschema_rs.validator_for(whole).validate(value)


def test_every_route_is_in_it_with_its_role(web: Web, described: dict[str, Any]) -> None:
    said = {(method.upper(), path): one["x-sked-role"] for method, path, one in operations(described)}
    assert said == {(route.method, route.path): route.role.word for route in table(web.state)}
    served = {
        (method, route.path) for route in table(web.state) for method in [route.method] if route.path.startswith("/v1/")
    }
    assert served == set(said)
    ids = [one["operationId"] for _, _, one in operations(described)]
    assert len(ids) == len(set(ids))


def test_it_is_itself_valid(described: dict[str, Any]) -> None:
    assert described["openapi"] == "3.1.0"
    for name in described["components"]["schemas"]:
        jsonschema_rs.validator_for({"components": described["components"], "$ref": f"#/components/schemas/{name}"})
    assert b"\\Z" not in msgspec.json.encode(described)


def test_answers_to_looks_are_as_described(full: Web, api: httpx.Client, described: dict[str, Any]) -> None:
    names = {"name": "web", "id": "default-web-1-0", "version": "1", "number": "1"}
    asked = {
        "/v1/task-definitions/{name}/diff": "?from=1&to=2",
        "/v1/state": "?prefix=config/&values=true",
        "/v1/state/value": "?key=config/services/web",
    }
    missing = {"/v1/services/{name}/decisions/{number}"}
    for method, path, operation in operations(described):
        if method != "get" or path == "/v1/stream" or path.endswith("/logs"):
            continue
        names["name"] = {"hosts": "h1", "clusters": "default"}.get(path.split("/")[2], "web")
        answer = api.get(path.format(**names) + asked.get(path, ""))
        if path in missing:
            assert answer.status_code == 404
            valid(described, operation["responses"]["default"]["content"]["application/problem+json"]["schema"],
                  answer.json())  # fmt: skip
            continue
        assert answer.status_code == 200, (path, answer.text)
        valid(described, operation["responses"]["200"]["content"]["application/json"]["schema"], answer.json())


ACTS: list[tuple[str, Any, str]] = [
    ("/v1/validate", MANIFEST, "read"),
    ("/v1/plan", MANIFEST.replace(b"desired: 2", b"desired: 4"), "read"),
    ("/v1/simulate", {"lose": ["h1"], "scale": ["web=5"]}, "read"),
    ("/v1/apply?dry_run=true", MANIFEST, "admin"),
    ("/v1/apply?why=more", MANIFEST.replace(b"desired: 2", b"desired: 4"), "admin"),
    ("/v1/services/web/scale", {"count": 5, "why": "load"}, "operate"),
    ("/v1/services/web/rollout/pause", {}, "operate"),
    ("/v1/services/web/rollout/resume", {"why": "again"}, "operate"),
    ("/v1/services/web/rollout/undo", {"to": 2}, "operate"),
    ("/v1/tasks/default-web-1-0/restart", {}, "operate"),
    ("/v1/tasks/default-web-1-1/stop", {"why": "it leaks"}, "operate"),
    ("/v1/hosts/h0/cordon", {"why": "disk"}, "operate"),
    ("/v1/hosts/h0/uncordon", {}, "operate"),
    ("/v1/hosts/h1/drain", {"deadline": 60}, "operate"),
    ("/v1/marks", {"hosts": ["h0", "h1"], "state": "draining", "force": True}, "operate"),
    ("/v1/rebalance", {"most": 3}, "operate"),
    ("/v1/rebalance/cancel", {}, "operate"),
]


def test_answers_to_acts_are_as_described(full: Web, api: httpx.Client, described: dict[str, Any]) -> None:
    by_route = {(route.method, route.path): route for route in table(full.state)}
    for path, body, role in ACTS:
        sent = (
            {"content": body, "headers": {"content-type": "application/yaml"}}
            if isinstance(body, bytes)
            else {"json": body}
        )
        answer = api.post(path, **sent)
        assert answer.status_code == 200, (path, answer.text)
        pattern = next(
            one
            for _, one in by_route
            if len(one.split("/")) == len(path.partition("?")[0].split("/"))
            and all(part.startswith("{") or part == said
                    for part, said in zip(one.split("/"), path.partition("?")[0].split("/"), strict=True))
            and ("POST", one) in by_route
        )  # fmt: skip
        operation = described["paths"][pattern]["post"]
        assert by_route["POST", pattern].role is Role[role.upper()]
        valid(described, operation["responses"]["200"]["content"]["application/json"]["schema"], answer.json())
    for path in ("/v1/services/web?cascade=true", "/v1/clusters/default", "/v1/task-definitions/web/2"):
        answer = api.delete(path)
        assert answer.status_code == 200, (path, answer.text)
    assert api.get("/v1/services").json()["items"] == []


def test_messages_of_the_stream_are_as_described(described: dict[str, Any]) -> None:
    schema = described["paths"]["/v1/stream"]["get"]["responses"]["200"]["content"]["text/event-stream"]["schema"]
    valid(described, schema, msgspec.to_builtins(Message(position="x-1")))
    assert schema == description(()) or "$ref" in schema
