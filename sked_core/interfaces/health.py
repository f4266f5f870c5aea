"""The port to whoever keeps the health checks of tasks and knows their results."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sked_core.clock import Clock
from sked_core.errors import PluginError
from sked_core.interfaces.store import Store
from sked_core.model.policy import Policy
from sked_core.model.types import Health, Task, TaskId


def _no_probes(context: HealthContext) -> HealthProvider:
    raise PluginError("this context has no probes")


@dataclass(frozen=True, slots=True)
class HealthContext:
    """What a health provider's factory is given. ``host`` is empty for those who only read. ``url`` is the
    store's URL, ``store_uid`` names the store (empty where it is not known yet), so that several stores can share one
    provider. Scripts are run as the user whom ``policy.checks`` names (as_user.chosen, asked at each run). ``mask``
    takes the secrets of a task out of what a check said, by task id: to be called before that leaves this process. A
    factory does no I/O."""

    store: Store
    url: str
    host: str
    clock: Clock
    store_uid: str = ""
    policy: Policy = field(default_factory=Policy)
    mask: Callable[[str, str], str] = lambda _, text: text
    probes: Callable[[HealthContext], HealthProvider] = _no_probes
    """What Sked uses with stores that have no provider of their own, to build upon: ``context.probes(context)``."""


class HealthProvider(Protocol):
    """Registers the tasks of this host, and reports the health of any task. Methods may be called from any thread,
    end within a deadline, and raise Unavailable when the result is not known (unknown is never unhealthy)."""

    def register(self, task: Task) -> None:
        """Keep the checks of ``task``, whose containers run. Idempotent: an unchanged registration is left alone,
        so that a healthy task does not flip to unhealthy when an agent restarts."""
        ...

    def deregister(self, task_id: TaskId) -> None:
        """Forget the task. Idempotent."""
        ...

    def registered(self) -> frozenset[TaskId]:
        """Tasks of this host that are registered now, also by an earlier agent: what an agent tidies up."""
        ...

    def health(self, services: Collection[tuple[str, str]], hosts: Collection[str] = ()) -> Mapping[TaskId, Health]:
        """Health of every registered task of these (cluster, service) pairs, on these hosts (none named: on all; what
        is known of others may be told as well). A task that is not in the result is not registered (not started, or
        stopped): not healthy. Where ``hosts`` is a mapping it says which tasks each of them has: what a host says of
        any other is a lie or old, and is not told, as far as the provider can tell who says it (``told_by``)."""
        ...

    def wait(self, since: int, timeout: float, hosts: Collection[str] = ()) -> int:
        """Return once the health of some task, on these hosts where any are named, may have changed after ``since``
        (0 at first), or after ``timeout`` seconds; the result is what to wait from next. May wake for nothing."""
        ...

    def close(self) -> None:
        """End threads and connections, leave registrations. Idempotent."""
        ...


def by_host(tasks: Iterable[Task]) -> Mapping[str, frozenset[TaskId]]:
    """What to ask for with ``health``: the hosts of ``tasks``, with those that each of them has."""
    found: dict[str, set[TaskId]] = {}
    for task in tasks:
        if task.host:
            found.setdefault(task.host, set()).add(task.id)
    return {host: frozenset(ids) for host, ids in found.items()}


def told_by(hosts: Collection[str], host: str, task_id: TaskId) -> bool:
    """Whether what ``host`` says of the task counts, by the ``hosts`` that ``health`` was asked for."""
    return not isinstance(hosts, Mapping) or task_id in hosts.get(host, ())
