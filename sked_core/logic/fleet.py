"""The hosts as a scheduler sees them: what is reserved on each, who may take a task, and why not.

Kept up to date by ``reserve`` and ``release``, also while plans are made from it, so that the tasks that one
scheduler places in a row never collide with one another.
"""

from __future__ import annotations

import contextlib
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from sked_core.interfaces.scheduler import Candidate, Demand, Scheduler
from sked_core.logic import constrained
from sked_core.logic.constrained import Rules, depends_on_others
from sked_core.logic.placement import place_checked
from sked_core.logic.port_book import PortBook
from sked_core.model import constraint
from sked_core.model.ports import counted
from sked_core.model.types import Host, Task, TaskDefinition, TaskId

NOT_OF_CLUSTER = "not among the hosts of cluster"


@dataclass(frozen=True, slots=True)
class HostView:
    """A host with what is known of it beside its own words. ``mark``: "", "cordoned" or "draining"; ``forced``:
    whether its tasks are to leave whatever becomes of their services."""

    host: Host
    alive: bool = True
    lost: bool = False
    mark: str = ""
    forced: bool = False


@dataclass(slots=True)
class _Reserved:
    memory: int = 0
    cpu_units: int = 0
    disk: int = 0
    tasks: int = 0
    ports: PortBook = field(default_factory=PortBook)
    by_service: dict[tuple[str, str], int] = field(default_factory=dict)


