"""Looking through all that a store holds for what can't be, or should not: a pure function of its entries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sked_core.errors import InvalidValue
from sked_core.interfaces.store import Entry
from sked_core.logic.rollout_start import MAX_KEPT
from sked_core.model import keys
from sked_core.model.codec import MAX_OBJECT_BYTES, decode
from sked_core.model.decisions import Decision
from sked_core.model.endings import Ending
from sked_core.model.spec import plain
from sked_core.model.types import (
    Cluster,
    Event,
    Failure,
    Health,
    Host,
    Liveness,
    Mark,
    Moves,
    Presence,
    Rollout,
    Service,
    ServiceStatus,
    Task,
    TaskDefinition,
)

APPLY, REPAIR = "apply its manifest again, which writes it anew", "repair the value, or remove the key"
REMOVE = "remove the key"
_STALE = "remove the key, if it does not go by itself within minutes"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: where, what, and what to do."""

    key: str
    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class _Kind:
    """What stands below a prefix. ``of``: its type, None for plain text; ``key``: the key that the parts behind the
    prefix come to, which refuses parts that can't be; ``named``: the same of the value, if that says it too."""

    of: Any
    key: Callable[..., str]
    remedy: str = REPAIR
    parts: int = 1
    named: Callable[[Any], str] | None = None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and (text == "0" or text[0] != "0")):
        raise InvalidValue(f"{text!r:.40} is no number")
    return int(text)


KINDS: Mapping[str, _Kind] = {
    keys.CLUSTERS: _Kind(Cluster, keys.cluster, APPLY, named=lambda one: keys.cluster(one.name)),
    keys.SERVICES: _Kind(Service, keys.service, APPLY, named=lambda one: keys.service(one.name)),
    keys.TASK_DEFINITIONS: _Kind(
        TaskDefinition,
        lambda name, version: keys.task_definition(name, _number(version)),
        APPLY,
        parts=2,
        named=lambda one: keys.task_definition(one.name, one.version),
    ),
    keys.HOSTS: _Kind(Host, keys.host, named=lambda one: keys.host(one.name)),
    keys.TASKS: _Kind(Task, keys.task, named=lambda one: keys.task(one.id)),
    keys.HOST_TASKS: _Kind(Task, keys.host_task, parts=2),
    keys.AGENTS: _Kind(None, keys.agent),
    keys.LIVE: _Kind(Liveness, keys.live),
    keys.MARKS: _Kind(Mark, keys.mark),
    keys.SERVICE_LOCKS: _Kind(None, keys.service_lock),
    keys.HEALTH: _Kind(Health, keys.health, parts=2),
    keys.REPORTS: _Kind(Health, keys.report, parts=2),
    keys.SERVICE_STATUS: _Kind(ServiceStatus, keys.service_status),
    keys.SCHEDULERS: _Kind(Presence, keys.scheduler),
    keys.CHANGED: _Kind(None, keys.changed),
    keys.ROLLOUTS: _Kind(Rollout, keys.rollout),
    keys.MOVES: _Kind(Moves, keys.moves),
    keys.ROLLOUT_HISTORY: _Kind(Rollout, lambda name, number: keys.ended_rollout(name, _number(number)), parts=2),
    keys.DECISIONS: _Kind(Decision, lambda name, slot: keys.decision(name, _number(slot)), REMOVE, parts=2),
    keys.FAILURES: _Kind(Failure, keys.failure),
    keys.ENDINGS: _Kind(Ending, lambda host, slot: keys.ending(host, _number(slot)), REMOVE, parts=2),
    keys.EVENTS: _Kind(list[Event], keys.events, REMOVE),
    keys.META: _Kind(None, lambda name: keys.META + name),
}
_ROOTS = tuple({prefix.partition("/")[0] + "/" for prefix in KINDS})


def lint(entries: Mapping[str, Entry]) -> list[Finding]:
    """All that is wrong with ``entries``, those of a whole store, in order of their keys. Keys of others, below none of
    Sked's prefixes, are passed over. What was written while this was read may look wrong for a moment."""
    return sorted(_Lint(entries).run(), key=lambda one: (one.key, one.what))


