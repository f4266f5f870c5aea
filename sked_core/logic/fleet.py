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

from sked_core.interfaces.scheduler import Candidate, Demand
from sked_core.model.types import Host, Task, TaskDefinition

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
    ports: dict[int, int] = field(default_factory=dict)
    by_service: dict[tuple[str, str], int] = field(default_factory=dict)


class Fleet:
    """Hosts by name with their reservations. Not thread-safe."""

    def __init__(
        self,
        hosts: Iterable[HostView],
        tasks: Iterable[Task],
        ports_of: Callable[[TaskDefinition], frozenset[int]] = lambda _: frozenset(),
    ) -> None:
        """``ports_of``: host ports that the containers of a definition take beside the task's own."""
        self._ports_of = ports_of
        self.hosts: Mapping[str, HostView] = {view.host.name: view for view in hosts}
        """May be replaced: reservations are kept for hosts that are not known (yet, or any more) as well."""
        self._reserved: defaultdict[str, _Reserved] = defaultdict(_Reserved)
        self._tried: list[tuple[Task, int]] | None = None
        for task in tasks:
            self.reserve(task)

    def reserve(self, task: Task) -> None:
        """Count ``task`` against its host. Rejected tasks take nothing; tasks that are being stopped still do."""
        self._count(task, 1)

    def release(self, task: Task) -> None:
        """Take back what ``reserve`` counted for the same task."""
        self._count(task, -1)

    @contextlib.contextmanager
    def trial(self) -> Iterator[None]:
        """Whatever is reserved and released in the body is taken back in the end: it was only a plan."""
        tried = self._tried = []
        try:
            yield
        finally:
            self._tried = None
            for task, sign in reversed(tried):
                self._count(task, -sign)

    @contextlib.contextmanager
    def held(self, tasks: Collection[Task]) -> Iterator[None]:
        """Keep the room of ``tasks`` for the time of the body, in which they may become real."""
        for task in tasks:
            self.reserve(task)
        try:
            yield
        finally:
            for task in tasks:
                self.release(task)

    def _count(self, task: Task, sign: int) -> None:
        if self._tried is not None:
            self._tried.append((task, sign))
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
        for port in self._ports_of(definition) | ({task.port} if task.port else frozenset()):
            reserved.ports[port] = reserved.ports.get(port, 0) + sign
            if reserved.ports[port] <= 0:
                del reserved.ports[port]

    def usable(self, name: str, allowed: Collection[str] | None) -> bool:
        """Whether tasks may stay on the host: it is known, not draining and among the cluster's hosts."""
        view = self.hosts.get(name)
        return view is not None and view.mark != "draining" and (allowed is None or name in allowed)

    def ready(self, allowed: Collection[str] | None) -> frozenset[str]:
        """The hosts that may be given tasks, of ``allowed`` (None: of all)."""
        ready = (name for name, view in self.hosts.items() if view.alive and not view.lost and not view.mark)
        return frozenset(name for name in ready if allowed is None or name in allowed)

    def lost(self, name: str) -> bool:
        """Whether the host is lost: its tasks are to be replaced. An unknown host (no agent ever) is not."""
        view = self.hosts.get(name)
        return view is not None and view.lost

    def forced(self, name: str) -> bool:
        """Whether the tasks of the host are to leave also where fewer than ``min`` healthy ones remain."""
        view = self.hosts.get(name)
        return view is not None and view.forced

    def sift(
        self, demand: Demand, allowed: Collection[str] | None, avoid: Mapping[str, str]
    ) -> tuple[list[Candidate], dict[str, tuple[str, ...]]]:
        """The candidates for ``demand``, and for every other host all the reasons that rule it out.

        ``allowed``: the cluster's hosts, None for all. ``avoid``: hosts left alone for a while, with the reason.
        """
        candidates: list[Candidate] = []
        refusals: dict[str, tuple[str, ...]] = {}
        for name in sorted(self.hosts):
            candidate = self._candidate(name, demand)
            reasons = self._reasons(name, demand, candidate, allowed)
            if name in avoid:
                reasons.append(avoid[name])
            if reasons:
                refusals[name] = tuple(reasons)
            else:
                candidates.append(candidate)
        return candidates, refusals

    def _candidate(self, name: str, demand: Demand) -> Candidate:
        host, reserved = self.hosts[name].host, self._reserved[name]
        return Candidate(
            host=name,
            memory=host.memory,
            cpu_units=host.cpu_units,
            disk=host.disk,
            free_memory=host.memory - reserved.memory,
            free_cpu_units=host.cpu_units - reserved.cpu_units,
            free_disk=host.disk - reserved.disk,
            free_ports=self._free_ports(host, reserved) if demand.provide_port else 0,
            tasks=reserved.tasks,
            tasks_of_service=reserved.by_service.get((demand.cluster, demand.service), 0),
        )

    def _free_ports(self, host: Host, reserved: _Reserved) -> int:
        first, last = host.port_range
        taken = {port for port in (*reserved.ports, *host.ports) if first <= port <= last}
        return max(0, last - first + 1 - len(taken))

    def _reasons(self, name: str, demand: Demand, candidate: Candidate, allowed: Collection[str] | None) -> list[str]:
        view, reserved = self.hosts[name], self._reserved[name]
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
        for what, unit, need, free in (
            ("memory", "MB", demand.memory, candidate.free_memory),
            ("cpu", "units", demand.cpu_units, candidate.free_cpu_units),
            ("disk", "MB", demand.disk, candidate.free_disk),
        ):
            if need > free:
                reasons.append(f"{what}: free {max(0, free)} {unit} < {need} {unit}")
        for port in sorted(demand.fixed_ports):
            if port in reserved.ports:
                reasons.append(f"port {port} is held by another task")
            elif port in view.host.ports:
                reasons.append(f"port {port} is in use on the host")
        if demand.provide_port and candidate.free_ports < 1:
            reasons.append(f"no free port in {view.host.port_range[0]}-{view.host.port_range[1]}")
        return reasons

    def pick_port(self, name: str, service: str) -> int:
        """A free port of the host's range. Where the search starts differs by host and service, so that schedulers
        which work on different services at the same time, and hosts that share a machine, seldom pick the same one.
        Raises LookupError if none is free."""
        host, reserved = self.hosts[name].host, self._reserved[name]
        first, last = host.port_range
        size, strangers = last - first + 1, set(host.ports)
        start = zlib.crc32(f"{name}/{service}".encode()) % size
        for offset in range(size):
            port = first + (start + offset) % size
            if port not in reserved.ports and port not in strangers:
                return port
        raise LookupError(f"no free port on {name}")
