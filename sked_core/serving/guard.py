"""What every request has to get past before anything looks at it, and what every answer bears.

A browser on the operator's machine may show a stranger's page, which can send requests to anything that the browser
reaches. So the Host header has to name this server (a name of the stranger's that resolves to here does not), and an
Origin, which browsers send with what a page may not do by itself, has to be this very server's.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import logging
import re
import secrets
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sked_core.errors import SkedError
from sked_core.model.spec import plain
from sked_core.serving.problems import MEDIA_TYPE, Refused, describe, document, encode
from sked_core.serving.tokens import Caller, Role

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from sked_core.serving.listening import Listener

MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_STRANGERS_BODY = 64 * 1024
"""The same from those who need a token and have shown none: a thousand of them can't fill this machine's memory."""
BODY_SECONDS = 30.0
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    b"cache-control": b"no-store",
}
"""Sent unless the application says otherwise."""
# No Strict-Transport-Security: it binds every port of a host name, where plain services of others may stand.
_ODD_PATH = re.compile(r"[\x00-\x1f\x7f\\]|(^|/)\.{1,2}(/|$)|//")
_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]{1,300}")
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_log = logging.getLogger("sked.serving")


class Guard:
    """An ASGI application around ``app``. Requests that may go on carry the Caller (see ``caller``); everything that
    is raised becomes a problem document. ``open_paths``: need no token, such as ``/healthz``. ``identify``: asked
    about requests with neither token nor open path where a token is needed; it knows other signs of who calls (None:
    nobody), or raises Refused with what to do instead."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        open_paths: Iterable[str] = (),
        identify: Callable[[Scope], Caller | None] = lambda _: None,
        max_body: int = MAX_BODY_BYTES,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self._app = app
        self._open = frozenset(open_paths)
        self._identify = identify
        self._max_body = max_body
        self._body_seconds = body_seconds
        self._ending: asyncio.Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        answer = _Answer(scope, send)
        try:
            self._admit(scope)
            first = await self._whole_body(scope, receive) if scope["type"] == "http" else None
            await self._app(scope, _replayed(first, self._until_end(receive)), answer.send)
        except SkedError as error:
            more = error.headers if isinstance(error, Refused) else ()
            await answer.fail(describe(error), more)
        except Exception:  # noqa: BLE001  the last place where it can be turned into an answer
            if answer.complete:  # the application has told it, and raised it once more
                return
            number = secrets.token_hex(4)
            _log.exception("%s %s failed (%s)", scope.get("method", "websocket"), plain(scope["path"][:200]), number)
            await answer.fail(document(500, "internal error", hint=f"the log of this process says more: {number}"))

    def end(self) -> None:
        """To be called in the server's loop when it is to end: streams are told that their reader is gone."""
        self._ended().set()

    def _admit(self, scope: Scope) -> None:
        """Raises Refused, or puts the Caller into the request."""
        listener: Listener = scope["state"]["listener"]
        headers = _Headers(scope)
        raw = scope.get("raw_path") or b""
        if not scope["path"].startswith("/") or _ODD_PATH.search(scope["path"]) or b"%2f" in raw.lower():
            raise Refused(400, "the path is none of this server's")
        host = headers.one("host")
        if listener.names is not None:
            _check_host(host, listener)
        _check_origin(scope, headers, host)
        if scope["path"] in self._open and scope.get("method") in SAFE_METHODS:
            scope["state"]["caller"] = Caller("", Role.READ)
            return
        known = None
        if listener.tokens is not None and not headers.one("authorization"):
            known = self._identify(scope)
        scope["state"]["caller"] = known or _identified(headers, listener)

    async def _whole_body(self, scope: Scope, receive: Receive) -> Message:
        """The body, whole, before anybody works on it: within its size and its time. Raises Refused."""
        stranger = scope["state"]["listener"].tokens is not None and not caller(scope).name
        most = min(MAX_STRANGERS_BODY, self._max_body) if stranger else self._max_body
        length = _Headers(scope).one("content-length")
        if length and (not length.isdecimal() or int(length) > most):
            raise _too_large(most)
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_seconds):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return message
                    body += message.get("body", b"")
                    if len(body) > most:
                        raise _too_large(most)
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise Refused(408, f"the request did not arrive within {self._body_seconds:g} s") from None
        return {"type": "http.request", "body": bytes(body), "more_body": False}

    def _until_end(self, receive: Receive) -> Receive:
        async def received() -> Message:
            ended = self._ended()
            coming = asyncio.ensure_future(receive())
            ending = asyncio.ensure_future(ended.wait())
            try:
                await asyncio.wait({coming, ending}, return_when=asyncio.FIRST_COMPLETED)
                if coming.done():
                    return coming.result()
                return {"type": "http.disconnect"}
            finally:
                for task in (coming, ending):
                    task.cancel()

        return received

    def _ended(self) -> asyncio.Event:
        if self._ending is None:
            self._ending = asyncio.Event()
        return self._ending


def caller(scope: Scope) -> Caller:
    """Who makes the request that ``scope`` (of the guarded application) belongs to."""
    found: Caller = scope["state"]["caller"]
    return found


