"""What answers are made of, for the description and for those who make clients from it. Objects of the store may have
fields besides, which newer versions or people wrote."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from msgspec import Struct, field

from sked_core.client.listing import Place
from sked_core.model.types import Cluster, Event, Failure, Host, Service, Task, TaskDefinition, TaskId

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
    """A host as its agent described it. ``state``: ready, cordoned, draining or down. ``reserved_*``: by its tasks."""

    state: str
    tasks: int
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
