"""While the store is away the API says what it knew, and says so; a stream tells of it and goes on afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from rigs.local import Server
from sked_core.client import settings
from sked_core.client.copied.mirror import Mirror
from sked_core.client.session import open_session
from sked_core.serving.listening import Listen, open_tcp
from sked_core.serving.server import HttpServer
from sked_core.serving.watching import HUNG_SECONDS, Metrics, Pulse
from sked_core.testing.clock import FakeClock
from sked_web.app import build
from sked_web.state import State
from sked_web.watched import Watched

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


def test_whoever_asks_for_a_page_is_told_on_one_what_goes_wrong(private_consul: Callable[[], Any]) -> None:
    engine = private_consul()
    with serving(engine.url) as web, web.client(accept="text/html,*/*;q=0.8") as browser, web.client() as program:
        web.apply()

        def told(method: str, path: str, status: int, *words: str) -> None:
            page, plain = (one.request(method, path) for one in (browser, program))
            assert page.status_code == status, (path, page.text)
            assert page.headers["content-type"] == "text/html; charset=utf-8", path
            assert 'aria-label="Pages"' in page.text and all(word in page.text for word in words), page.text
            assert page.headers.get("allow") == plain.headers.get("allow")

        told("GET", "/nope", 404, "there is no GET /nope")
        told("POST", "/services", 405, "POST /services can&#39;t be done")
        for one in (browser.get("/v1/nope"), program.get("/nope")):
            assert (one.status_code, one.headers["content-type"]) == (404, "application/problem+json")
        engine.kill()
        for path in ("/services/web/explain", "/do/rebalance", "/services/web/rollouts"):
            told("GET", path, 503, "That didn’t work", "Consul")


def test_health_is_that_of_what_has_to_go_on(tmp_path: Path) -> None:
    with open_session(settings.resolve(backend=f"sqlite://{tmp_path / 'sked.db'}"), "tester") as sked:
        mirror = Mirror(sked)
        mirror.pulse = Pulse(FakeClock())
        watched = Watched(Metrics(["web"]), mirror)
        listener = open_tcp(Listen("127.0.0.1:0"))
        server = HttpServer(build(State(sked, mirror), watched), [listener])
        server.start()
        try:
            with httpx.Client(base_url=listener.url, trust_env=False, timeout=60) as nobody:
                assert (nobody.get("/healthz").status_code, nobody.get("/healthz").json()) == (200, {"status": "ok"})
                mirror.pulse.begin()
                mirror.pulse._clock.advance(HUNG_SECONDS + 1)
                hangs = nobody.get("/healthz")
                assert (hangs.status_code, hangs.json()["detail"]) == (503, "mirror does not go on")
                mirror.pulse.rest(1.0)
                assert nobody.get("/healthz").status_code == 200
        finally:
            server.stop()
            mirror.close()
