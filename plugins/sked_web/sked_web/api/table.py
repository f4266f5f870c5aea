"""A route, what it is called with, and how its answer becomes one of HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import msgspec
from anyio import to_thread
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.routing import Route as Served

from sked_core.client.copied.picture import PictureSession
from sked_core.client.notices import noticed
from sked_core.client.session import Session
from sked_core.errors import InvalidValue
from sked_core.model import keys
from sked_core.model.spec import did_you_mean, plain
from sked_core.serving.app import problem
from sked_core.serving.guard import demand
from sked_core.serving.problems import Refused, escaped
from sked_core.serving.problems import document as explained
from sked_core.serving.tokens import Role
from sked_web import packed
from sked_web.api.matching import Changed, Match, MatchedStore
from sked_web.state import Document, State

API = "sked/v1"
JSON = "application/json"
MANIFEST_TYPES = frozenset({JSON, "application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "text/plain"})
MAX_NOTICES = 100
MAX_OF_BODY = 64 * 1024
"""Bytes of a body that is no manifest."""
LAST_EVENTS = 5
SUBJECTS = {
    keys.SERVICES: "service",
    keys.CLUSTERS: "cluster",
    keys.TASK_DEFINITIONS: "task_definition",
    keys.MARKS: "host",
    keys.ROLLOUTS: "service",
    keys.TASKS: "task",
}
"""What events call the objects that If-Match may be about."""
Method = Literal["GET", "POST", "DELETE"]


class NoQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing may be asked for."""


