"""What Sked hands to the commands that plugins add."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from sked_core.interfaces.store import Store
from sked_core.model.types import Cluster, Health, Host, Service, Task


@dataclass(frozen=True, slots=True)
class SeenTask:
    """A task. ``health``: None if nobody has said anything of it. ``why``: why it does not run well; empty if it does,
    or nobody has said."""

    task: Task
    health: Health | None = None
    why: str = ""

    @property
    def healthy(self) -> bool:
        return self.health is not None and self.health.healthy


@dataclass(frozen=True, slots=True)
class SeenHost:
    """A host. ``state``: ``down`` where its agent does not run, else ``cordoned`` or ``draining`` by its operator's
    mark, else ``ready``."""

    host: Host
    state: str = "ready"


class Reading(Protocol):
    """What stands in a store, for one thread. Everything is in natural order of names; what can't be read is left out,
    and people are told. All methods raise Unavailable while the store does not answer."""

    @property
    def stale(self) -> str:
        """Of a look: why it shows an earlier state than now. Empty while the store answers."""
        ...

    def tasks(self) -> list[SeenTask]:
        """All tasks, with what is known of their health."""
        ...

    def services(self) -> list[Service]:
        """All services that are declared."""
        ...

    def clusters(self) -> list[Cluster]:
        """All clusters that are declared."""
        ...

    def hosts(self) -> list[SeenHost]:
        """All hosts that ever reported."""
        ...

    def looks(self) -> Iterator[Reading]:
        """The state now, and again after each change, for ever; each look answers from a copy. While the store is away
        there is one that says so (``stale``). Raises Unavailable only if it was never there."""
        ...


class Invocation(Protocol):
    """One call of the command line: a command gets it by ``click.pass_obj``."""

    def store(self) -> AbstractContextManager[Store]:
        """The store that ``--backend``, the environment or the settings name, open for the ``with`` block.

        What it raises, and whatever SkedError a command raises, ends the command with Sked's own words and exit codes.
        """
        ...

    def reading(self) -> AbstractContextManager[Reading]:
        """The same store, as the objects that stand in it."""
        ...
