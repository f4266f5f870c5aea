"""The application: the API, the page, and what those ask for who watch over this process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.routing import Route as Served
from starlette.types import ASGIApp

from sked_core.serving.app import application, problem
from sked_core.serving.guard import Guard
from sked_core.serving.problems import document
from sked_core.serving.watching import HUNG_SECONDS, hung
from sked_web.answering import Answering
from sked_web.api import acts, lists, logs, looks, openapi, raw, stream
from sked_web.api.table import Route, served
from sked_web.pages.routes import routes as pages
from sked_web.pages.routes import site_of, tell_of_failures
from sked_web.state import State
from sked_web.watched import Watched

OPEN_PATHS = ("/healthz", "/readyz")
"""Need no token: they tell nothing but that."""


def table(state: State) -> list[Route]:
    """Everything that the API can be asked."""
    found: list[Route] = [*lists.routes(), *looks.routes(), *acts.routes(), *raw.routes(), *stream.routes(state)]
    found += logs.routes(state)
    found += openapi.routes(lambda: found)
    return found


def build(state: State, watched: Watched | None = None) -> Guard:
    """What is to be served: the API and the page, which both answer from the same copy of the state. ``watched``: what
    measures this process, if anything does."""
    site = site_of(state)
    # Of two routes that a path could mean, the one that says it in so many words.
    asked = sorted(table(state), key=lambda route: route.path.count("{"))
    routes: list[BaseRoute] = [served(route, state) for route in asked]
    routes += [
        Served("/healthz", _healthz(watched), methods=["GET"]),
        Served("/readyz", _readyz(state), methods=["GET"]),
    ]
    routes += [*(watched.routes() if watched else ()), *pages(site)]

    @contextlib.asynccontextmanager
    async def living(app: Starlette) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            if watched is not None:
                await stack.enter_async_context(watched.beating(app))
            await stack.enter_async_context(Answering(state.mirror).running())
            yield

    app = application(routes, lifespan=living)
    tell_of_failures(app, site)
    served_by: ASGIApp = watched.around(app) if watched else app
    return Guard(served_by, open_paths=OPEN_PATHS, identify=site.identify)


def _healthz(watched: Watched | None) -> Callable[[Request], Awaitable[Response]]:
    """Whether all that has to go on in this process does."""

    async def healthz(_: Request) -> Response:
        if watched is not None and (hanging := hung(watched.pulses(), HUNG_SECONDS)):
            return problem(document(503, "; ".join(f"{name} does not go on" for name in hanging)))
        return JSONResponse({"status": "ok"})

    return healthz


def _readyz(state: State) -> Callable[[Request], Awaitable[Response]]:
    """Whether the store has answered lately."""

    async def readyz(_: Request) -> Response:
        stale = state.mirror.stale()
        if stale is None and state.mirror.ready(0):
            return JSONResponse({"status": "ok"})
        return problem(document(503, "the store gives no answer" if stale else "the store is being read"))

    return readyz
