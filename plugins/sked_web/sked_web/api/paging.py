"""Pages of lists that stay in place while the lists change: a cursor names the last item that was given out."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Annotated, Generic, TypeVar

from msgspec import Meta, Struct

from sked_core.client.held import order
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


class Indexed(Generic[T]):
    """Items in natural order of their names, among which the beginning of a page is found without a look at all."""

    def __init__(self, items: Iterable[tuple[str, T]]) -> None:
        ordered = sorted((order(name), name, item) for name, item in items)
        self._orders = [one[0] for one in ordered]
        self.items = [(name, item) for _, name, item in ordered]

    def page(self, asked: Page, wanted: Callable[[T], bool]) -> tuple[list[T], str]:
        """As ``page``."""
        start = bisect_right(self._orders, order(name_of(asked.cursor))) if asked.cursor else 0
        rest = islice(self.items, start, None)
        found, more = page(rest, Page(limit=asked.limit), lambda pair: pair[0], lambda pair: wanted(pair[1]))
        return [item for _, item in found], more
