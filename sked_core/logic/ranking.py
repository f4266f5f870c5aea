"""The best host for each task of a batch, found without asking every host.

For each scheduler, and each size of task that its score looks at, hosts stand in a heap by rank. A heap is brought up
to date when it is used: hosts that have changed since are ranked anew, and what it still holds of them from before is
dropped when it comes to the top. So a batch costs about as many steps as there are tasks and changed hosts, times the
logarithm of the number of hosts. What comes out is what ranking all hosts anew for every task would give.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from dataclasses import fields
from heapq import heapify, heappop, heappush, heappushpop
from operator import attrgetter
from typing import TypeVar

from sked_core.interfaces.scheduler import Candidate, Demand
from sked_core.logic.placement import FAULTS, Scored, failed
from sked_core.logic.rows import Changes, Row
from sked_core.model.constraint import refusals
from sked_core.model.types import Host

T = TypeVar("T")
Counts = Mapping[str, int]
"""Tasks by host."""
Entry = tuple[object, str, int, Row]
"""Rank (smaller is better), name of the host, version of the row that it was made from, the row."""
EntryOf = Callable[[Row], Entry | None]
"""None for a row that has no place in the heap."""
Key = tuple[Scored, frozenset[str] | None, tuple[object, ...]]
"""Scheduler, hosts, and the size of the tasks (empty: of any)."""

HEAPS = 64
"""How many heaps are kept: the ones used last."""
PASSED_OVER = 64
"""How many hosts without room a batch passes over in the heap that all sizes share, until its size gets its own."""
USES = 64
"""After how many batches with a heap of its own a size tries the shared one again."""
CHANGES_PER_HOST = 16
NONE: Counts = {}
NOTHING: Mapping[str, Counts] = {}
ANY = -(1 << 62)
"""Less than any host can have left: what is not asked for fits also where more is reserved than there is."""


def fitting(demand: Demand) -> Callable[[Row], bool]:
    """Whether one more task of ``demand`` fits on the host of a row by what the host is and has left."""
    memory, cpu_units, disk = (need or ANY for need in (demand.memory, demand.cpu_units, demand.disk))
    ports, fixed_ports, executors = int(demand.provide_port), demand.fixed_ports, demand.executors
    require, met = demand.placement.require, dict[str, tuple[Host, bool]]()

    def meets(row: Row) -> bool:
        known = met.get(row.host)
        if known is None or known[0] is not row.described:
            known = met[row.host] = row.described, not refusals(require, row.described)
        return known[1]

    def fits(row: Row) -> bool:
        return (
            row.free_memory >= memory
            and row.free_cpu_units >= cpu_units
            and row.free_disk >= disk
            and row.free_ports >= ports
            and executors <= row.executors
            and (not fixed_ports or row.ports.all_free(fixed_ports))
            and (not require or meets(row))
        )

    return fits


_FIELDS = tuple(one.name for one in fields(Candidate))
_told = attrgetter(*_FIELDS)


def untouched(ask: Callable[[Demand, Row], T]) -> Callable[[Demand, Row], T]:
    """``ask``, a stranger's, that leaves the row as it is: raises ValueError where it did not, with all put back."""

    def asked(demand: Demand, row: Row) -> T:
        before = _told(row)
        try:
            return ask(demand, row)
        finally:
            if _told(row) != before:
                for name, value in zip(_FIELDS, before, strict=True):
                    setattr(row, name, value)
                raise ValueError("it changes candidates")

    return asked


def _entries(scored: Scored, name: str, demand: Demand, fits: Callable[[Row], bool] | None) -> EntryOf:
    """Entries by score; without ``fits``, of all hosts that may be given tasks."""
    score, seen = scored.score if scored.ours else untouched(scored.score), scored.seen(demand)

    def entry_of(row: Row) -> Entry | None:
        if not row.ready or (fits is not None and not fits(row)):
            return None
        try:
            rank = -float(score(seen, row))
            if rank != rank:
                raise ValueError("the score is no number")
        except FAULTS as error:
            raise failed(name, error) from error
        return rank, row.host, row.version, row

    return entry_of


