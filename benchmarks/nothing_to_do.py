"""What it costs a scheduler to find that nothing is to be done, on a copy of a store in memory.

python benchmarks/nothing_to_do.py STORE_URL

Prints two figures, in seconds of processor time per task: evaluating every service, and taking in a full read. The best
of three, since what else the machine does can only add to it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

from sked_core.clock import SystemClock
from sked_core.interfaces.store import Put
from sked_core.logic.presence import Absences, Drains, Rejections
from sked_core.model import keys
from sked_core.runtime.journal import Journal
from sked_core.runtime.lock import LeaseKeeper
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.scheduling.evaluation import Evaluator
from sked_core.runtime.scheduling.feed import SchedulerFeed
from sked_core.runtime.scheduling.rollout_moves import RolloutMoves
from sked_core.runtime.scheduling.service_moves import ServiceMoves
from sked_core.runtime.scheduling.view import View
from sked_core.runtime.stores.memory import MemoryStore
from sked_core.runtime.stores.yielding_store import YieldingStore
from sked_core.testing.fakes import FakeHealth

TURNS = 3


def copy_of(url: str) -> MemoryStore:
    """All that schedulers read."""
    store, copy = open_store(url, Plugins.load()), MemoryStore()
    for prefix in (keys.META, keys.CONFIG, keys.HOST_STATES, keys.SERVICE_STATUS, keys.TASKS):
        entries = store.read(prefix).entries
        for key, entry in entries.items():
            copy.commit([Put(key, entry.value)])
    store.close()
    return copy


def best_of(turn: Callable[[], object]) -> float:
    """Seconds of processor time."""
    spent = []
    for _ in range(TURNS):
        begun = time.process_time()
        turn()
        spent.append(time.process_time() - begun)
    return min(spent)


def main() -> None:
    monitor = threading.Lock()
    store, clock, plugins = YieldingStore(copy_of(sys.argv[1]), monitor), SystemClock(), Plugins.load()
    view = View(lambda _: frozenset())
    feed, journal = SchedulerFeed(store, view, clock), Journal(store, clock, "measured")
    evaluator = Evaluator(
        store=store,
        plugins=plugins,
        health=FakeHealth(),
        keeper=LeaseKeeper(store, clock),
        view=view,
        feed=feed,
        rejections=Rejections(),
        moves=RolloutMoves(
            store=store, view=view, feed=feed, journal=journal, clock=clock, ports_of=lambda _: frozenset()
        ),
        service_moves=ServiceMoves(view, journal),
        journal=journal,
        name="measured",
    )
    absences, drains = Absences(60.0), Drains()

    def read() -> None:
        feed.invalidate()
        feed.look(clock.monotonic(), lambda _: True)
        view.update_fleet(absences, drains, clock.monotonic())

    def evaluate() -> None:
        now = clock.monotonic()
        for service in sorted(view.names()):
            evaluator.evaluate(service, now, first=True)

    with monitor:
        read()
        revision = store.read("").revision
        evaluated, taken = best_of(evaluate), best_of(read)
        if store.read("").revision != revision:
            raise SystemExit("something was written")
    tasks = len(view.tasks.objects)
    print(evaluated / tasks, taken / tasks)


if __name__ == "__main__":
    main()
