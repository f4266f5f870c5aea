"""``sked describe``: all that one wants to know of one object, on one screen."""

from __future__ import annotations

from collections.abc import Iterator

import click

from sked_core.client.looking.describing import Described, Part, described_json, told_apart
from sked_core.client.looking.describing import describe as described
from sked_core.model.spec import plain
from sked_core.surface.completing import things
from sked_core.surface.listings import wrapped
from sked_core.surface.options import command, output_option, session, watch_option
from sked_core.surface.presenting import present_lines
from sked_core.surface.render import cell

GAP = "  "


@command(
    "describe",
    "sked describe service/web",
    "sked describe default-web-3  # as much of a name as is unique",
    "sked describe host/web-1 -w",
    "sked describe task/default-web-3-0",
    "sked describe task_definition/web/3 -o yaml",
    "sked describe rollout/web",
)
@click.argument("target", metavar="[KIND/]NAME", shell_complete=things)
@watch_option
@output_option
def describe(target: str, watch: bool, output: str) -> None:
    """Describe service/NAME, cluster/NAME, host/NAME, task/ID, task_definition/NAME[/VERSION] or rollout/SERVICE.

    What is declared, how it is, what goes with it and what happened lately, on one screen. A task may be gone. Without
    a kind, whatever has that name; as much of a name as is unique is enough.
    """
    with session() as sked:
        name = "/".join(told_apart(sked, target)) if watch else target
        present_lines(
            sked,
            "DescriptionList",
            lambda seen: [described_json(described(seen, name))],
            lambda seen: _text(described(seen, name)),
            output,
            watch=watch,
        )


def _text(found: Described) -> Iterator[str]:
    yield plain(f"{found.kind} {found.name}")
    width = max(len(label) for label, _ in found.facts)
    for label, value in found.facts:
        yield from wrapped(cell(value), f"{GAP}{plain(label):<{width}}{GAP}", GAP + " " * width + GAP)
    for part in found.parts:
        if part.rows:
            yield ""
            yield f"{part.title}:"
            yield from (*_lines(part), *filter(None, [part.note and f"{GAP}{part.note}"]))
    if found.more:
        yield ""
        yield "more:"
        yield from (plain(f"{GAP}{line}") for line in found.more)


def _lines(part: Part) -> list[str]:
    rows = [[cell(value) for value in row] for row in ([part.columns, *part.rows] if part.columns else part.rows)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return [
        (GAP + GAP.join(text.ljust(width) for text, width in zip(row, widths, strict=True))).rstrip() for row in rows
    ]
