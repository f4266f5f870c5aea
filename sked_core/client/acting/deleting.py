"""Taking a declaration away; tasks that came of it are stopped by whoever runs them."""

from __future__ import annotations

from collections.abc import Sequence

from sked_core.client import outcomes, reading
from sked_core.client.naming import split
from sked_core.client.session import Session
from sked_core.errors import InvalidValue, NotFound
from sked_core.interfaces.store import Check, Delete, Op, Put, Store
from sked_core.model import keys
from sked_core.model.codec import patch
from sked_core.model.types import Rollout
from sked_core.model.wording import counted

KINDS = ("service", "cluster", "task_definition")


def delete(sked: Session, target: str, *, cascade: bool = False, why: str = "") -> None:
    """Remove ``target``: service/NAME, cluster/NAME, task_definition/NAME (every version) or
    task_definition/NAME/VERSION. ``cascade``: take a service out of the clusters that list it.

    Raises InvalidValue for anything else, NotFound, Ended with code 5 if others refer to it, Conflict if somebody
    wrote meanwhile, Unavailable.
    """
    commit(sked, target, removal(sked, target, cascade=cascade), why=why)


def removal(sked: Session, target: str, *, cascade: bool = False) -> Sequence[Op]:
    """What removes ``target`` as things are now, for ``commit``. Raises as ``delete`` does."""
    kind, name = split(target, KINDS)
    return {"service": _service, "cluster": _cluster, "task_definition": _task_definition}[kind](
        sked.store, name, cascade
    )


def commit(sked: Session, target: str, ops: Sequence[Op], *, why: str = "") -> None:
    """Remove ``target`` by ``ops``, and tell of it. Raises Conflict, Unavailable."""
    kind, _, name = target.partition("/")
    journal = sked.journal()
    event = journal.event(f"{kind}.deleted", target, service=name if kind == "service" else "", why=why)
    journal.commit(ops, [event])


def _service(store: Store, name: str, cascade: bool) -> Sequence[Op]:
    key = keys.service(name)
    ops = _existing(store, key, f"service {name}")
    users = [item for item in reading.clusters(store) if name in item.value.services]
    if users and not cascade:
        names = ", ".join(item.value.name for item in users)
        raise outcomes.Ended(
            f"service {name} is listed by {counted(len(users), 'cluster')}: {names}",
            code=outcomes.CONFLICT,
            hint=f"take it out of their manifests first, or:  sked delete service/{name} --cascade",
        )
    for item in users:
        rest = [service for service in item.value.services if service != name]
        ops += [Check(item.key, item.entry.revision), Put(item.key, patch(item.entry.value, services=rest))]
    return ops


def _cluster(store: Store, name: str, _cascade: bool) -> Sequence[Op]:
    return _existing(store, keys.cluster(name), f"cluster {name}")


def _task_definition(store: Store, target: str, _cascade: bool) -> Sequence[Op]:
    name, slash, version = target.partition("/")
    if slash and not (version.isascii() and version.isdecimal()):
        raise InvalidValue(f"expected a version number behind task_definition/{name}/, got {version!r:.40}")
    key = keys.task_definition(name, int(version)) if slash else keys.task_definition_versions(name)
    ops = _existing(store, key, f"task definition {target}")
    services = [item.value for item in reading.services(store)]
    users = [
        f"{service.name} (version {service.task_version})"
        for service in services
        if service.task_name == name and (not slash or service.task_version == int(version))
    ]
    active = reading.by_name(store, keys.ROLLOUTS, Rollout)
    origins = [
        f"{service.name} (roll-out {one.number})"
        for service in services
        if (one := active.get(service.name)) is not None
        and one.from_name == name
        and (not slash or one.from_version == int(version))
    ]
    if origins and not users:
        raise outcomes.Ended(
            f"task definition {target} is what a roll-out under way may go back to: {', '.join(origins)}",
            code=outcomes.CONFLICT,
            hint=f"wait for its end:  sked rollout status {origins[0].partition(' ')[0]} -w",
        )
    if users:
        raise outcomes.Ended(
            f"task definition {target} is used by {counted(len(users), 'service')}: {', '.join(users)}",
            code=outcomes.CONFLICT,
            hint="apply those services with another version first, or delete them",
        )
    return ops


def _existing(store: Store, key: str, what: str) -> list[Op]:
    """Guarded deletion of ``key``, or of everything below it where it ends in a slash."""
    entries = store.read(key).entries
    found = {other: entry for other, entry in entries.items() if other == key or key.endswith("/")}
    if not found:
        raise NotFound(f"no {what}", hint="`sked services` and `sked clusters` list what there is")
    return [op for other, entry in found.items() for op in (Check(other, entry.revision), Delete(other))]