def counting_entries(
    scored: Scored, name: str, demand: Demand, fits: Callable[[Row], bool], counts_of: Callable[[], Counts]
) -> EntryOf:
    """Entries by rank where it matters how many tasks of the service each host has."""
    rank = scored.rank if scored.ours else untouched(scored.rank)

    def entry_of(row: Row) -> Entry | None:
        if not row.ready or not fits(row):
            return None
        row.tasks_of_service = counts_of().get(row.host, 0)
        try:
            return rank(demand, row), row.host, row.version, row
        except FAULTS as error:
            raise failed(name, error) from error
        finally:
            row.tasks_of_service = 0

    return entry_of


class Order:
    """Hosts in a heap by rank. It can be used by one batch at a time."""

    def __init__(
        self, rows: Mapping[str, Row], changes: Changes, allowed: frozenset[str] | None, entry_of: EntryOf
    ) -> None:
        self._rows, self._changes, self._allowed, self._entry_of = rows, changes, allowed, entry_of
        self._heap: list[Entry] = []
        self._seen = -1
        """The number of the last change that is taken in."""
        self.uses = 0
        self.stuck = False
        """Whether the last batch gave up passing over hosts without room."""

    def fill(self, names: Iterable[str] | None) -> None:
        """Rank those of ``names`` (None: of all hosts) that are allowed, as they are now."""
        rows, entry_of, allowed = self._rows, self._entry_of, self._allowed
        if names is None:
            names = rows if allowed is None else allowed
        entries = [entry_of(rows[name]) for name in names if name in rows and (allowed is None or name in allowed)]
        self._heap[:] = [entry for entry in entries if entry is not None]
        heapify(self._heap)
        self._seen = self._changes.last

    def _refresh(self) -> None:
        """Take in what has changed."""
        if self._seen == self._changes.last:
            return
        changed = self._changes.since(self._seen) if self._seen >= 0 else None
        if changed is None or 2 * len(changed) > len(self._rows):
            self.fill(None)
            return
        heap, entry_of, allowed = self._heap, self._entry_of, self._allowed
        for row in changed:
            if allowed is None or row.host in allowed:
                entry = entry_of(row)
                if entry is not None:
                    heappush(heap, entry)
        self._seen = self._changes.last
        if len(heap) > 2 * len(self._rows) + HEAPS:
            heap[:] = [entry for entry in heap if entry[2] == entry[3].version]
            heapify(heap)

    def walk(self, count: int, avoid: Collection[str]) -> Generator[str, None, int]:
        """The best host, and the best one after something was placed there, up to ``count`` times. Returns how many
        times there was none."""
        self._refresh()
        heap, changes, entry_of = self._heap, self._changes, self._entry_of
        aside: list[Entry] = []
        entry = again = None
        try:
            while count > 0:
                if again is not None:
                    entry, again = heappushpop(heap, again), None
                elif heap:
                    entry = heappop(heap)
                else:
                    break
                row = entry[3]
                if entry[2] != row.version:
                    continue
                if entry[1] in avoid:
                    aside.append(entry)
                    entry = None
                    continue
                yield entry[1]
                count -= 1
                if not count:
                    break
                if row.version == changes.last == self._seen + 1:
                    again = entry_of(row)
                    self._seen = row.version
                else:
                    if entry[2] == row.version:
                        heappush(heap, entry)
                    self._refresh()
            return count
        finally:
            self._put_back(aside, entry)

    def walk_new(
        self, count: int, avoid: Collection[str], counts_of: Callable[[], Counts], fits: Callable[[Row], bool]
    ) -> Generator[str, None, int]:
        """As ``walk``, over hosts that have no task of the service yet, which come before all others. Rows that have no
        room may be among those of this heap: after some of them it is given up."""
        self._refresh()
        heap, changes, seen, counts = self._heap, self._changes, self._changes.last, counts_of()
        aside: list[Entry] = []
        passed_over = 0
        entry = None
        try:
            while count > 0 and heap:
                entry = heappop(heap)
                row = entry[3]
                if entry[2] != row.version:
                    continue
                host = entry[1]
                if host in counts or host in avoid:
                    aside.append(entry)
                    entry = None
                    continue
                if not fits(row):
                    aside.append(entry)
                    entry = None
                    passed_over += 1
                    if passed_over > PASSED_OVER:
                        break
                    continue
                yield host
                count -= 1
                seen += 1
                # A host that was given a task is none of those that this is about any more: it is ranked anew later on.
                if count and not row.version == changes.last == seen:
                    if entry[2] == row.version:
                        heappush(heap, entry)
                    self._refresh()
                    seen, counts = changes.last, counts_of()
            return count
        finally:
            self.stuck = passed_over > PASSED_OVER
            self._put_back(aside, entry)

    def _put_back(self, aside: list[Entry], entry: Entry | None) -> None:
        """``entry``: the last one that was taken out; where it still stands, nothing was placed there."""
        if entry is not None and entry[2] == entry[3].version:
            aside.append(entry)
        for one in aside:
            heappush(self._heap, one)


