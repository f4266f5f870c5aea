"""Pages of lists that stay in place while the lists change: a cursor names the last item that was given out."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import Annotated, TypeVar

from msgspec import Meta, Struct

from sked_core.client.picture import order
from sked_core.errors import InvalidValue

T = TypeVar("T")
MOST = 1000
MAX_CURSOR = 2000


class Page(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which part of a list: ``limit`` items at most, from behind ``cursor``, which is the ``next`` of an answer."""

    limit: Annotated[int, Meta(ge=1, le=MOST)] = 100
    cursor: Annotated[str, Meta(max_length=MAX_CURSOR)] = ""


def cursor_of(name: str) -> str:
    """The cursor that begins behind ``name``."""
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def name_of(cursor: str) -> str:
    """The name behind which a page begins; empty: the first. Raises InvalidValue for what is no cursor."""
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return data.decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise InvalidValue("cursor: not one that an answer gave as `next`") from None


def page(
    items: Iterable[T], asked: Page, name: Callable[[T], str], wanted: Callable[[T], bool] = lambda _: True
) -> tuple[list[T], str]:
    """The asked page of ``items``, which are in natural order of their names, and the cursor of the next one (empty:
    there is none). An item that stays is on exactly one page, whatever else comes and goes meanwhile."""
    after = order(name_of(asked.cursor)) if asked.cursor else None
    found: list[T] = []
    for item in items:
        if (after is not None and order(name(item)) <= after) or not wanted(item):
            continue
        if len(found) == asked.limit:
            return found, cursor_of(name(found[-1]))
        found.append(item)
    return found, ""
