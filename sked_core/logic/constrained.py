"""Rules and wishes that depend on what runs where: how many tasks may be together, which services near one another or
apart, where tasks had better be. Hard rules are filters with reasons; wishes come before the score of the scheduler,
which decides between hosts that are wished for equally.

What comes out is what looking at all hosts anew for each task would give (the most wished for, then the best by the
scheduler, then the first by name), at a lower price. Hosts are divided into classes by the values of the tags that
rules and wishes go by, and the division is kept as long as no host changes. Whatever a class is refused for, or wished
for, goes for all of it; its hosts are looked at only once it is the one that is wished for most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sked_core.interfaces.scheduler import Candidate, Demand
from sked_core.logic.rows import Row
from sked_core.model.constraint import HOST, Constraint, refusals, understood, value_of
from sked_core.model.types import AtMost, Host, Neighbour, Preference, Spread

WEIGHT = 10**9
"""A weight of 1, in the whole numbers that wishes are added up in: sums of fractions would depend on their order."""
DIVISIONS = 64
"""How many divisions into classes are kept."""

TasksByHost = Callable[[str, str | None], Mapping[str, int]]
"""The tasks of a service by host, in one cluster or (None) in all."""
Class = tuple[int, tuple[str | None, ...]]
"""The weights of the wishes for hosts that hold for its hosts, added up; and their values of the tags that count."""


def depends_on_others(demand: Demand) -> bool:
    """Whether anything but ``require`` is asked for: if not, each host can be judged by itself."""
    rules = demand.placement
    hard = rules.distinct_hosts or rules.at_most or rules.near or rules.apart or rules.leave_free or demand.shunned_by
    return bool(hard or rules.prefer or rules.spread)


class Members:
    """The hosts of a class."""

    def __init__(self, rows: dict[str, Row]) -> None:
        self.rows = rows
        self.names = frozenset(rows)
        self.sample = next(iter(rows.values())).described
        """One of them: in what makes the class they are all alike."""


class Census:
    """The hosts of a fleet, divided into classes. ``rows`` are the fleet's own, as they change; it tells when a
    host says something else of itself."""

    def __init__(self, rows: Mapping[str, Row]) -> None:
        self._rows = rows
        self._kept: dict[object, dict[Class, Members]] = {}

    def forget(self) -> None:
        """Some host is another one than before."""
        self._kept.clear()

    def classes(
        self,
        tags: tuple[str, ...],
        likes: tuple[tuple[str, int], ...],
        require: tuple[str, ...],
        allowed: frozenset[str] | None,
    ) -> Mapping[Class, Members]:
        """Those of ``allowed`` (None: all) that ``require`` holds for, by their values of ``tags`` and the sum of those
        ``likes`` (constraint and weight) that hold for them."""
        key = (tags, likes, require, allowed)
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) >= DIVISIONS:
                del self._kept[next(iter(self._kept))]
            wished = [(one, weight) for text, weight in likes if (one := understood(text)) is not None]
            rows: dict[Class, dict[str, Row]] = {}
            for name, row in self._rows.items():
                host = row.described
                if (allowed is None or name in allowed) and not (require and refusals(require, host)):
                    weight = sum(weight for one, weight in wished if one.holds(host))
                    rows.setdefault((weight, tuple(value_of(host, tag) for tag in tags)), {})[name] = row
            found = self._kept[key] = {one: Members(some) for one, some in rows.items()}
        return found


def _at(counts: Mapping[str, int], value: str | None) -> int:
    return 0 if value is None else counts.get(value, 0)


@dataclass(frozen=True, slots=True)
class _LikeHost:
    """A wish for hosts that are in some way. ``per``: by the values of which tag it depends on tasks; empty if not."""

    name: str
    constraint: Constraint
    weight: int
    per: str = ""

    def worth(self, host: Host) -> int:
        """How much the host is wished for, as things stand."""
        return self.weight * WEIGHT if self.constraint.holds(host) else 0


@dataclass(frozen=True, slots=True)
class _LikeService:
    """``tasks``: of the service, by the values of ``per``."""

    name: str
    weight: int
    per: str
    tasks: Mapping[str, int]

    def worth(self, host: Host) -> int:
        return self.weight * WEIGHT if _at(self.tasks, value_of(host, self.per)) else 0


@dataclass(frozen=True, slots=True)
class _LikeShares:
    """``tasks``: the service's own by value; ``shares`` by value: of ``total``, of all tasks that are desired. A value
    is worth the more, the less of its share it has; half a task is taken off for the one that would come (A.
    Sainte-Laguë's method), so that the shares are kept as well as whole tasks can."""

    name: str
    weight: int
    per: str
    tasks: Mapping[str, int]
    shares: Mapping[str, int]
    total: int
    desired: int

    def worth(self, host: Host) -> int:
        value, most = value_of(host, self.per), self.weight * WEIGHT
        share = _at(self.shares, value)
        if not share:
            return -most
        return max(-most, most - most * (2 * _at(self.tasks, value) + 1) * self.total // (2 * self.desired * share))


_Wish = _LikeHost | _LikeService | _LikeShares


@dataclass(frozen=True, slots=True)
class _Limit:
    """``tasks``: the service's own, by the values of ``per``."""

    per: str
    count: int
    tasks: Mapping[str, int]
    service: str

    def refusal(self, host: Host) -> str:
        """Why the host can't take one more; empty if it can."""
        value = value_of(host, self.per)
        own = _at(self.tasks, value)
        if value is not None and own < self.count:
            return ""
        distinct = self.per == HOST and self.count == 1
        rule = "distinct hosts" if distinct else f"at most {self.count} per {self.per}"
        return f"{rule}: {_where(self.per, value, f'{own} of {self.service}')}"


@dataclass(frozen=True, slots=True)
class _Near:
    """``tasks``: of another service, by the values of ``per``; ``why``: how a refusal begins."""

    per: str
    tasks: Mapping[str, int]
    why: str

    def refusal(self, host: Host) -> str:
        value = value_of(host, self.per)
        return "" if _at(self.tasks, value) else f"{self.why}: {_where(self.per, value, 'none')}"


class _Apart(_Near):
    def refusal(self, host: Host) -> str:
        value = value_of(host, self.per)
        return f"{self.why}: {_where(self.per, value, f'{count}')}" if (count := _at(self.tasks, value)) else ""


def _where(per: str, value: str | None, what: str) -> str:
    if value is None:
        return f"has no {per}"
    return f"{what} on this host" if per == HOST else f"{what} in {per} {value}"


class Rules:
    """The rules and wishes for tasks of ``demand``, as things stand; ``placed`` tells of each further task.

    ``host_of``: what is known of a host, None for unknown and for lost ones: what was there is on its way elsewhere.
    ``allowed``: the cluster's hosts, None for all.
    """

    def __init__(
        self,
        demand: Demand,
        host_of: Callable[[str], Host | None],
        allowed: frozenset[str] | None,
        tasks_by_host: TasksByHost,
        census: Census,
    ) -> None:
        self._demand, self._host_of, self._tasks_by_host, self._census = demand, host_of, tasks_by_host, census
        placement = demand.placement
        self._require, self._allowed = tuple(placement.require), allowed
        tasks = tasks_by_host(demand.service, demand.cluster)
        limits = [AtMost(count=1)] if placement.distinct_hosts else []
        limits += placement.at_most
        counted = {HOST, *(one.per for one in limits), *(one.over for one in placement.spread)}
        counted |= {one.per for one in placement.prefer if one.service == demand.service}
        self._own = {tag: self._by_value(tag, tasks) for tag in counted}
        self._rules: list[_Limit | _Near] = [
            _Limit(one.per, one.count, self._own[one.per], demand.service) for one in limits
        ]
        for near in placement.near:
            self._rules.append(_Near(near.per, *self._others(near, "near {}")))
        for apart in placement.apart:
            self._rules.append(_Apart(apart.per, *self._others(apart, "apart from {}")))
        for service, per in demand.shunned_by:
            shunning = Neighbour(service=service, per=per)
            said = f"{{}} wants to be apart from {demand.service}"
            self._rules.append(_Apart(per, *self._others(shunning, said)))
        self._wishes: list[_Wish] = [wish for one in placement.prefer if (wish := self._preference(one)) is not None]
        self._wishes += [self._shares(one) for one in placement.spread]
        self._tag_wishes = [one for one in self._wishes if one.per not in ("", HOST)]
        self._host_wishes = [one for one in self._wishes if one.per == HOST]
        self._tag_rules = [one for one in self._rules if one.per != HOST]
        self.tags = tuple(sorted({one.per for one in (*self._tag_rules, *self._tag_wishes)}))
        """Those by whose values classes differ."""
        self._dynamic = [number for number, tag in enumerate(self.tags) if tag in self._own]
        self._here = [one for one in self._rules if one.per == HOST and type(one) is _Near]
        self.shut = self._shut()
        """Hosts that can't take one more because of what runs on them."""

    def _by_value(self, tag: str, tasks: Mapping[str, int]) -> Counter[str]:
        counts: Counter[str] = Counter()
        for name, count in tasks.items():
            host = self._host_of(name)
            value = value_of(host, tag) if host is not None else None
            if value is not None:
                counts[value] += count
        return counts

    def _others(self, one: Neighbour, said: str) -> tuple[Mapping[str, int], str]:
        tasks, why = self._by_value(one.per, self._tasks_by_host(one.service, None)), said.format(one.service)
        return tasks, why if one.per == HOST else f"{why} per {one.per}"

    def _preference(self, one: Preference) -> _Wish | None:
        if one.host:
            constraint = understood(one.host)
            return _LikeHost(f"prefer {one.host}", constraint, one.weight) if constraint else None
        name = f"prefer {one.service}" if one.per == HOST else f"prefer {one.service} per {one.per}"
        own = one.service == self._demand.service
        tasks = self._own[one.per] if own else self._by_value(one.per, self._tasks_by_host(one.service, None))
        return _LikeService(name, one.weight, one.per, tasks)

    def _shares(self, one: Spread) -> _Wish:
        shares: Mapping[str, int] = one.shares
        if not shares:
            there = self._census.classes((one.over,), (), self._require, self._allowed)
            found = {value for (_, (value,)), members in there.items() if any(map(self._host_of, members.names))}
            shares = dict.fromkeys(found - {None}, 1)  # type: ignore[arg-type]
        total, desired = sum(shares.values()) or 1, max(1, self._demand.desired)
        return _LikeShares(f"spread {one.over}", one.weight, one.over, self._own[one.over], shares, total, desired)

    def _shut(self) -> set[str]:
        shut: set[str] = set()
        for rule in self._rules:
            if rule.per == HOST and isinstance(rule, _Limit):
                shut.update(name for name, own in rule.tasks.items() if own >= rule.count)
            elif rule.per == HOST and isinstance(rule, _Apart):
                shut.update(name for name, count in rule.tasks.items() if count)
        return shut

    # --- one host ------------------------------------------------------------------------------------------------

    def reasons(self, candidate: Candidate) -> Iterator[str]:
        """Why the host can't take one more task now, but for what it is by itself, and the room that it lacks for
        the task alone: where that is so, what has to stay free beside the task is not spoken of."""
        host, demand = self._host_of(candidate.host), self._demand
        if host is None:
            return
        yield from filter(None, (rule.refusal(host) for rule in self._rules))
        if percent := demand.placement.leave_free:
            for what, unit, need, free, total in (
                ("memory", "MB", demand.memory, candidate.free_memory, candidate.memory),
                ("cpu", "units", demand.cpu_units, candidate.free_cpu_units, candidate.cpu_units),
            ):
                kept = -(-total * percent // 100)
                if need + kept > free and (need <= free or not need):
                    asked = f"{need} {unit} + {kept} {unit} to leave free"
                    yield f"{what}: free {max(0, free)} {unit} < {asked} ({percent} % of {total})"

    def terms(self, host: Host) -> dict[str, float]:
        """How much the host is wished for now, wish by wish, in the unit of weights."""
        return {wish.name: wish.worth(host) / WEIGHT for wish in self._wishes}

    def worth(self, host: Host) -> int:
        """How much the host is wished for now, in all."""
        return sum(wish.worth(host) for wish in self._wishes)

    def placed(self, host: Host) -> None:
        """A task of the demand was placed on the host."""
        for tag, counts in self._own.items():
            value = value_of(host, tag)
            if value is not None:
                counts[value] += 1
        limits = (rule.count for rule in self._rules if rule.per == HOST and isinstance(rule, _Limit))
        if self._own[HOST][host.name] >= min(limits, default=2**53):
            self.shut.add(host.name)

    # --- all hosts -------------------------------------------------------------------------------------------------

    @property
    def only_shut(self) -> bool:
        """Whether nothing matters but which hosts are ``shut``."""
        return self.by_class and not (self._wishes or self.tags)

    @property
    def by_class(self) -> bool:
        """Whether hosts of one class that are not ``shut`` differ in nothing but what the scheduler makes of them."""
        return not (self._host_wishes or self._here or self._demand.placement.leave_free)

    @property
    def parted(self) -> bool:
        """Whether hosts of one class may be wished for more and less, for what runs on them."""
        return bool(self._host_wishes)

    def classes(self) -> Mapping[Class, Members]:
        """The hosts of the cluster that ``require`` holds for."""
        likes = tuple((one.constraint.text, one.weight) for one in self._wishes if isinstance(one, _LikeHost))
        return self._census.classes(self.tags, likes, self._require, self._allowed)

    def worth_of(self, found: Class, one: Host) -> int | None:
        """How much the hosts of a class, of which ``one`` is one, are wished for now, what runs on each left aside;
        None if none of them can take a task."""
        if any(rule.refusal(one) for rule in self._tag_rules):
            return None
        return found[0] * WEIGHT + sum(wish.worth(one) for wish in self._tag_wishes)

    def more_for(self, host: Host) -> int:
        """How much more the host is wished for than others of its class, for what runs on it."""
        return sum(wish.worth(host) for wish in self._host_wishes)

    def takes(self, row: Row) -> bool:
        """Whether the host can take one more task, as far as it is not a matter of its class or of room
        for the task alone."""
        if row.host in self.shut:
            return False
        if any(rule.refusal(row.described) for rule in self._here):
            return False
        return not self._demand.placement.leave_free or next(self.reasons(row), None) is None

    def concerned(self, found: Class) -> list[tuple[int, str | None]]:
        """What a task that was placed in the class has changed: numbers of ``tags``, with the value."""
        return [(number, found[1][number]) for number in self._dynamic]
