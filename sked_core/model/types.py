"""Every object of the contract, as a frozen struct whose fields stand in the order of the stored JSON.

The structs are lenient where people write the store by hand (null lists, durations in either form), and strict
where a wrong value could do harm (names, ports, counts). Manifests pass the stricter ``validate`` first.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NewType

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from sked_core.model.signature import Signature
from sked_core.model.trouble import Trouble

TaskId = NewType("TaskId", str)

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z"
HOST_PATTERN = r"^(?!\.\.?\Z)[A-Za-z0-9._-]{1,253}\Z"

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
OptionalName = Annotated[str, Meta(pattern=rf"^\Z|{NAME_PATTERN}")]
Host_ = Annotated[str, Meta(pattern=HOST_PATTERN)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Version = Annotated[int, Meta(ge=0, le=2**53)]
Amount = Annotated[int, Meta(ge=0, le=2**53)]
"""An amount of MB or cpu units; 0 stands for "not said"."""

DEFAULT_GRACE_NS = 60_000_000_000
DEFAULT_MAX_ATTEMPTS = 10
DEFAULT_CHECK_INTERVAL = "10s"
DEFAULT_CHECK_TIMEOUT = "5s"
DEFAULT_PROGRESS_DEADLINE = "10m"
DEFAULT_PORT_RANGE = (20000, 29999)
"""Outside of what Linux gives to outgoing connections unless told otherwise (32768 to 60999)."""


class Check(Struct, frozen=True, kw_only=True):
    """A health check in Consul's schema: exactly one of http, tcp, script and ttl is not empty."""

    id: str = ""
    name: str = ""
    http: str = ""
    tcp: str = ""
    script: str = ""
    interval: str | int = ""
    timeout: str | int = ""
    ttl: str | int = ""


class Container(Struct, frozen=True, kw_only=True):
    """One executable unit; ``executor`` is parsed by the plugin that ``type`` names."""

    name: Name
    type: str
    executor: dict[str, Any] = msgspec.field(default_factory=dict)
    setup: list[str] | None = None
    checks: list[Check] | None = None
    memory: Amount = 0
    cpu_units: Amount = 0
    disk_use: Amount = 0


class TaskDefinition(Struct, frozen=True, kw_only=True):
    """A versioned group of containers that run together on one host. Immutable once applied."""

    name: Name
    version: Version
    provide_port: bool = False
    port: Port = 0
    tags: list[str] | None = msgspec.field(default_factory=list)
    memory: Amount = 0
    cpu_units: Amount = 0
    containers: list[Container] = msgspec.field(default_factory=list)
    grace_period: int | str = DEFAULT_GRACE_NS
    max_attempts: Annotated[int, Meta(ge=1, le=1_000_000)] = DEFAULT_MAX_ATTEMPTS
    shutdown_delay: int | str | UnsetType = UNSET
    """How long a task runs on after it was taken out of service discovery; not stored where it was not given."""

    @property
    def total_memory(self) -> int:
        """MB of the whole task: as declared, else the sum over its containers."""
        return self.memory or sum(container.memory for container in self.containers)

    @property
    def total_cpu_units(self) -> int:
        """Cpu units (1024 = one core) of the whole task: as declared, else the sum over its containers."""
        return self.cpu_units or sum(container.cpu_units for container in self.containers)

    @property
    def total_disk(self) -> int:
        """MB of disk of the whole task."""
        return sum(container.disk_use for container in self.containers)


class Cluster(Struct, frozen=True, kw_only=True):
    """A named group of services, optionally limited to some hosts (``hosts`` null: every host)."""

    name: Name
    datacenter: str = ""
    services: list[Name] = msgspec.field(default_factory=list)
    hosts: list[Host_] | None = None


