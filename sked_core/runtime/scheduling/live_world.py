"""The state of a store as one World, for whoever wants to know what would become of it. Nothing is written."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sked_core.interfaces.health import HealthProvider, by_host
from sked_core.interfaces.store import Entry, Revision, Store
from sked_core.logic.fleet import HostView
from sked_core.logic.presence import Absences
from sked_core.logic.world import PortsOf, World
from sked_core.model import keys
from sked_core.model.types import Host, Mark
from sked_core.runtime.scheduling.decoded import Decoded, Records
from sked_core.runtime.state import decode_task


@dataclass(frozen=True, slots=True)
class Live:
    """What was read: the ``world``, the entries of ``config/`` that it was made from, and when everything that it rests
    on was last written, by key. Whatever changes once all was read has a higher revision than ``since``."""

    world: World
    config: Mapping[str, Entry]
    revisions: Mapping[str, Revision]
    since: Revision


def read_world(store: Store, ports_of: PortsOf, health: HealthProvider | None = None) -> Live:
    """Read it now. ``health``: None where it does not matter. Raises Unavailable.

    A host without a living agent is taken to be away for good, so it is lost, if schedulers would believe that: see
    ``Absences``. A drain with a deadline is taken to have reached it.
    """
    prefixes = (keys.CONFIG, keys.HOST_STATES, keys.ROLLOUTS, keys.MOVES, keys.SERVICE_STATUS)
    reads = {prefix: store.read(prefix) for prefix in (*prefixes, keys.TASKS)}
    config, states = reads[keys.CONFIG].entries, reads[keys.HOST_STATES].entries
    records, tasks = Records(), Decoded(decode_task)
    records.take({key: entry for prefix in prefixes for key, entry in reads[prefix].entries.items()})
    tasks.take(reads[keys.TASKS].entries)
    alive = frozenset(keys.last_segment(key) for key in states if key.startswith(keys.LIVE))
    issued = {one.id: one for one in tasks.objects.values()}
    pairs = {(one.task.cluster.name, one.task.service) for one in issued.values()}
    world = World(
        services={one.name: one for one in records.services.objects.values()},
        clusters={one.name: one for one in records.clusters.objects.values()},
        definitions={(one.name, one.version): one for one in records.definitions.objects.values()},
        hosts=_views(
            [one for _, one in sorted(records.hosts.objects.items())],
            alive,
            {keys.last_segment(key): mark for key, mark in records.marks.objects.items()},
        ),
        issued=issued,
        health=health.health(pairs, by_host(one.task for one in issued.values()))
        if health is not None and pairs
        else {},
        owners={keys.last_segment(key): one.scheduler for key, one in records.statuses.objects.items()},
        moves={keys.last_segment(key): one for key, one in records.moves.objects.items()},
        rollouts={keys.last_segment(key): one for key, one in records.rollouts.objects.items()},
        faults=records.faults() | tasks.faults,
        ports_of=ports_of,
    )
    matters = (keys.CONFIG, keys.HOST_STATES, keys.ROLLOUTS, keys.MOVES, keys.TASKS)
    revisions = {key: entry.revision for prefix in matters for key, entry in reads[prefix].entries.items()}
    return Live(world, config, revisions, Revision(max(one.revision for one in reads.values())))


def _views(hosts: Collection[Host], alive: Collection[str], marks: Mapping[str, Mark]) -> dict[str, HostView]:
    absences, names = Absences(lost_after=0.0), [host.name for host in hosts]
    if any(name in alive for name in names):
        absences.update(names, alive, 0.0)
    views = {}
    for host in hosts:
        mark = marks.get(host.name)
        forced = mark is not None and mark.state == "draining" and (mark.force or mark.deadline > 0)
        state = mark.state if mark else ""
        views[host.name] = HostView(host, host.name in alive, absences.lost(host.name), state, forced)
    return views
