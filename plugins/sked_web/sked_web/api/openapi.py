"""The description of the API (OpenAPI 3.1), made from the same table that is served."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from sked_core import __version__
from sked_core.serving.problems import MEDIA_TYPE
from sked_core.serving.tokens import Role
from sked_web.api.shapes import List, Problem
from sked_web.api.table import JSON, NoQuery, Route
from sked_web.state import State

PATH = "/v1/openapi.json"
REFERENCE = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{(\w+)\}")
_INTRODUCTION = """\
What people and programs can look at and do with Sked, over HTTP.

Answers are the documents that commands print with `-o json`, with `next` (the cursor of the next page) and `notices`.
They are made from a copy of the state that follows the store within milliseconds; `sked-stale-since` says since when
the store gives no answer. Errors are problems (RFC 9457) with a `hint`. Roles: read looks, operate acts on what is
declared, admin declares.
"""


def description(routes: Sequence[Route]) -> dict[str, Any]:
    """The document."""
    answers = {route.name: _answer(route) for route in routes}
    kinds = [one for one in (*answers.values(), *_asked(routes), Problem) if one not in (Any, None)]
    found, components = msgspec.json.schema_components(_distinct(kinds), ref_template=REFERENCE)
    schemas = dict(zip(_distinct(kinds), found, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        answer = answers[route.name]
        schema = schemas[answer] if answer not in (Any, None) else {}
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema, schemas)
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Sked", "version": __version__, "description": _INTRODUCTION},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }
    portable: dict[str, Any] = _portable(document)
    return portable


def _answer(route: Route) -> Any:
    """The type of the whole answer."""
    whole: Any = List
    return whole[route.item] if route.run else route.item


def _operation(route: Route, answer: Any, schemas: dict[Any, Any]) -> dict[str, Any]:
    problem = {"description": "A problem.", "content": {MEDIA_TYPE: {"schema": schemas[Problem]}}}
    responses: dict[str, Any] = {
        "200": {"description": route.kind, "content": {route.media: {"schema": answer}}},
        "default": problem,
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _PARAMETER.findall(route.path)
    ]
    parameters += _query(route.query)
    if route.method == "GET" and route.media == JSON:
        responses["304"] = {"description": "It is still what If-None-Match says."}
        parameters.append(_header("If-None-Match", "The ETag of an answer: send it only if it is another one."))
    if route.matched is not None:
        parameters.append(
            _header("If-Match", "The ETag of a GET of the object: act only if it is still the same. `*`: if it exists.")
        )
    if route.media == "text/event-stream":
        parameters.append(_header("Last-Event-ID", "The position of the last message: go on after it."))
    found: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": f"Takes the role {route.role.word}.",
        "x-sked-role": route.role.word,
        "tags": [route.path.split("/")[2]],
        "parameters": parameters,
        "responses": responses,
    }
    if route.manifest:
        content = {"application/yaml": {"schema": {"type": "string"}}, JSON: {"schema": {"type": "object"}}}
        found["requestBody"] = {"required": True, "content": content}
    elif route.body is not None and route.method == "POST":
        required = any(field.required for field in msgspec.structs.fields(route.body))
        found["requestBody"] = {"required": required, "content": {JSON: {"schema": schemas[route.body]}}}
    return found


def _query(kind: type[Struct]) -> list[dict[str, Any]]:
    if kind is NoQuery:
        return []
    schema = msgspec.json.schema(kind)
    properties = schema["$defs"][kind.__name__]["properties"]
    required = {field.encode_name for field in msgspec.structs.fields(kind) if field.required}
    return [
        {"name": name, "in": "query", "required": name in required, "schema": one} for name, one in properties.items()
    ]


def _header(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}


def _asked(routes: Iterable[Route]) -> list[Any]:
    return [route.body for route in routes if route.body is not None]


def _distinct(kinds: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(kinds))


def _portable(value: Any) -> Any:
    r"""``value`` with patterns as JSON Schema spells them: Python's ``\Z`` is ``$`` there."""
    if isinstance(value, dict):
        return {
            key: one.replace(r"\Z", "$") if key == "pattern" and isinstance(one, str) else _portable(one)
            for key, one in value.items()
        }
    return [_portable(one) for one in value] if isinstance(value, list) else value


def routes(table: Callable[[], Sequence[Route]]) -> list[Route]:
    made: list[bytes] = []

    async def serve(_: State, __: Request, ___: Any) -> Response:
        if not made:
            made.append(msgspec.json.encode(description(table())))
        return Response(made[0], media_type=JSON, headers={"cache-control": "no-cache"})

    summary = "This description."
    return [Route("GET", PATH, Role.READ, "OpenAPI", dict[str, Any], summary, serve=serve)]
