"""The port to placement: where a batch of like tasks goes. Core has filtered the hosts and does the writing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from sked_core.model.types import ANYWHERE, Placement


@dataclass(frozen=True, slots=True)
class Demand:
    """What one task asks of its host. Amounts in MB and cpu units; 0: nothing said, fits anywhere.

    ``fixed_ports`` must be free on the host: TCP ports on every address by their number, others by numbers above 65535
    (``Binding.number``). ``provide_port``: one more is picked from the host's range.
    """

    cluster: str
    service: str
    memory: int = 0
    cpu_units: int = 0
    disk: int = 0
    provide_port: bool = False
    fixed_ports: frozenset[int] = frozenset()
    executors: frozenset[str] = frozenset()
    desired: int = 0
    """How many tasks of the service are wanted in its cluster."""
    placement: Placement = ANYWHERE
    """The service's constraints and preferences. Core sees to them: a score need not."""
    shunned_by: tuple[tuple[str, str], ...] = ()
    """Services that are not to be where this one is, each with the tag within whose values that holds (``host``)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host that passed the filters, with what is left of it after all reservations."""

    host: str
    memory: int
    cpu_units: int
    disk: int
    free_memory: int
    free_cpu_units: int
    free_disk: int
    free_ports: int
    """Of its range, that it could be given."""
    tasks: int
    tasks_of_service: int
    exclusive: bool = False
    """Set once a task with fixed ports was placed in this batch: a second one can't fit."""

    def fits(self, demand: Demand) -> bool:
        """Whether one more task of ``demand`` fits."""
        return (
            (self.free_memory >= demand.memory or not demand.memory)
            and (self.free_cpu_units >= demand.cpu_units or not demand.cpu_units)
            and (self.free_disk >= demand.disk or not demand.disk)
            and not (demand.provide_port and self.free_ports < 1)
            and not (self.exclusive and demand.fixed_ports)
        )

    def after(self, demand: Demand) -> Candidate:
        """The candidate once a task of ``demand`` was placed on it."""
        return Candidate(
            self.host,
            self.memory,
            self.cpu_units,
            self.disk,
            self.free_memory - demand.memory,
            self.free_cpu_units - demand.cpu_units,
            self.free_disk - demand.disk,
            self.free_ports - demand.provide_port,
            self.tasks + 1,
            self.tasks_of_service + 1,
            self.exclusive or bool(demand.fixed_ports),
        )


class Scheduler(Protocol):
    """Decides where tasks go. Pure: the same input gives the same output; ties break by host name."""

    def place(self, demand: Demand, count: int, candidates: Sequence[Candidate]) -> Iterator[str]:
        """Yield the host of each of ``count`` tasks, at most; fewer when no candidate fits any more.

        Every candidate fits at least one task. Only hosts among ``candidates`` may be yielded, each no more
        often than ``fits``/``after`` allow; core checks, and raises PluginError for a scheduler that overdoes it.
        """
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """So many tasks of one demand, of which many are to be placed at once, and the hosts that may take them."""

    demand: Demand
    count: int
    hosts: frozenset[str] | None = None
    """Names of candidates that passed the demand's own filters; None: all of them."""


class BatchScheduler(Scheduler, Protocol):
    """A scheduler that can also look at many demands at once: where it matters which tasks share a host."""

    def place_batch(self, batch: Sequence[Wanted], candidates: Sequence[Candidate]) -> Sequence[Sequence[str]]:
        """The hosts of the tasks of each entry of ``batch``, in its order: ``count`` at most, fewer where no room was
        found. Pure, and the order of neither sequence matters to where tasks go.

        ``free_ports`` of the candidates is told whatever the demands ask for. Rules about other tasks (``at_most``,
        ``spread``, ``near`` and so on) are not asked of it: core keeps demands with such rules out of batches. Two
        tasks whose ``fixed_ports`` have one in common can't share a host. Core checks what comes out.
        """
        ...
