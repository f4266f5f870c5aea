"""Which table, in which region, and how often to look at it. Who asks is boto3's business, never the URL's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, urlsplit

from sked_core.plugin import InvalidValue, to_seconds

DEFAULT_TABLE = "sked"
POLL_SECONDS, MIN_POLL_SECONDS, MAX_POLL_SECONDS = 0.5, 0.05, 10.0
_EXAMPLE = "such as dynamodb://eu-central-1/sked, or dynamodb://eu-central-1/sked?poll=1s"
_REGION = re.compile(r"[a-z]{2,}[a-z0-9-]{0,60}")
_TABLE = re.compile(r"[A-Za-z0-9_.-]{3,255}")  # as DynamoDB has it


@dataclass(frozen=True, slots=True)
class Address:
    """One table. Without a region boto3 finds it, without an endpoint it is Amazon's (or AWS_ENDPOINT_URL_DYNAMODB)."""

    region: str
    table: str = DEFAULT_TABLE
    endpoint: str = ""
    poll: float = POLL_SECONDS
    """Seconds between two looks at the change counter."""

    def __str__(self) -> str:
        place = f" at {self.endpoint}" if self.endpoint else f" in {self.region}" if self.region else ""
        return f"table {self.table}{place}"


def parse_address(url: str) -> Address:
    """The table that ``dynamodb://REGION/TABLE?endpoint=URL&poll=DURATION`` stands for; all but the scheme may be
    left out. Raises InvalidValue; no message repeats the URL, which may hold a secret."""
    parts = _split(url, "the URL of the store")
    table = parts.path.strip("/") or DEFAULT_TABLE
    if parts.netloc and not _REGION.fullmatch(parts.netloc):
        raise InvalidValue("the URL of the store names a region that can't be", hint=_EXAMPLE)
    if not _TABLE.fullmatch(table):
        raise InvalidValue(
            "the URL of the store names a table that can't be: 3 to 255 of A-Z a-z 0-9 _ . - are allowed", hint=_EXAMPLE
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(set(options) - {"endpoint", "poll"}):
        raise InvalidValue(f"the URL of the store has the unknown option {unknown[0]!r:.80}", hint="endpoint and poll")
    return Address(parts.netloc, table, _endpoint(options.get("endpoint", "")), _poll(options.get("poll")))


def _split(text: str, what: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises for a port that is none
    except ValueError as error:
        raise InvalidValue(f"{what} is not valid: {error}", hint=_EXAMPLE) from None
    if "@" in parts.netloc:
        raise InvalidValue(
            f"{what} holds credentials, which would show in process lists and logs",
            hint="leave them to AWS_PROFILE, AWS_ACCESS_KEY_ID, a role of the machine, or what else boto3 finds",
        )
    if parts.fragment or not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidValue(f"{what} holds characters that can't be in it", hint=_EXAMPLE)
    return parts


def _endpoint(text: str) -> str:
    if not text:
        return ""
    parts = _split(text, "the endpoint")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise InvalidValue(
            "the endpoint has to be http(s)://HOST:PORT and nothing more",
            hint="such as dynamodb://eu-central-1/sked?endpoint=http://127.0.0.1:8000",
        )
    return text.rstrip("/")


def _poll(text: str | None) -> float:
    if text is None:
        return POLL_SECONDS
    try:
        seconds = to_seconds(text)
    except (InvalidValue, ValueError):
        seconds = -1.0
    if not MIN_POLL_SECONDS <= seconds <= MAX_POLL_SECONDS:
        raise InvalidValue(
            f"poll has to be a duration from {MIN_POLL_SECONDS * 1000:g}ms to {MAX_POLL_SECONDS:g}s",
            hint="such as poll=500ms (the default) or poll=1s",
        )
    return seconds
