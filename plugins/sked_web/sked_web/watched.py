"""What this process shows to those who watch over it: ``/metrics``, and signs of life for systemd."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping

from prometheus_client import Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sked_core.client.copied.mirror import Mirror
from sked_core.plugin import SystemClock
from sked_core.serving.watching import Metrics, Pulse, watching

BEAT_SECONDS = 5.0
ANSWER_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
CATALOG = {
    "sked_web_answer_duration_seconds": (
        "histogram",
        ("method", "code"),
        "How long requests that were let in took until their answer began.",
    ),
    "sked_web_streams": ("gauge", (), "Streams of events that are open."),
    "sked_web_stale_seconds": ("gauge", (), "Since the store last answered; 0 while it does."),
}
"""Type, labels and meaning of each, as in ``sked_core.runtime.metrics.catalog``."""


class Watched:
    """``metrics`` of this process, whose copy of the state is ``mirror``."""

    def __init__(self, metrics: Metrics, mirror: Mirror) -> None:
        self.metrics, self._mirror = metrics, mirror
        self._loop = Pulse(SystemClock())
        _, labels, text = CATALOG["sked_web_answer_duration_seconds"]
        self._answers = Histogram(
            "sked_web_answer_duration_seconds", text, labels, buckets=ANSWER_SECONDS, registry=metrics.registry
        )
        self._streams = Gauge("sked_web_streams", CATALOG["sked_web_streams"][2], registry=metrics.registry)
        metrics.registry.register(self)
        metrics.loops(self.pulses)

    def routes(self) -> list[BaseRoute]:
        """``/metrics``, for callers who may look."""
        return [route for route in watching(self.metrics) if getattr(route, "path", "") == "/metrics"]

    def pulses(self) -> Mapping[str, Pulse]:
        """Of what has to go on in this process."""
        return {"http": self._loop, "mirror": self._mirror.pulse}

    @contextlib.asynccontextmanager
    async def beating(self, _: Starlette) -> AsyncIterator[None]:
        """While the body runs, the server's loop notes that it goes on."""
        beats = asyncio.create_task(self._beat())
        try:
            yield
        finally:
            beats.cancel()

    async def _beat(self) -> None:
        while True:
            self._loop.begin()
            self._loop.rest(BEAT_SECONDS)
            await asyncio.sleep(BEAT_SECONDS)

    def around(self, app: ASGIApp) -> ASGIApp:
        """``app``, with its answers measured."""

        async def measured(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            began, method = time.monotonic(), scope["method"] if scope["method"] in METHODS else "other"
            stream = False

            async def sending(message: Message) -> None:
                nonlocal stream
                if message["type"] == "http.response.start":
                    self._answers.labels(method, str(message["status"])).observe(time.monotonic() - began)
                    if any(value.startswith(b"text/event-stream") for _, value in message["headers"]):
                        stream = True
                        self._streams.inc()
                await send(message)

            try:
                await app(scope, receive, sending)
            finally:
                if stream:
                    self._streams.dec()

        return measured

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Called by the registry."""
        stale = self._mirror.stale()
        age = max(0.0, SystemClock().wall() - stale.since) if stale else 0.0
        yield GaugeMetricFamily("sked_web_stale_seconds", CATALOG["sked_web_stale_seconds"][2], value=age)
