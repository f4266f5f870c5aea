"""Which hosts are lost, and which ones rejected a service: memory of one scheduler, as values with times passed in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from sked_core.logic import backoff
from sked_core.logic.plan import Issued
from sked_core.model.spec import one_line
from sked_core.model.types import Mark, TaskDefinition

LOST_WINDOW_SECONDS = 600.0
LOST_SHARE = 0.3
LOST_COUNT = 2
BLIND_SECONDS = 10.0
"""So much of a time in which a scheduler did not look counts: it may have a lot to do, but not stand still for long."""


def most_lost(hosts: int) -> int:
    """How many of so many hosts may be declared lost within LOST_WINDOW_SECONDS."""
    return max(LOST_COUNT, int(hosts * LOST_SHARE))


@dataclass(slots=True)
class Absences:
    """Since when each host has been without a living agent, on the monotonic clock of this process.

    Counted only while the store was continuously available (``reset`` after an outage): an outage or the start of
    a scheduler says nothing about the hosts, so each gets the whole ``lost_after`` again (reliability.md B10).
    """

    lost_after: float
    since: dict[str, float] = field(default_factory=dict)
    """From when on the absence of each counts, moved on by the time in which it did not."""
    declared: dict[str, float] = field(default_factory=dict)
    """When each lost host was declared so."""
    spent: dict[str, float] = field(default_factory=dict)
    """The same, and not forgotten after an outage: a store that comes and goes must not make room for more."""
    before: set[str] = field(default_factory=set)
    """Those that were lost before an outage, and were not seen since: they are no news."""
    nobody: float = float("inf")
    """Since when no host is there."""
    emptied: dict[str, float] = field(default_factory=dict)
    """When the time of each that stayed away last began anew, as no host had been there."""
    many: bool = False
    """Whether so many are away that rather the way to them is broken."""
    anew: dict[str, float] = field(default_factory=dict)
    """When the time of each that stayed away last began anew, as others had come back."""
    seen: float = 0.0
    """When the scheduler last looked."""
    awaited: float = float("inf")
    """When it meant to look again at the latest."""

    def looked(self, now: float) -> None:
        """The scheduler looks: if that is long after it meant to, it was stopped, or could not. Of all the time since
        it last did only BLIND_SECONDS count for anybody's absence: even one that is always late comes to an end."""
        if now > self.awaited + BLIND_SECONDS:
            blind = now - self.seen - BLIND_SECONDS
            self.since = {host: at + blind for host, at in self.since.items()}
        self.seen = self.awaited = now

    def update(self, hosts: Collection[str], alive: Collection[str], now: float) -> None:
        """Take note of who is there at ``now`` (seconds), and declare lost who has been away for ``lost_after``.

        Within LOST_WINDOW_SECONDS no more than LOST_SHARE of all hosts, or LOST_COUNT, are declared: if more vanish at
        once, rather the way to them is broken, and doubling all their tasks elsewhere would make it worse. Who returns
        meanwhile makes no room for others. While nobody is there at all nothing is counted: there is nowhere to go, and
        the first to return must not be given all.

        Once no more are away than may be lost, whoever still is gets the whole time again: it may be the last to find
        back. That once within LOST_WINDOW_SECONDS, or twice ``lost_after`` if that is longer, and so with the whole
        time once anybody is there again: a host that comes and goes must not save one that is gone for good.
        """
        if not (self.since or self.declared or self.spent or self.before) and all(host in alive for host in hosts):
            return
        self.since = {host: self.since.get(host, now) for host in hosts if host not in alive}
        self.declared, self.anew, self.emptied = map(self._away, (self.declared, self.anew, self.emptied))
        self.before &= self.since.keys()
        if not alive:
            self.nobody = min(self.nobody, now)
        elif self.nobody <= now:
            self.since = {host: min(at + now - self.nobody, now) for host, at in self.since.items()}
            self._begin_anew(self.emptied, now)
            self.nobody = float("inf")
        known = self.declared.keys() | self.before
        news = [host for host in self.since if host not in known or host in self.spent]
        before_many, self.many = self.many, not alive or len(news) > most_lost(len(hosts))
        if before_many and not self.many:
            self._begin_anew(self.anew, now)
        recent = {host: at for host, at in self.spent.items() if now - at < LOST_WINDOW_SECONDS and host in hosts}
        self.spent = recent if self.many else self._away(recent)
        room = most_lost(len(hosts)) - len(self.spent)
        for host in sorted(self.since, key=lambda host: (self.since[host], host)):
            if self._due(host, now) and (host in self.before or host in self.spent or room > 0):
                self.declared[host] = now
                if host not in self.before:
                    room -= host not in self.spent
                    self.spent[host] = now

    def _begin_anew(self, last: dict[str, float], now: float) -> None:
        """Have the time of all begin now that are away, of which ``last`` says that this was long ago."""
        for host in self.since.keys() - self.declared.keys():
            if now - last.get(host, float("-inf")) >= max(LOST_WINDOW_SECONDS, 2 * self.lost_after):
                self.since[host] = last[host] = now

    def _away(self, times: Mapping[str, float]) -> dict[str, float]:
        return {host: at for host, at in times.items() if host in self.since}

    def _due(self, host: str, now: float) -> bool:
        there = self.nobody == float("inf")
        return there and host not in self.declared and now - self.since[host] >= self.lost_after

    def lost(self, host: str) -> bool:
        return host in self.declared

    def held_back(self, now: float) -> list[str]:
        """Hosts that would be lost by their absence, but are not declared so yet because too many are."""
        return sorted(host for host in self.since if self._due(host, now))

    def reset(self) -> None:
        self.before |= self.declared.keys()
        self.since.clear()
        self.declared.clear()

    def next_change(self, now: float) -> float:
        """Seconds until the next host may be lost; infinite if none is absent."""
        if self.nobody < float("inf"):
            return float("inf")
        left = [since + self.lost_after - now for since in self.since.values() if since + self.lost_after > now]
        if self.held_back(now):
            left += [at + LOST_WINDOW_SECONDS - now for at in self.spent.values() if at + LOST_WINDOW_SECONDS > now]
        return min(left, default=float("inf"))


