"""A service at one moment of its roll-out: read from the store, then lines for people or JSON for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from sked_core.client import reading
from sked_core.client.looking.listing import health_of, why
from sked_core.client.session import Session
from sked_core.interfaces.store import Entry, Store, entry_at
from sked_core.logic.rollout import canary_stage, healthy_for, told
from sked_core.logic.rollout_start import parse
from sked_core.model import keys
from sked_core.model.codec import decode
from sked_core.model.duration import to_seconds
from sked_core.model.types import Failure, Host, Rollout, Service, ServiceStatus, Task, TaskDefinition, TaskId
from sked_core.model.wording import counted, first_line

MAX_SHOWN_FAILURES = 3


@dataclass(frozen=True, slots=True)
class Failing:
    """A task of the wanted version that does not run well."""

    task: TaskId
    failure: Failure

    def line(self) -> str:
        """Where, why, how often, and when again."""
        again = f", next try {self.failure.next_try}" if self.failure.next_try else ""
        return first_line(told(self.task, self.failure)) + again


@dataclass(frozen=True, slots=True)
class Place:
    """The service in one cluster. ``healthy``, ``rejected``, ``misplaced`` (on hosts that the cluster does not list)
    and ``stopping`` (withdrawn) are of the wanted version; ``others``: tasks of other ones, by name and version;
    ``why``: what it waits for."""

    cluster: str
    desired: int
    healthy: int
    others: Mapping[tuple[str, int], int]
    rejected: int
    misplaced: int
    stopping: int
    unplaced: bool
    why: str

    @property
    def done(self) -> bool:
        return self.healthy == self.desired and not (self.others or self.rejected or self.misplaced or self.stopping)


@dataclass(frozen=True, slots=True)
class View:
    """One service, the roll-out that is under way, and how far it is in each cluster."""

    service: Service
    active: reading.Item[Rollout] | None
    places: Sequence[Place]
    failing: Sequence[Failing]
    unwell: Sequence[Failing] = ()
    """Tasks whose checks don't pass, though they have not failed: they may have been started just now."""

    @property
    def done(self) -> bool:
        """Whether all that is wanted is there and well, and nothing else."""
        return self.active is None and not self.failing and all(place.done for place in self.places)

    def lines(self, *, times: bool, failing: bool = True) -> Iterator[str]:
        """How things are. ``times``: also what changes as time goes by. ``failing``: a line for each failing task."""
        name = self.service.name
        if self.active is not None:
            yield headline(name, self.active.value)
        for place in self.places:
            yield self.place_line(place)
            if place.why:
                yield f"{place.cluster}/{name}: {place.why}"
        if not self.places:
            yield f"{name}: in no cluster"
        rollout, policy = self.active.value if self.active else None, self.service.update_policy
        if times and rollout and rollout.waited and rollout.state == "running" and not canary_stage(rollout, policy):
            limit = to_seconds(policy.progress_deadline)
            rest = f"it fails after {limit:g} s, {max(0.0, limit - rollout.waited):.0f} s are left"
            yield f"{name}: no progress for {rollout.waited:.0f} s as last noted; {rest}"
        if failing:
            yield from (one.line() for one in self.failing)

    def place_line(self, place: Place) -> str:
        """``default/web: 3 of 10 tasks of version 3 healthy, 7 of version 2 left``."""
        wanted = _version(self.service)
        left = [f"{count} of {_named(other, wanted)} left" for other, count in sorted(place.others.items())]
        left += [f"{place.rejected} rejected"] if place.rejected else []
        left += [f"{place.misplaced} on hosts that the cluster does not list"] if place.misplaced else []
        left += [f"{place.stopping} still to be stopped"] if place.stopping else []
        tasks = f"{place.healthy} of {counted(place.desired, 'task')} of version {wanted[1]} healthy"
        return f"{place.cluster}/{self.service.name}: " + ", ".join([tasks, *left])

    def json(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "service": self.service.name,
            "task_name": self.service.task_name,
            "task_version": self.service.task_version,
            "clusters": [
                {
                    "cluster": place.cluster,
                    "desired": place.desired,
                    "healthy": place.healthy,
                    "others": [
                        {"task_name": name, "task_version": version, "tasks": count}
                        for (name, version), count in sorted(place.others.items())
                    ],
                    "rejected": place.rejected,
                    "misplaced": place.misplaced,
                    "stopping": place.stopping,
                    "why": place.why,
                }
                for place in self.places
            ],
            "failures": [{"task": one.task} | msgspec.to_builtins(one.failure) for one in self.failing],
        }


def route(rollout: Rollout) -> str:
    """``version 2 -> 3``."""
    if not rollout.from_name:
        return f"to version {rollout.task_version}"
    if rollout.from_name == rollout.task_name:
        return f"version {rollout.from_version} -> {rollout.task_version}"
    return f"{rollout.from_name}/{rollout.from_version} -> {rollout.task_name}/{rollout.task_version}"


def headline(service: str, rollout: Rollout) -> str:
    """The roll-out in one line, with what became of it and the first line of the reason."""
    kind = "" if rollout.kind == "update" else f" ({rollout.kind})"
    state = rollout.result.replace("_", " ") or rollout.state
    reason = f": {first_line(rollout.reason)}" if rollout.reason else ""
    return f"{service}: roll-out {rollout.number}{kind}, {route(rollout)}, {state}{reason}"


def details(failing: Sequence[Failing]) -> list[str]:
    """All that is known of the first few."""
    lines = [line for one in failing[:MAX_SHOWN_FAILURES] for line in told(one.task, one.failure).splitlines()]
    more = len(failing) - MAX_SHOWN_FAILURES
    return lines + ([f"and {counted(more, 'more failing task')}"] if more > 0 else [])


