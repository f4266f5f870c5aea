"""Durations as users write them: Go-style strings, or whole numbers of nanoseconds."""

from __future__ import annotations

import functools
import re

from sked_core.errors import InvalidValue
from sked_core.model.spec import plain

_UNITS_NS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h)")
MAX_NS = 10 * 365 * 24 * _UNITS_NS["h"]


def to_nanoseconds(value: str | int) -> int:
    """Nanoseconds of ``"1m30s"``, ``"500ms"`` or a whole number of nanoseconds.

    Raises InvalidValue for anything else, for negative values and for more than ten years.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InvalidValue(f'expected a duration such as "10s" or "1m30s", got {value!r}')
    total = value if isinstance(value, int) else _parsed(value)
    if not 0 <= total <= MAX_NS:
        raise InvalidValue(f"expected a duration from 0 to ten years, got {value!r}"[:120])
    return total


@functools.lru_cache(maxsize=1024)
def _parsed(value: str) -> int:
    if value == "0":
        return 0
    parts = _PART.findall(value) if len(value) <= 64 else []
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise InvalidValue(f'expected a duration such as "10s" or "1m30s", got "{plain(value[:64])}"')
    return sum(round(float(number) * _UNITS_NS[unit]) for number, unit in parts)


def to_seconds(value: str | int, default: str | int = 0) -> float:
    """Seconds of a duration; an empty string means ``default``. Raises InvalidValue as to_nanoseconds does."""
    return to_nanoseconds(default if value == "" else value) / 1e9


def to_text(nanoseconds: int) -> str:
    """The shortest Go-style string for whole ``nanoseconds`` (``90000000000`` is ``1m30s``)."""
    if nanoseconds == 0:
        return "0s"
    text, rest = "", nanoseconds
    for unit in ("h", "m", "s", "ms", "us", "ns"):
        count, rest = divmod(rest, _UNITS_NS[unit])
        text += f"{count}{unit}" if count else ""
    return text
