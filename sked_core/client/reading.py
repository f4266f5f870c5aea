"""What the store holds, as rows for people. What can't be decoded is noticed; the rest is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sked_core.client.held import made_of, order
from sked_core.client.notices import notice
from sked_core.errors import InvalidValue
from sked_core.interfaces.store import Entry, Store, entry_at, is_key, read_keys
from sked_core.model import keys
from sked_core.model.codec import decode
from sked_core.model.spec import known, plain
from sked_core.model.types import Cluster, Host, Presence, Service, Task
from sked_core.runtime.state import decode_task

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Item(Generic[T]):
    """One object: its key, the entry it was read from, and the value."""

    key: str
    entry: Entry
    value: T

    def stored(self) -> dict[str, Any]:
        """All its fields as they are stored, those included that this version does not know."""
        return decode(self.entry.value, dict)


def items(entries: Mapping[str, Entry], kind: type[T]) -> list[Item[T]]:
    """The objects of one kind in ``entries``, in natural order of their keys."""
    return list(_decoded(entries.items(), kind, lambda _, entry: decode(entry.value, kind)))


def value_of(key: str, entry: Entry | None, kind: type[T]) -> T | None:
    """The object in ``entry``, which stands under ``key``; None where there is none, or it can't be decoded."""
    found = items({key: entry}, kind) if entry is not None else []
    return found[0].value if found else None


def value_at(store: Store, key: str, kind: type[T]) -> T | None:
    """The object under ``key`` itself, as ``value_of`` has it. Raises Unavailable."""
    return value_of(key, entry_at(store, key), kind)


def tasks(store: Store, *, host: str = "", cluster: str = "", service: str = "") -> list[Item[Task]]:
    """Tasks in natural order of their ids; those too that somebody wrote for a host without any scheduler."""
    if host:
        found = _host_tasks(store.read(keys.host_tasks(host)).entries)
    else:
        by_id = store.read(keys.TASKS).entries
        found = list(_decoded(by_id.items(), Task, lambda key, entry: decode_task(key, entry).task))
        alone = (key for key in read_keys(store, keys.HOST_TASKS) if keys.TASKS + keys.last_segment(key) not in by_id)
        names = filter(is_key, alone)  # what can be none, `sked state check` tells
        strangers = {key: entry for name in names for key, entry in store.read(name).entries.items() if key == name}
        if strangers:
            found = sorted([*found, *_host_tasks(strangers)], key=lambda item: order(item.value.id))
    return [
        item
        for item in found
        if (not cluster or item.value.cluster.name == cluster) and (not service or item.value.service == service)
    ]


def clusters(store: Store) -> list[Item[Cluster]]:
    return items(store.read(keys.CLUSTERS).entries, Cluster)


def services(store: Store) -> list[Item[Service]]:
    return items(store.read(keys.SERVICES).entries, Service)


def service_entry(store: Store, name: str) -> Entry:
    """The declaration of one service. Raises NotFound, with a name that is like it."""
    entries = store.read(keys.SERVICES).entries
    known("service", name, map(keys.last_segment, entries))
    return entries[keys.service(name)]


def declared(store: Store, name: str) -> Item[Service]:
    """One service. Raises NotFound as ``service_entry`` does, and InvalidValue with the remedy if it can't be read."""
    key, entry = keys.service(name), service_entry(store, name)
    try:
        return Item(key, entry, decode(entry.value, Service))
    except InvalidValue as error:
        from sked_core.logic.world import unreadable_service

        raise unreadable_service(name, str(error)) from None


def hosts(store: Store) -> list[Item[Host]]:
    return items(store.read(keys.HOSTS).entries, Host)


def by_name(store: Store, prefix: str, kind: type[T]) -> dict[str, T]:
    """Small records (marks, statuses) by the last part of their keys; what stands under no possible name is noticed."""
    entries = store.read(prefix).entries
    odd = [key for key in entries if not keys.is_host(key.removeprefix(prefix))]
    for key in odd:
        notice(f"sked: {plain(key)} is left out: nothing has such a name")
    found = {key: entry for key, entry in entries.items() if key not in odd} if odd else entries
    return {keys.last_segment(item.key): item.value for item in items(found, kind)}


def unattended(store: Store, wanted: Iterable[Service]) -> list[str]:
    """A line for each service that nobody would place: who waits in vain should know at once."""
    present = by_name(store, keys.SCHEDULERS, Presence).values()
    offered = {scheduler for one in present for scheduler in one.schedulers}
    return [
        f"{one.name}: no process is there that places by {one.scheduler}; `sked run scheduler` is one"
        for one in wanted
        if one.scheduler not in offered
    ]


def _host_and_id(key: str) -> tuple[str, str]:
    host, _, task_id = key.removeprefix(keys.HOST_TASKS).partition("/")
    return host, task_id


def _host_tasks(entries: Mapping[str, Entry]) -> list[Item[Task]]:
    def own(key: str, entry: Entry) -> Task:
        return decode_task(key, entry, _host_and_id(key)[0]).task

    return list(_decoded(entries.items(), Task, own))


def _decoded(
    entries: Iterable[tuple[str, Entry]], kind: type[T], decoder: Callable[[str, Entry], T]
) -> Iterator[Item[T]]:
    for key, entry in sorted(entries, key=lambda pair: order(pair[0])):
        made: T | None = made_of(entry, kind)
        try:
            yield Item(key, entry, decoder(key, entry) if made is None else made)
        except InvalidValue as error:
            notice(f"sked: {plain(key)} is left out: {plain(str(error))}")