def demand(scope: Scope, role: Role) -> Caller:
    """The caller, who has ``role`` or more. Raises Refused (403)."""
    who = caller(scope)
    if who.role < role:
        name = f'token "{who.name}"' if who.name else "a request without a token"
        raise Refused(
            403, f"{name} may {who.role.word} here, and this takes {role.word}", hint="use a token with that role"
        )
    return who


class _Headers:
    def __init__(self, scope: Scope) -> None:
        self._all: list[tuple[bytes, bytes]] = list(scope["headers"])

    def one(self, name: str) -> str:
        """The header's value; "" where there is none. Raises Refused where there are several."""
        found = [value for key, value in self._all if key == name.encode()]
        if len(found) > 1:
            raise Refused(400, f"the header {name} is there {len(found)} times")
        return found[0].decode("latin-1").strip() if found else ""


class _Answer:
    """Adds the headers that every answer bears, and tells of failures as long as nothing was sent."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send = scope, send
        self._begun = False
        self.complete = False

    async def send(self, message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            self._begun = True
            headers = list(message.get("headers", ()))
            said = {name.lower() for name, _ in headers}
            headers += [(name, value) for name, value in _HEADERS.items() if name not in said]
            message = {**message, "headers": headers}
        if message["type"] in ("websocket.accept", "websocket.close"):
            self._begun = True
        await self._send(message)
        self.complete |= message["type"] == "http.response.body" and not message.get("more_body", False)

    async def fail(self, problem: dict[str, Any], more: Iterable[tuple[str, str]] = ()) -> None:
        socket = self._scope["type"] == "websocket"
        if self._begun:
            if socket:
                await self._send({"type": "websocket.close", "code": 1011, "reason": str(problem["detail"])[:100]})
                return
            raise ConnectionAbortedError(str(problem["detail"]))  # a cut stream is no whole answer
        if socket and "websocket.http.response" not in self._scope.get("extensions", {}):
            await self._send({"type": "websocket.close", "code": 1008})
            return
        kind = "websocket.http.response" if socket else "http.response"
        body = encode(problem)
        headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
        headers += [(name.encode(), value.encode("latin-1", "replace")) for name, value in more]
        if self._scope.get("method") not in SAFE_METHODS:
            headers.append((b"connection", b"close"))  # what is still on its way is not waited for
        await self.send({"type": f"{kind}.start", "status": problem["status"], "headers": headers})
        await self._send({"type": f"{kind}.body", "body": body, "more_body": False})


def _too_large(most: int) -> Refused:
    return Refused(413, f"more than {most} bytes")


def _check_host(host: str, listener: Listener) -> None:
    name = _host_part(host)
    if name and (name in (listener.names or ()) or (listener.any_ip and _is_ip(name))):
        return
    raise Refused(
        421,
        "the Host header names another server",
        hint="call it by its address, or start it with --allow-host NAME",
    )


def _check_origin(scope: Scope, headers: _Headers, host: str) -> None:
    """A page of another server must not make the browser act here. Raises Refused."""
    origin = headers.one("origin")
    if origin:
        secure = scope["scheme"] in ("https", "wss")
        if not _same_origin(origin, host, secure=secure):
            raise Refused(403, "a page of another server may not do that", hint="Origin and Host have to be the same")
        return
    site = headers.one("sec-fetch-site")
    if site and site not in ("same-origin", "none") and scope.get("method") not in SAFE_METHODS:
        raise Refused(403, "a page of another server may not do that", hint="Sec-Fetch-Site has to be same-origin")


def _same_origin(origin: str, host: str, *, secure: bool) -> bool:
    """An https page is taken for this server's also where something in front of it ends TLS."""
    try:
        parts = urlsplit(origin)
        port = parts.port or _PORTS.get(parts.scheme, 0)
        here = urlsplit(f"//{host}")
        own = here.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        return False
    if parts.scheme != "https" and (secure or parts.scheme != "http"):
        return False
    return (parts.hostname, port) == (here.hostname, own)


def _identified(headers: _Headers, listener: Listener) -> Caller:
    """Whose token it is; without a file of tokens, whoever got here. Raises Refused (401)."""
    if listener.tokens is None:
        return Caller("", listener.anonymous)
    scheme, _, given = headers.one("authorization").partition(" ")
    token = _password(given) if scheme.lower() == "basic" else given.strip() if scheme.lower() == "bearer" else ""
    who = listener.tokens.caller(token) if token else None
    if who is None:
        # Browsers ask for a password where Basic is offered: the token is taken as that, with any name.
        wanted = ("Basic" if "text/html" in headers.one("accept") else "Bearer") + ' realm="sked"'
        detail = "this token is not known here" if token else "a token is needed"
        raise Refused(
            401,
            detail,
            hint="give it as SKED_API_TOKEN or SKED_API_TOKEN_FILE, or as the header Authorization: Bearer TOKEN",
            headers=[("www-authenticate", wanted)],
        )
    return who


def _password(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _host_part(host: str) -> str:
    if not _HOST.fullmatch(host):
        return ""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _replayed(first: Message | None, receive: Receive) -> Receive:
    """``receive`` with ``first`` before all else."""
    left = [first] if first else []

    async def replayed() -> Message:
        return left.pop() if left else await receive()

    return replayed
