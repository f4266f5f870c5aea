"""The state of a store as one World, for whoever wants to know what would become of it. Nothing is written."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial

from sked_core.interfaces.health import HealthProvider, by_host
from sked_core.interfaces.store import Entry, Revision, Store
from sked_core.logic.fleet import HostView
from sked_core.logic.presence import Absences
from sked_core.logic.world import PortsOf, World
from sked_core.model import keys
from sked_core.model.types import Cluster, Host, Mark, Moves, Rollout, Service, ServiceStatus, TaskDefinition
from sked_core.runtime.scheduling.view import Decoded, named, of_service, unnamed
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
    prefixes = (keys.CONFIG, keys.HOST_STATES, keys.ROLLOUTS, keys.MOVES, keys.SERVICE_STATUS, keys.TASKS)
    reads = {prefix: store.read(prefix) for prefix in prefixes}
    config = reads[keys.CONFIG].entries

    def below(prefix: str, entries: Mapping[str, Entry]) -> dict[str, Entry]:
        return {key: entry for key, entry in entries.items() if key.startswith(prefix)}

    services = Decoded(partial(named, Service, keys.service))
    clusters = Decoded(partial(named, Cluster, keys.cluster))
    hosts = Decoded(partial(named, Host, keys.host))
    definitions: Decoded[TaskDefinition] = Decoded(partial(unnamed, TaskDefinition))
    marks: Decoded[Mark] = Decoded(partial(unnamed, Mark))
    statuses: Decoded[ServiceStatus] = Decoded(partial(of_service, ServiceStatus, keys.SERVICE_STATUS))
    moves: Decoded[Moves] = Decoded(partial(of_service, Moves, keys.MOVES))
    rollouts: Decoded[Rollout] = Decoded(partial(of_service, Rollout, keys.ROLLOUTS))
    tasks = Decoded(decode_task)
    states = reads[keys.HOST_STATES].entries
    services.take(below(keys.SERVICES, config))
    clusters.take(below(keys.CLUSTERS, config))
    hosts.take(below(keys.HOSTS, config))
    definitions.take(below(keys.TASK_DEFINITIONS, config))
    marks.take(below(keys.MARKS, states))
    statuses.take(reads[keys.SERVICE_STATUS].entries)
    moves.take(reads[keys.MOVES].entries)
    rollouts.take(reads[keys.ROLLOUTS].entries)
    tasks.take(reads[keys.TASKS].entries)
    alive = frozenset(keys.last_segment(key) for key in below(keys.LIVE, states))
    issued = {one.id: one for one in tasks.objects.values()}
    pairs = {(one.task.cluster.name, one.task.service) for one in issued.values()}
    kinds = (services, clusters, hosts, definitions, marks, statuses, rollouts, moves, tasks)
    world = World(
        services={one.name: one for one in services.objects.values()},
        clusters={one.name: one for one in clusters.objects.values()},
        definitions={(one.name, one.version): one for one in definitions.objects.values()},
        hosts=_views(
            [one for _, one in sorted(hosts.objects.items())],
            alive,
            {keys.last_segment(key): mark for key, mark in marks.objects.items()},
        ),
        issued=issued,
        health=health.health(pairs, by_host(one.task for one in issued.values()))
        if health is not None and pairs
        else {},
        owners={keys.last_segment(key): one.scheduler for key, one in statuses.objects.items()},
        moves={keys.last_segment(key): one for key, one in moves.objects.items()},
        rollouts={keys.last_segment(key): one for key, one in rollouts.objects.items()},
        faults={key: fault for kind in kinds for key, fault in kind.faults.items()},
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
