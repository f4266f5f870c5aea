"""Printing: tables that scripts have parsed for years, documents for programs, nothing that can drive a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

from sked_core.model.spec import escaped, plain

GAP = 5
PROGRAMS = ("json", "jsonl", "yaml")
"""Formats of documents. Commands are told json for any of them, and print by ``emit``."""
_FORMAT = "sked.format"


def choose(ctx: click.Context, _param: click.Parameter, value: str) -> str:
    """Callback of ``-o``: remembers the format for ``emit``."""
    ctx.meta[_FORMAT] = value
    return "json" if value in PROGRAMS else value


def chosen() -> str:
    """The format that was asked for; json where the command has no ``-o``."""
    ctx = click.get_current_context(silent=True)
    found: str = ctx.meta.get(_FORMAT, "json") if ctx is not None else "json"
    return found


def cell(value: object) -> str:
    """A value as it stands in a table: booleans in lower case, lists joined."""
    if type(value) is str:
        return plain(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return plain(", ".join(str(item) for item in value))
    return plain(str(value))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Each column is as wide as its longest cell plus five spaces, the last one too; then a rule of that width."""
    cells = [[cell(value) for value in row] for row in rows]
    widths = [len(name) for name in columns]
    for line in cells:
        for index, text in enumerate(line):
            if len(text) > widths[index]:
                widths[index] = len(text)
    layout = "".join(f"{{:<{width + GAP}}}" for width in widths)
    rule = "-" * sum(width + GAP for width in widths)
    return "\n".join([layout.format(*columns), rule, *(layout.format(*line) for line in cells)])


def document(kind: str, items: Sequence[object]) -> str:
    """A listing for programs: one document in JSON or YAML, or a line of JSON for each item."""
    return _encoded(kind, items).decode()


def emit(kind: str, items: Sequence[object]) -> None:
    """Print a listing for programs, in the format that was asked for."""
    if items or chosen() != "jsonl":
        click.echo(_encoded(kind, items))


def refuse_document() -> None:
    """Raise UsageError unless what programs get is lines."""
    if chosen() != "jsonl":
        raise click.UsageError("a document has an end, what is watched has none: -o jsonl")


def json_line(item: object) -> str:
    """One item, as a line."""
    import msgspec

    return escaped(msgspec.json.encode(item).decode())


def _encoded(kind: str, items: Sequence[object]) -> bytes:
    import msgspec

    whole: dict[str, Any] = {"api": "sked/v1", "kind": kind, "items": items}
    match chosen():
        case "jsonl":
            return escaped(b"\n".join(map(msgspec.json.Encoder().encode, items)).decode()).encode()
        case "yaml":
            import yaml

            dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
            # What is not ASCII is written as escapes: some of it turns text around on a terminal.
            found: bytes = yaml.dump(
                msgspec.to_builtins(whole), Dumper=dumper, sort_keys=False, encoding="ascii", width=120
            )
            return found.rstrip(b"\n")
        case _:
            return escaped(msgspec.json.format(msgspec.json.encode(whole), indent=2).decode()).encode()


def in_yaml(value: object) -> str:
    """Plain data as a person would write it into a file."""
    import yaml

    text: bytes = yaml.safe_dump(value, sort_keys=False, encoding="ascii", width=120)
    return text.decode().rstrip("\n")


def on_terminal() -> bool:
    """Whether a person looks at standard output."""
    return sys.stdout is not None and sys.stdout.isatty()


def in_colour() -> bool:
    """Whether standard output may have colours."""
    return on_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def out(text: str) -> None:
    """A line of data."""
    click.echo(text)


def note(text: str) -> None:
    """A line for people."""
    if sys.stdout is not None:  # closed by the caller
        sys.stdout.flush()
    click.echo(text, err=True)
