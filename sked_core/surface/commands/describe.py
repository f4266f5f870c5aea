"""``sked describe``: all that one wants to know of one object, on one screen."""

from __future__ import annotations

import click

from sked_core.client.describing import Part, described_json
from sked_core.client.describing import describe as described
from sked_core.model.spec import plain
from sked_core.surface.listings import wrapped
from sked_core.surface.options import command, output_option, session
from sked_core.surface.render import cell, emit, out

GAP = "  "


@command(
    "describe",
    "sked describe service/web",
    "sked describe host/web-1",
    "sked describe task/default-web-3-0",
    "sked describe task_definition/web/3 -o yaml",
    "sked describe rollout/web",
)
@click.argument("target", metavar="KIND/NAME")
@output_option
def describe(target: str, output: str) -> None:
    """Describe service/NAME, cluster/NAME, host/NAME, task/ID, task_definition/NAME[/VERSION] or rollout/SERVICE.

    What is declared, how it is, what goes with it and what happened lately, on one screen. A task may be gone.
    """
    with session() as sked:
        found = described(sked, target)
    if output == "json":
        return emit("DescriptionList", [described_json(found)])
    out(plain(f"{found.kind} {found.name}"))
    width = max(len(label) for label, _ in found.facts)
    for label, value in found.facts:
        for line in wrapped(cell(value), f"{GAP}{plain(label):<{width}}{GAP}", GAP + " " * width + GAP):
            out(line)
    for part in found.parts:
        if part.rows:
            out("")
            out(f"{part.title}:")
            for line in (*_lines(part), *filter(None, [part.note and f"{GAP}{part.note}"])):
                out(line)
    if found.more:
        out("")
        out("more:")
        for line in found.more:
            out(plain(f"{GAP}{line}"))
    return None


def _lines(part: Part) -> list[str]:
    rows = [[cell(value) for value in row] for row in ([part.columns, *part.rows] if part.columns else part.rows)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return [
        (GAP + GAP.join(text.ljust(width) for text, width in zip(row, widths, strict=True))).rstrip() for row in rows
    ]