class UpdatePolicy(Struct, frozen=True, kw_only=True):
    """How a service is changed from one version to another. Durations are Go-style texts or nanoseconds.

    ``healthy_for``: how long a new task has to be healthy before the next step; ``""``: at once where the task has
    checks, 5 s where it has none. ``progress_deadline``: a roll-out in which for so long no further task became
    healthy has failed. ``canaries``: tasks of the new version that come first, until somebody promotes them, or until
    they were healthy for ``promote_after`` (``""``: never by itself).
    """

    on_failure: Literal["pause", "rollback"] = "pause"
    healthy_for: str | int = ""
    progress_deadline: str | int = DEFAULT_PROGRESS_DEADLINE
    canaries: Count = 0
    promote_after: str | int = ""


class Preference(Struct, frozen=True, kw_only=True):
    """A wish that never keeps a task from running. Exactly one of ``host`` (a constraint on the host, as in
    ``Placement.require``) and ``service`` (tasks of that service on the same host, or under the same value of the tag
    ``per``). ``weight``: how much it counts beside others; below 0 it is to be avoided."""

    host: str = ""
    service: OptionalName = ""
    per: str = "host"
    weight: Annotated[int, Meta(ge=-100, le=100)] = 50


class AtMost(Struct, frozen=True, kw_only=True):
    """No more than ``count`` tasks of the service on one host, or on all hosts with one value of the tag ``per``."""

    count: Annotated[int, Meta(ge=1, le=1_000_000)]
    per: str = "host"


class Spread(Struct, frozen=True, kw_only=True):
    """A wish: tasks are spread over the values of the tag ``over``, evenly or by ``shares`` (relative numbers)."""

    over: str
    shares: dict[str, Annotated[int, Meta(ge=0, le=1_000_000)]] = msgspec.field(default_factory=dict)
    weight: Annotated[int, Meta(ge=1, le=100)] = 50


class Neighbour(Struct, frozen=True, kw_only=True):
    """Tasks of ``service`` on the same host, or on hosts with the same value of the tag ``per``."""

    service: Name
    per: str = "host"


class Placement(Struct, frozen=True, kw_only=True):
    """Where tasks of a service may run, and where they had better run.

    Hard: ``require`` (constraints on the host, such as ``zone in a, b``), ``distinct_hosts``, ``at_most``, ``near`` and
    ``apart`` (other services), ``leave_free`` (percent of a host's memory and cpu that stay free once the task is
    there). Soft: ``prefer``, ``spread``. ``priority``: of services that wait, the higher one is placed first.
    """

    require: list[str] = msgspec.field(default_factory=list)
    distinct_hosts: bool = False
    at_most: list[AtMost] = msgspec.field(default_factory=list)
    near: list[Neighbour] = msgspec.field(default_factory=list)
    apart: list[Neighbour] = msgspec.field(default_factory=list)
    leave_free: Annotated[int, Meta(ge=0, le=99)] = 0
    prefer: list[Preference] = msgspec.field(default_factory=list)
    spread: list[Spread] = msgspec.field(default_factory=list)
    priority: Annotated[int, Meta(ge=0, le=100)] = 50


class Service(Struct, frozen=True, kw_only=True):
    """How many tasks of which task definition version should run in each cluster that lists the service. ``update`` and
    ``placement`` are stored only where they were given."""

    name: Name
    task_name: Name
    task_version: Version
    scheduler: str = "default"
    desired: Count = 1
    min: Count = 0
    max: Count = 0
    auto_bounds: bool = False
    update: UpdatePolicy | UnsetType = UNSET
    placement: Placement | UnsetType = UNSET

    @property
    def placement_rules(self) -> Placement:
        """What ``placement`` says, or that anywhere will do."""
        return ANYWHERE if isinstance(self.placement, UnsetType) else self.placement

    @property
    def update_policy(self) -> UpdatePolicy:
        """What ``update`` says, or the default."""
        return UpdatePolicy() if isinstance(self.update, UnsetType) else self.update


ANYWHERE = Placement()
"""No constraint and no preference."""


