"""What whoever watches over a process asks it for: ``/metrics`` for Prometheus, ``/healthz`` for everything else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from sked_core.runtime.pulse import HUNG_SECONDS, Pulse, hung
from sked_core.serving.guard import demand
from sked_core.serving.problems import Refused
from sked_core.serving.tokens import Role

__all__ = ["HUNG_SECONDS", "OPEN_PATHS", "Metrics", "Pulse", "hung", "watching"]
if TYPE_CHECKING:
    from sked_core.runtime.metrics import Metrics

OPEN_PATHS = ("/healthz",)
"""What a Guard is to let everybody ask for."""
HOST_HEADER = "sked-host"


def check_host(request: HTTPConnection, host: str) -> None:
    """Raises Refused where the caller says by ``Sked-Host`` that it wants another host's agent than that of ``host``:
    those of several hosts may have sockets of the same name."""
    wanted = request.headers.get(HOST_HEADER, "")
    if wanted and wanted != host:
        raise Refused(421, f"this is the agent of {host}, not of {wanted}")


def watching(
    metrics: Metrics | None, pulses: Callable[[], Mapping[str, Pulse]] = dict, host: str = ""
) -> list[BaseRoute]:
    """The routes, to be put among those of an application. ``metrics`` None: nothing is measured here. ``pulses``: of
    all loops of this process, by name; one that hangs (runtime.pulse) makes ``/healthz`` answer 503 and say which.
    ``host``: whose agent this is, if it is one."""

    def figures(request: Request) -> Response:
        demand(request.scope, Role.READ)
        if metrics is None:
            raise Refused(404, "nothing is measured here", hint="start it with --listen HOST:PORT")
        text, kind = metrics.text(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": kind})

    def health(request: Request) -> Response:
        if host:
            check_host(request, host)
        hanging = hung(pulses(), HUNG_SECONDS)
        said = "".join(f"{name} does not go on\n" for name in hanging)
        return PlainTextResponse(said or "ok\n", 503 if hanging else 200)

    packed = Middleware(GZipMiddleware, minimum_size=4096, compresslevel=5)
    return [Route("/metrics", figures, middleware=[packed]), Route("/healthz", health)]


def __getattr__(name: str) -> object:
    """Metrics, for packages that see this layer only; who shows none need not load what counts them."""
    if name == "Metrics":
        from sked_core.runtime.metrics import Metrics

        return Metrics
    raise AttributeError(name)
