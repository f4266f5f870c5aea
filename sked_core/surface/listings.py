"""Listings in every format: what a command says of its rows, once, for tables, names and programs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sked_core.surface.render import cell, emit, in_colour, on_terminal, out, table

GAP = 2
LEAST = 8
"""Columns are not cut to less."""
COLOURS = {"good": "\x1b[32m", "warn": "\x1b[33m", "bad": "\x1b[31m", "dim": "\x1b[2m"}
PLAIN = "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Column:
    """``of``: the cell of a row. ``wide``: only for ``-o wide``. ``look``: how it is, one of COLOURS, or nothing."""

    title: str
    of: Callable[[Any], object]
    wide: bool = False
    look: Callable[[Any], str] | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """``kind``: of the document; ``name``: ``kind/name`` of a row, as `sked describe` takes it; ``json``: a row for
    programs; ``spread``: the lines that a row has in the table, each of which the columns are made of."""

    kind: str
    name: Callable[[Any], str]
    json: Callable[[Any], Mapping[str, Any]]
    columns: Sequence[Column]
    spread: Callable[[Any], Iterable[Any]] = lambda row: (row,)

    def shown(self, output: str) -> list[Column]:
        """The columns for ``output``."""
        return [one for one in self.columns if output == "wide" or not one.wide]

    def lines(self, rows: Iterable[Any]) -> list[Any]:
        return [line for row in rows for line in self.spread(row)]


def show(listing: Listing, rows: Sequence[Any], output: str) -> None:
    """Print ``rows`` as ``output`` asks for."""
    if output == "json":
        return emit(listing.kind, [listing.json(row) for row in rows])
    if output == "name":
        names = "\n".join(listing.name(row) for row in rows)
        return out(names) if rows else None
    return out("\n".join(tabled(listing, rows, output=output, colour=in_colour())))


def tabled(listing: Listing, rows: Sequence[Any], *, output: str = "table", colour: bool = False) -> list[str]:
    """The lines of the table, for whatever standard output is."""
    columns, lines = listing.shown(output), listing.lines(rows)
    titles, cells = [one.title for one in columns], [[one.of(line) for one in columns] for line in lines]
    if not on_terminal():
        return table(titles, cells).splitlines()
    looks = [[one.look(line) if one.look else "" for one in columns] for line in lines] if colour else []
    return fitted(titles, cells, shutil.get_terminal_size().columns - 1, looks)


def fitted(
    titles: Sequence[str], rows: Sequence[Sequence[object]], width: int, looks: Sequence[Sequence[str]] = ()
) -> list[str]:
    """A table for a terminal of ``width`` columns: the widest columns but the first, which is to be copied, are cut as
    far as it takes. What still does not fit is left to the terminal. ``looks``: of each cell, if there are any."""
    cells = [list(titles), *([cell(value) for value in row] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(titles))]
    while len(widths) > 1 and sum(widths) + GAP * (len(widths) - 1) > width:
        index = max(range(1, len(widths)), key=lambda one: widths[one])
        over = sum(widths) + GAP * (len(widths) - 1) - width
        next_widest = max((one for at, one in enumerate(widths) if at not in (0, index)), default=LEAST)
        least = max(LEAST, min(len(titles[index]), 12))
        if widths[index] <= least:
            break
        widths[index] = max(least, widths[index] - max(1, min(over, widths[index] - next_widest)))
    found = []
    for number, line in enumerate(cells):
        texts = [_cut(text, width) for text, width in zip(line, widths, strict=True)]
        padded = [text.ljust(width) for text, width in zip(texts[:-1], widths[:-1], strict=True)] + texts[-1:]
        if looks and number:
            padded = [coloured(text, look) for text, look in zip(padded, looks[number - 1], strict=True)]
        elif looks:
            padded = [coloured(text, "dim") for text in padded]
        found.append((" " * GAP).join(padded).rstrip())
    return found


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def wrapped(text: str, first: str, rest: str, look: str = "") -> Iterator[str]:
    """``text`` in lines that begin with ``first`` and then ``rest``, as wide as the terminal; one elsewhere."""
    if not on_terminal():
        yield f"{first}{text}"
        return
    import textwrap

    width = max(40, min(120, shutil.get_terminal_size().columns - 1))
    for line in textwrap.wrap(text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False):
        yield coloured(line, look)


def coloured(text: str, look: str) -> str:
    """``text`` in the colour of ``look`` (one of COLOURS), or as it is."""
    return f"{COLOURS[look]}{text}{PLAIN}" if look else text
