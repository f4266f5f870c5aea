"""What plans and what-ifs have in common: the live state, and where tasks would go."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, TypeVar

from sked_core.client.session import Session
from sked_core.errors import PluginError
from sked_core.interfaces.scheduler import Scheduler
from sked_core.logic.projection import Course, Projection
from sked_core.logic.world import Pair, World
from sked_core.model.types import Service, Task
from sked_core.model.wording import counted
from sked_core.runtime.container_ports import ContainerPorts
from sked_core.runtime.plugins.asked import spec_checkers
from sked_core.runtime.scheduling.asked_schedulers import BUILT_IN
from sked_core.runtime.scheduling.live_world import Live, read_world

T = TypeVar("T")
THOUGHT_SECONDS = 60.0
"""How long it may take to think a whole fleet through where a plugin takes part: 5,000 hosts take some seconds."""


def live_world(sked: Session) -> Live:
    """The state of the store. Raises Unavailable."""
    health = sked.health()
    try:
        return read_world(sked.store, ContainerPorts(spec_checkers(sked.plugins)), health)
    finally:
        health.close()


def schedulers_of(sked: Session, world: World, services: Iterable[Service] = ()) -> dict[str, Scheduler]:
    """The schedulers that the services of ``world``, and some more, are placed by, as far as they are installed here
    and not broken."""
    wanted = {one.scheduler for one in (*world.services.values(), *services)} | set(world.owners.values())
    found: dict[str, Scheduler] = {}
    for name in sorted(wanted & set(sked.plugins.names("scheduler"))):
        try:
            found[name] = sked.plugins.scheduler(name)()
        except PluginError:
            continue  # as with one that is not installed: the courses of its services say so
    return found


def with_scheduler(
    sked: Session, name: str, function: Callable[[Scheduler, str], T], seconds: float | None = None
) -> T:
    """What ``function`` makes of the scheduler ``name``, and of what messages call it: its name, with its package.

    Raises PluginError, which names both, if nobody here provides it, and as ``thought_out`` does.
    """
    scheduler = sked.plugins.scheduler(name)()
    said = name if name == BUILT_IN else f"{name} of {sked.plugins.origin('scheduler', name)}"
    return thought_out(sked, [name], lambda: function(scheduler, said), seconds)


def thought_out(
    sked: Session, schedulers: Collection[str], function: Callable[[], T], seconds: float | None = None
) -> T:
    """What ``function`` returns, which asks ``schedulers``, within ``seconds`` (by default THOUGHT_SECONDS).

    Raises PluginError, and names them, where one of a plugin fails or hangs: a server is asked over and over.
    """
    strangers = sorted(set(schedulers) - {BUILT_IN})
    if not strangers:
        return function()
    who = " or ".join(f"scheduler {name} of {sked.plugins.origin('scheduler', name)}" for name in strangers)
    return sked.plugins.stranger(who).ask(function, seconds=THOUGHT_SECONDS if seconds is None else seconds)


def summary(course: Course) -> str:
    """``3 of 4 tasks placed: 2 stay, 1 new; 1 without a place``."""
    placed = len(course.stay) + len(course.moves) + len(course.new)
    stay = f"{len(course.stay)} stay" + (f" ({course.behind} of another version)" if course.behind else "")
    moved = sum(move.before.task_definition == move.after.task_definition for move in course.moves)
    replaced = len(course.moves) - moved
    counts = ((len(course.new), "new"), (moved, "moved"), (replaced, "replaced"), (len(course.gone), "stopped"))
    parts = [*([stay] if course.stay else []), *(f"{count} {what}" for count, what in counts if count)]
    text = f"{placed} of {counted(course.wanted, 'task')} placed" + (f": {', '.join(parts)}" if parts else "")
    if course.waiting:
        text += f"; {course.waiting} without a place"
    if course.fewest is not None and (course.moves or course.gone):
        text += f"; never fewer than {course.fewest} healthy on the way"
    return text + (f"; {course.note}" if course.note else "")


def course_json(pair: Pair, course: Course) -> dict[str, Any]:
    """The same for programs."""

    def at(task: Task) -> dict[str, str]:
        return {"id": task.id, "host": task.host}

    return {
        "cluster": pair[0],
        "service": pair[1],
        "wanted": course.wanted,
        "stay": [at(task) for task in course.stay],
        "stay_behind": course.behind,
        "new": [at(task) for task in course.new],
        "moves": [
            at(move.after) | {"replaces": move.before.id, "from": move.before.host, "why": move.why}
            for move in course.moves
        ],
        "stopped": [at(task) | {"why": why} for task, why in course.gone],
        "waiting": course.waiting,
        "refusals": {host: list(reasons) for host, reasons in course.refusals.items()},
        "blocked": course.blocked,
        "fewest_healthy": course.fewest,
        "note": course.note,
    }


def caveats(projection: Projection) -> Iterator[str]:
    """What has to be known to judge a projection."""
    world = projection.before
    for words, names in (
        ("is lost, unless its agent comes back: what runs there is placed anew", _down(world, lost=True)),
        ("has no living agent: its tasks are counted as staying", _down(world, lost=False)),
    ):
        yield from (f"{name} {words}" for name in names)
    yield from unreadable(world)
    if not projection.ended:
        yield "this is as far as it was followed: it takes more steps than are looked at"


def unreadable(world: World) -> Iterator[str]:
    """What stands in the store and can't be read, if anything."""
    if world.faults:
        yield f"left out, since it can't be read: {', '.join(sorted(world.faults))}"


def _down(world: World, *, lost: bool) -> Iterable[str]:
    hosts = {one.task.host for one in world.issued.values()}
    return (name for name, view in world.hosts.items() if name in hosts and not view.alive and view.lost == lost)
