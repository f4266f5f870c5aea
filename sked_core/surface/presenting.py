"""How a command shows what it looks at: once, or with ``-w`` again whenever it changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sked_core.client.session import Session
from sked_core.surface.listings import Listing, show
from sked_core.surface.options import session
from sked_core.surface.render import emit, out


def present(listing: Listing, rows: Callable[[Session], Sequence[Any]], output: str, *, watch: bool = False) -> None:
    """A listing of the ``rows`` that are found in the store."""
    with session() as sked:
        if watch:
            from sked_core.surface.watching import watch as follow

            return follow(sked, listing, rows, output)
        found = rows(sked)
    return show(listing, found, output)


def present_lines(
    sked: Session,
    kind: str,
    items: Callable[[Session], Sequence[Any]],
    lines: Callable[[Session], Iterable[str]],
    output: str,
    *,
    watch: bool = False,
) -> None:
    """``lines`` for people; for programs a document of this ``kind`` that holds ``items``."""
    if watch:
        from sked_core.surface.watching import watch_documents, watch_lines

        return watch_documents(sked, items) if output == "json" else watch_lines(sked, lambda seen: list(lines(seen)))
    if output == "json":
        return emit(kind, items(sked))
    return print_lines(lines(sked))


def print_lines(lines: Iterable[str]) -> None:
    """Lines of data, each as soon as it is there."""
    for line in lines:
        out(line)
