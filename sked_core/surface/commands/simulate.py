"""``sked simulate``: where everything would go if hosts were lost, services were larger, and the like."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import click

from sked_core.client import outcomes
from sked_core.client.looking.simulating import Simulated, Wishes
from sked_core.client.looking.simulating import simulate as simulated
from sked_core.model.spec import plain
from sked_core.model.wording import counted
from sked_core.runtime.sources import load_sources
from sked_core.surface.completing import hosts
from sked_core.surface.courses import course_lines
from sked_core.surface.options import command, files_option, output_option, session
from sked_core.surface.render import emit, note, out, table


@command(
    "simulate",
    "sked simulate --lose web-1",
    "sked simulate --scale web=10 --add-host h9:memory=8g,cpu=4",
    "sked simulate --scheduler binpack --afresh  # how few hosts would do",
)
@click.option("--lose", metavar="HOST", multiple=True, shell_complete=hosts, help="Without this host; repeatable.")
@click.option(
    "--drain", metavar="HOST", multiple=True, shell_complete=hosts, help="With this host drained; repeatable."
)
@click.option(
    "--add-host",
    "add",
    metavar="NAME[:WHAT]",
    multiple=True,
    help="With one more host, as in h9:memory=8g,cpu=4,disk=100g,tag.zone=a,like=h1; repeatable.",
)
@click.option("--scale", metavar="SERVICE=N", multiple=True, help="With so many tasks of a service; repeatable.")
@click.option("--scheduler", metavar="[SERVICE=]NAME", multiple=True, help="Placed by this scheduler; repeatable.")
@click.option("--afresh", is_flag=True, help="With every task placed anew, as if none ran yet.")
@files_option(required=False)
@output_option
def simulate(output: str, files: Sequence[str], **wishes: Any) -> int:
    """Say where everything would go, on a copy of the live state: nothing is written, and nothing happens.

    The options combine: hosts are added first, then come manifests, counts and schedulers, then hosts that are lost or
    drained. Exit code 8 if some task would find no host.
    """
    wanted = Wishes(**wishes)
    if wanted.none() and not files:
        raise click.UsageError(
            "what if what? Give one of --lose, --drain, --add-host, --scale, --scheduler, -f, --afresh"
        )
    with session() as sked:
        sources = load_sources(files, sys.stdin.buffer) if files else ()
        found = simulated(sked, replace(wanted, sources=sources))
    for line in found.notes():
        note(plain(f"note: {line}"))
    if output == "json":
        emit("Simulation", [found.json()])
    else:
        for text in _lines(found):
            out(text)
    return outcomes.UNPLACED if found.after.unplaced() else 0


def _lines(what: Simulated) -> Iterator[str]:
    found = what.after
    courses = {pair: course for pair, course in found.courses.items() if not course.quiet}
    if courses:
        yield from course_lines(courses)
        yield ""
    stay = sum(len(course.stay) for course in found.courses.values())
    yield f"{counted(stay, 'task')} stay; {counted(len(found.courses) - len(courses), 'service')} as now"
    unplaced = found.unplaced()
    yield f"{counted(unplaced, 'task')} without a place" if unplaced else "every task has a place"
    yield ""
    rows = [
        (
            row["host"],
            row["state"],
            _step(row["tasks"]),
            f"{_step(row['memory'])} of {row['memory_total']} MB",
            f"{_step(row['cpu_units'])} of {row['cpu_units_total']}",
        )
        for row in what.fullness()
    ]
    yield from table(("host", "state", "tasks", "memory", "cpu"), rows).splitlines()


def _step(pair: Sequence[int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]} -> {pair[1]}"