@dataclass(frozen=True, slots=True)
class Found:
    """``items`` of an answer: structs or plain data, or JSON that is ready. ``next``: where the next page begins;
    ``revision``: of the one object that this is, which If-Match may name."""

    items: Sequence[Any]
    next: str = ""
    revision: int | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One request: who makes it, what stands in its path, query and body. ``seen``: a session that looks at the copy
    of the state; ``sked``: one on the store itself, which keeps to If-Match."""

    state: State
    who: str
    path: Mapping[str, str]
    query: Any
    body: Any = None
    match: Match | None = None
    role: Role = Role.READ
    seen_now: PictureSession | None = None

    @property
    def seen(self) -> PictureSession:
        return self.seen_now or self.state.seen(self.who)

    @property
    def sked(self) -> Session:
        sked = self.state.session(self.who)
        return replace(sked, store=MatchedStore(sked.store, self.match)) if self.match else sked


@dataclass(frozen=True, slots=True)
class Route:
    """One thing that can be asked. ``kind``: of the document, as in ``-o json``; ``item``: what its items are, for the
    description; ``rests_on``: prefixes of keys that the answer is made of (empty: of everything; None: it is made
    anew each time); ``quick``: takes no time worth a thread. ``manifest``: the body is one. ``serve``: instead of
    ``run`` for what is no document."""

    method: Method
    path: str
    role: Role
    kind: str
    item: Any
    summary: str
    run: Callable[[Call], Found] | None = None
    query: type[Struct] = NoQuery
    body: type[Struct] | None = None
    manifest: bool = False
    rests_on: tuple[str, ...] | None = None
    quick: bool = False
    serve: Callable[[State, Request, Any], Awaitable[Response]] | None = None
    media: str = JSON
    matched: Callable[[Call], str] | None = None
    """The key of the object that If-Match is about."""

    @property
    def name(self) -> str:
        """An identifier: ``get_v1_tasks_id``."""
        words = self.path.replace("{", "").replace("}", "").replace("-", "_").strip("/").split("/")
        return "_".join([self.method.lower(), *words])


Run = Callable[[Call], Found]


def get(
    path: str,
    kind: str,
    item: Any,
    run: Run,
    summary: str,
    *,
    role: Role = Role.READ,
    query: type[Struct] = NoQuery,
    rests_on: tuple[str, ...] | None = None,
    quick: bool = False,
) -> Route:
    """A look at something."""
    return Route("GET", path, role, kind, item, summary, run, query, rests_on=rests_on, quick=quick)


def post(
    path: str,
    kind: str,
    item: Any,
    run: Run,
    summary: str,
    *,
    role: Role = Role.OPERATE,
    query: type[Struct] = NoQuery,
    body: type[Struct] | None = None,
    manifest: bool = False,
    matched: Callable[[Call], str] | None = None,
) -> Route:
    """An act."""
    return Route("POST", path, role, kind, item, summary, run, query, body, manifest, matched=matched)


def document(kind: str, found: Found, notices: Sequence[str]) -> bytes:
    """The document that ``-o json`` prints, with where the next page begins and what one should know besides."""
    whole = {"api": API, "kind": kind, "items": found.items, "next": found.next, "notices": list(notices)}
    return escaped(msgspec.json.encode(whole))


def served(route: Route, state: State) -> BaseRoute:
    """``route`` for an application."""

    async def answer(request: Request) -> Response:
        who = demand(request.scope, route.role)
        query = _query(route.query, request)
        if route.serve is not None:
            return await route.serve(state, request, query)
        body = await _body(route, request) if route.method == "POST" else None
        call = Call(state, who.name, dict(request.path_params), query, body, role=who.role)
        if route.method == "GET":
            return await _looked(route, state, call, request)
        return await _acted(route, state, call, request)

    return Served(route.path, answer, methods=[route.method], name=route.name)


async def _looked(route: Route, state: State, call: Call, request: Request) -> Response:
    assert route.run is not None
    picture = state.look()
    stale = state.mirror.stale()
    since = int(stale.since) if stale else 0
    name = f"{request.url.path}\n{request.url.query}"
    tag = f"{picture.epoch}-{picture.changed(*route.rests_on)}-{since}" if route.rests_on is not None else ""

    def make() -> Document:
        return _made(route, replace(call, seen_now=state.seen(call.who)), tag)

    known = state.documents.known(name, tag) if tag else None
    if known is not None:
        made = known
    elif route.quick:
        made = state.documents.made(name, tag, make)
    else:
        made = await to_thread.run_sync(partial(state.documents.made, name, tag, make) if tag else make)
    large = len(made.body) >= packed.LEAST_BYTES
    gzipped = large and packed.takes_gzip(request.headers)
    headers = {
        **(packed.VARY if large else {}),
        # Of what is packed a weak one: other bytes, though the same document.
        "etag": f"W/{made.etag.removeprefix('W/')}" if gzipped else made.etag,
        "sked-position": f"{picture.epoch}-{picture.number}",
        "cache-control": "no-cache",
        **({"sked-stale-since": str(since)} if stale else {}),
    }
    if _unmodified(request.headers.get("if-none-match", ""), made.etag):
        return Response(status_code=304, headers=headers)
    if gzipped:
        return Response(await to_thread.run_sync(made.packed), media_type=JSON, headers=headers | packed.HEADERS)
    return Response(made.body, media_type=JSON, headers=headers)


def _made(route: Route, call: Call, tag: str) -> Document:
    assert route.run is not None
    notices: list[str] = []
    with noticed(notices.append):
        found = route.run(call)
    stale = call.state.mirror.stale()
    if stale is not None:
        notices.append(f"the store gives no answer, this is what it said last: {plain(stale.trouble)}")
    body = document(route.kind, found, notices[:MAX_NOTICES])
    named = tag or hashlib.sha256(body).hexdigest()[:16]
    # Weak, since it does not change with each notice; the revision is what If-Match is about.
    etag = f'"{found.revision}.{named}"' if found.revision is not None else f'W/"{named}"'
    return Document(body, tag, etag, call.seen.picture.number)


async def _acted(route: Route, state: State, call: Call, request: Request) -> Response:
    assert route.run is not None
    run = route.run
    match = request.headers.get("if-match", "")
    if match:
        if route.matched is None:
            raise Refused(400, "If-Match can't be given here: this is about more than one object")
        call = replace(call, match=Match.of(route.matched(call), match))
    notices: list[str] = []

    def act() -> Found:
        with noticed(notices.append):
            if call.match is not None:
                MatchedStore(state.sked.store, call.match).begin()
            found = run(call)
        state.changed()
        return found

    try:
        found = await to_thread.run_sync(act)
    except Changed as error:
        more = {"now": error.now, "revision": error.revision, "events": _told(state, error.key)}
        return problem(explained(412, str(error), hint=error.hint, **more), {"etag": f'"{error.revision}"'})
    return Response(document(route.kind, found, notices[:MAX_NOTICES]), media_type=JSON)


def _told(state: State, key: str) -> list[dict[str, Any]]:
    """The last events about the object under ``key``: who changed it, and why."""
    prefix = next((one for one in SUBJECTS if key.startswith(one)), "")
    subject = f"{SUBJECTS.get(prefix, '')}/{key.removeprefix(prefix)}"
    found = []
    for entry in state.look().area(keys.EVENTS).values():
        try:
            found += [one for one in msgspec.json.decode(entry.value) if one.get("subject") == subject]
        except (msgspec.DecodeError, RecursionError, ValueError, AttributeError, TypeError):
            continue  # somebody else's garbage tells nothing
    return found[-LAST_EVENTS:]


def _query(kind: type[Struct], request: Request) -> Any:
    fields = {one.encode_name: one for one in msgspec.structs.fields(kind)}
    given: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name not in fields:
            raise InvalidValue(f'"{plain(name[:40])}" can\'t be asked for here{did_you_mean(name, fields)}')
        if isinstance(given.get(name), list):
            given[name].append(value)
        elif name in given:
            raise InvalidValue(f"{name} is given twice")
        else:
            given[name] = [value] if fields[name].type == list[str] else value
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidValue(_said(error)) from None


async def _body(route: Route, request: Request) -> Any:
    data = await request.body()
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if route.manifest:
        if media not in MANIFEST_TYPES:
            raise Refused(415, "send the manifest as application/yaml or application/json", hint="set Content-Type")
        return data
    if route.body is None:
        if data.strip() not in (b"", b"{}"):
            raise InvalidValue("nothing is to be sent here")
        return None
    if data and media != JSON:
        raise Refused(415, "send it as application/json", hint="set Content-Type: application/json")
    if len(data) > MAX_OF_BODY:
        raise Refused(413, f"more than {MAX_OF_BODY} bytes")
    try:
        return msgspec.json.decode(data or b"{}", type=route.body)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise InvalidValue(_said(error)) from None


def _said(error: Exception) -> str:
    """``limit: Expected `int` <= 1000``: where, and what is wrong."""
    text, _, place = str(error)[:300].partition(" - at `$")
    where = place.rstrip("`").lstrip(".")
    return plain(f"{where}: {text}" if where else text)


def _unmodified(header: str, tag: str) -> bool:
    bare = tag.removeprefix("W/")
    return header.strip() == "*" or any(one.strip().removeprefix("W/") == bare for one in header.split(","))
