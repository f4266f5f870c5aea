"""Batches of tasks with rules and wishes: which host is next, without looking at all of them each time."""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator

from sked_core.logic.constrained import Class, Rules
from sked_core.logic.ranking import Entry, EntryOf
from sked_core.logic.rows import Row
from sked_core.model.types import Host

_Group = tuple[Class, int]
"""Hosts of a class that are wished for as much: by this much more than others of the class."""


Walk = Callable[[frozenset[str]], Generator[str]]
MAX_WALKS = 32
"""Classes up to which each is walked along in an order that is kept from batch to batch: of those, too, only so many
are kept."""


class Placing:
    """A batch. ``able``: whether a host can take one more task for what it is and has left. The caller reserves each
    before it asks for the next one."""

    def __init__(self, rules: Rules, able: Callable[[Row], bool]) -> None:
        self._rules, self._able, self._classes = rules, able, rules.classes()

    def by_score(self, entry_of: EntryOf, walk: Walk, count: int) -> Iterator[str]:
        """The host of each of ``count`` tasks, at most. ``entry_of``: of hosts that have room, by the scheduler's rank;
        ``walk``: over some hosts in this order, each to be given a task before the next is asked for.

        Offers stand in a heap, one for each group with the best of its hosts, and one for each class that nobody has
        looked into yet, which comes before others that are wished for as much.
        """
        rules, numbers, classes = self._rules, itertools.count(), self._classes
        opened: dict[Class, dict[int, list[Entry]]] = {}
        having: defaultdict[tuple[int, str | None], list[Class]] = defaultdict(list)
        offers: list[tuple[int, tuple[object, ...], int, Class, int]] = []
        latest: dict[_Group, int] = {}
        walks: dict[Class, Generator[str]] = {}
        walking = rules.by_class and len(classes) <= MAX_WALKS

        def enter(found: Class, row: Row) -> None:
            if self._able(row) and rules.takes(row) and (entry := entry_of(row)) is not None:
                more = rules.more_for(row.described) if rules.parted else 0
                heapq.heappush(opened[found].setdefault(more, []), entry)

        def go_on(found: Class) -> None:
            host = next(walks[found], None)
            entry = entry_of(classes[found].rows[host]) if host is not None else None
            opened[found] = {0: [entry]} if entry is not None else {}

        def look_into(found: Class) -> None:
            if walking:
                walks[found] = walk(classes[found].names)
                go_on(found)
                return
            opened[found] = {}
            for row in classes[found].rows.values():
                enter(found, row)

        def offer(found: Class) -> None:
            worth = rules.worth_of(found, classes[found].sample)
            groups = opened.get(found)
            for more, hosts in [(0, None)] if groups is None else groups.items():
                latest[found, more] = number = next(numbers)
                if worth is not None and (hosts is None or hosts):
                    best = () if hosts is None else hosts[0][:2]
                    heapq.heappush(offers, (-worth - more, best, number, found, more))

        for found in classes:
            for changed in rules.concerned(found):
                having[changed].append(found)
            if rules.parted:
                look_into(found)
            offer(found)
        try:
            while count > 0 and offers:
                _, best, number, found, more = heapq.heappop(offers)
                if latest[found, more] != number:
                    continue
                if not best:
                    look_into(found)
                    offer(found)
                    continue
                row = heapq.heappop(opened[found][more])[3]
                yield row.host
                count -= 1
                rules.placed(row.described)
                if not count:
                    return
                if walking:
                    go_on(found)
                else:
                    enter(found, row)
                for one in {found, *itertools.chain(*(having[changed] for changed in rules.concerned(found)))}:
                    offer(one)
        finally:
            for begun in walks.values():
                begun.close()

    def by_asking(self, ask: Callable[[list[str]], str | None], count: int) -> Iterator[str]:
        """As ``by_score``, with a scheduler that is more than a score: it is asked for one task at a time, out of the
        hosts that are wished for most."""
        for _ in range(count):
            by_worth: defaultdict[int, dict[str, Host]] = defaultdict(dict)
            for found, members in self._classes.items():
                worth = self._rules.worth_of(found, members.sample)
                for row in members.rows.values() if worth is not None else ():
                    if self._able(row) and self._rules.takes(row):
                        by_worth[(worth or 0) + self._rules.more_for(row.described)][row.host] = row.described
            asked = ((worth, ask(sorted(by_worth[worth]))) for worth in sorted(by_worth, reverse=True))
            worth, chosen = next(((worth, host) for worth, host in asked if host is not None), (0, None))
            if chosen is None:
                return
            yield chosen
            self._rules.placed(by_worth[worth][chosen])
