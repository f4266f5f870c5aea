"""The hosts as a scheduler sees them: what is reserved on each, who may take a task, and why not.

Kept up to date by ``reserve`` and ``release``, also while plans are made from it, so that the tasks that one
scheduler places in a row never collide with one another.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from sked_core.interfaces.scheduler import Candidate, Demand, Scheduler
from sked_core.logic.constrained import Census, Rules, depends_on_others
from sked_core.logic.placement import Scored, place_checked
from sked_core.logic.placing import Placing
from sked_core.logic.ranking import Ranking, counting_entries, fitting
from sked_core.logic.rows import Changes, Row
from sked_core.model import constraint
from sked_core.model.ports import counted
from sked_core.model.types import ANYWHERE, Host, Task, TaskDefinition, TaskId

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

    @property
    def ready(self) -> bool:
        """Whether the host may be given tasks."""
        return self.alive and not self.lost and not self.mark


@dataclass(frozen=True, slots=True)
class _Load:
    """What a task of one definition takes of its host. ``ports``: beside its own."""

    memory: int
    cpu_units: int
    disk: int
    ports: frozenset[int]


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
        self._rows: dict[str, Row] = {}
        self._changes = Changes()
        self._tasks: dict[str, dict[str, dict[str, int]]] = {}
        """How many tasks each host has, by service and cluster; never 0."""
        self._census = Census(self._rows)
        self._ranking = Ranking(self._rows, self._changes, self._tasks)
        self._measured: TaskDefinition | None = None
        self._load = _Load(0, 0, 0, frozenset())
        """What a task of the definition takes: that of the last one, of which there are often more."""
        self._tried: list[tuple[Task, int]] = []
        self._trials = 0
        self.now = 0.0
        """Monotonic seconds, as last told by whoever keeps the fleet: what is released is released now."""
        self.remembered: dict[str, object] = {}
        """What somebody has worked out from the hosts alone: it goes when any of them changes."""
        self.update({view.host.name: view for view in hosts})
        for task in tasks:
            self.reserve(task)

    @property
    def hosts(self) -> Mapping[str, HostView]:
        """The hosts that are known. Reservations are kept for others (not known yet, or any more) as well."""
        return self._hosts

    def update(self, changed: Mapping[str, HostView | None]) -> None:
        """Take over what is known of hosts now; None: the host is not known any more."""
        self.remembered.clear()
        for name, view in changed.items():
            before = self._hosts.get(name)
            if view is None or before is None or view.host != before.host:
                self._census.forget()
            if view is None:
                self._hosts.pop(name, None)
            else:
                self._hosts[name] = view
            row = self._row(name)
            row.describe(view.host if view else Host(name=name), view is not None and view.ready)
            self._changes.note(row)
            if view is None and not row.tasks:
                del self._rows[name]

    def _row(self, name: str) -> Row:
        row = self._rows.get(name)
        if row is None:
            row = self._rows[name] = Row(name)
        return row

    def reserve(self, task: Task) -> None:
        """Count ``task`` against its host. Rejected tasks take nothing; tasks that are being stopped still do."""
        if self._trials:
            self._tried.append((task, 1))
        self._count(task, 1)

    def release(self, task: Task) -> None:
        """Take back what ``reserve`` counted for the same task: it is gone, and its port is not given again at once."""
        if self._trials:
            self._tried.append((task, -1))
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
                self._count(task, -sign)

    def free(self, task: Task) -> None:
        """Take back what ``reserve`` counted for a task that is not there, and whose port so can be given at once."""
        if self._trials:
            self._tried.append((task, -1))
        self._count(task, -1)

    def _count(self, task: Task, sign: int, at: float | None = None) -> None:
        if task.rejected:
            return
        definition, host, port = task.task_definition, task.host, task.port
        load = self._load if definition is self._measured else self._load_of(definition)
        row = self._rows.get(host) or self._row(host)
        row.free_memory -= sign * load.memory
        row.free_cpu_units -= sign * load.cpu_units
        if load.disk:
            row.free_disk -= sign * load.disk
        row.tasks += sign
        if port or load.ports:
            ports = row.ports
            if sign > 0 and not load.ports:
                ports.take(port)
            else:
                for one in {port, *load.ports} - {0}:
                    if sign > 0:
                        ports.take(one)
                    else:
                        ports.give(one, at)
            row.free_ports = ports.free
        changes = self._changes
        changes.rows.append(row)
        row.version = changes.last = changes.last + 1
        try:
            counts = self._tasks[task.service][task.cluster.name]
        except KeyError:
            counts = self._tasks.setdefault(task.service, {}).setdefault(task.cluster.name, {})
        count = counts.get(host, 0) + sign
        if count:
            counts[host] = count
        else:
            del counts[host]
            if not counts:
                self._forget(task.service, task.cluster.name)

    def _forget(self, service: str, cluster: str) -> None:
        """It has no tasks any more."""
        clusters = self._tasks[service]
        del clusters[cluster]
        if not clusters:
            del self._tasks[service]

    def _load_of(self, definition: TaskDefinition) -> _Load:
        sizes = (definition.total_memory, definition.total_cpu_units, definition.total_disk)
        self._measured, self._load = definition, _Load(*sizes, frozenset(map(counted, self._ports_of(definition))))
        return self._load

    def usable(self, name: str, allowed: Collection[str] | None) -> bool:
        """Whether tasks may stay on the host: it is known, not draining and among the cluster's hosts."""
        view = self._hosts.get(name)
        return view is not None and view.mark != "draining" and (allowed is None or name in allowed)

    def ready(self, allowed: Collection[str] | None) -> frozenset[str]:
        """The hosts that may be given tasks, of ``allowed`` (None: of all)."""
        names = self._hosts if allowed is None else set(allowed) & self._hosts.keys()
        return frozenset(name for name in names if self._hosts[name].ready)

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
            return self._place_by_rules(scheduler, name, demand, count, allowed, avoid)
        if isinstance(scheduler, Scored):
            return self._ranking.place(scheduler, name, demand, count, allowed, avoid)
        rows, fits, ready = self._rows, fitting(demand), sorted(self.ready(allowed))
        candidates = [self.candidate(host, demand) for host in ready if host not in avoid and fits(rows[host])]
        return iter(place_checked(scheduler, name, demand, count, candidates))

    def _place_by_rules(
        self,
        scheduler: Scheduler,
        name: str,
        demand: Demand,
        count: int,
        allowed: Collection[str] | None,
        avoid: Mapping[str, str],
    ) -> Iterator[str]:
        rules = self.rules(demand, allowed)
        if isinstance(scheduler, Scored) and rules.only_shut:
            rules.shut.update(avoid)
            for host in self._ranking.place(scheduler, name, demand, count, allowed, rules.shut):
                yield host
                rules.placed(self._hosts[host].host)
            return
        plain = replace(demand, placement=ANYWHERE, shunned_by=())  # of the rest the rules take care
        fits = fitting(plain)

        def able(row: Row) -> bool:
            return row.ready and row.host not in avoid and fits(row)

        def ask(hosts: list[str]) -> str | None:
            candidates = [self.candidate(host, demand) for host in hosts]
            return next(iter(place_checked(scheduler, name, demand, 1, candidates)), None)

        placing = Placing(rules, able)
        if isinstance(scheduler, Scored):

            def counts_of() -> Mapping[str, int]:
                return self._tasks.get(demand.service, {}).get(demand.cluster, {})

            def walk(hosts: frozenset[str]) -> Generator[str]:
                return self._ranking.place(scheduler, name, plain, count, hosts, rules.shut)

            rules.shut.update(avoid)
            entry_of = counting_entries(scheduler, name, demand, lambda _: True, counts_of)
            yield from placing.by_score(entry_of, walk, count)
        else:
            yield from placing.by_asking(ask, count)

    def rules(self, demand: Demand, allowed: Collection[str] | None) -> Rules:
        """What the placement of ``demand`` comes to, as things stand: reasons against hosts, and wishes."""
        return Rules(demand, self._counting, self._ranking.set_of(allowed), self.tasks_by_host, self._census)

    def _counting(self, name: str) -> Host | None:
        """The host, if it is known and what is on it counts."""
        view = self._hosts.get(name)
        return view.host if view is not None and not view.lost else None

    def wishes(self, name: str, demand: Demand, allowed: Collection[str] | None) -> dict[str, float]:
        """How much a known host is wished for by the placement of ``demand``, wish by wish: what counts before the
        scheduler's score does."""
        return self.rules(demand, allowed).terms(self._hosts[name].host) if depends_on_others(demand) else {}

    def tasks_by_host(self, service: str, cluster: str | None = None) -> dict[str, int]:
        """How many tasks of the service each host has, in ``cluster`` or (None) in all of them; those with none are
        left out."""
        found: dict[str, int] = {}
        for of, counts in self._tasks.get(service, {}).items():
            if cluster in (None, of):
                for host, count in counts.items():
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
        return self._rows[name].ports.taken(port)

    def candidates_now(self, names: Iterable[str]) -> list[Candidate]:
        """As ``candidate`` of each, but that they change as the fleet does, and count no tasks of any service."""
        return [self._rows[name] for name in names]

    def candidate(self, name: str, demand: Demand) -> Candidate:
        """What scores are made from, as things stand. Raises KeyError for an unknown host."""
        tasks = self._tasks.get(demand.service, {}).get(demand.cluster, {})
        return self._rows[name].copy(tasks.get(name, 0))

    def _reasons(self, name: str, demand: Demand, allowed: Collection[str] | None) -> list[str]:
        view, row = self._hosts[name], self._rows[name]
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
        reasons += [f"executor {executor} not available (not installed, or not in its policy)" for executor in missing]
        reasons += constraint.refusals(demand.placement.require, view.host)
        for what, unit, need, free in (
            ("memory", "MB", demand.memory, row.free_memory),
            ("cpu", "units", demand.cpu_units, row.free_cpu_units),
            ("disk", "MB", demand.disk, row.free_disk),
        ):
            if need > free and need:
                reasons.append(f"{what}: free {max(0, free)} {unit} < {need} {unit}")
        reasons += dict.fromkeys(filter(None, map(row.ports.refusal, sorted(demand.fixed_ports))))
        if demand.provide_port and row.free_ports < 1:
            reasons.append(f"no free port in {view.host.port_range[0]}-{view.host.port_range[1]}")
        return reasons

    def pick_port(self, name: str, task_id: TaskId) -> int:
        """A free port of the host's range, one that no task gave back lately if there is any. Raises LookupError if
        none is free.

        Where the search starts differs by host and task id, and so by service, version and instance: schedulers that
        work at the same time, and hosts that share a machine, seldom pick the same one, and a new version begins
        elsewhere than the old one did, also for a scheduler that has not seen the old one go.
        """
        row = self._rows[name]
        return row.ports.pick(zlib.crc32(task_id.encode(), row.seed), self.now)
