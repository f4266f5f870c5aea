"""How values are written on the page: amounts, times, text that may be hostile."""

from __future__ import annotations

import datetime
import json
from typing import Any

from markupsafe import Markup, escape

from sked_core.model.spec import plain
from sked_core.plugin import SystemClock

KINDS = {
    "service": "/services/",
    "host": "/hosts/",
    "task": "/tasks/",
}
HUES = 10
"""Colours that services are told apart by in the topology."""


def finalize(value: object) -> object:
    """What the page shows of ``value``: text loses all that is not printable, but for line ends and tabs."""
    if isinstance(value, Markup) or not isinstance(value, str) or value.isprintable():
        return value
    return "\n".join(
        "\t".join(plain(part) for part in line.split("\t")) for line in value.replace("\r\n", "\n").split("\n")
    )


def amount(value: float, unit: str) -> str:
    """``1.5 GB``, ``400 MB``, ``0.5 cores``."""
    if unit == "units":
        return f"{value / 1024:.2g}" + (" core" if value == 1024 else " cores")
    return f"{value / 1024:.3g} GB" if value >= 1024 else f"{value:g} MB"


def moment(text: str) -> datetime.datetime | None:
    """The time that ``text`` (UTC, as in events) says; None if it says none."""
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


def when(text: str) -> Markup:
    """A time as people think of it, with the exact one on hovering; the page's script keeps it true."""
    found = moment(text)
    if found is None:
        return escape(str(finalize(text)))
    exact = found.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    seconds = SystemClock().wall() - found.timestamp()
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(exact, _ago(seconds))


def _ago(seconds: float) -> str:
    """As ``ago`` in static/sked.js."""
    if seconds < 0:
        return f"in {_long(-seconds)}" if seconds < -1 else "now"
    return f"{_long(seconds)} ago"


def _long(seconds: float) -> str:
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {name}"
    return f"{int(seconds)} s"


def pretty(value: Any) -> str:
    """JSON for people; of bytes that are none, the text."""
    if isinstance(value, bytes):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return str(value, errors="backslashreplace")
    text: str = json.dumps(value, indent=2, ensure_ascii=False)
    return text


def subject(text: str) -> Markup:
    """``service/web`` as a link to its page, where there is one."""
    kind, _, name = text.partition("/")
    shown = escape(finalize(text))
    if kind not in KINDS or not name or "/" in name:
        return shown
    return Markup('<a href="{}{}">{}</a>').format(KINDS[kind], name, shown)


def bar(*parts: tuple[str, float]) -> Markup:
    """A bar of (class, percent) pieces. Widths are attributes of SVG, since the page allows no inline style."""
    at, pieces = 0.0, Markup("")
    for name, percent in parts:
        width = max(0.0, min(percent, 100.0 - at))
        pieces += Markup('<rect class="{}" x="{:.2f}" y="0" width="{:.2f}" height="1"/>').format(name, at, width)
        at += width
    return Markup('<svg class="bar" viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true">{}</svg>').format(
        pieces
    )


def quoted(text: str) -> str:
    """``text`` as one word of a command line."""
    import shlex

    return shlex.quote(text)
