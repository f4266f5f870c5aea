"""What whoever watches over a process asks it for: ``/metrics`` for Prometheus, ``/healthz`` for everything else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from sked_core.runtime.pulse import HUNG_SECONDS, Pulse, hung
from sked_core.serving.guard import demand
from sked_core.serving.problems import Refused
from sked_core.serving.tokens import Role

__all__ = ["HUNG_SECONDS", "OPEN_PATHS", "Metrics", "Pulse", "watching"]
if TYPE_CHECKING:
    from sked_core.runtime.metrics import Metrics

OPEN_PATHS = ("/healthz",)
"""What a Guard is to let everybody ask for."""


def watching(metrics: Metrics | None, pulses: Callable[[], Mapping[str, Pulse]] = dict) -> list[BaseRoute]:
    """The routes, to be put among those of an application. ``metrics`` None: nothing is measured here. ``pulses``: of
    all loops of this process, by name; one that hangs (runtime.pulse) makes ``/healthz`` answer 503 and say which."""

    def figures(request: Request) -> Response:
        demand(request.scope, Role.READ)
        if metrics is None:
            raise Refused(404, "nothing is measured here", hint="start it with --listen HOST:PORT")
        text, kind = metrics.text(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": kind})

    def health(_: Request) -> Response:
        hanging = hung(pulses(), HUNG_SECONDS)
        said = "".join(f"{name} does not go on\n" for name in hanging)
        return PlainTextResponse(said or "ok\n", 503 if hanging else 200)

    return [Route("/metrics", figures), Route("/healthz", health)]


def __getattr__(name: str) -> object:
    """Metrics, for packages that see this layer only; who shows none need not load what counts them."""
    if name == "Metrics":
        from sked_core.runtime.metrics import Metrics

        return Metrics
    raise AttributeError(name)
