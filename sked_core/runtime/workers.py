"""Where the jobs of an agent run: in threads, or wherever a simulation has them run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from sked_core.runtime.about import about

POOL_THREADS = 8
"""Jobs at once per pool: more than 4 to 8 starts in parallel gain nothing (measured for Docker)."""


Message = Callable[[float], None]
"""What the agent's main thread is asked to do; called with the monotonic time."""
Submit = Callable[[str, Callable[[], Message]], None]
"""Has workers run a job of the named pool, and then the main thread what it returns."""


def nothing_more(now: float) -> None:
    """What there is to do after a job whose result says it all."""


def naming(job: Callable[[], Message], named: Mapping[str, str]) -> Callable[[], Message]:
    """``job``; what it logs is about what is ``named`` (runtime.about), and so is what its message logs."""

    def run() -> Message:
        with about(**named):
            message = job()

        def take_in(now: float) -> None:
            with about(**named):
                message(now)

        return take_in

    return run


class Workers(Protocol):
    """Runs jobs that may block. What they found out they hand over themselves; they never raise."""

    def submit(self, pool: str, job: Callable[[], None]) -> None:
        """Have ``job`` run, now or later, in any thread. Jobs of one pool may hold up one another, and no others.
        After ``close`` nothing happens."""
        ...

    def close(self) -> None:
        """Begin no further job, and return without waiting for those under way. Idempotent."""
        ...


class ThreadPools:
    """Workers with threads of its own for each pool. Used by one thread."""

    def __init__(self) -> None:
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._closed = False

    def submit(self, pool: str, job: Callable[[], None]) -> None:
        if self._closed:
            return
        if pool not in self._pools:
            self._pools[pool] = ThreadPoolExecutor(POOL_THREADS, thread_name_prefix=pool)
        self._pools[pool].submit(job)

    def close(self) -> None:
        self._closed = True
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
