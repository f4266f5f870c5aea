"""An application out of routes, in which whatever is raised becomes a problem document."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Lifespan

from sked_core.errors import SkedError
from sked_core.model.spec import plain
from sked_core.serving.problems import MEDIA_TYPE, Refused, describe, document, encode

_log = logging.getLogger("sked.serving")


def application(routes: Sequence[BaseRoute], *, lifespan: Lifespan[Starlette] | None = None) -> Starlette:
    """To be put into a Guard. ``lifespan``: what to set up in the server's loop before the first request."""
    handlers: Mapping[Any, Any] = {SkedError: _expected, HTTPException: _of_http, Exception: _unexpected}
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return app


def problem(answer: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """A problem (see ``problems.document``) as a response."""
    return Response(encode(answer), status_code=answer["status"], media_type=MEDIA_TYPE, headers=headers)


async def _expected(request: HTTPConnection, error: Exception) -> Response:
    if request.scope["type"] != "http" or not isinstance(error, SkedError):
        raise error  # the guard tells websockets
    return problem(describe(error), dict(error.headers) if isinstance(error, Refused) else None)


async def _of_http(request: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if request.scope["type"] != "http":
        raise Refused(error.status_code, str(error.detail))
    where = f"{request.scope['method']} {plain(request.scope['path'][:200])}"
    details = {404: f"there is no {where}", 405: f"{where} can't be done"}
    detail = details.get(error.status_code, str(error.detail))
    return problem(document(error.status_code, detail), dict(error.headers or {}))


async def _unexpected(request: HTTPConnection, error: Exception) -> Response:
    """The log says more than the one who asked is told."""
    number = secrets.token_hex(4)
    _log.error("%s failed (%s)", plain(request.scope["path"][:200]), number, exc_info=error)
    return problem(document(500, "internal error", hint=f"the log of this process says more: {number}"))
