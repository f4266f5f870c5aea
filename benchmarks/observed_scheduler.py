"""One scheduler process as ``sked run scheduler`` has it, that also says what it did, when, and at what cost.

python benchmarks/observed_scheduler.py STORE_URL LOST_AFTER_SECONDS

Each line read is answered by one line of JSON: what happened since the last line ``clear``, and what has been
spent since the start.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import threading
import time

import psutil

from sked_core.clock import SystemClock
from sked_core.interfaces.health import HealthContext
from sked_core.model.types import Event
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.scheduling.loop import SchedulerLoop
from sked_core.surface.processes import SCHEDULER_THREADS


class Seen:
    """Counts events; times are monotonic, which all processes of a machine share."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.issued, self.first, self.last, self.lost = 0, 0.0, 0.0, 0.0

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        if event.what == "task.issued":
            self.issued += 1
            self.first, self.last = self.first or now, now
        elif event.what == "host.lost":
            self.lost = now


def main() -> None:
    url, lost_after = sys.argv[1], float(sys.argv[2])
    logging.basicConfig(level=logging.WARNING)
    plugins = Plugins.load()
    store = open_store(url, plugins)
    health = plugins.health(url.partition("://")[0])(HealthContext(store, url, "", SystemClock()))
    seen, stop = Seen(), threading.Event()
    loop = SchedulerLoop(
        store=store,
        plugins=plugins,
        health=health,
        name=f"bench.{os.getpid()}",
        lost_after=lost_after,
        clock=SystemClock(),
        workers=SCHEDULER_THREADS,
        observer=seen,
    )
    thread = threading.Thread(target=loop.run, args=(stop,), daemon=True)
    thread.start()
    for line in sys.stdin:
        said = {"issued": seen.issued, "first": seen.first, "last": seen.last, "lost": seen.lost}
        if line.strip() == "clear":
            seen.clear()
        said["cpu"] = time.process_time()
        said["rss"] = psutil.Process().memory_info().rss
        said["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(said), flush=True)
    stop.set()
    thread.join(30)
    os._exit(0)


if __name__ == "__main__":
    main()
