"""What metrics cost: a scrape of a scheduler that knows much, and what is measured as it happens.

``python benchmarks/metrics.py [--services 10000] [--tasks 10]`` prints

* how long a scrape takes and how large it is, with so many services of so many tasks each;
* for how long the scheduler's monitor is held by it (figures are counted under it, text is made after);
* how much one measured call of the store, one job of an agent and one evaluation cost more than without.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from sked_core.clock import SystemClock
from sked_core.interfaces.store import Entry, Put, Revision
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import ClusterStatus, ServiceStatus
from sked_core.runtime.about import about
from sked_core.runtime.metrics import Metrics
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.scheduling.loop import SchedulerLoop
from sked_core.runtime.stores.memory import MemoryStore
from sked_core.runtime.workers import Workers
from sked_core.testing.builders import a_cluster, a_definition, a_service, a_task
from sked_core.testing.fakes import FakeHealth

ROUNDS = 7


def milliseconds(call: Callable[[], object]) -> float:
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1000


def microseconds_each(call: Callable[[], object], times: int = 20_000) -> float:
    def many() -> None:
        for _ in range(times):
            call()

    return milliseconds(many) / times * 1000


def a_scheduler(services: int, tasks: int) -> SchedulerLoop:
    """One that knows so many services with a status, and their tasks."""
    loop = SchedulerLoop(
        store=MemoryStore().client(), plugins=Plugins([]), health=FakeHealth(), name="s", clock=SystemClock()
    )
    view, one = loop._view, Revision(1)
    names = [f"service-{number:05}" for number in range(services)]
    declared = {keys.service(name): Entry(encode(a_service(name, desired=tasks)), one) for name in names}
    view.take_declared(declared, {keys.cluster("c"): Entry(encode(a_cluster("c", tuple(names))), one)})
    status = ServiceStatus(scheduler="default", clusters={"c": ClusterStatus(desired=tasks, issued=tasks)})
    view.statuses.take({keys.service_status(name): Entry(encode(status), one) for name in names})
    entries = {}
    for name in names:
        cluster, definition = a_cluster("c", (name,)), a_definition(name)
        for number in range(tasks):
            task = a_task(f"h{number}", number, definition, service=name, cluster=cluster)
            entries[keys.task(task.id)] = Entry(encode(task), one)
    view.take_tasks(entries)
    return loop


class Here(Workers):
    """Runs jobs at once."""

    def submit(self, pool: str, job: Callable[[], None]) -> None:
        job()

    def close(self) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--services", type=int, default=10_000)
    parser.add_argument("--tasks", type=int, default=10)
    asked = parser.parse_args()
    loop, metrics = a_scheduler(asked.services, asked.tasks), Metrics(["agent", "scheduler"])
    metrics.sample(loop.figures)
    text = metrics.text()[0]
    print(f"{asked.services:,} services of {asked.tasks} tasks")
    print(f"  a scrape:            {milliseconds(metrics.text):8.1f} ms, {len(text) / 1000:,.0f} kB")
    print(f"  under the monitor:   {milliseconds(loop.figures):8.1f} ms")

    store = MemoryStore().client()
    store.commit([Put("config/a", b"1")])
    measured, workers = metrics.store(store), metrics.workers(Here())
    plain = microseconds_each(lambda: store.read("config/a"))
    print("each, in microseconds")
    print(f"  a measured call:     {microseconds_each(lambda: measured.read('config/a')) - plain:8.2f}")
    print(f"  a measured job:      {microseconds_each(lambda: workers.submit('bash start', lambda: None)):8.2f}")
    print(f"  a measured evaluation:{microseconds_each(lambda: metrics.evaluated(0.001)):7.2f}")

    def named() -> None:
        with about(service="web"):
            pass

    print(f"  saying what it is about, with or without metrics:{microseconds_each(named):8.2f}")


if __name__ == "__main__":
    main()