class _Lint:
    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = entries
        self._objects: dict[str, dict[str, Any]] = defaultdict(dict)
        """By prefix and what stands behind it."""

    def run(self) -> Iterator[Finding]:
        for key, entry in self._entries.items():
            yield from self._single(key, entry.value)
        if keys.STORE_UID not in self._entries and any(key.startswith(keys.STATE) for key in self._entries):
            yield Finding(keys.STORE_UID, "the store has no id, though tasks stand in it", "restore its data, or apply")
        yield from self._declared()
        yield from self._ids()
        yield from self._tasks()
        yield from self._ports()
        yield from self._of_hosts()
        yield from self._of_services()

    def _single(self, key: str, value: bytes) -> Iterator[Finding]:
        prefix = max((one for one in KINDS if key.startswith(one)), key=len, default="")
        if not prefix:
            if key.startswith(_ROOTS):
                yield Finding(key, "no such key is known", "remove it, unless a newer Sked has written it")
            return
        kind, rest = KINDS[prefix], key.removeprefix(prefix)
        try:
            parts = rest.split("/")
            if len(parts) != kind.parts or kind.key(*parts) != key:
                raise InvalidValue(f"expected {kind.parts} name{'s' * (kind.parts > 1)} behind {prefix}")
        except InvalidValue as error:
            yield Finding(key, f"no such key can be: {error}", REMOVE)
            return
        if len(value) > MAX_OBJECT_BYTES:
            yield Finding(key, f"{len(value)} bytes are more than {MAX_OBJECT_BYTES}", kind.remedy)
        if kind.of is None:
            return
        try:
            found = decode(value, kind.of)
            if kind.named is not None and kind.named(found) != key:
                yield Finding(key, f"its value is that of {kind.named(found)}", kind.remedy)
                return
        except InvalidValue as error:
            yield Finding(key, f"can't be read: {error}", kind.remedy)
            return
        self._objects[prefix][rest] = found

    def _there(self, key: str) -> bool:
        """Whether it stands in the store, also if it can't be read: that was said already."""
        return key in self._entries

    def _declared(self) -> Iterator[Finding]:
        for cluster in self._objects[keys.CLUSTERS].values():
            key = keys.cluster(cluster.name)
            for name in cluster.services:
                if not self._there(keys.service(name)):
                    yield Finding(key, f"lists service {name}, which is not declared", "apply it, or take it out")
            for name in cluster.hosts or ():
                if not self._there(keys.host(name)):
                    yield Finding(key, f"lists host {name}, which no agent ever said anything of", "correct the name")
        for service in self._objects[keys.SERVICES].values():
            key = keys.service(service.name)
            if not self._there(keys.task_definition(service.task_name, service.task_version)):
                what = f"task definition {service.task_name}/{service.task_version}, which it names, is not there"
                yield Finding(key, what, "apply that task definition")
            if not service.min <= service.desired <= service.max:
                what = f"min {service.min} <= desired {service.desired} <= max {service.max} does not hold"
                yield Finding(key, what, APPLY)
            rules = service.placement_rules
            for other in {one.service for one in (*rules.near, *rules.apart, *rules.prefer)} - {""}:
                if not self._there(keys.service(other)):
                    yield Finding(key, f"its placement speaks of service {other}, which is not declared", "apply it")

    def _ids(self) -> Iterator[Finding]:
        owners: dict[str, tuple[str, str]] = {}
        for cluster in self._objects[keys.CLUSTERS].values():
            for name in cluster.services:
                pair = (cluster.name, name)
                other = owners.setdefault("-".join(pair), pair)
                if other != pair:
                    what = f"service {name} claims the task ids of service {other[1]} in cluster {other[0]}"
                    yield Finding(keys.cluster(cluster.name), what, "rename one of them")

    def _tasks(self) -> Iterator[Finding]:
        hosts_of = defaultdict(set)
        for rest, task in self._objects[keys.HOST_TASKS].items():
            host, _, task_id = rest.partition("/")
            key = keys.HOST_TASKS + rest
            if task.id != task_id:
                yield Finding(key, f"its value is that of task {task.id}", REPAIR)
            elif task.host not in ("", host):
                yield Finding(key, f"its value says host {task.host}", REPAIR)
            hosts_of[task_id].add(host)
        for task_id, hosts in hosts_of.items():
            if len(hosts) > 1:
                main = self._objects[keys.TASKS].get(task_id)
                for host in sorted(hosts - {main.host if main else ""}):
                    what = f"the task stands under {' and '.join(sorted(hosts))}"
                    yield Finding(keys.host_task(host, task_id), what, "remove the one that is not to run")
        for task_id, task in self._objects[keys.TASKS].items():
            key = keys.task(task_id)
            if not task.host:
                yield Finding(key, "it names no host", REMOVE)
                continue
            other = keys.host_task(task.host, task_id)
            if other not in self._entries:
                yield Finding(key, f"{other} is missing", "its agent writes it within minutes; is that running?")
            elif self._entries[other].value != self._entries[key].value:
                yield Finding(key, f"{other} differs", "its agent brings them in line within minutes; is that running?")
            service = keys.service(task.service)
            if not self._there(service) and not self._there(keys.service_status(task.service)):
                what = f"service {task.service} is not declared, and no scheduler says that the task is its own"
                yield Finding(key, what, f"to end it:  sked stop {task_id}")

    def _ports(self) -> Iterator[Finding]:
        held: dict[tuple[str, int], str] = {}
        for task_id, task in sorted(self._objects[keys.TASKS].items()):
            if task.port and task.scheduled and not task.rejected:
                other = held.setdefault((task.host, task.port), task_id)
                if other != task_id:
                    what = f"port {task.port} of {task.host} is that of {other} too"
                    yield Finding(keys.task(task_id), what, f"its agent rejects one; else:  sked stop {task_id}")

    def _of_hosts(self) -> Iterator[Finding]:
        for name in self._objects[keys.MARKS]:
            if not self._there(keys.host(name)):
                yield Finding(keys.mark(name), f"marks host {name}, which is not there", f"sked uncordon, or {REMOVE}")
        for name in self._objects[keys.LIVE]:
            if not self._there(keys.host(name)):
                yield Finding(keys.live(name), "its agent lives, but has not said what the host is", "restart it")
        for rest in {*self._objects[keys.HOST_TASKS]}:
            host = rest.partition("/")[0]
            if not self._there(keys.host(host)):
                yield Finding(
                    keys.HOST_TASKS + rest, f"no agent ever said anything of {host}", "start one, or remove it"
                )
        for prefix in (keys.HEALTH, keys.REPORTS):
            for rest in self._objects[prefix]:
                if keys.HOST_TASKS + rest not in self._entries:
                    yield Finding(prefix + rest, "there is no such task on that host", _STALE)
        for task_id, failure in self._objects[keys.FAILURES].items():
            if not (keys.is_host(failure.host) and keys.host_task(failure.host, task_id) in self._entries):
                what = f"there is no such task on {plain(failure.host[:80])}"
                yield Finding(keys.failure(task_id), what, _STALE)
        for host, entry in ((key.removeprefix(keys.AGENTS), one) for key, one in self._below(keys.AGENTS)):
            if not entry.value.isdigit():
                yield Finding(keys.AGENTS + host, "expected a number", REMOVE)

    def _of_services(self) -> Iterator[Finding]:
        used = {task.service for task in self._objects[keys.TASKS].values()}
        for name in self._objects[keys.SERVICE_STATUS]:
            if not self._there(keys.service(name)) and name not in used:
                yield Finding(keys.service_status(name), f"there is no service {name} any more", _STALE)
        for prefix in (keys.ROLLOUTS, keys.MOVES):
            for name in self._objects[prefix]:
                if not self._there(keys.service(name)):
                    yield Finding(prefix + name, f"service {name} is not declared", _STALE)
        for name, rollout in self._objects[keys.ROLLOUTS].items():
            if rollout.from_name and not self._there(keys.task_definition(rollout.from_name, rollout.from_version)):
                what = (
                    f"task definition {rollout.from_name}/{rollout.from_version}, where it may go back to, is not there"
                )
                yield Finding(keys.rollout(name), what, "apply that task definition")
        history = defaultdict(list)
        for rest, rollout in self._objects[keys.ROLLOUT_HISTORY].items():
            name, _, number = rest.partition("/")
            history[name].append(int(number))
            if rollout.number != int(number):
                yield Finding(keys.ROLLOUT_HISTORY + rest, f"its value is that of roll-out {rollout.number}", REMOVE)
        for name, numbers in history.items():
            if len(numbers) > MAX_KEPT:
                what = f"{len(numbers)} roll-outs are kept, more than {MAX_KEPT}"
                yield Finding(keys.ended_rollout(name, min(numbers)), what, "the next roll-out removes what is too old")

    def _below(self, prefix: str) -> Iterator[tuple[str, Entry]]:
        return ((key, entry) for key, entry in self._entries.items() if key.startswith(prefix))