def history(sked: Session, service: str) -> list[reading.Item[Rollout]]:
    """The roll-outs of the service that have ended, oldest first."""
    return reading.items(sked.store.read(keys.rollout_history(service)).entries, Rollout)


def active_entry(store: Store, service: str) -> Entry | None:
    """What stands where the service's roll-out is while it is under way."""
    return entry_at(store, keys.rollout(service))


def latest(sked: Session, service: str) -> Rollout | None:
    """The roll-out that is under way, or the last that has ended."""
    found = every(sked, service)
    return found[-1][1] if found else None


def every(sked: Session, service: str) -> list[tuple[dict[str, Any], Rollout]]:
    """All roll-outs of the service, as stored and decoded; the one under way is the last."""
    entry = active_entry(sked.store, service)
    ended = [(item.stored(), item.value) for item in history(sked, service)]
    active = parse(entry)
    return ended + ([(decode(entry.value, dict), active)] if entry and active else [])


def history_json(sked: Session, service: str) -> list[dict[str, Any]]:
    """The roll-outs of a service for programs, oldest first. Raises NotFound if there is no such service."""
    return [fields | {"service": service} for fields, _ in known_rollouts(sked, service)]


def known_rollouts(sked: Session, service: str) -> list[tuple[dict[str, Any], Rollout]]:
    """As ``every``. Raises NotFound if there is no such service either."""
    found = every(sked, service)
    if not found:
        reading.service_entry(sked.store, service)
    return found


def status_json(sked: Session, service: str) -> list[dict[str, Any]]:
    """How far a service is, with its roll-out that is under way or else the last one, for programs."""
    found = every(sked, service)
    stored = found[-1][0] if found else None
    return [view.json() | {"rollout": stored} for view in look(sked, [service])]


def settle_seconds(sked: Session, service: Service) -> float:
    """For how long the service's tasks have to be healthy before they are relied on. Raises Unavailable."""
    key = keys.task_definition(service.task_name, service.task_version)
    found = reading.value_at(sked.store, key, TaskDefinition)
    return healthy_for(service.update_policy, found) if found else 0.0


def look(sked: Session, names: Collection[str]) -> list[View]:
    """The services of these names that are declared, as they are now. Raises Unavailable."""
    services = [item.value for item in reading.services(sked.store) if item.value.name in names]
    known = {service.name for service in services}
    statuses = reading.by_name(sked.store, keys.SERVICE_STATUS, ServiceStatus)
    active = reading.items(sked.store.read(keys.ROLLOUTS).entries, Rollout)
    failures = reading.by_name(sked.store, keys.FAILURES, Failure)
    clusters = [item.value for item in reading.clusters(sked.store)]
    # Hosts without any word of an agent are a person's business: what is there stays.
    hosts = (
        set(reading.by_name(sked.store, keys.HOSTS, Host))
        if any(cluster.hosts is not None for cluster in clusters)
        else set()
    )
    tasks = [item.value for item in reading.tasks(sked.store) if item.value.service in known]
    health = health_of(sked, tasks)
    healthy = {name for name, one in health.items() if one.healthy}
    views = []
    for service in services:
        wanted, places, failing, unwell = _version(service), [], [], []
        for cluster in (cluster for cluster in clusters if service.name in cluster.services):
            own = [task for task in tasks if (task.service, task.cluster.name) == (service.name, cluster.name)]
            good = [task for task in own if _version_of(task) == wanted]
            current = [task for task in good if task.scheduled and not task.rejected]
            status = statuses[service.name].clusters.get(cluster.name) if service.name in statuses else None
            places.append(
                Place(
                    cluster=cluster.name,
                    desired=service.desired,
                    healthy=sum(task.id in healthy for task in current),
                    others=Counter(_version_of(task) for task in own if _version_of(task) != wanted),
                    rejected=sum(task.scheduled and task.rejected for task in good),
                    misplaced=sum(
                        cluster.hosts is not None and task.host not in cluster.hosts and task.host in hosts
                        for task in current
                    ),
                    stopping=sum(not task.scheduled for task in good),
                    unplaced=bool(status and status.waiting),
                    why=why(status) if status and (status.waiting or status.blocked) else "",
                )
            )
            failing += [one for task in good if task.scheduled and (one := _failing(task, failures.get(task.id)))]
            unwell += [
                Failing(task.id, Failure(host=task.host, reason="not healthy", output=health[task.id].output))
                for task in current
                if task.id in health and not health[task.id].healthy and health[task.id].output
            ]
        views.append(
            View(
                service=service,
                active=next((item for item in active if keys.last_segment(item.key) == service.name), None),
                places=places,
                failing=failing,
                unwell=[one for one in unwell if one.task not in {other.task for other in failing}],
            )
        )
    return views


def _failing(task: Task, failure: Failure | None) -> Failing | None:
    if failure is not None and failure.host == task.host:  # else it is that of a task that was here before
        return Failing(task.id, failure)
    return (
        Failing(task.id, Failure(host=task.host, reason=f"rejected: {task.reject_reason}")) if task.rejected else None
    )


def _version(service: Service) -> tuple[str, int]:
    return service.task_name, service.task_version


def _version_of(task: Task) -> tuple[str, int]:
    return task.task_definition.name, task.task_definition.version


def _named(version: tuple[str, int], wanted: tuple[str, int]) -> str:
    return f"version {version[1]}" if version[0] == wanted[0] else f"{version[0]}/{version[1]}"
