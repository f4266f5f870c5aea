"""How much one, two and four schedulers get done, against what the engine itself takes.

python benchmarks/scheduling.py [embedded|consul|etcd ...] [--turns N] [--services N --tasks K]

On a fresh store with 50 living hosts, services are declared that want no tasks, and schedulers settle. Then every
service wants its tasks, and the time until the last of them is issued counts. The same commits, which were recorded
before and encoded, are sent to another fresh store by 1, 2, 4 … plain connections: what the engine takes.

Two shapes, unless another one is given: 1,000 services of one task, and 100 services of 100.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psutil
from bed import SKED, until
from engines import NAMES, Engine, fresh, store_of
from population import a_service, cluster_name, declare, living_hosts, service_name, write
from raw import Sent, divided, send

from sked_core.clock import SystemClock
from sked_core.interfaces.store import Op, Put, Store
from sked_core.model import codec, keys
from sked_core.model.types import ServiceStatus
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.scheduling.loop import SchedulerLoop
from sked_core.runtime.stores.memory import MemoryStore
from sked_core.testing.fakes import FakeHealth, RecordingStore

HOSTS = 50
SCHEDULERS = (1, 2, 4)
CONNECTIONS = (1, 2, 4, 8, 16)
SHAPES = ((1000, 1), (100, 100))
GOAL = 0.7
QUIET_SECONDS = 2.0
LOOK_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Done:
    """One run of so many schedulers. Seconds; ``schedulers`` and ``engine`` of processor time."""

    tasks: int
    commits: int
    seconds: float
    schedulers: float
    engine: float


def wanted(services: int, tasks: int) -> list[Op]:
    """What makes every service want its tasks."""
    return [Put(keys.service(service_name(n)), codec.encode(a_service(n, tasks))) for n in range(services)]


def says_done(store: Store, number: int, tasks: int) -> bool:
    """Whether the status of a service says that all its tasks are issued; the last may be on their way still."""
    key = keys.service_status(service_name(number))
    entry = store.read(key).entries.get(key)
    if entry is None:
        return False
    status = codec.decode(entry.value, ServiceStatus).clusters.get(cluster_name(number))
    return status is not None and status.issued == status.desired == tasks


def all_issued(store: Store, services: int, tasks: int) -> float:
    """Wait for it; returns the (monotonic) time. Looks at one small key at a time until the end is near."""
    found = [0.0]

    def done() -> bool:
        now = time.monotonic()
        statuses = store.read(keys.SERVICE_STATUS).entries.values()
        clusters = [one for entry in statuses for one in codec.decode(entry.value, ServiceStatus).clusters.values()]
        complete = sum(one.issued == one.desired == tasks for one in clusters) == services
        found[0] = now
        return complete and not store.read(keys.SERVICE_LOCKS).entries

    deadline = time.monotonic() + 600
    for number in reversed(range(services)):  # schedulers begin with the first
        while not says_done(store, number, tasks):
            if time.monotonic() > deadline:
                raise SystemExit("gave up waiting for tasks to be issued")
            time.sleep(LOOK_SECONDS)
        if done():
            break
    until("the last task", done)
    return found[0]


def check(store: Store, services: int, tasks: int) -> None:
    """Every task has both its keys with the same record, and none is on two hosts."""
    by_task = store.read(keys.TASKS).entries
    by_host = store.read(keys.HOST_TASKS).entries
    ids = Counter(keys.last_segment(key) for key in by_host)
    twice = [name for name, count in ids.items() if count > 1]
    same = all(by_task.get(keys.task(keys.last_segment(key))).value == by_host[key].value for key in by_host)  # type: ignore[union-attr]
    if twice or not same or len(by_task) != len(by_host) or len(by_task) != services * tasks:
        raise SystemExit(
            f"wrong: {len(by_task)} tasks, {len(by_host)} on hosts, {services * tasks} wanted, twice: {twice[:5]}"
        )


@contextlib.contextmanager
def schedulers(engine: Engine, count: int) -> Iterator[list[psutil.Process]]:
    """So many ``sked run scheduler`` on the engine's store."""
    with tempfile.TemporaryFile() as log:
        command = [SKED, "--backend", engine.url, "run", "scheduler"]
        started = [subprocess.Popen(command, stdout=log, stderr=log) for _ in range(count)]
        try:
            yield [psutil.Process(one.pid) for one in started]
        finally:
            for one in started:
                one.terminate()
            for one in started:
                one.wait(30)


def settle(engine: Engine, store: Store, services: int, count: int) -> None:
    """Wait until so many schedulers are there, have looked at every service, and write nothing any more."""
    until("schedulers", lambda: len(store.read(keys.SCHEDULERS).entries) == count)
    until("first looks", lambda: len(store.read(keys.SERVICE_STATUS).entries) == services)
    seen, since = engine.writes(), time.monotonic()

    def quiet() -> bool:
        nonlocal seen, since
        time.sleep(0.2)
        now = engine.writes()
        if now != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since >= QUIET_SECONDS

    until("quiet", quiet)


def run(name: str, services: int, tasks: int, count: int) -> Done:
    """One measurement on a fresh engine."""
    with fresh(name) as engine, store_of(engine) as store:
        declare(store, services=services, desired=0)
        with living_hosts(store, range(HOSTS)), schedulers(engine, count) as processes:
            settle(engine, store, services, count)
            commits, spent, engine_spent = engine.writes(), cpu_of(processes), engine.cpu()
            begun = time.monotonic()
            write(store, wanted(services, tasks))
            ended = all_issued(store, services, tasks)
            spent, engine_spent = cpu_of(processes) - spent, engine.cpu() - engine_spent
            commits = engine.writes() - commits
            check(store, services, tasks)
    if name == "embedded":
        commits -= services  # a lock that goes counts there as well
    return Done(services * tasks, commits, ended - begun, spent, engine_spent)


