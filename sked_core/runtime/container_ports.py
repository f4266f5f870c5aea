"""Which host ports the containers of a task definition take, as far as this process can tell."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from sked_core.model import secret_refs
from sked_core.model.ports import bindings_of
from sked_core.model.rules import SpecChecker
from sked_core.model.types import TaskDefinition

log = logging.getLogger("sked.scheduler")


class ContainerPorts:
    """Host ports that the containers of a definition take beside the task's own, numbered as in
    ``Demand.fixed_ports``, as far as their executors are installed here. One that is not, or refuses its spec, says
    nothing: the agent has the last word."""

    def __init__(self, executors: Mapping[str, SpecChecker]) -> None:
        self._executors = executors
        self._known: dict[tuple[str, int], frozenset[int]] = {}

    def __call__(self, definition: TaskDefinition) -> frozenset[int]:
        key = (definition.name, definition.version)
        if key not in self._known:
            self._known[key] = self._ask(definition)
        return self._known[key]

    def _ask(self, definition: TaskDefinition) -> frozenset[int]:
        ports: frozenset[int] = frozenset()
        for container in definition.containers:
            try:
                executor, spec = self._executors.get(container.type), secret_refs.held(container.executor)
                if executor is not None and not executor.validate(spec):
                    ports |= {one.number for one in bindings_of(executor, spec, 0)}
            except Exception as error:  # noqa: BLE001 - a plugin's mistake must not end the scheduler
                log.warning("ports of %s can't be told: %s", definition.name, error)
        return ports
