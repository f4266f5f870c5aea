"""One stream of server-sent events that says what has changed, and goes on where a reader left off.

A stream is a number: how far its reader got in the feed of the mirror. What it is sent is made from the feed when its
connection takes more, so that a slow reader costs no memory and one who is too far behind is told to read everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from sked_core.client.copied.feed import Change
from sked_core.client.copied.mirror import Mirror
from sked_core.errors import InvalidValue
from sked_core.serving.problems import Refused, escaped
from sked_core.serving.tokens import Role
from sked_web.api.table import Route
from sked_web.state import State

MOST_STREAMS = 600
"""So many leave room for other requests among the connections that a server takes (serving.server)."""
HEARTBEAT_SECONDS = 15.0
GATHER_SECONDS = 0.02
"""Changes come in bursts: those of so long go together."""
MOST_AT_ONCE = 500
"""Changes in one message."""
RETRY_MILLISECONDS = 1000
Kind = Literal["task", "service", "cluster", "host", "task-definition", "rollout", "scheduler", "event", "ending"]


class StreamAsked(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``since``: a position, as ``sked-position`` of an answer or the id of a message says it; the header Last-Event-ID
    wins. ``kind``: only changes of these kinds, repeatable; ``service``: of this service and its tasks alone."""

    since: Annotated[str, Meta(max_length=64)] = ""
    kind: list[str] = msgspec.field(default_factory=list)
    service: Annotated[str, Meta(max_length=63)] = ""


class Changed(Struct, kw_only=True, omit_defaults=True):
    """One change. ``gone``: it is not there any more."""

    kind: Kind
    name: str
    service: str = ""
    host: str = ""
    gone: bool = False


class Message(Struct, kw_only=True):
    """The data of a message. ``event: changes`` has ``changes``; ``hello`` and ``reset`` have none: after ``reset``
    anything may have changed. ``stale`` says since when (seconds since the epoch) the store gives no answer, and
    ``fresh`` that it does again; ``beat`` comes where nothing else does: who hears nothing at all was cut off.
    The id of each message is its position."""

    position: str
    stale_since: float | None = None
    trouble: str = ""
    changes: list[Changed] = msgspec.field(default_factory=list)


class Streams:
    """The streams of one server. Used in its loop alone."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._woken: set[asyncio.Event] = set()
        self._stop: Any = None

    def _listen(self) -> None:
        """The mirror's threads wake all streams by one call into the loop."""
        if self._stop is None:
            loop = asyncio.get_running_loop()

            def tell() -> None:
                with suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(self._wake)

            self._stop = self._state.mirror.feed.listen(tell)

    def _wake(self) -> None:
        for event in self._woken:
            event.set()

    def open(self, asked: StreamAsked, last: str) -> AsyncIterator[bytes]:
        """A new stream. Raises Refused where there are too many, InvalidValue for what is no position, Unavailable
        where nothing is known of the store yet."""
        if len(self._woken) >= MOST_STREAMS:
            raise Refused(503, f"{MOST_STREAMS} streams are open already", headers=[("retry-after", "5")])
        if unknown := set(asked.kind) - set(Kind.__args__):  # type: ignore[attr-defined]
            raise InvalidValue(f"kind: no {sorted(unknown)[0]!r:.40}; kinds are {', '.join(Kind.__args__)}")  # type: ignore[attr-defined]
        picture = self._state.look()
        start = _position(last or asked.since, self._state.mirror)
        self._listen()
        woken = asyncio.Event()
        self._woken.add(woken)
        return self._messages(asked, woken, picture.number if start is None else start)

    async def _messages(self, asked: StreamAsked, woken: asyncio.Event, at: int) -> AsyncIterator[bytes]:
        mirror = self._state.mirror
        try:
            stale = mirror.stale()
            begun = Message(position=_named(mirror, max(at, 0)), **_staleness(mirror))
            yield f"retry: {RETRY_MILLISECONDS}\n".encode() + _message("hello", begun)
            if at < 0:
                at = mirror.look().number
                yield _message("reset", Message(position=_named(mirror, at)))
            while True:
                woken.clear()
                if mirror.stale() != stale:
                    stale = mirror.stale()
                    kind = "stale" if stale else "fresh"
                    yield _message(kind, Message(position=_named(mirror, at), **_staleness(mirror)))
                changes = mirror.feed.after(at)
                if changes is None:
                    at = mirror.look().number
                    yield _message("reset", Message(position=_named(mirror, at)))
                elif changes:
                    part = changes[:MOST_AT_ONCE]
                    data = _encoded(mirror.epoch, tuple(part), asked.service, frozenset(asked.kind))
                    at = part[-1].number
                    if data:
                        yield data
                else:
                    try:
                        await asyncio.wait_for(woken.wait(), HEARTBEAT_SECONDS)
                        await asyncio.sleep(GATHER_SECONDS)
                    except TimeoutError:
                        yield _message("beat", Message(position=_named(mirror, at)))
        finally:
            self._woken.discard(woken)


def _position(text: str, mirror: Mirror) -> int | None:
    """How far the reader got; None: it begins now; below 0: it has to read everything. Raises InvalidValue."""
    if not text:
        return None
    epoch, _, number = text.strip().rpartition("-")
    if not (epoch.isalnum() and number.isascii() and number.isdecimal() and len(number) < 19):
        raise InvalidValue("since: not a position that this API gave")
    return int(number) if epoch == mirror.epoch and mirror.feed.after(int(number)) is not None else -1


def _named(mirror: Mirror, number: int) -> str:
    return f"{mirror.epoch}-{number}"


def _staleness(mirror: Mirror) -> dict[str, Any]:
    stale = mirror.stale()
    return {"stale_since": stale.since, "trouble": stale.trouble} if stale else {}


def _message(kind: str, data: Message) -> bytes:
    return f"id: {data.position}\nevent: {kind}\ndata: ".encode() + escaped(msgspec.json.encode(data)) + b"\n\n"


@lru_cache(maxsize=64)
def _encoded(epoch: str, changes: Sequence[Change], service: str, kinds: frozenset[str]) -> bytes:
    """One message for all streams that are at the same place; empty if there is nothing in it for them."""
    told = [
        Changed(kind=one.kind, name=one.name, service=one.service, host=one.host, gone=one.gone)  # type: ignore[arg-type]
        for one in changes
        if (not kinds or one.kind in kinds)
        and (not service or one.service == service or (one.kind in ("service", "rollout") and one.name == service))
    ]
    return _message("changes", Message(position=f"{epoch}-{changes[-1].number}", changes=told)) if told else b""


def routes(state: State) -> list[Route]:
    streams = Streams(state)

    async def stream(_: State, request: Request, asked: Any) -> Response:
        messages = streams.open(asked, request.headers.get("last-event-id", ""))
        return StreamingResponse(messages, media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    summary = "What changes from now on, or since a position, as server-sent events."
    route = Route("GET", "/v1/stream", Role.READ, "Message", Message, summary, query=StreamAsked, serve=stream)
    return [replace(route, media="text/event-stream")]
