"""What the parts of a simulated cluster know of the whole: time, the store, hosts, and what happens around each call.

``World`` is the whole; its parts are made to work with any Scene.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

from sked_core.runtime.plugins.registry import Plugins
from sked_core.testing.sim.disk import Files
from sked_core.testing.sim.engine import Registry, SimEngine
from sked_core.testing.sim.store import SimStore

BEGIN = 1000.0


class HostAgent(Protocol):
    """The agent of a host, as others see it. ``loop``: the real one."""

    name: str
    started: float
    read_at: dict[str, float]
    alive: bool
    under_way: int
    planned: tuple[float, str] | None
    loop: Any

    def reachable(self) -> bool: ...

    def point(self, what: str) -> None: ...


class SimClock:
    """A Clock that the world moves. Nobody waits on it: there is one thread."""

    def __init__(self) -> None:
        self.now = BEGIN

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_700_000_000.0 + self.now

    def wait(self, event: object, timeout: float) -> bool:
        raise AssertionError("in a simulation nobody waits")


@dataclass(slots=True)
class SimHost:
    """A machine: what it runs, its disk and its agent. ``up``: it is powered."""

    name: str
    engine: SimEngine
    files: Files
    agent: HostAgent | None = None
    up: bool = True

    def release(self, agent: object) -> None:
        """``agent`` is gone."""
        if self.agent is agent:
            self.agent = None


class Scene(ABC):
    """See the module. ``health_version`` grows whenever some task's health may have changed."""

    clock: SimClock
    store: SimStore
    registry: Registry
    plugins: Plugins
    hosts: dict[str, SimHost]
    telling: bool
    health_version: int

    @abstractmethod
    def tell(self, who: str, what: str) -> None:
        """One line of the story."""

    @abstractmethod
    def takes(self, pool: str) -> float:
        """How long a job of ``pool`` takes from now on until it is carried out, in seconds."""

    @abstractmethod
    def point_of(self, process: Any, what: str) -> None:
        """``process`` makes a call: others may act meanwhile, and it may be killed."""

    @abstractmethod
    def schedulers(self) -> list[Any]:
        """The scheduler processes that live."""

    @abstractmethod
    def schedulers_within(self, seconds: float) -> int:
        """How many schedulers lived at some time of the last so many seconds."""
