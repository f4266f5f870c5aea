"""What answers are made of, for the description and for those who make clients from it. Objects of the store may have
fields besides, which newer versions or people wrote."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from msgspec import UNSET, Struct, UnsetType, field

from sked_core.client.looking.listing import Place
from sked_core.client.looking.moments import Moment
from sked_core.client.looking.stories import Advice
from sked_core.model.decisions import Decision
from sked_core.model.endings import Ending
from sked_core.model.types import (
    Cluster,
    Event,
    Failure,
    Health,
    Host,
    Rollout,
    Service,
    Task,
    TaskDefinition,
    TaskId,
)

T = TypeVar("T")


class List(Struct, Generic[T], kw_only=True):
    """Every answer that is no problem. ``next``: the cursor of the next page; empty: there is none. ``notices``: what
    one should know besides, a line each."""

    api: str
    kind: str
    items: list[T]
    next: str = ""
    notices: list[str] = field(default_factory=list)


class Mistake(Struct, kw_only=True):
    """One mistake of a manifest. Line and column count from 1; 0: not known."""

    path: str
    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    warning: bool = False


class Problem(Struct, kw_only=True):
    """What went wrong (RFC 9457), and what to try next, in lines. ``problems``: of a manifest, all mistakes. ``now``,
    ``revision`` and ``events``: after If-Match did not hold, the object as it is, and who changed it."""

    type: str
    title: str
    status: int
    detail: str
    hint: str = ""
    problems: list[Mistake] = field(default_factory=list)
    now: Any = None
    revision: int = 0
    events: list[Event] = field(default_factory=list)


class TaskItem(Task, frozen=True, kw_only=True):
    """A task as it is stored, and how it is."""

    id: TaskId
    healthy: bool
    failure: Failure | None = None


class ServiceItem(Service, frozen=True, kw_only=True):
    """A service as it is stored, and how far it is in each cluster that lists it."""

    clusters: list[Place]


class ClusterItem(Cluster, frozen=True, kw_only=True):
    """A cluster as it is stored, and how many tasks it has."""

    tasks: int


class HostItem(Host, frozen=True, kw_only=True):
    """A host as its agent described it. ``state``: ready, cordoned, draining or down. ``reserved_*``: by its tasks.
    ``answers`` is false, with ``silent_since``, where its agent gives this server no answer though the store counts it
    as running; they are left out where that is not known."""

    state: str
    tasks: int
    answers: bool | UnsetType = UNSET
    silent_since: str | UnsetType = UNSET
    mark: str = ""
    mark_by: str = ""
    mark_at: str = ""
    mark_why: str = ""
    reserved_memory: int = 0
    reserved_cpu_units: int = 0
    reserved_disk: int = 0


class TaskDefinitionItem(TaskDefinition, frozen=True, kw_only=True):
    """A version of a task definition as it is stored. ``used_by``: the services that run it now."""

    used_by: list[str] = field(default_factory=list)


class Version(Struct, kw_only=True):
    """The version of Sked."""

    version: str


class Status(Struct, kw_only=True):
    """What ``sked status`` shows: ``hosts`` by state, ``services`` those first that need somebody, ``losses``: what the
    loss of each host would come to."""

    store: str
    attention: list[dict[str, Any]]
    hosts: dict[str, list[str]]
    schedulers: list[dict[str, Any]]
    tasks: dict[str, int]
    services: list[dict[str, str]]
    losses: dict[str, Any]


class RolloutItem(Rollout, frozen=True, kw_only=True):
    """A roll-out as it is stored, and whose it is."""

    service: str


class RolloutStatus(Struct, kw_only=True):
    """How far a service is in each of its clusters, with its roll-out that is under way or else the last one."""

    service: str
    task_name: str
    task_version: int
    clusters: list[dict[str, Any]]
    rollout: Rollout | None = None


class DecisionItem(Decision, frozen=True, kw_only=True):
    """A decision as it is stored; ``hosts``: for each batch the verdict on every host."""

    hosts: list[list[dict[str, Any]]]


class Explanation(Struct, kw_only=True):
    """A service in one cluster. ``hosts``: a verdict on each; ``nearest`` and ``less``: what would help."""

    service: str
    cluster: str
    scheduler: str
    task_name: str
    task_version: int
    desired: int
    placed: int
    waiting: int
    blocked: str
    note: str
    asked: Any
    hosts: list[dict[str, Any]]
    nearest: str
    less: str
    tasks: list[dict[str, Any]]


class TaskExplanation(Struct, kw_only=True):
    """A task where it is now. ``decision``: the number of the one that put it there; ``hosts``: the verdicts then."""

    id: str
    host: str
    healthy: bool
    rejected: bool
    reject_reason: str
    scheduled: bool
    failure: Failure | None
    decision: int | None
    at: str
    by: str
    terms: dict[str, float]
    hosts: list[dict[str, Any]]


class StoryItem(Struct, kw_only=True):
    """What happened to a task: see ``sked why``."""

    id: str
    state: str
    headline: str
    service: str
    cluster: str
    host: str
    task_name: str
    task_version: int | None
    health: Health | None
    failure: Failure | None
    rollout: Rollout | None
    moments: list[Moment]
    endings: list[Ending]
    advice: list[Advice]


class Field(Struct, kw_only=True):
    """One field that is different; a side that has none of it is null."""

    path: str
    before: Any = None
    after: Any = None


class Difference(Struct, kw_only=True, rename={"before": "from", "after": "to"}):
    """Two versions of a task definition, and the fields that differ."""

    name: str
    before: int
    after: int
    fields: list[Field]


class Validation(Struct, kw_only=True):
    """How many objects a manifest declares."""

    clusters: int
    services: int
    task_definitions: int
    warnings: list[str]


class PlanItem(Struct, kw_only=True):
    """What an apply would do. ``revision``: give it as ``if_revision`` to do exactly this or nothing."""

    revision: str
    apply: str
    pending: bool
    unplaced: int
    complete: bool
    objects: list[dict[str, Any]]
    services: list[dict[str, Any]]
    warnings: list[str]
    notes: list[str]


class SimulationItem(Struct, kw_only=True):
    """Where everything would go."""

    unplaced: int
    complete: bool
    services: list[dict[str, Any]]
    hosts: list[dict[str, Any]]
    changing_anyway: list[dict[str, str]]
    notes: list[str]


class RebalanceItem(Struct, kw_only=True):
    """Moves that would help. ``revision``: give it as ``if_revision`` to have exactly these made, or none."""

    revision: str
    apply: str
    applied: bool
    moves: list[dict[str, Any]]
    before: dict[str, Any]
    after: dict[str, Any]
    services: list[dict[str, Any]]
    left_out: list[dict[str, str]]
    more: Any = None


class AppliedItem(Struct, kw_only=True):
    """What became of one object: created, configured or unchanged; and the roll-out that began with it."""

    kind: str
    name: str
    outcome: str
    rollout: int | None = None


class Done(Struct, kw_only=True):
    """What an act came to: ``changed`` is false where all was so already."""

    name: str
    changed: bool
    text: str = ""


class StateItem(Struct, kw_only=True):
    """One key of the store. ``value``: decoded, where it is JSON; else the text."""

    key: str
    revision: int
    lease: str
    size: int
    value: Any = None


class Me(Struct, kw_only=True):
    """Who asks: the name beside the token (empty without one), and the role."""

    name: str
    role: str