class Ranking:
    """The orders of one fleet. ``rows`` and ``tasks`` (how many each host has, by service and cluster) are the fleet's
    own, as they change."""

    def __init__(self, rows: Mapping[str, Row], changes: Changes, tasks: Mapping[str, Mapping[str, Counts]]) -> None:
        self._rows, self._changes, self._tasks = rows, changes, tasks
        self._orders: dict[Key, Order] = {}
        self._allowed: dict[int, tuple[Collection[str], frozenset[str]]] = {}
        """Sets of hosts, by the identity of what they were made from."""

    def place(
        self,
        scored: Scored,
        name: str,
        demand: Demand,
        count: int,
        allowed: Collection[str] | None,
        avoid: Collection[str],
    ) -> Generator[str]:
        """See ``Fleet.place``."""
        self._changes.shorten(CHANGES_PER_HOST * len(self._rows) + CHANGES_PER_HOST)
        hosts, fits = self.set_of(allowed), fitting(demand)
        tasks, service, cluster = self._tasks, demand.service, demand.cluster

        def counts_of() -> Counts:
            return tasks.get(service, NOTHING).get(cluster, NONE)

        def new_order() -> Order:
            return Order(self._rows, self._changes, hosts, counting_entries(scored, name, demand, fits, counts_of))

        size = (demand.memory, demand.cpu_units, demand.disk, demand.provide_port, demand.fixed_ports, demand.executors)
        asked = (*size, *demand.placement.require)
        if scored.scope == "service" or (scored.fewest_first and len(counts_of()) * 4 > len(self._rows)):
            yield from new_order().walk(count, avoid)
        elif not scored.fewest_first:
            key = (scored, hosts, asked)
            order = self._take(key, _entries(scored, name, demand, fits))
            try:
                yield from order.walk(count, avoid)
            finally:
                self._keep(key, order)
        else:
            own, shared = (scored, hosts, asked), (scored, hosts, ())
            alone = scored.scope != "host" or bool(demand.placement.require)
            order = None
            if not alone and own not in self._orders:
                order = self._take(shared, _entries(scored, name, demand, None))
                try:
                    count = yield from order.walk_new(count, avoid, counts_of, fits)
                finally:
                    self._keep(shared, order)
            if order is None or order.stuck:
                order = self._take(own, _entries(scored, name, demand, fits))
                order.uses += 1
                try:
                    count = yield from order.walk_new(count, avoid, counts_of, fits)
                finally:
                    if alone or order.uses < USES:
                        self._keep(own, order)
            if count:
                order = new_order()
                order.fill(counts_of())
                yield from order.walk(count, avoid)

    def set_of(self, allowed: Collection[str] | None) -> frozenset[str] | None:
        if allowed is None or isinstance(allowed, frozenset):
            return allowed
        known = self._allowed.get(id(allowed))
        if known is None or known[0] is not allowed:
            if len(self._allowed) >= HEAPS:
                self._allowed.clear()
            known = self._allowed[id(allowed)] = (allowed, frozenset(allowed))
        return known[1]

    def _take(self, key: Key, entry_of: EntryOf) -> Order:
        """The order that is kept under ``key``, for one batch to use, or a new one."""
        return self._orders.pop(key, None) or Order(self._rows, self._changes, key[1], entry_of)

    def _keep(self, key: Key, order: Order) -> None:
        self._orders[key] = order
        if len(self._orders) > HEAPS:
            del self._orders[next(iter(self._orders))]
