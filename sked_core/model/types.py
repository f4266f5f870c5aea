"""Every object of the contract, as a frozen struct whose fields stand in the order of the stored JSON.

The structs are lenient where people write the store by hand (null lists, durations in either form), and strict
where a wrong value could do harm (names, ports, counts). Manifests pass the stricter ``validate`` first.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NewType

import msgspec
from msgspec import Meta, Struct

TaskId = NewType("TaskId", str)

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z"
HOST_PATTERN = r"^(?!\.\.?\Z)[A-Za-z0-9._-]{1,253}\Z"

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
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


class Service(Struct, frozen=True, kw_only=True):
    """How many tasks of which task definition version should run in each cluster that lists the service."""

    name: Name
    task_name: Name
    task_version: Version
    scheduler: str = "default"
    desired: Count = 1
    min: Count = 0
    max: Count = 0
    auto_bounds: bool = False


class Host(Struct, frozen=True, kw_only=True):
    """What an agent says of its machine. ``ports``: TCP ports held by others than Sked's own tasks."""

    name: Host_
    address: str = ""
    memory: Amount = 0
    cpu_units: Amount = 0
    disk: Amount = 0
    ports: list[Port] = msgspec.field(default_factory=list)
    port_range: tuple[Port, Port] = (20000, 29999)
    executors: list[str] = msgspec.field(default_factory=list)
    tags: dict[str, str] = msgspec.field(default_factory=dict)


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
    """What an operator says of a host: ``cordoned`` (nothing new) or ``draining`` (nothing at all)."""

    state: Literal["cordoned", "draining"]


class ClusterStatus(Struct, frozen=True, kw_only=True):
    """How far one service is in one cluster. ``hosts``: why each host took none of the waiting tasks."""

    desired: int = 0
    issued: int = 0
    waiting: int = 0
    blocked: str = ""
    hosts: dict[str, list[str]] = msgspec.field(default_factory=dict)


class ServiceStatus(Struct, frozen=True, kw_only=True):
    """What the scheduler last made of a service. While it stands, its tasks are the scheduler's: when the service is
    deleted they are withdrawn. Tasks of services without one were issued by others and are left alone."""

    scheduler: str
    clusters: dict[str, ClusterStatus] = msgspec.field(default_factory=dict)


class Presence(Struct, frozen=True):
    """That a scheduler process is alive: the key is bound to its lease. ``schedulers``: the ones it can place with."""

    schedulers: list[str]


def task_id(cluster: str, service: str, version: int, instance: int) -> TaskId:
    """The id of a task. Never parse one: names may contain hyphens; read the task's fields instead."""
    return TaskId(f"{cluster}-{service}-{version}-{instance}")