def cpu_of(processes: Sequence[psutil.Process]) -> float:
    return sum(spent.user + spent.system for one in processes for spent in [one.cpu_times()])


# --- what the engine takes ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recording:
    """What stood in the store, and the commits that were then made by one scheduler."""

    before: Sequence[Put]
    commits: Sequence[tuple[Op, ...]]


def record(services: int, tasks: int, max_ops: int) -> Recording:
    """The commits of one scheduler, made on the reference store with the engine's limit."""
    memory = MemoryStore()
    memory.max_ops = max_ops
    store = RecordingStore(memory)
    declare(memory, services=services, desired=0)
    stop = threading.Event()
    health = FakeHealth()
    loop = SchedulerLoop(store=store, plugins=Plugins.load(), health=health, name="recorded", clock=SystemClock())
    with living_hosts(memory, range(HOSTS)):
        thread = threading.Thread(target=loop.run, args=(stop,))
        thread.start()
        until("first looks", lambda: len(memory.read(keys.SERVICE_STATUS).entries) == services)
        time.sleep(QUIET_SECONDS)
        begun = len(store.commits)
        write(memory, wanted(services, tasks))
        entries = memory.read("").entries
        before = [Put(key, entry.value) for key, entry in entries.items() if not entry.lease]
        all_issued(memory, services, tasks)
        stop.set()
        thread.join(30)
        check(memory, services, tasks)
    commits = [ops for ops in store.commits[begun:] if any(op.key.startswith(keys.SERVICE_LOCKS) for op in ops)]
    health.close()
    memory.close()
    return Recording(before, commits)


def run_raw(name: str, recording: Recording, connections: int) -> Sent:
    """Send it to a fresh engine."""
    with fresh(name) as engine, store_of(engine) as store:
        write(store, recording.before)
        return send(engine, store, divided(recording.commits, connections))


def max_ops_of(name: str) -> int:
    with fresh(name) as engine, store_of(engine) as store:
        return store.max_ops


# --- reporting ---------------------------------------------------------------------------------------------------


def measure(name: str, services: int, tasks: int, turns: int) -> None:
    """Sked and the plain connections take turns; medians are compared."""
    recording = record(services, tasks, max_ops_of(name))
    ops = sum(map(len, recording.commits))
    size = sum(len(op.value) for one in recording.commits for op in one if isinstance(op, Put))
    count = len(recording.commits)
    print(f"{name} on {psutil.cpu_count()} cores, {services} services of {tasks}: {services * tasks} tasks in ", end="")
    print(f"{count} commits of {ops / count:.1f} operations and {size / count:.0f} bytes of values", flush=True)
    ours: dict[int, list[Done]] = {number: [] for number in SCHEDULERS}
    theirs: dict[int, list[Sent]] = {number: [] for number in CONNECTIONS}
    for _ in range(turns):
        for number in SCHEDULERS:
            ours[number].append(run(name, services, tasks, number))
        for number in CONNECTIONS:
            theirs[number].append(run_raw(name, recording, number))
    limits = {}
    for number, sent in theirs.items():
        limits[number] = statistics.median(one.rate for one in sent)
        commits, seconds = sum(one.count for one in sent), sum(one.seconds for one in sent)
        print(f"  {number:2} plain connections: {limits[number]:6.0f} commits/s; ", end="")
        clients, engine = sum(one.clients for one in sent), sum(one.engine for one in sent)
        print(cores("clients", clients, engine, seconds=seconds, commits=commits))
    best = max(limits.values())
    for number, done in ours.items():
        rate = statistics.median(one.commits / one.seconds for one in done)
        issued = statistics.median(one.tasks / one.seconds for one in done)
        # The limit in tasks: what counts for users, whatever number of commits it took.
        share = [issued / (limit * services * tasks / count) for limit in (limits[number], best)]
        word = "reached" if share[1] >= GOAL else "missed"
        print(f"  {number:2} schedulers: {issued:6.0f} tasks/s, {rate:6.0f} commits/s; tasks against plain: ", end="")
        print(f"{share[0]:.2f} of {number} connections, {share[1]:.2f} of the best (goal: {GOAL}): {word}")
        used, engine = sum(one.schedulers for one in done), sum(one.engine for one in done)
        seconds, commits = sum(one.seconds for one in done), sum(one.commits for one in done)
        print(f"     {cores('schedulers', used, engine, seconds=seconds, commits=commits)}", flush=True)


def cores(who: str, used: float, engine: float, *, seconds: float, commits: int) -> str:
    """Where the processor time went, those of the engine and of ``who`` used it."""
    parts = {who: used, "engine": engine}
    return ", ".join(
        f"{name} {spent / seconds:.2f} cores ({spent / commits * 1000:.2f} ms per commit)"
        for name, spent in parts.items()
        if spent
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help=f"{', '.join(NAMES)}; default: all")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--services", type=int, default=0)
    parser.add_argument("--tasks", type=int, default=1)
    told = parser.parse_args()
    if unknown := set(told.engines) - set(NAMES):
        parser.error(f"no such engine: {', '.join(unknown)}")
    shapes = ((told.services, told.tasks),) if told.services else SHAPES
    for name in told.engines or NAMES:
        for services, tasks in shapes:
            measure(name, services, tasks, told.turns)


if __name__ == "__main__":
    sys.exit(main())
