"""What if: where everything would go if hosts were lost, services were larger, and the like. Nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sked_core.client.looking.foresight import caveats, course_json, live_world, schedulers_of, thought_out
from sked_core.client.notices import notice
from sked_core.client.session import Session
from sked_core.errors import InvalidValue
from sked_core.logic import what_if
from sked_core.logic.apply import plan_apply
from sked_core.logic.presence import most_lost
from sked_core.logic.projection import Projection, project
from sked_core.logic.review import declared
from sked_core.logic.world import Pair, World
from sked_core.model.manifest import StoredConfig
from sked_core.model.spec import known, plain
from sked_core.model.validate import validate
from sked_core.model.wording import counted, natural
from sked_core.model.yaml_source import Source
from sked_core.runtime.plugins.asked import spec_checkers
from sked_core.runtime.scheduling.live_world import Live


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is to be different. ``lose`` and ``drain``: hosts; ``add``: hosts as in ``h9:memory=8g,cpu=4,like=h1``;
    ``scale``: ``SERVICE=N``; ``scheduler``: ``[SERVICE=]NAME``; ``sources``: manifests; ``afresh``: every task placed
    anew."""

    lose: Sequence[str] = ()
    drain: Sequence[str] = ()
    add: Sequence[str] = ()
    scale: Sequence[str] = ()
    scheduler: Sequence[str] = ()
    sources: Sequence[Source] = ()
    afresh: bool = False

    def none(self) -> bool:
        wishes = (self.lose, self.drain, self.add, self.scale, self.scheduler, self.sources)
        return not any(wishes) and not self.afresh


@dataclass(frozen=True, slots=True)
class Simulated:
    """``before``: where everything goes without any of it; ``after``: with it."""

    before: Projection
    after: Projection

    def notes(self) -> Iterator[str]:
        """What has to be known to judge it."""
        yield from caveats(self.after)
        hosts = self.after.after.hosts
        lost, most = sum(view.lost for view in hosts.values()), most_lost(len(hosts))
        if lost > most:
            more = f"of more than {most} schedulers believe it only after ten minutes"
            yield f"this shows the loss of {lost} hosts; {more}"
        anyway = len(self._anyway())
        if anyway:
            yield f"without any of this {counted(anyway, 'service')} would change too: that is part of what is shown"

    def _anyway(self) -> list[Pair]:
        return [pair for pair, course in self.before.courses.items() if course.changes]

    def json(self) -> dict[str, Any]:
        """What ``sked simulate -o json`` prints."""
        return {
            "unplaced": self.after.unplaced(),
            "complete": self.after.ended,
            "services": [course_json(pair, course) for pair, course in self.after.courses.items()],
            "hosts": self.fullness(),
            "changing_anyway": [{"cluster": cluster, "service": service} for cluster, service in self._anyway()],
            "notes": list(caveats(self.after)),
        }

    def fullness(self) -> list[dict[str, Any]]:
        """Each host with what is reserved there, now and in the end."""
        projection, real = self.after, self.after.before
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


def simulate(sked: Session, wanted: Wishes) -> Simulated:
    """Where everything would go on a copy of the live state. Raises NotFound, InvalidValue, InvalidManifest,
    PluginError, Unavailable."""
    live = live_world(sked)
    world = _world(sked, live, wanted)
    found = schedulers_of(sked, world)
    return thought_out(
        sked, found, lambda: Simulated(project(live.world, found), project(world, found, since=live.world))
    )


def _world(sked: Session, live: Live, wanted: Wishes) -> World:
    """The world that is asked for. Raises NotFound, InvalidValue, InvalidManifest."""
    world = live.world
    for text in wanted.add:
        world = what_if.add_host(world, text)
    if wanted.sources:
        stored = StoredConfig.from_values({key: entry.value for key, entry in live.config.items()})
        stored = replace(stored, hosts={name: view.host for name, view in world.hosts.items()})
        manifest = validate(
            wanted.sources,
            stored=stored,
            executors=spec_checkers(sked.plugins),
            schedulers=sked.plugins.names("scheduler"),
        )
        for problem in manifest.warnings:
            notice(plain(str(problem)))
        world = declared(world, plan_apply(manifest, live.config))
    for text in wanted.scale:
        service, _, count = text.rpartition("=")
        if not service or not (count.isascii() and count.isdecimal() and len(count) <= 20):
            raise InvalidValue(f"expected SERVICE=N such as web=5, got {plain(text[:80])}")
        world = what_if.scale(world, service, int(count))
    for text in wanted.scheduler:
        service, _, scheduler = text.rpartition("=")
        world = what_if.place_by(world, known("scheduler", scheduler, sked.plugins.names("scheduler")), service)
    for host in wanted.lose:
        world = what_if.lose(world, host)
    for host in wanted.drain:
        world = what_if.drain(world, host)
    return what_if.afresh(world) if wanted.afresh else world


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