class Host(Struct, frozen=True, kw_only=True):
    """What an agent says of its machine. ``ports``: TCP ports held by others than Sked's own tasks. ``tags``: what its
    operator says of it; ``attributes``: what the agent found out (``arch``, ``os``, ``kernel``, …)."""

    name: Host_
    address: str = ""
    memory: Amount = 0
    cpu_units: Amount = 0
    disk: Amount = 0
    ports: list[Port] = msgspec.field(default_factory=list)
    port_range: tuple[Port, Port] = DEFAULT_PORT_RANGE
    executors: list[str] = msgspec.field(default_factory=list)
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    attributes: dict[str, str] = msgspec.field(default_factory=dict)
    serves: list[str] | UnsetType = UNSET
    """Where its agent offers logs and commands: ``unix:/path``, ``https://…``; not stored where it never did."""


class Task(Struct, frozen=True, kw_only=True):
    """One instance of a service on one host, self-contained: an agent needs nothing else to run it."""

    cluster: Cluster
    task_definition: TaskDefinition
    service: Name
    instance: Count = 0
    port: Port = 0
    host: Annotated[str, Meta(pattern=rf"^\Z|{HOST_PATTERN}")] = ""
    """Empty where a person wrote the task under a host's key and left it out."""
    scheduled: bool = True
    rejected: bool = False
    reject_reason: str = ""
    restarts: Count | UnsetType = UNSET
    """How often people asked for a restart in place: a change has its agent do it. Not stored before the first time."""
    signature: Signature | UnsetType = UNSET

    @property
    def id(self) -> TaskId:
        return task_id(self.cluster.name, self.service, self.task_definition.version, self.instance)


class Health(Struct, frozen=True):
    """A task's health: ``output`` is the last output of the check that decided, for people."""

    healthy: bool
    output: str = ""


class Liveness(Struct, frozen=True):
    """That an agent is alive: the key is bound to its lease. ``agent`` is an id that the host's state folder keeps."""

    agent: str


class Mark(Struct, frozen=True):
    """What an operator says of a host: ``cordoned`` (nothing new) or ``draining`` (nothing at all). ``force``: tasks
    leave also where fewer than ``min`` healthy ones remain; ``deadline``: after so many seconds (0: never)."""

    state: Literal["cordoned", "draining"]
    force: bool = False
    deadline: float = 0.0
    by: str = ""
    at: str = ""
    why: str = ""


class ClusterStatus(Struct, frozen=True, kw_only=True):
    """How far one service is in one cluster. ``hosts``: why each host took none of the waiting tasks; ``since``: when
    it began to be ``blocked`` by what doesn't pass by itself."""

    desired: int = 0
    issued: int = 0
    waiting: int = 0
    blocked: str = ""
    hosts: dict[str, list[str]] = msgspec.field(default_factory=dict)
    since: str = ""


class ServiceStatus(Struct, frozen=True, kw_only=True):
    """What the scheduler last made of a service. While it stands, its tasks are the scheduler's: when the service is
    deleted they are withdrawn. Tasks of services without one were issued by others and are left alone. ``decisions``:
    how many were made about it, which is the number of the last one."""

    scheduler: str
    clusters: dict[str, ClusterStatus] = msgspec.field(default_factory=dict)
    decisions: Annotated[int, Meta(ge=0, le=2**53)] = 0


class Presence(Struct, frozen=True, omit_defaults=True):
    """That a scheduler process is alive: the key is bound to its lease. ``schedulers``: the ones it can place with."""

    schedulers: list[str]
    trouble: Trouble | None = None


