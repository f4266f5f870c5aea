"""Rules and wishes that depend on what runs where: how many tasks may be together, which services near one another or
apart, where tasks had better be. Hard rules are filters with reasons; wishes come before the score of the scheduler,
which decides between hosts that are wished for equally.

What comes out is what looking at all hosts anew for each task would give (the most wished for, then the best by the
scheduler, then the first by name), at a lower price: hosts that only the scheduler and their names tell apart stand
together in a group. A batch costs about hosts, and for each task the logarithm of hosts times the groups that are
concerned by what was placed.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sked_core.interfaces.scheduler import Candidate, Demand, Scheduler
from sked_core.logic.placement import Scored, failed, place_checked
from sked_core.model.constraint import HOST, Constraint, refusals, understood, value_of
from sked_core.model.types import AtMost, Host, Neighbour, Preference, Spread

WEIGHT = 10**9
"""A weight of 1, in the whole numbers that wishes are added up in: sums of fractions would depend on their order."""

Takes = Callable[[str], Candidate | None]
"""The candidate that a host is at this moment; None if it can't take one more task for reasons of its own."""
TasksByHost = Callable[[str, str | None], Mapping[str, int]]
"""The tasks of a service by host, in one cluster or (None) in all."""
_Group = tuple[int, tuple[str | None, ...]]
"""How much its hosts are wished for by what only they themselves change; and their values of ``Rules.tags``."""


def depends_on_others(demand: Demand) -> bool:
    """Whether anything but ``require`` is asked for: if not, each host can be judged by itself."""
    rules = demand.placement
    hard = rules.distinct_hosts or rules.at_most or rules.near or rules.apart or rules.leave_free or demand.shunned_by
    return bool(hard or rules.prefer or rules.spread)


def _at(counts: Mapping[str, int], value: str | None) -> int:
    return 0 if value is None else counts.get(value, 0)


@dataclass(frozen=True, slots=True)
class _LikeHost:
    """A wish for hosts. ``tag``: by whose values the service's own tasks matter to it; empty if they don't."""

    name: str
    constraint: Constraint
    weight: int
    tag: str = ""

    def worth(self, host: Host, value: str | None, own: int) -> int:
        """How much ``host`` is wished for, whose ``value`` of the tag has ``own`` tasks of the service."""
        return self.weight * WEIGHT if self.constraint.holds(host) else 0


@dataclass(frozen=True, slots=True)
class _LikeService:
    """``tasks``: of another service, by the values of ``per``; None for the service's own."""

    name: str
    per: str
    weight: int
    tasks: Mapping[str, int] | None
    tag: str

    def worth(self, host: Host, value: str | None, own: int) -> int:
        there = own if self.tasks is None else _at(self.tasks, value_of(host, self.per))
        return self.weight * WEIGHT if there else 0


