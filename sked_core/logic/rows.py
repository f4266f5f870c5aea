"""What is known of one host while tasks are placed: one record, changed in place, which scores read as it is."""

from __future__ import annotations

import zlib

from sked_core.interfaces.scheduler import Candidate
from sked_core.logic.port_book import PortBook
from sked_core.model.types import Host


class Row(Candidate):
    """A candidate that is kept up to date. Only a fleet changes it, and notes each change in its ``Changes``."""

    __slots__ = (
        "cpu_units",
        "described",
        "disk",
        "executors",
        "free_cpu_units",
        "free_disk",
        "free_memory",
        "free_ports",
        "memory",
        "ports",
        "ready",
        "seed",
        "tasks",
        "tasks_of_service",
        "version",
    )
    memory: int
    cpu_units: int
    disk: int
    free_memory: int
    free_cpu_units: int
    free_disk: int
    free_ports: int
    tasks: int
    tasks_of_service: int
    """0, but while a score is asked that looks at it."""
    ready: bool
    """Whether the host may be given tasks at all."""
    version: int
    """The number of the last change."""
    seed: int
    """What tells the host from others where the search for a port starts."""
    __setattr__ = object.__setattr__
    __delattr__ = object.__delattr__  # setting is slow as long as any of the two is a function of a base class
    __hash__ = object.__hash__
    __eq__ = object.__eq__

    def __init__(self, host: str) -> None:
        super().__init__(host, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        self.ports = PortBook()
        self.described = Host(name=host)
        self.executors: frozenset[str] = frozenset()
        self.ready = False
        self.version = 0
        self.seed = zlib.crc32(f"{host}/".encode())

    def describe(self, host: Host, ready: bool) -> None:
        """Take over what the host says of itself."""
        self.free_memory += host.memory - self.memory
        self.free_cpu_units += host.cpu_units - self.cpu_units
        self.free_disk += host.disk - self.disk
        self.memory, self.cpu_units, self.disk = host.memory, host.cpu_units, host.disk
        self.ports.describe(*host.port_range, host.ports)
        self.free_ports = self.ports.free
        self.described, self.executors, self.ready = host, frozenset(host.executors), ready

    def copy(self, tasks_of_service: int) -> Candidate:
        """The candidate as it is now, for those who keep it."""
        return Candidate(
            self.host,
            self.memory,
            self.cpu_units,
            self.disk,
            self.free_memory,
            self.free_cpu_units,
            self.free_disk,
            self.free_ports,
            self.tasks,
            tasks_of_service,
        )


class Changes:
    """Which rows have changed, in turn. Only the later ones are kept."""

    __slots__ = ("first", "last", "rows")

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.first = self.last = 0
        """The numbers of the changes before, and at the end of, ``rows``."""

    def note(self, row: Row) -> None:
        """``row`` has changed."""
        self.rows.append(row)
        self.last += 1
        row.version = self.last

    def since(self, number: int) -> set[Row] | None:
        """The rows that changed after change ``number``; None if that is too long ago."""
        return set(self.rows[number - self.first :]) if number >= self.first else None

    def shorten(self, limit: int) -> None:
        """Forget the older half if there are more than ``limit``."""
        if len(self.rows) > limit:
            half = len(self.rows) // 2
            del self.rows[:half]
            self.first += half
