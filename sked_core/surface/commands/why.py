"""``sked why``: the story of one task, dead or alive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from sked_core.client.looking.stories import Story, story, story_json
from sked_core.model.spec import plain
from sked_core.surface.completing import tasks
from sked_core.surface.options import command, output_option, session
from sked_core.surface.render import emit, out

FIRST, LAST = 3, 12
"""How many things that happened to it are shown, of its beginning and of its end."""
FEW_LINES = 3
"""Of what a task wrote before it ended, where that is not its last end."""


@command(
    "why",
    "sked why default-web-3-0",
    "sked why default-web-3-0 --all  # all that happened, and all lines that are kept",
    "sked why default-web-3-0 -o json | jq '.items[0].endings'",
)
@click.argument("task", shell_complete=tasks)
@click.option("--all", "every", is_flag=True, help="All that happened, and all lines that are kept.")
@output_option
def why(task: str, every: bool, output: str) -> None:
    """Tell the story of TASK: how it is or how it ended, what happened to it from the start, and what to do next.

    It may be long gone: how tasks ended is kept by each host, the last 32 ends or so.
    """
    with session() as sked:
        told = story(sked, task)
    if output == "json":
        return emit("StoryList", [story_json(told)])
    for line in lines(told, every=every):
        out(plain(line))
    return None


def lines(told: Story, *, every: bool) -> Iterator[str]:
    """The story for people, how it is now first."""
    yield told.headline
    if told.health is not None and not told.health.healthy and told.state != "healthy":
        yield from (f"  check: {line}" for line in told.health.output.splitlines())
    yield ""
    if not told.moments:
        yield "  nothing is kept of what happened to it"
    last = max((number for number, one in enumerate(told.moments) if one.what == "ended"), default=-1)
    hidden = range(0) if every else range(FIRST, max(FIRST, len(told.moments) - LAST))
    for number, one in enumerate(told.moments):
        if number in hidden and number != last:
            if number == hidden[0]:
                yield f"  … {len(hidden)} more, with --all"
            continue
        who = f" ({one.who})" if one.who and one.who != f"agent {one.host}" else ""
        yield f"  {one.at or 'some time'}  {one.text}{who}"
        yield from (f"    {line}" for line in _details(one.details, full=every or number == last))
    if told.advice:
        yield ""
        width = max(len(one.command) for one in told.advice)
        yield from (f"  {one.command.ljust(width)}  {one.why}" for one in told.advice)


def _details(details: Sequence[str], *, full: bool) -> Sequence[str]:
    if full or len(details) <= FEW_LINES:
        return details
    return [f"… ({len(details) - FEW_LINES} more lines: --all)", *details[-FEW_LINES:]]