class Rollout(Struct, frozen=True, kw_only=True):
    """One roll-out of a service. While it is under way it stands under ``scheduling/rollouts/<service>``, where any
    scheduler goes on with it and people may edit it; once ended, in the history.

    ``number`` counts the roll-outs of the service from 1. ``kind``: ``update`` (somebody declared another version),
    ``undo`` (somebody went back), ``rollback`` (a scheduler went back). ``from_*``: the version that is replaced
    (``from_name`` empty: not known). ``state``: ``running``; ``paused`` by a person; ``failed``: stopped by itself,
    with ``reason``, until somebody resumes or undoes it. ``promoted``: the canaries were found good. ``progress``:
    healthy tasks of the new version by cluster, ``waited``: seconds without progress, both as last noted.
    ``result``: how it ended. Times are UTC, for people.
    """

    number: int
    kind: Literal["update", "undo", "rollback"] = "update"
    task_name: Name
    task_version: Version
    from_name: OptionalName = ""
    from_version: Version = 0
    state: Literal["running", "paused", "failed"] = "running"
    reason: str = ""
    promoted: bool = False
    progress: dict[str, int] = msgspec.field(default_factory=dict)
    waited: float = 0.0
    by: str = ""
    why: str = ""
    at: str = ""
    ended: str = ""
    result: Literal["", "succeeded", "rolled_back", "superseded", "withdrawn"] = ""


class TaskMove(Struct, frozen=True, kw_only=True, rename={"source": "from"}):
    """One task that is to leave ``source`` for the host ``to``, or, if that is the same one, to be restarted.

    ``turn``: moves to or from one host follow one another by it, whichever services they belong to. ``state``:
    ``waiting``; ``starting``: ``replacement``, the id of the task that was issued to ``to``, is becoming healthy;
    ``stopping``: the task itself was asked to stop; without a ``replacement``, which there was no room for beside it,
    that is issued once it is gone.
    """

    task: str
    cluster: Name
    source: Host_
    to: Host_
    turn: Annotated[int, Meta(ge=0)] = 0
    state: Literal["waiting", "starting", "stopping"] = "waiting"
    replacement: str = ""

    @property
    def restarts(self) -> bool:
        """Whether another task takes its place on the very same host."""
        return self.source == self.to


class Moves(Struct, frozen=True, kw_only=True):
    """The moves of one service that are left to be made. ``desired``: the count that they were planned for: scaling
    ends them, unless all of them are restarts. ``by``, ``at`` and ``why`` are for people."""

    moves: list[TaskMove] = msgspec.field(default_factory=list)
    desired: Count = 0
    by: str = ""
    at: str = ""
    why: str = ""


class Failure(Struct, frozen=True, kw_only=True):
    """Why a task does not run well on its host: written by the agent after each failure, gone once it is well again.

    ``attempts``: starts since it was last well; ``unhealthy``: it ran, but was unhealthy for longer than its grace
    period. ``reason``: how it ended; ``output``: what its failing check said last; ``log``: the last lines that its
    containers wrote. ``at`` and ``next_try`` (empty: none) are UTC, for people.
    """

    host: str
    attempts: int = 0
    unhealthy: bool = False
    reason: str = ""
    output: str = ""
    log: list[str] = msgspec.field(default_factory=list)
    at: str = ""
    next_try: str = ""


class Event(Struct, frozen=True, kw_only=True, rename={"before": "from", "after": "to"}):
    """Something that was decided, or that happened. ``who``: a process or person; ``what``: a dotted name such as
    ``task.issued``; ``subject``: ``task/<id>``, ``service/<name>`` or ``host/<name>``. ``at`` is UTC, for people.
    ``decision``: the number of the service's decision that it comes from; not stored where there is none."""

    at: str
    who: str
    what: str
    subject: str
    service: str = ""
    host: str = ""
    why: str = ""
    before: str = ""
    after: str = ""
    decision: int | UnsetType = UNSET


def task_id(cluster: str, service: str, version: int, instance: int) -> TaskId:
    """The id of a task. Never parse one: names may contain hyphens; read the task's fields instead."""
    return TaskId(f"{cluster}-{service}-{version}-{instance}")
