"""While the store is away the API says what it knew, and says so; a stream tells of it and goes on afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rigs.local import Server

from .conftest import serving, tasks_of, until
from .test_stream import opened


@pytest.mark.parametrize("kind", ["consul", "etcd"])
def test_a_store_that_goes_away_and_comes_back(kind: str, request: pytest.FixtureRequest) -> None:
    start: Callable[..., Any] = request.getfixturevalue(f"private_{kind}")
    engine: Server = start()
    with serving(engine.url) as web, web.client() as api:  # type: ignore[attr-defined]
        web.apply()
        web.issue(*tasks_of(2))
        fresh = api.get("/v1/tasks")
        assert (api.get("/readyz").status_code, "sked-stale-since" in fresh.headers) == (200, False)
        with opened(api) as messages:
            assert next(messages)[0] == "hello"
            engine.kill()
            said, data = next(messages)
            assert (said, bool(data["trouble"])) == ("stale", True)
            stale = api.get("/v1/tasks")
            assert stale.json()["items"] == fresh.json()["items"]
            assert int(stale.headers["sked-stale-since"]) > 0
            assert "the store gives no answer" in stale.json()["notices"][0]
            assert stale.headers["etag"] != fresh.headers["etag"]
            assert (api.get("/readyz").status_code, api.get("/healthz").status_code) == (503, 200)
            refused = api.post("/v1/services/web/scale", json={"count": 3})
            assert (refused.status_code, refused.json()["type"]) == (503, "urn:sked:unavailable")
            engine.start()
            assert next(messages)[0] == "fresh"
            until(lambda: api.get("/readyz").status_code == 200)
            assert api.post("/v1/services/web/scale", json={"count": 3}).status_code == 200
            seen: list[str] = []
            while "service" not in seen:
                kind_of, data = next(messages)
                seen += [one["kind"] for one in data["changes"]] if kind_of == "changes" else []
