"""A host's policy put to its executors: what is denied of a task that would be started now."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from sked_core.as_user import chosen
from sked_core.errors import SkedError
from sked_core.interfaces.executor import Executor, ExecutorContext, Policed
from sked_core.logic import gates
from sked_core.model import secret_refs
from sked_core.model.policy import Denial, Policy
from sked_core.model.ports import bindings_of
from sked_core.model.types import Container, Task
from sked_core.runtime.agent.settings import AgentSettings
from sked_core.runtime.plugins import asked
from sked_core.runtime.plugins.registry import Plugins

log = logging.getLogger("sked.agent")


def open_executors(plugins: Plugins, settings: AgentSettings, mark: str) -> dict[str, Executor]:
    """An executor of every type that is installed and that the operator's flags let in. One that the policy does not
    name is among them: what it runs from before is looked after. ``mark``: of the store."""
    found: dict[str, Executor] = {}
    for kind in plugins.names("executor"):
        if settings.allow_executors is not None and kind not in settings.allow_executors:
            continue
        folder = settings.state_dir / "executors" / kind
        context = ExecutorContext(host=settings.host, store_uid=mark, state_dir=folder, policy=settings.policy)
        try:
            found[kind] = asked.executor(plugins, kind, context)
        except SkedError as error:
            log.error("executor %s: %s", kind, error)
    return found


class Policing:
    """Asked at each start and whenever the health of a task is registered, by any thread. ``executors``: by type, as
    they are when it is asked; ``addresses``: how this host calls itself."""

    def __init__(self, policy: Policy, executors: Mapping[str, Any], addresses: frozenset[str] = frozenset()) -> None:
        self.policy = policy
        self._executors, self._addresses = executors, addresses

    def denials(self, task: Task) -> list[Denial]:
        """What core's gates deny, then what each executor does."""
        found = gates.denials(self.policy, task, self._premises(task))
        for container in task.task_definition.containers:
            found += self._of_executor(task, container)
        return found

    def by_container(self, task: Task) -> list[tuple[str, list[Denial]]]:
        """The same by container; last, with no name, what is denied of the task as a whole, if anything is."""
        here, found = self._premises(task), []
        for container in task.task_definition.containers:
            own = [*gates.of_container(self.policy, task, container, here), *self._of_executor(task, container)]
            found.append((container.name, list(dict.fromkeys(own))))
        whole = list(gates.of_task(self.policy, task))
        return [*found, ("", whole)] if whole else found

    def checks(self, task: Task) -> tuple[Task, list[Denial]]:
        """``task`` with those of its checks that may be run, and why not the others."""
        return gates.allowed_checks(self.policy, task, self._premises(task))

    def _of_executor(self, task: Task, container: Container) -> list[Denial]:
        executor = self._executors.get(container.type)
        if not isinstance(executor, Policed):
            return []
        return executor.denials(task, _held(container))

    def _premises(self, task: Task) -> gates.Premises:
        ports: set[int] = set()
        sockets: set[tuple[str, int]] = set()
        for container in task.task_definition.containers:
            try:
                bound = bindings_of(self._executors[container.type], _held(container).executor, task.port)
            except Exception as error:  # noqa: BLE001 - one that is not valid is refused elsewhere; it has no ports here
                log.debug("ports of %s are not known: %s", task.id, error)
            else:
                tcp = [one for one in bound if one.protocol == "tcp"]
                ports |= {one.port for one in tcp if one.address in ("", "::")}
                sockets |= {(one.address, one.port) for one in tcp}
        return gates.Premises(chosen, self._addresses, frozenset(ports), frozenset(sockets))


def _held(container: Container) -> Container:
    """``container`` as an executor understands it, with something in place of each secret."""
    return msgspec.structs.replace(container, executor=secret_refs.held(container.executor))
