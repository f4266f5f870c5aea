"""A data centre on one machine: thousands of hosts, a hundred thousand tasks, one real scheduler, a real store.

python benchmarks/cluster.py [consul|etcd ...] [--hosts 5000 --tasks 100000 --each 100]

On a fresh store, hosts are announced (simulated_agents.py) and a tenth of the services placed by a scheduler in its own
process (observed_scheduler.py); single services are scaled by 1. Then the other nine tenths come, which is timed; the
same is done again, so that it shows what the number of other services costs; hosts are lost one after another; and it
is left alone for two full reads. At last the evaluation of every service with nothing to do is timed by itself, on a
copy of the store in memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import queue
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bed import until
from engines import ServerEngine, fresh, store_of
from population import SERVICES_A_CLUSTER, a_cluster, a_definition, a_host, a_service, cluster_name, service_name, write
from simulated_agents import LOSABLE

from sked_core.interfaces.store import Put, Store
from sked_core.model import codec, keys
from sked_core.runtime.scheduling.feed import RESYNC_SECONDS
from sked_core.runtime.state import store_uid

HERE = Path(__file__).resolve().parent
NAMES = ("consul", "etcd")
LOST_AFTER_SECONDS = 1.0
SCALED = 10
"""So many services are scaled, one after another."""
PAUSE_SECONDS = 1.0
"""After each of these, for what it still causes."""
QUIET = 0.05
"""The share of a core below which a scheduler is at rest."""
GOAL_LOST = 0.1
GOAL_IDLE = 7e-6
GOAL_MEMORY = 19_000


class Helper:
    """A process of this benchmark that answers by lines."""

    def __init__(self, script: str, *arguments: str) -> None:
        command = [sys.executable, str(HERE / script), *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self.lines.put(line)

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self, timeout: float) -> str:
        """The next line. Raises SystemExit if none comes."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                return self.lines.get(timeout=1.0)
            if self._process.poll() is not None:
                break
        raise SystemExit(f"{self._process.args} says nothing any more")

    def close(self) -> None:
        """End it by the end of its input; it is killed if it does not."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)


@contextlib.contextmanager
def helper(script: str, *arguments: str) -> Iterator[Helper]:
    made = Helper(script, *arguments)
    try:
        yield made
    finally:
        made.close()


class Bench:
    """One engine with hosts and a scheduler; ``each``: tasks of a service."""

    def __init__(self, engine: ServerEngine, store: Store, agents: Helper, scheduler: Helper, each: int) -> None:
        self.engine, self.store, self.agents, self.scheduler, self.each = engine, store, agents, scheduler, each
        self.services, self.running = 0, 0
        self.wanted: dict[int, int] = {}

    def asked(self, *, clear: bool = False) -> dict[str, Any]:
        """What the scheduler did since it was last told to begin anew (``clear``: from now on)."""
        self.scheduler.say("clear" if clear else "look")
        said: dict[str, Any] = json.loads(self.scheduler.hear(120))
        return said

    def issue(self, services: int) -> str:
        """Declare services up to ``services`` in all, and wait until their last task runs."""
        news = range(self.services, services)
        firsts = range(self.services, services, SERVICES_A_CLUSTER)
        write(self.store, [Put(keys.task_definition(service_name(n), 1), codec.encode(a_definition(n))) for n in news])
        write(self.store, [Put(keys.cluster(cluster_name(n)), codec.encode(a_cluster(n, services))) for n in firsts])
        before, engine, commits = self.asked(clear=True), self.engine.cpu(), self.engine.writes()
        write(self.store, [Put(keys.service(service_name(n)), codec.encode(a_service(n, self.each))) for n in news])
        count = len(news) * self.each
        self.running, self.services = self.running + count, services
        ran = self.await_running()
        said = self.asked()
        if said["issued"] != count:
            raise SystemExit(f"{said['issued']} tasks were issued, {count} are wanted")
        issuing, running = said["last"] - said["first"], ran - said["first"]
        spent, theirs = said["cpu"] - before["cpu"], self.engine.cpu() - engine
        return (
            f"{count} tasks: {count / running:.0f} per second from the first issued to the last running"
            f" ({running:.1f} s; to the last issued {issuing:.1f} s); processor time per task: scheduler"
            f" {spent / count * 1e6:.0f} µs, engine {theirs / count * 1e6:.0f} µs;"
            f" {self.engine.writes() - commits} commits, the agents' among them"
        )

    def settle(self) -> None:
        """Wait until the scheduler has nothing left to do."""

        def quiet() -> bool:
            before = self.asked()["cpu"]
            time.sleep(PAUSE_SECONDS)
            return self.asked()["cpu"] - before < QUIET * PAUSE_SECONDS

        until("the scheduler to come to rest", quiet)

    def await_running(self) -> float:
        """Wait until all that should run does; returns when the last one was seen to."""
        while True:
            running, at = self.agents.hear(300).split()
            if int(running) == self.running:
                return float(at)

    def scale(self) -> tuple[float, float]:
        """Scale some services by 1, one after another: median seconds from the put to the task being issued, and the
        scheduler's processor time for each."""
        self.settle()
        took, begin = [], self.asked()["cpu"]
        numbers = range(0, self.services, max(1, self.services // SCALED))
        for number in numbers:
            self.wanted[number] = self.wanted.get(number, self.each) + 1
            wanted = a_service(number, self.wanted[number])
            self.asked(clear=True)
            begun = time.monotonic()
            self.store.commit([Put(keys.service(service_name(number)), codec.encode(wanted))])
            self.running += 1
            self.await_running()
            took.append(self.asked()["last"] - begun)
            time.sleep(PAUSE_SECONDS)
        return statistics.median(took), (self.asked()["cpu"] - begin) / len(numbers)

    def lose(self, host: str) -> tuple[int, float]:
        """Lose a host: how many tasks it had, and the seconds from its being declared lost until they are issued."""
        had = len(self.store.read(keys.host_tasks(host)).entries)
        self.asked(clear=True)
        self.agents.say(f"lose {host}")
        said = until("a lost host's tasks", lambda: (now := self.asked())["issued"] >= had and now)
        return had, said["last"] - said["lost"]

    def left_alone(self) -> tuple[float, int]:
        """A minute, and so a full read, with nothing to do: the scheduler's processor time and the engine's writes."""
        while self.store.read(keys.CHANGED).entries:
            time.sleep(2 * PAUSE_SECONDS)
        self.settle()
        before, writes = self.asked()["cpu"], self.engine.writes()
        time.sleep(RESYNC_SECONDS)
        return self.asked()["cpu"] - before, self.engine.writes() - writes


def said(what: str, value: float, goal: float, shown: str) -> None:
    """One line, with whether at most ``goal`` was reached."""
    print(f"  {what}: {shown}: {'reached' if value <= goal else 'missed'}", flush=True)


def nothing_to_do(url: str) -> list[float]:
    """What nothing_to_do.py prints."""
    command = [sys.executable, str(HERE / "nothing_to_do.py"), url]
    return [float(word) for word in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()]


def measure(name: str, hosts: int, services: int, each: int) -> None:
    """Everything, on one fresh engine."""
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(fresh(name))
        assert isinstance(engine, ServerEngine)
        store = stack.enter_context(store_of(engine))
        store_uid(store, create=True)
        agents = stack.enter_context(helper("simulated_agents.py", engine.url, str(hosts)))
        agents.hear(300)
        scheduler = stack.enter_context(helper("observed_scheduler.py", engine.url, str(LOST_AFTER_SECONDS)))
        until("the scheduler", lambda: store.read(keys.SCHEDULERS).entries)
        bench = Bench(engine, store, agents, scheduler, each)
        empty = bench.asked()["rss"]
        print(f"{name}: {hosts} hosts, {services} services of {each}", flush=True)
        few = services // 10
        print(f"  {bench.issue(few)}", flush=True)
        little = bench.scale()
        print(f"  {bench.issue(services)}", flush=True)
        much = bench.scale()
        slower, dearer = much[0] / little[0], much[1] / little[1]
        shown = f"{much[0] * 1e3:.0f} ms and {much[1] * 1e3:.1f} ms of cpu; with {few} services "
        shown += f"{little[0] * 1e3:.0f} and {little[1] * 1e3:.1f}: {slower:.2f} and {dearer:.2f} times (goal: 1.2)"
        said(f"one of {services} services scaled by 1", max(slower, dearer), 1.2, shown)
        for number in range(hosts - LOSABLE, hosts - 1):
            had, seconds = bench.lose(a_host(number).name)
            what = f"host with {had} tasks lost, from its being declared so to all issued elsewhere"
            said(what, seconds, GOAL_LOST, f"{seconds * 1e3:.0f} ms (goal: {GOAL_LOST * 1e3:.0f})")
        evaluated, read = nothing_to_do(engine.url)
        shown = f"{evaluated * 1e6:.1f} µs of cpu per task (goal: {GOAL_IDLE * 1e6:.0f}); taking in a full read, beside"
        said("evaluation with nothing to do", evaluated, GOAL_IDLE, f"{shown} the client: {read * 1e6:.1f} µs")
        spent, writes = bench.left_alone()
        each_task = f"{spent:.2f} s of cpu, {spent / bench.running * 1e6:.1f} µs per task: a full read, all evaluated"
        said("a minute left alone", writes, 0, f"{writes} writes (goal: none), {each_task}")
        now = bench.asked()
        most, last = ((now[what] - empty) / bench.running for what in ("peak", "rss"))
        shown = f"{most / 1e3:.1f} KB per task at its most, {last / 1e3:.1f} now (goal: {GOAL_MEMORY / 1e3:.0f})"
        said("memory of the scheduler", most, GOAL_MEMORY, f"{shown}; {now['peak'] / 1e6:.0f} MB in all")
        print(f"  engine: {engine.memory() / 1e6:.0f} MB of memory, {engine.disk() / 1e6:.0f} MB on disk", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help=f"{', '.join(NAMES)}; default: both")
    parser.add_argument("--hosts", type=int, default=5000)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--each", type=int, default=100, help="tasks of a service")
    told = parser.parse_args()
    if unknown := set(told.engines) - set(NAMES):
        parser.error(f"no such engine: {', '.join(unknown)}")
    for name in told.engines or NAMES:
        measure(name, told.hosts, told.tasks // told.each, told.each)


if __name__ == "__main__":
    main()
