"""Whether this host can run a task now: the operator's policy, its executors, and what it has left."""

from __future__ import annotations

from collections.abc import Mapping

from sked_core.errors import PluginError, Rejected
from sked_core.interfaces.executor import Executor
from sked_core.model import secret_refs
from sked_core.model.ports import Binding, bindings_of, port_name
from sked_core.model.rules import MAX_CHECKS
from sked_core.model.types import Task
from sked_core.runtime.agent.host_facts import Machine, capacity
from sked_core.runtime.agent.local_tasks import LocalTasks
from sked_core.runtime.agent.settings import AgentSettings


class Admission:
    """Asked by the agent's main thread before each start."""

    def __init__(
        self, tasks: LocalTasks, executors: Mapping[str, Executor], settings: AgentSettings, machine: Machine
    ) -> None:
        self._tasks, self._executors, self._settings, self._machine = tasks, executors, settings, machine

    def bindings(self, task: Task) -> frozenset[Binding]:
        """All host ports that the task binds; its own one, where no executor knows better, on every address. Raises
        Rejected for a type that no executor here runs."""
        bindings: frozenset[Binding] = frozenset()
        for container in task.task_definition.containers:
            executor = self._executors.get(container.type)
            if executor is None:
                known = ", ".join(sorted(self._executors)) or "none"
                raise Rejected(f"executor {container.type} is not available on this host (available: {known})")
            try:
                spec = secret_refs.held(container.executor)
                problems = [*secret_refs.problems(container.executor), *executor.validate(spec)]
                bindings |= frozenset() if problems else bindings_of(executor, spec, task.port)
            except PluginError as error:  # it says who failed
                raise Rejected(str(error)) from error
            except Exception as error:
                raise Rejected(f"executor {container.type} failed on this task: {error}") from error
            if problems:
                raise Rejected(f"container {container.name}: {problems[0]}")
        if task.port and not any(one.port == task.port and one.protocol == "tcp" for one in bindings):
            bindings |= {Binding(task.port)}
        return bindings

    def admit(self, task: Task, ports: frozenset[int]) -> str:
        """What keeps it from being started now but is about to go; empty if nothing does. ``ports``: what it binds, as
        counted (model.ports). Raises Rejected with the reason if it can't be run here."""
        if not task.task_definition.containers:
            raise Rejected("the task has no containers")
        if sum(len(container.checks or ()) for container in task.task_definition.containers) > MAX_CHECKS:
            raise Rejected(f"the task has more than {MAX_CHECKS} checks")
        if self._settings.allow_clusters is not None and task.cluster.name not in self._settings.allow_clusters:
            raise Rejected(f"policy: this host takes no tasks of cluster {task.cluster.name}")
        lack = self._lack(task, going=False)
        if lack:
            raise Rejected(lack)
        holder = self._tasks.port_holder(ports, but=task.id)
        if holder is not None:
            held = f"port {port_name(min(holder.ports & ports))} is held by task {holder.local.id}"
            if not holder.going:
                raise Rejected(held)
            return f"{held}, which is about to go"
        lack = self._lack(task, going=True)
        return f"{lack}, until others have gone" if lack else ""

    def _lack(self, task: Task, *, going: bool) -> str:
        """What is not left for it, with or without those that are about to go; empty if there is room."""
        definition, settings = task.task_definition, self._settings
        memory, cpu, disk, count = self._tasks.reserved(but=task.id, going=going)
        granted = capacity(settings, self._machine)
        if settings.max_tasks and count >= settings.max_tasks:
            return f"policy: this host takes {settings.max_tasks} tasks at most"
        for what, need, used, total in (
            ("memory", definition.total_memory, memory, granted.memory),
            ("cpu", definition.total_cpu_units, cpu, granted.cpu_units),
            ("disk", definition.total_disk, disk, granted.disk),
        ):
            if need and used + need > total:
                return f"{what}: needs {need}, free {max(0, total - used)} of {total}"
        free = self._machine.free_disk_mb(settings.state_dir) if definition.total_disk else 0
        if definition.total_disk > free:
            return f"disk: needs {definition.total_disk} MB, free {free} MB"
        return ""
