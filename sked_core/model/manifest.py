"""What an apply consists of: the objects to write, what is stored already, and how problems are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from sked_core.errors import InvalidValue, Problem
from sked_core.model import keys
from sked_core.model.codec import decode
from sked_core.model.types import Cluster, Host, Service, TaskDefinition
from sked_core.model.wording import counted

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that one apply declares: valid, resolved (no default is left open), ready to be stored."""

    clusters: tuple[Cluster, ...] = ()
    services: tuple[Service, ...] = ()
    task_definitions: tuple[TaskDefinition, ...] = ()
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredConfig:
    """What users declared before, and the hosts that said what they have, as far as it can be read; ``broken`` says why
    for every other key."""

    clusters: Mapping[str, Cluster] = field(default_factory=dict)
    services: Mapping[str, Service] = field(default_factory=dict)
    task_definitions: Mapping[tuple[str, int], TaskDefinition] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    hosts: Mapping[str, Host] = field(default_factory=dict)

    @classmethod
    def from_values(cls, values: Mapping[str, bytes]) -> StoredConfig:
        """Out of the values below ``config/`` by their whole key; keys of other kinds are passed over."""
        clusters: dict[str, Cluster] = {}
        services: dict[str, Service] = {}
        task_definitions: dict[tuple[str, int], TaskDefinition] = {}
        broken: dict[str, str] = {}
        hosts: dict[str, Host] = {}
        for key, value in values.items():
            try:
                if key.startswith(keys.CLUSTERS):
                    cluster = decode(value, Cluster)
                    clusters[cluster.name] = _at(key, keys.cluster(cluster.name), cluster)
                elif key.startswith(keys.SERVICES):
                    service = decode(value, Service)
                    services[service.name] = _at(key, keys.service(service.name), service)
                elif key.startswith(keys.TASK_DEFINITIONS):
                    definition = decode(value, TaskDefinition)
                    name, version = definition.name, definition.version
                    task_definitions[name, version] = _at(key, keys.task_definition(name, version), definition)
                elif key.startswith(keys.HOSTS):
                    host = decode(value, Host)
                    hosts[host.name] = _at(key, keys.host(host.name), host)
            except InvalidValue as error:
                if not key.startswith(keys.HOSTS):  # that one is for its agent to repair
                    broken[key] = str(error)
        return cls(clusters, services, task_definitions, broken, hosts)


def _at(key: str, own_key: str, stored: T) -> T:
    if key != own_key:
        raise InvalidValue(f"what it holds belongs under {own_key}")
    return stored


def report(problems: Iterable[Problem]) -> str:
    """One line for each problem, compiler style, and how many there are; warnings are not counted as errors."""
    problems = tuple(problems)
    lines = [str(problem) for problem in problems]
    errors = [problem for problem in problems if not problem.warning]
    if errors:
        lines.append(f"{counted(len(errors), 'error')} in {counted(len({p.file for p in errors}), 'file')}")
    return "\n".join(lines)
