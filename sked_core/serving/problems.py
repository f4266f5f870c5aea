"""Errors as HTTP tells them: ``application/problem+json`` (RFC 9457), with what to try next."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import msgspec

from sked_core.errors import (
    Conflict,
    Denied,
    ExecutorError,
    InvalidManifest,
    InvalidValue,
    LeaseLost,
    NotFound,
    PluginError,
    Rejected,
    SkedError,
    StoreChanged,
    Unavailable,
)

MEDIA_TYPE = "application/problem+json"
_UNSEEN = re.compile("[\x80-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_KINDS: tuple[tuple[type[SkedError], int, str, str], ...] = (
    (InvalidManifest, 422, "invalid-manifest", "What was sent can't be applied"),
    (InvalidValue, 400, "invalid-value", "A value is not acceptable"),
    (NotFound, 404, "not-found", "Nothing has that name"),
    (Conflict, 409, "conflict", "Somebody else wrote first"),
    (Denied, 403, "denied", "This is not allowed"),
    (Rejected, 409, "rejected", "The host won't run it"),
    (Unavailable, 503, "unavailable", "The store or an engine does not answer"),
    (LeaseLost, 503, "lease-lost", "A lease was lost"),
    (StoreChanged, 503, "store-changed", "The store is not the one known before"),
    (ExecutorError, 502, "executor-error", "An executor failed"),
    (PluginError, 500, "plugin-error", "A plugin is missing or broken"),
)
_OF_CODES = {2: 400, 3: 422, 4: 404, 5: 409, 6: 503, 7: 403, 8: 409, 9: 504}
"""The status that goes with an exit code of its own (client.outcomes.Ended)."""
_TITLES = {
    303: ("log-in", "Somebody has to log in first"),
    400: ("bad-request", "The request can't be understood"),
    401: ("unauthenticated", "Who asks is not known"),
    403: ("denied", "This is not allowed"),
    404: ("not-found", "Nothing has that name"),
    405: ("method-not-allowed", "This can't be done here"),
    406: ("not-acceptable", "It can't be had in that form"),
    408: ("too-slow", "The request took too long to arrive"),
    409: ("conflict", "It can't be done as things are"),
    412: ("changed", "It is not what it was any more"),
    413: ("too-large", "The request is too large"),
    415: ("unsupported-media-type", "It can't be read in that form"),
    422: ("invalid", "What was sent can't be done"),
    421: ("misdirected", "Nobody of that name is here"),
    428: ("precondition-required", "A revision has to be given"),
    429: ("too-many", "There are too many already"),
    431: ("headers-too-large", "The headers are too large"),
    500: ("internal-error", "Something went wrong in here"),
    502: ("failed", "What was asked failed"),
    503: ("unavailable", "It can't be had right now"),
    504: ("timed-out", "It took too long"),
}


class Refused(SkedError):
    """A request ends with ``status`` and says why; ``headers`` go with the answer."""

    def __init__(self, status: int, message: str, *, hint: str = "", headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.headers = tuple(headers)


def status_of(error: SkedError) -> int:
    """The HTTP status that goes with ``error``."""
    if isinstance(error, Refused):
        return error.status
    for kind, status, _, _ in _KINDS:
        if isinstance(error, kind):
            return status
    return _OF_CODES.get(getattr(error, "code", 0), 500)


def document(status: int, detail: str, *, hint: str = "", **more: Any) -> dict[str, Any]:
    """A problem as a mapping: ``type``, ``title``, ``status``, ``detail`` and ``hint``, then ``more``."""
    kind, title = _TITLES.get(status, ("error", "It failed"))
    return {"type": f"urn:sked:{kind}", "title": title, "status": status, "detail": detail, "hint": hint} | more


def describe(error: SkedError, *, status: int = 0) -> dict[str, Any]:
    """``error`` as a mapping; ``status``: instead of the usual one, such as 412 for a conflict with If-Match.

    Mistakes of manifests are listed in ``problems``, each with its place.
    """
    hint = "\n".join([*getattr(error, "__notes__", ()), *error.hint.splitlines()])
    answer = document(status or status_of(error), str(error), hint=hint)
    named = next(((kind, title) for of, _, kind, title in _KINDS if isinstance(error, of)), None)
    if named and not status:
        answer["type"], answer["title"] = f"urn:sked:{named[0]}", named[1]
    if isinstance(error, InvalidManifest):
        answer["problems"] = [asdict(problem) for problem in error.problems]
    return answer


def encode(problem: Mapping[str, Any]) -> bytes:
    """The body of the answer."""
    return escaped(msgspec.json.encode(problem))


def escaped(body: bytes) -> bytes:
    """The same JSON, with what would drive a terminal or turn the direction of text around as ``\\u202e``."""
    if body.isascii():
        return body
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", body.decode()).encode()
