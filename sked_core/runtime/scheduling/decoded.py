"""The objects of a store, kind by kind, as far as they can be decoded. What can't be is named, and left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Generic, TypeVar

from sked_core.errors import InvalidValue
from sked_core.interfaces.store import Entry
from sked_core.model import codec, keys
from sked_core.model.types import Cluster, Host, Mark, Moves, Rollout, Service, ServiceStatus, TaskDefinition

T = TypeVar("T")
N = TypeVar("N", Service, Cluster, Host)


class Decoded(Generic[T]):
    """The objects of one kind by key. ``faults``: keys that hold none, with the reason."""

    def __init__(self, decode: Callable[[str, Entry], T]) -> None:
        self._decode = decode
        self.entries: dict[str, Entry] = {}
        self.objects: dict[str, T] = {}
        self.faults: dict[str, str] = {}

    def take(self, entries: Mapping[str, Entry], known: Iterable[str] | None = None) -> dict[str, T | None]:
        """Replace what stands under ``known`` keys (all, if not given) by ``entries``. Only what changed is decoded;
        returned are the changed keys with the objects that were there before."""
        gone = set(self.entries if known is None else known) - entries.keys()
        changed = {key: self._drop(key) for key in gone if key in self.entries}
        for key, entry in entries.items():
            before = self.entries.get(key)
            if before is entry or before == entry:
                continue
            changed[key] = self._drop(key)
            self.entries[key] = entry
            try:
                self.objects[key] = self._decode(key, entry)
            except InvalidValue as error:
                self.faults[key] = str(error)
        return changed

    def put(self, key: str, entry: Entry, one: T) -> dict[str, T | None]:
        """As ``take`` of one entry, whose object is known."""
        changed = {key: self._drop(key)}
        self.entries[key], self.objects[key] = entry, one
        return changed

    def _drop(self, key: str) -> T | None:
        self.entries.pop(key, None)
        self.faults.pop(key, None)
        return self.objects.pop(key, None)


class Records:
    """What is declared, and what is known of hosts, services, roll-outs and moves. Tasks are kept apart."""

    def __init__(self) -> None:
        self.services: Decoded[Service] = Decoded(partial(_named, Service, keys.service))
        self.clusters: Decoded[Cluster] = Decoded(partial(_named, Cluster, keys.cluster))
        self.hosts: Decoded[Host] = Decoded(partial(_named, Host, keys.host))
        self.definitions: Decoded[TaskDefinition] = Decoded(partial(_unnamed, TaskDefinition))
        self.marks: Decoded[Mark] = Decoded(partial(_unnamed, Mark))
        self.rollouts: Decoded[Rollout] = Decoded(partial(_of_service, Rollout, keys.ROLLOUTS))
        self.moves: Decoded[Moves] = Decoded(partial(_of_service, Moves, keys.MOVES))
        self.statuses: Decoded[ServiceStatus] = Decoded(partial(_of_service, ServiceStatus, keys.SERVICE_STATUS))
        self._kinds: dict[str, Decoded[Any]] = {
            keys.SERVICES: self.services,
            keys.CLUSTERS: self.clusters,
            keys.HOSTS: self.hosts,
            keys.TASK_DEFINITIONS: self.definitions,
            keys.MARKS: self.marks,
            keys.ROLLOUTS: self.rollouts,
            keys.MOVES: self.moves,
            keys.SERVICE_STATUS: self.statuses,
        }

    def take(self, entries: Mapping[str, Entry]) -> None:
        """Replace all of it by what stands in ``entries``."""
        for prefix, kind in self._kinds.items():
            kind.take({key: entry for key, entry in entries.items() if key.startswith(prefix)})

    def faults(self) -> dict[str, str]:
        """Keys that hold no valid object, with the reason."""
        return {key: fault for kind in self._kinds.values() for key, fault in kind.faults.items()}


def _unnamed(kind: type[T], _key: str, entry: Entry) -> T:
    return codec.decode(entry.value, kind)


def _named(kind: type[N], key_of: Callable[[str], str], key: str, entry: Entry) -> N:
    """An object whose name is its key's: one that bears another name is not the removal of the one that stood there."""
    one = codec.decode(entry.value, kind)
    if key != key_of(one.name):
        raise InvalidValue(f"the key says {keys.last_segment(key)}, the record {one.name}")
    return one


def _of_service(kind: type[T], prefix: str, key: str, entry: Entry) -> T:
    """An object whose key ends in the name of its service."""
    keys.check_name(key.removeprefix(prefix))
    return codec.decode(entry.value, kind)
