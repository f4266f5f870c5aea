"""Printing: tables that scripts have parsed for years, one JSON document, and nothing that can drive a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import click

from sked_core.model.spec import plain

GAP = 5


def cell(value: object) -> str:
    """A value as it stands in a table: booleans in lower case, lists joined."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return plain(", ".join(str(item) for item in value))
    return plain(str(value))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Each column is as wide as its longest cell plus five spaces, the last one too; then a rule of that width."""
    cells = [[cell(value) for value in row] for row in rows]
    widths = [
        max(len(name), *(len(row[index]) for row in cells)) + GAP if cells else len(name) + GAP
        for index, name in enumerate(columns)
    ]
    lines = [list(columns), *cells]
    text = ["".join(value.ljust(width) for value, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([text[0], "-" * sum(widths), *text[1:]])


def document(kind: str, items: Sequence[object]) -> str:
    """The JSON document of a listing."""
    import msgspec

    encoded = msgspec.json.encode({"api": "sked/v1", "kind": kind, "items": items})
    return msgspec.json.format(encoded, indent=2).decode()


def out(text: str) -> None:
    """A line of data."""
    click.echo(text)


def note(text: str) -> None:
    """A line for people."""
    if sys.stdout is not None:  # closed by the caller
        sys.stdout.flush()
    click.echo(text, err=True)
