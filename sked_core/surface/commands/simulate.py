"""``sked simulate``: where everything would go if hosts were lost, services were larger, and the like."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from sked_core.client import outcomes
from sked_core.client.foresight import caveats, course_json, live_world, schedulers_of
from sked_core.client.session import Session
from sked_core.client.wording import counted, natural
from sked_core.logic import what_if
from sked_core.logic.apply import plan_apply
from sked_core.logic.presence import most_lost
from sked_core.logic.projection import Projection, project
from sked_core.logic.review import declared
from sked_core.logic.world import Pair, World
from sked_core.model.manifest import StoredConfig
from sked_core.model.spec import known, plain
from sked_core.model.validate import validate
from sked_core.runtime.live_world import Live
from sked_core.runtime.sources import load_sources
from sked_core.surface.courses import course_lines
from sked_core.surface.options import command, files_option, output_option, session
from sked_core.surface.render import document, note, out, table


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is to be different, as given on the command line."""

    lose: Sequence[str]
    drain: Sequence[str]
    add: Sequence[str]
    scale: Sequence[str]
    scheduler: Sequence[str]
    files: Sequence[str]
    afresh: bool

    def none(self) -> bool:
        wishes = (self.lose, self.drain, self.add, self.scale, self.scheduler, self.files)
        return not any(wishes) and not self.afresh


@command("simulate")
@click.option("--lose", metavar="HOST", multiple=True, help="Without this host; repeatable.")
@click.option("--drain", metavar="HOST", multiple=True, help="With this host drained; repeatable.")
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
def simulate(output: str, **wishes: Any) -> int:
    """Say where everything would go, on a copy of the live state: nothing is written, and nothing happens.

    The options combine: hosts are added first, then come manifests, counts and schedulers, then hosts that are lost or
    drained. Exit code 8 if some task would find no host.
    """
    wanted = Wishes(**wishes)
    if wanted.none():
        raise click.UsageError(
            "what if what? Give one of --lose, --drain, --add-host, --scale, --scheduler, -f, --afresh"
        )
    with session() as sked:
        live = live_world(sked)
        world = _world(sked, live, wanted)
        found = schedulers_of(sked, world)
    before, projection = project(live.world, found), project(world, found, since=live.world)
    for line in (*caveats(projection), *_notes(world, before)):
        note(plain(f"note: {line}"))
    if output == "json":
        out(document("Simulation", [_json(projection, before)]))
    else:
        for text in _lines(projection):
            out(text)
    return outcomes.UNPLACED if projection.unplaced() else 0


def _world(sked: Session, live: Live, wanted: Wishes) -> World:
    """The world that is asked for. Raises NotFound, InvalidValue, InvalidManifest."""
    world = live.world
    for text in wanted.add:
        world = what_if.add_host(world, text)
    if wanted.files:
        stored = StoredConfig.from_values({key: entry.value for key, entry in live.config.items()})
        stored = replace(stored, hosts={name: view.host for name, view in world.hosts.items()})
        manifest = validate(
            load_sources(wanted.files, sys.stdin.buffer),
            stored=stored,
            executors=sked.plugins.spec_checkers(),
            schedulers=sked.plugins.names("scheduler"),
        )
        for problem in manifest.warnings:
            note(plain(str(problem)))
        world = declared(world, plan_apply(manifest, live.config))
    for text in wanted.scale:
        service, _, count = text.rpartition("=")
        if not service or not (count.isascii() and count.isdecimal() and len(count) <= 20):
            raise click.UsageError(f"--scale: expected SERVICE=N such as web=5, got {plain(text[:80])}")
        world = what_if.scale(world, service, int(count))
    for text in wanted.scheduler:
        service, _, scheduler = text.rpartition("=")
        world = what_if.place_by(world, known("scheduler", scheduler, sked.plugins.names("scheduler")), service)
    for host in wanted.lose:
        world = what_if.lose(world, host)
    for host in wanted.drain:
        world = what_if.drain(world, host)
    return what_if.afresh(world) if wanted.afresh else world


def _notes(world: World, before: Projection) -> Iterator[str]:
    lost, most = sum(view.lost for view in world.hosts.values()), most_lost(len(world.hosts))
    if lost > most:
        yield f"this shows the loss of {lost} hosts; of more than {most} schedulers believe it only after ten minutes"
    anyway = sum(course.changes for course in before.courses.values())
    if anyway:
        yield f"without any of this {counted(anyway, 'service')} would change too: that is part of what is shown"


def _lines(found: Projection) -> Iterator[str]:
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
        for row in _fullness(found)
    ]
    yield from table(("host", "state", "tasks", "memory", "cpu"), rows).splitlines()


def _step(pair: Sequence[int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]} -> {pair[1]}"


def _fullness(projection: Projection) -> list[dict[str, Any]]:
    """Each host with what is reserved there, now and in the end."""
    real = projection.before
    now, then = _reserved(real), _reserved(projection.after)
    rows = []
    for name in sorted(projection.after.hosts, key=natural):
        view = projection.after.hosts[name]
        row: dict[str, Any] = {"host": name, "state": _state(real, projection.after, name)}
        for what, total in (("tasks", None), ("memory", view.host.memory), ("cpu_units", view.host.cpu_units)):
            row[what] = [now[what, name], then[what, name]]
            row |= {} if total is None else {f"{what}_total": total}
        rows.append(row)
    return rows


def _reserved(world: World) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for one in world.issued.values():
        task, definition = one.task, one.task.task_definition
        if not task.rejected and not (task.host in world.hosts and world.hosts[task.host].lost):
            found["tasks", task.host] += 1
            found["memory", task.host] += definition.total_memory
            found["cpu_units", task.host] += definition.total_cpu_units
    return found


def _state(real: World, world: World, name: str) -> str:
    view = world.hosts[name]
    state = "lost" if view.lost else "down" if not view.alive else view.mark or "ready"
    return "new" if name not in real.hosts and state == "ready" else state


def _json(projection: Projection, before: Projection) -> Mapping[str, Any]:
    anyway: list[Pair] = [pair for pair, course in before.courses.items() if course.changes]
    return {
        "unplaced": projection.unplaced(),
        "complete": projection.ended,
        "services": [course_json(pair, course) for pair, course in projection.courses.items()],
        "hosts": _fullness(projection),
        "changing_anyway": [{"cluster": cluster, "service": service} for cluster, service in anyway],
        "notes": list(caveats(projection)),
    }
