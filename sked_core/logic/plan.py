"""What a plan is made from, and what it says: values that schedulers, commands and tests share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from msgspec import Struct

from sked_core.interfaces.scheduler import Demand
from sked_core.interfaces.store import Revision
from sked_core.model.decisions import Batch
from sked_core.model.types import Cluster, Service, Task, TaskDefinition, TaskId, TaskMove


class Issued(Struct, frozen=True):
    """A task as it stands in the store, with the revision of ``state/tasks/<id>``."""

    task: Task
    revision: Revision

    @property
    def id(self) -> TaskId:
        return self.task.id


class Change(Struct, frozen=True):
    """One task's step from ``before`` (None: nothing issued) to ``after`` (None: both keys removed)."""

    before: Issued | None
    after: Task | None
    why: str = ""

    def __str__(self) -> str:
        if self.after is None:
            return f"remove {self.before.id if self.before else ''}"
        if not self.after.scheduled:
            return f"withdraw {self.after.id} from {self.after.host}"
        return f"issue {self.after.id} to {self.after.host}"


WAITING_FOR = "waiting for"
"""How the reason begins where a plan goes no further just for now: health that is on its way."""


@dataclass(frozen=True, slots=True)
class MoveStep:
    """What has become of a move with a plan, and why."""

    what: Literal["started", "done", "cancelled"]
    move: TaskMove
    why: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes for one (cluster, service) pair, and why there are not more."""

    changes: tuple[Change, ...] = ()
    waiting: int = 0
    """Tasks that are wanted but could not be placed."""
    blocked: str = ""
    refusals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Host by host, why it took none of the waiting tasks."""
    batches: tuple[Batch, ...] = ()
    """What is to be kept of the placements, where that was asked for."""
    moves: tuple[TaskMove, ...] = ()
    """What is left of the goal's moves."""
    steps: tuple[MoveStep, ...] = ()
    """What has become of moves."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A roll-out that goes no further for now. ``ahead``: so many tasks of the wanted version may be there, None for as
    many as there are; ``former``: what keeps the count up beside them."""

    ahead: int | None
    former: TaskDefinition
    why: str
    fixed_ports: frozenset[int] = frozenset()
    """Host ports that the containers of ``former`` take beside the task's own."""
    avoid: Mapping[str, str] = field(default_factory=dict)
    """Hosts that rejected ``former`` lately, with the reason to show."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What users declared for one (cluster, service) pair. ``cluster`` None: the pair is not wanted any more."""

    cluster: Cluster | None
    service: Service
    definition: TaskDefinition | None
    fixed_ports: frozenset[int] = frozenset()
    """Host ports that the containers of the definition take beside the task's own."""
    hold: Hold | None = None
    shunned_by: tuple[tuple[str, str], ...] = ()
    """Services that are not to be where this one is, each with the tag within whose values that holds."""
    moves: tuple[TaskMove, ...] = ()
    """Tasks of the pair that are to go to other hosts."""
    elsewhere: tuple[TaskMove, ...] = ()
    """The moves of all other pairs, which some of these may have to wait for."""

    def wants(self, task: Task) -> bool:
        """Whether ``task`` is of the version that the service names."""
        definition = task.task_definition
        return (definition.name, definition.version) == (self.service.task_name, self.service.task_version)

    @property
    def enough(self) -> str:
        """Why tasks go in whose place none is to come."""
        return f"desired is {self.service.desired}"


def demand_of(goal: Goal, definition: TaskDefinition, more_ports: frozenset[int]) -> Demand:
    """What one task of ``definition`` asks of its host, as a task of the service of ``goal``."""
    own_port = {definition.port} if definition.port and not definition.provide_port else set()
    return Demand(
        cluster=goal.cluster.name if goal.cluster else "",
        service=goal.service.name,
        memory=definition.total_memory,
        cpu_units=definition.total_cpu_units,
        disk=definition.total_disk,
        provide_port=definition.provide_port,
        fixed_ports=more_ports | own_port,
        executors=frozenset(container.type for container in definition.containers),
        desired=goal.service.desired,
        placement=goal.service.placement_rules,
        shunned_by=goal.shunned_by,
    )
