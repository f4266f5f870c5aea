"""What an operator decides about one agent."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sked_core.model.policy import Policy
from sked_core.model.types import DEFAULT_PORT_RANGE

DEFAULT_STOP_GRACE_SECONDS = 10.0
"""How long a task may take to end politely; Docker's own default."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Settings of one agent. ``None`` in an allow-list means: everything is allowed. ``memory`` and ``disk`` (MB) and
    ``cpu_units``: what of the machine tasks may use; 0: all of it. ``port_range``: first and last of the ports that
    schedulers give to tasks.

    ``state_dir``: folder of this agent alone; must survive its restarts. ``accept_store``: take a store that is not
    the one known before for the right one, and write the tasks that run here into it.
    """

    host: str
    state_dir: Path
    address: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    allow_executors: frozenset[str] | None = None
    allow_clusters: frozenset[str] | None = None
    max_tasks: int = 0
    """Most tasks on this host; 0: no limit."""
    memory: int = 0
    cpu_units: int = 0
    disk: int = 0
    port_range: tuple[int, int] = DEFAULT_PORT_RANGE
    accept_store: bool = False
    policy: Policy = field(default_factory=Policy)
    stop_grace: float = DEFAULT_STOP_GRACE_SECONDS