@dataclass(frozen=True, slots=True)
class _LikeShares:
    """``shares`` by value: of ``total``, of all tasks that are desired. A value is worth the more, the less of its
    share it has; half a task is taken off for the one that would come (A. Sainte-Laguë's method), so that the shares
    are kept as well as whole tasks can."""

    name: str
    weight: int
    shares: Mapping[str, int]
    total: int
    desired: int
    tag: str

    def worth(self, host: Host, value: str | None, own: int) -> int:
        share, most = _at(self.shares, value), self.weight * WEIGHT
        if not share:
            return -most
        return max(-most, most - most * (2 * own + 1) * self.total // (2 * self.desired * share))


_Wish = _LikeHost | _LikeService | _LikeShares


@dataclass(frozen=True, slots=True)
class _Others:
    """Where the tasks of another service are, by the values of ``per``; ``why``: how a refusal for it begins."""

    per: str
    tasks: Mapping[str, int]
    why: str


class Rules:
    """The rules and wishes for tasks of ``demand``, as things stand; ``placed`` tells of each further task.

    ``hosts``: those that are known, but lost ones: what was there is on its way elsewhere. ``within``: those of the
    cluster.
    """

    def __init__(
        self, demand: Demand, hosts: Mapping[str, Host], within: Sequence[Host], tasks_by_host: TasksByHost
    ) -> None:
        self._demand, self._hosts, self._tasks_by_host = demand, hosts, tasks_by_host
        placement = demand.placement
        self._limits = [AtMost(count=1)] if placement.distinct_hosts else []
        self._limits += placement.at_most
        self._near = [self._others(one, f"near {one.service}") for one in placement.near]
        self._apart = [self._others(one, f"apart from {one.service}") for one in placement.apart]
        for service, per in demand.shunned_by:
            shunning = Neighbour(service=service, per=per)
            self._apart.append(self._others(shunning, f"{service} wants to be apart from {demand.service}"))
        self._wishes: list[_Wish] = [wish for one in placement.prefer if (wish := self._preference(one)) is not None]
        self._wishes += [self._shares(one, within) for one in placement.spread]
        counted = {one.per for one in self._limits} | {wish.tag for wish in self._wishes if wish.tag} | {HOST}
        tasks = tasks_by_host(demand.service, demand.cluster)
        self._own = {tag: self._by_value(tag, tasks) for tag in counted}
        self.tags = sorted(counted - {HOST})
        """Those by whose values groups differ: a task more under one of them concerns all hosts that have it."""

    def _by_value(self, tag: str, tasks: Mapping[str, int]) -> Counter[str]:
        counts: Counter[str] = Counter()
        for name, count in tasks.items():
            value = value_of(self._hosts[name], tag) if name in self._hosts else None
            if value is not None:
                counts[value] += count
        return counts

    def _others(self, one: Neighbour, why: str) -> _Others:
        tasks = self._by_value(one.per, self._tasks_by_host(one.service, None))
        return _Others(one.per, tasks, why if one.per == HOST else f"{why} per {one.per}")

    def _preference(self, one: Preference) -> _Wish | None:
        if one.host:
            constraint = understood(one.host)
            return _LikeHost(f"prefer {one.host}", constraint, one.weight) if constraint else None
        name = f"prefer {one.service}" if one.per == HOST else f"prefer {one.service} per {one.per}"
        if one.service == self._demand.service:
            return _LikeService(name, one.per, one.weight, None, one.per)
        tasks = self._by_value(one.per, self._tasks_by_host(one.service, None))
        return _LikeService(name, one.per, one.weight, tasks, "")

    def _shares(self, one: Spread, within: Sequence[Host]) -> _Wish:
        fit = (host for host in within if not refusals(self._demand.placement.require, host))
        shares = one.shares or dict.fromkeys((v for host in fit if (v := value_of(host, one.over)) is not None), 1)
        total = sum(shares.values()) or 1
        return _LikeShares(f"spread {one.over}", one.weight, shares, total, max(1, self._demand.desired), one.over)

    # --- one host ------------------------------------------------------------------------------------------------

    def reasons(self, candidate: Candidate) -> Iterator[str]:
        """Why the host can't take one more task now, but for what it is by itself."""
        host, demand = self._hosts.get(candidate.host), self._demand
        if host is None:
            return
        for limit in self._limits:
            yield from self._limit_reason(limit, host)
        for others in self._near:
            value = value_of(host, others.per)
            if not _at(others.tasks, value):
                yield f"{others.why}: {_where(others.per, value, 'none')}"
        for others in self._apart:
            value = value_of(host, others.per)
            if count := _at(others.tasks, value):
                yield f"{others.why}: {_where(others.per, value, f'{count}')}"
        if percent := demand.placement.leave_free:
            for what, unit, need, free, total in (
                ("memory", "MB", demand.memory, candidate.free_memory, candidate.memory),
                ("cpu", "units", demand.cpu_units, candidate.free_cpu_units, candidate.cpu_units),
            ):
                kept = -(-total * percent // 100)
                if need + kept > free:
                    asked = f"{need} {unit} + {kept} {unit} to leave free"
                    yield f"{what}: free {max(0, free)} {unit} < {asked} ({percent} % of {total})"

    def _limit_reason(self, limit: AtMost, host: Host) -> Iterator[str]:
        value = value_of(host, limit.per)
        own = _at(self._own[limit.per], value)
        if value is None:
            yield f"at most {limit.count} per {limit.per}: has no {limit.per}"
        elif own >= limit.count:
            rule = (
                "distinct hosts" if limit.per == HOST and limit.count == 1 else f"at most {limit.count} per {limit.per}"
            )
            yield f"{rule}: {_where(limit.per, value, f'{own} of {self._demand.service}')}"

    def terms(self, host: Host) -> dict[str, float]:
        """How much the host is wished for now, wish by wish, in the unit of weights."""
        return {wish.name: self._worth(wish, host) / WEIGHT for wish in self._wishes}

    def worth(self, host: Host) -> int:
        """How much the host is wished for now, in all."""
        return sum(self._worth(wish, host) for wish in self._wishes)

    def _worth(self, wish: _Wish, host: Host) -> int:
        value = value_of(host, wish.tag) if wish.tag else None
        return wish.worth(host, value, _at(self._own[wish.tag], value) if wish.tag else 0)

    def placed(self, host: Host) -> None:
        """A task of the demand was placed on the host."""
        for tag, counts in self._own.items():
            value = value_of(host, tag)
            if value is not None:
                counts[value] += 1

    # --- hosts that are alike --------------------------------------------------------------------------------------

    def group(self, host: Host) -> _Group:
        """Which hosts it stands with: all that are wished for as much, whatever is placed elsewhere."""
        own = sum(self._worth(wish, host) for wish in self._wishes if wish.tag in ("", HOST))
        return own, tuple(value_of(host, tag) for tag in self.tags)

    def worth_of(self, group: _Group, one: Host) -> int | None:
        """How much the hosts of a group, of which ``one`` is one, are wished for now; None if none of them can take a
        task any more."""
        for limit in self._limits:
            if limit.per != HOST and any(self._limit_reason(limit, one)):
                return None
        return group[0] + sum(self._worth(wish, one) for wish in self._wishes if wish.tag not in ("", HOST))


def _where(per: str, value: str | None, what: str) -> str:
    if value is None:
        return f"has no {per}"
    return f"{what} on this host" if per == HOST else f"{what} in {per} {value}"


def place(
    rules: Rules, hosts: Mapping[str, Host], takes: Takes, scheduler: Scheduler, name: str, demand: Demand, count: int
) -> Iterator[str]:
    """The host of each of ``count`` tasks, at most. The caller reserves each before it asks for the next one.

    ``name``: the scheduler's, for messages. A scheduler that is more than a score is asked for one task at a time, out
    of the hosts that are wished for most. Raises PluginError if it fails, or chooses what it may not.
    """
    placing = _Placing(rules, hosts, takes, scheduler, demand, name)
    if isinstance(scheduler, Scored):
        return placing.by_score(scheduler, count)
    return placing.by_asking(count)


class _Placing:
    def __init__(
        self,
        rules: Rules,
        hosts: Mapping[str, Host],
        takes: Takes,
        scheduler: Scheduler,
        demand: Demand,
        name: str,
    ) -> None:
        self._rules, self._hosts, self._takes = rules, hosts, takes
        self._scheduler, self._demand, self._name = scheduler, demand, name

    def _candidate(self, name: str) -> Candidate | None:
        candidate = self._takes(name)
        return candidate if candidate is not None and next(self._rules.reasons(candidate), None) is None else None

    def by_score(self, scheduler: Scored, count: int) -> Iterator[str]:
        rules, numbers = self._rules, itertools.count()
        groups: defaultdict[_Group, list[tuple[object, str]]] = defaultdict(list)
        having: defaultdict[tuple[str, str | None], set[_Group]] = defaultdict(set)
        offers: list[tuple[int, object, str, int, _Group]] = []
        latest: dict[_Group, int] = {}

        def enter(name: str) -> _Group | None:
            candidate = self._candidate(name)
            if candidate is None:
                return None
            try:
                rank = scheduler.rank(self._demand, candidate)
            except Exception as error:
                raise failed(self._name, error) from error
            group = rules.group(self._hosts[name])
            heapq.heappush(groups[group], (rank, name))
            for tag, value in zip(rules.tags, group[1], strict=True):
                having[tag, value].add(group)
            return group

        def offer(group: _Group) -> None:
            latest[group] = number = next(numbers)
            if groups[group]:
                rank, name = groups[group][0]
                worth = rules.worth_of(group, self._hosts[name])
                if worth is not None:
                    heapq.heappush(offers, (-worth, rank, name, number, group))

        for name in self._hosts:
            enter(name)
        for group in list(groups):
            offer(group)
        for _ in range(count):
            while offers and latest[offers[0][4]] != offers[0][3]:
                heapq.heappop(offers)
            if not offers:
                return
            _, _, name, _, group = heapq.heappop(offers)
            heapq.heappop(groups[group])
            yield name
            rules.placed(self._hosts[name])
            concerned = {group, enter(name) or group}
            for tag, value in zip(rules.tags, group[1], strict=True):
                concerned |= having[tag, value]
            for one in concerned:
                offer(one)

    def by_asking(self, count: int) -> Iterator[str]:
        for _ in range(count):
            open_now = [one for name in sorted(self._hosts) if (one := self._candidate(name)) is not None]
            by_worth: defaultdict[int, list[Candidate]] = defaultdict(list)
            for one in open_now:
                by_worth[self._rules.worth(self._hosts[one.host])].append(one)
            for worth in sorted(by_worth, reverse=True):
                chosen = place_checked(self._scheduler, self._name, self._demand, 1, by_worth[worth])
                if chosen:
                    break
            else:
                return
            yield chosen[0]
            self._rules.placed(self._hosts[chosen[0]])