@dataclass(slots=True)
class Drains:
    """Since when each host has been draining as its mark says, on the monotonic clock of this process: a mark with a
    deadline is forced once that has passed. A scheduler that starts, or a mark that is written anew, counts anew."""

    since: dict[tuple[str, Mark], float] = field(default_factory=dict)

    def update(self, marks: Mapping[str, Mark], now: float) -> None:
        """Take note of the marks of all hosts at ``now`` (seconds)."""
        draining = {(host, mark) for host, mark in marks.items() if mark.state == "draining"}
        self.since = {one: self.since.get(one, now) for one in draining}

    def forced(self, now: float) -> frozenset[str]:
        """Hosts that have to be empty whatever becomes of the services."""
        return frozenset(host for host, mark in self.since if self._left(host, mark, now) <= 0)

    def _left(self, host: str, mark: Mark, now: float) -> float:
        if mark.force:
            return 0.0
        return self.since[host, mark] + mark.deadline - now if mark.deadline > 0 else float("inf")

    def next_change(self, now: float) -> float:
        """Seconds until the next host is forced; infinite if none will be."""
        left = [self._left(host, mark, now) for host, mark in self.since]
        return min((one for one in left if one > 0), default=float("inf"))


@dataclass(slots=True)
class _Rejection:
    count: int
    until: float
    reason: str


Refused = tuple[str, str, int, str]
"""(service, name and version of its task definition, host): another version is another try."""


@dataclass(slots=True)
class Rejections:
    """Hosts that rejected a service, left alone for an exponentially growing while."""

    forget_after: float = 600.0
    seen: set[tuple[str, int]] = field(default_factory=set)
    by_host: dict[Refused, _Rejection] = field(default_factory=dict)

    def update(self, issued: Iterable[Issued], now: float) -> None:
        """Count each rejected record once."""
        rejected = {(one.id, one.revision): one.task for one in issued if one.task.rejected}
        for record, task in rejected.items():
            if record in self.seen:
                continue
            key = (task.service, task.task_definition.name, task.task_definition.version, task.host)
            before = self.by_host.get(key)
            count = before.count + 1 if before else 1
            until = now + backoff.delay(count, f"{task.service}/{task.host}")
            self.by_host[key] = _Rejection(count, until, task.reject_reason)
        self.seen = set(rejected)
        self.by_host = {key: one for key, one in self.by_host.items() if now < one.until + self.forget_after}

    def _of(self, service: str, definition: TaskDefinition) -> dict[str, _Rejection]:
        wanted = (service, definition.name, definition.version)
        return {key[3]: one for key, one in self.by_host.items() if key[:3] == wanted}

    def avoided(self, service: str, definition: TaskDefinition, now: float) -> dict[str, str]:
        """The hosts to leave alone now for ``service``, each with the reason that users read."""
        found = {host: one for host, one in self._of(service, definition).items() if now < one.until}
        return {host: f"rejected this service: {one_line(one.reason)}" for host, one in found.items()}

    def everywhere(self, service: str, definition: TaskDefinition, hosts: Collection[str], at_least: int) -> str:
        """Why each of ``hosts`` rejected it, all of them together ``at_least`` so often; empty if that is not so."""
        found = self._of(service, definition)
        if not hosts or not set(hosts) <= found.keys() or sum(one.count for one in found.values()) < at_least:
            return ""
        return "; ".join(dict.fromkeys(found[host].reason for host in sorted(hosts)))

    def forget(self, service: str, name: str, version: int) -> None:
        """Somebody wants this version of the service to be tried again, everywhere."""
        self.by_host = {key: one for key, one in self.by_host.items() if key[:3] != (service, name, version)}

    def next_change(self, now: float) -> float:
        """Seconds until the next host may be tried again; infinite if none is avoided."""
        return min((one.until - now for one in self.by_host.values() if one.until > now), default=float("inf"))
