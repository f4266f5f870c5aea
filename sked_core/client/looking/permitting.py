"""What the policy of a host would say of manifests, without any store: for whoever writes either of the two."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sked_core.model.manifest import Manifest
from sked_core.model.policy import Denial, Policy
from sked_core.model.types import DEFAULT_PORT_RANGE, Cluster, Task, TaskDefinition
from sked_core.runtime.agent.policing import Policing, open_executors
from sked_core.runtime.agent.settings import AgentSettings
from sked_core.runtime.plugins.registry import Plugins


@dataclass(frozen=True, slots=True)
class Verdict:
    """``of``: ``NAME/VERSION/CONTAINER``, as a task of ``service`` in ``cluster`` (empty: what no service names)."""

    of: str
    service: str
    cluster: str
    denials: tuple[Denial, ...]

    def json(self) -> dict[str, Any]:
        said = [{"gate": one.gate, "what": one.what, "line": one.line} for one in self.denials]
        named = {"of": self.of, "service": self.service, "cluster": self.cluster}
        return {**named, "allowed": not self.denials, "denials": said}


def verdicts(manifest: Manifest, policy: Policy, plugins: Plugins, *, address: str = "127.0.0.1") -> list[Verdict]:
    """One for each container of each task definition, once for each cluster and service that would run it. Judged as
    an agent on this machine would that runs as who asks; one with ``provide_port`` as if it had got the first port."""
    settings = AgentSettings(host=socket.gethostname(), state_dir=Path(os.devnull), policy=policy)
    executors = open_executors(plugins, settings, "")
    policing = Policing(policy, executors, frozenset({address}))
    found = []
    try:
        for definition in manifest.task_definitions:
            for cluster, service in _users(manifest, definition):
                task = _task(definition, cluster, service)
                for container, denials in policing.by_container(task):
                    of = f"{definition.name}/{definition.version}" + (f"/{container}" if container else "")
                    found.append(Verdict(of, service, cluster, tuple(denials)))
    finally:
        for executor in executors.values():
            executor.close()
    return found


def together(denials: Sequence[Denial]) -> dict[str, Any]:
    """All lines of ``denials`` as one mapping: lists have the entries of each."""
    import yaml

    found: dict[str, Any] = {}
    for one in denials:
        _merge(found, yaml.safe_load(one.line))
    return found


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        there = into.get(name)
        if isinstance(there, dict) and isinstance(value, dict):
            _merge(there, value)
        elif isinstance(there, list) and isinstance(value, list):
            there += [one for one in value if one not in there]
        elif isinstance(there, int) and isinstance(value, int):
            into[name] = max(there, value)
        else:
            into[name] = value


def _users(manifest: Manifest, definition: TaskDefinition) -> list[tuple[str, str]]:
    """The clusters and services that run it; nobody's name where none does."""
    of = (definition.name, definition.version)
    services = [one.name for one in manifest.services if (one.task_name, one.task_version) == of]
    pairs = [(cluster.name, name) for name in services for cluster in manifest.clusters if name in cluster.services]
    return pairs or [("", name) for name in services] or [("", "")]


def _task(definition: TaskDefinition, cluster: str, service: str) -> Task:
    name = service or definition.name
    port = definition.port or (DEFAULT_PORT_RANGE[0] if definition.provide_port else 0)
    return Task(
        cluster=Cluster(name=cluster or "default", services=[name]),
        task_definition=definition,
        service=name,
        host=socket.gethostname().lower(),
        port=port,
    )
