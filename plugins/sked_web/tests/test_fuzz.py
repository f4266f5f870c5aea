"""Requests that nobody thinks of, made from the description: the server never fails, and answers as it says."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import content_type_conformance, not_a_server_error, response_schema_conformance

from .conftest import Web, tasks_of

EXAMPLES = 3
"""For each operation, each way of making them and each kind of name."""
CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]
NAMES = {"name": "web", "id": "default-web-1-0", "version": "1", "number": "1"}


def test_no_request_makes_the_server_fail(web: Web) -> None:
    web.apply()
    web.host("h0", "h1", "web")
    web.issue(*tasks_of(5))
    with web.client() as client:
        described = client.get("/v1/openapi.json").json()
    for path in ("/v1/stream", "/v1/tasks/{id}/logs", "/v1/services/{name}/logs"):
        described["paths"].pop(path)  # may have no end: see test_stream.py, test_logs_over_http.py
    schema = schemathesis.openapi.from_dict(described)
    schema.config.update(base_url=web.url)
    tried = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        own = {one.name: NAMES[one.name] for one in operation.path_parameters}
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            for names in (own, None) if own else (None,):
                tried += _try(operation, mode, names)
    assert tried > 200


def _try(operation: Any, mode: GenerationMode, names: dict[str, str] | None) -> int:
    tried = 0

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode, path_parameters=names))
    def request(case: Any) -> None:
        nonlocal tried
        tried += 1
        case.call_and_validate(checks=CHECKS, timeout=30)

    with suppress(Unsatisfiable):  # of some requests there is no wrong kind
        request()
    return tried