class Fleet:
    """Hosts by name with their reservations. Not thread-safe."""

    def __init__(
        self,
        hosts: Iterable[HostView],
        tasks: Iterable[Task],
        ports_of: Callable[[TaskDefinition], frozenset[int]] = lambda _: frozenset(),
    ) -> None:
        """``ports_of``: host ports that the containers of a definition take beside the task's own, numbered as in
        ``Demand.fixed_ports``."""
        self._ports_of = ports_of
        self._hosts: dict[str, HostView] = {}
        self._reserved: defaultdict[str, _Reserved] = defaultdict(_Reserved)
        self._tried: list[tuple[Task, int]] = []
        self._trials = 0
        self.now = 0.0
        """Monotonic seconds, as last told by whoever keeps the fleet: what is released is released now."""
        self.update({view.host.name: view for view in hosts})
        for task in tasks:
            self.reserve(task)

    @property
    def hosts(self) -> Mapping[str, HostView]:
        """The hosts that are known. Reservations are kept for others (not known yet, or any more) as well."""
        return self._hosts

    def update(self, changed: Mapping[str, HostView | None]) -> None:
        """Take over what is known of hosts now; None: the host is not known any more."""
        for name, view in changed.items():
            if view is None:
                self._hosts.pop(name, None)
            else:
                self._hosts[name] = view
                first, last = view.host.port_range
                self._reserved[name].ports.describe(first, last, view.host.ports)

    def reserve(self, task: Task) -> None:
        """Count ``task`` against its host. Rejected tasks take nothing; tasks that are being stopped still do."""
        self._count(task, 1)

    def release(self, task: Task) -> None:
        """Take back what ``reserve`` counted for the same task: it is gone, and its port is not given again at once."""
        self._count(task, -1, self.now)

    @contextlib.contextmanager
    def trial(self) -> Iterator[None]:
        """Whatever is reserved and released in the body is taken back in the end: it was only a plan. Trials may be
        made within trials."""
        begun = len(self._tried)
        self._trials += 1
        try:
            yield
        finally:
            self._trials -= 1
            undone = self._tried[begun:]
            del self._tried[begun:]
            for task, sign in reversed(undone):
                self._apply(task, -sign)

    @contextlib.contextmanager
    def held(self, tasks: Collection[Task]) -> Iterator[None]:
        """Keep the room of ``tasks`` for the time of the body, in which they may become real."""
        for task in tasks:
            self.reserve(task)
        try:
            yield
        finally:
            for task in tasks:
                self._count(task, -1)

    def _count(self, task: Task, sign: int, at: float | None = None) -> None:
        if self._trials:
            self._tried.append((task, sign))
        self._apply(task, sign, at)

    def _apply(self, task: Task, sign: int, at: float | None = None) -> None:
        if task.rejected:
            return
        reserved = self._reserved[task.host]
        definition = task.task_definition
        reserved.memory += sign * definition.total_memory
        reserved.cpu_units += sign * definition.total_cpu_units
        reserved.disk += sign * definition.total_disk
        reserved.tasks += sign
        pair = (task.cluster.name, task.service)
        reserved.by_service[pair] = reserved.by_service.get(pair, 0) + sign
        more = self._ports_of(definition)
        ports: Collection[int] = {*map(counted, more), *filter(None, (task.port,))} if more else (task.port,)
        for port in filter(None, ports):
            if sign > 0:
                reserved.ports.take(port)
            else:
                reserved.ports.give(port, at)

    def usable(self, name: str, allowed: Collection[str] | None) -> bool:
        """Whether tasks may stay on the host: it is known, not draining and among the cluster's hosts."""
        view = self._hosts.get(name)
        return view is not None and view.mark != "draining" and (allowed is None or name in allowed)

    def ready(self, allowed: Collection[str] | None) -> frozenset[str]:
        """The hosts that may be given tasks, of ``allowed`` (None: of all)."""
        ready = (name for name, view in self._hosts.items() if view.alive and not view.lost and not view.mark)
        return frozenset(name for name in ready if allowed is None or name in allowed)

    def lost(self, name: str) -> bool:
        """Whether the host is lost: its tasks are to be replaced. An unknown host (no agent ever) is not."""
        view = self._hosts.get(name)
        return view is not None and view.lost

    def forced(self, name: str) -> bool:
        """Whether the tasks of the host are to leave also where fewer than ``min`` healthy ones remain."""
        view = self._hosts.get(name)
        return view is not None and view.forced

    def place(
        self,
        scheduler: Scheduler,
        name: str,
        demand: Demand,
        count: int,
        allowed: Collection[str] | None,
        avoid: Mapping[str, str],
    ) -> Iterator[str]:
        """The host of each of ``count`` tasks, at most; fewer when no host can take another one.

        The caller reserves the task on each host before it asks for the next one. ``name``: the scheduler's, for
        messages. ``allowed``: the cluster's hosts, None for all. ``avoid``: hosts left alone for a while, with the
        reason. Raises PluginError if the scheduler fails, or chooses what it may not.
        """
        if depends_on_others(demand):
            able = {host: self._hosts[host].host for host in sorted(self._hosts) if host not in avoid}
            yield from constrained.place(
                self.rules(demand, allowed),
                able,
                lambda host: None if self._reasons(host, demand, allowed) else self.candidate(host, demand),
                scheduler,
                name,
                demand,
                count,
            )
            return
        candidates = [
            self.candidate(host, demand)
            for host in sorted(self._hosts)
            if host not in avoid and not self._reasons(host, demand, allowed)
        ]
        yield from place_checked(scheduler, name, demand, count, candidates)

    def rules(self, demand: Demand, allowed: Collection[str] | None) -> Rules:
        """What the placement of ``demand`` comes to, as things stand: reasons against hosts, and wishes."""
        known = {name: view.host for name, view in self._hosts.items() if not view.lost}
        within = [host for name, host in known.items() if allowed is None or name in allowed]
        return Rules(demand, known, within, self.tasks_by_host)

    def wishes(self, name: str, demand: Demand, allowed: Collection[str] | None) -> dict[str, float]:
        """How much a known host is wished for by the placement of ``demand``, wish by wish: what counts before the
        scheduler's score does."""
        return self.rules(demand, allowed).terms(self._hosts[name].host) if depends_on_others(demand) else {}

    def tasks_by_host(self, service: str, cluster: str | None = None) -> dict[str, int]:
        """How many tasks of the service each host has, in ``cluster`` or (None) in all of them; those with none are
        left out."""
        found: dict[str, int] = {}
        for host, reserved in self._reserved.items():
            for (of, name), count in reserved.by_service.items():
                if name == service and count and cluster in (None, of):
                    found[host] = found.get(host, 0) + count
        return found

    def refusals(
        self, demand: Demand, allowed: Collection[str] | None, avoid: Mapping[str, str]
    ) -> dict[str, tuple[str, ...]]:
        """All the reasons, with numbers, of every host that can't take one more task. As for ``place``."""
        rules = self.rules(demand, allowed) if depends_on_others(demand) else None
        refusals = {name: self._refusal(name, demand, allowed, avoid, rules) for name in sorted(self._hosts)}
        return {name: reasons for name, reasons in refusals.items() if reasons}

    def refusal(
        self, name: str, demand: Demand, allowed: Collection[str] | None, avoid: Mapping[str, str]
    ) -> tuple[str, ...]:
        """The same of one host: none if it can take one. Raises KeyError for an unknown host."""
        rules = self.rules(demand, allowed) if depends_on_others(demand) else None
        return self._refusal(name, demand, allowed, avoid, rules)

    def _refusal(
        self,
        name: str,
        demand: Demand,
        allowed: Collection[str] | None,
        avoid: Mapping[str, str],
        rules: Rules | None,
    ) -> tuple[str, ...]:
        reasons = self._reasons(name, demand, allowed)
        if rules is not None:
            reasons += rules.reasons(self.candidate(name, demand))
        return (*reasons, avoid[name]) if name in avoid else tuple(reasons)

    def unplaced(
        self, name: str, demand: Demand, allowed: Collection[str] | None, avoid: Mapping[str, str]
    ) -> dict[str, tuple[str, ...]]:
        """Why no host took another task once ``place`` found none: as ``refusals``, and hosts that could take one were
        left out by the scheduler ``name``."""
        refusals = self.refusals(demand, allowed, avoid)
        spared = dict.fromkeys(self._hosts.keys() - refusals, (f"left out by scheduler {name}",))
        return dict(sorted({**refusals, **spared}.items()))

    def taken(self, name: str, port: int) -> bool:
        """Whether a task holds ``port`` on the host."""
        return self._reserved[name].ports.taken(port)

    def candidate(self, name: str, demand: Demand) -> Candidate:
        """What scores are made from, as things stand. Raises KeyError for an unknown host."""
        host, reserved = self._hosts[name].host, self._reserved[name]
        return Candidate(
            host=name,
            memory=host.memory,
            cpu_units=host.cpu_units,
            disk=host.disk,
            free_memory=host.memory - reserved.memory,
            free_cpu_units=host.cpu_units - reserved.cpu_units,
            free_disk=host.disk - reserved.disk,
            free_ports=reserved.ports.free,
            tasks=reserved.tasks,
            tasks_of_service=reserved.by_service.get((demand.cluster, demand.service), 0),
        )

    def _reasons(self, name: str, demand: Demand, allowed: Collection[str] | None) -> list[str]:
        view, candidate, ports = self._hosts[name], self.candidate(name, demand), self._reserved[name].ports
        reasons: list[str] = []
        if allowed is not None and name not in allowed:
            reasons.append(f"{NOT_OF_CLUSTER} {demand.cluster}")
        if view.lost:
            reasons.append("lost: its agent has not been heard of for too long")
        elif not view.alive:
            reasons.append("its agent is not running")
        if view.mark:
            reasons.append(view.mark)
        missing = sorted(demand.executors - set(view.host.executors))
        reasons += [f"executor {executor} not available" for executor in missing]
        reasons += constraint.refusals(demand.placement.require, view.host)
        for what, unit, need, free in (
            ("memory", "MB", demand.memory, candidate.free_memory),
            ("cpu", "units", demand.cpu_units, candidate.free_cpu_units),
            ("disk", "MB", demand.disk, candidate.free_disk),
        ):
            if need > free:
                reasons.append(f"{what}: free {max(0, free)} {unit} < {need} {unit}")
        reasons += dict.fromkeys(filter(None, map(ports.refusal, sorted(demand.fixed_ports))))
        if demand.provide_port and ports.free < 1:
            reasons.append(f"no free port in {view.host.port_range[0]}-{view.host.port_range[1]}")
        return reasons

    def pick_port(self, name: str, task_id: TaskId) -> int:
        """A free port of the host's range, one that no task gave back lately if there is any. Raises LookupError if
        none is free.

        Where the search starts differs by host and task id, and so by service, version and instance: schedulers that
        work at the same time, and hosts that share a machine, seldom pick the same one, and a new version begins
        elsewhere than the old one did, also for a scheduler that has not seen the old one go.
        """
        return self._reserved[name].ports.pick(zlib.crc32(f"{name}/{task_id}".encode()), self.now)
