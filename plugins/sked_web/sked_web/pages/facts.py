"""Reading what a look is made of from a session, whether it looks at the store or at a copy of it."""

from __future__ import annotations

from sked_core.client import reading
from sked_core.client.listing import health_of
from sked_core.client.session import Session
from sked_core.model import keys
from sked_core.model.types import (
    Failure,
    Host,
    Mark,
    Moves,
    Presence,
    Rollout,
    ServiceStatus,
    Task,
    TaskDefinition,
)
from sked_web.pages.sight import Facts


def facts_of(sked: Session, number: int = 0) -> Facts:
    """All of it. ``number``: names the state that is read. Raises Unavailable."""
    store = sked.store
    tasks: dict[str, Task] = {item.value.id: item.value for item in reading.tasks(store)}
    services = {item.value.name: item.value for item in reading.services(store)}
    definitions = [item.value for item in reading.items(store.read(keys.TASK_DEFINITIONS).entries, TaskDefinition)]
    declared = {keys.last_segment(key) for key in store.read(keys.SERVICES).entries}
    return Facts(
        number=number,
        tasks=tasks,
        health=health_of(sked, list(tasks.values())),
        hosts=reading.by_name(store, keys.HOSTS, Host),
        alive=frozenset(keys.last_segment(key) for key in store.read(keys.LIVE).entries),
        marks=reading.by_name(store, keys.MARKS, Mark),
        services=services,
        clusters={item.value.name: item.value for item in reading.clusters(store)},
        definitions={(one.name, one.version): one for one in definitions},
        rollouts=reading.by_name(store, keys.ROLLOUTS, Rollout),
        moves=reading.by_name(store, keys.MOVES, Moves),
        statuses=reading.by_name(store, keys.SERVICE_STATUS, ServiceStatus),
        failures=reading.by_name(store, keys.FAILURES, Failure),
        schedulers=reading.by_name(store, keys.SCHEDULERS, Presence),
        broken=declared - set(services),
    )
