"""What a scheduler and an agent cost while there is nothing to do.

python benchmarks/idle.py [embedded|consul|etcd ...] [--seconds N]

In the store stand 2,000 services with 5 tasks each on 100 living hosts. One ``sked run scheduler`` and one ``sked run
agent``, with 10 bash tasks of its own, run on it. Once nothing happens any more, for 135 seconds (two full reads of the
scheduler and more) are counted: the processor time of both, their requests to the store (by a proxy before it), and
what was written.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
from bed import SKED, until
from counting import CountingProxy
from engines import NAMES, Engine, fresh, store_of
from population import a_cluster, a_definition, a_host, cluster_name, declare, living_hosts, service_name, write

from sked_core.interfaces.store import Op, Put, Revision, Store
from sked_core.model import codec, keys
from sked_core.model.types import Cluster, ClusterStatus, Container, Service, ServiceStatus, Task, TaskDefinition

SERVICES, TASKS_A_SERVICE, HOSTS = 2000, 5, 100
OWN_TASKS = 10
MEASURED = "measured"
"""The name of the agent's host, and of the cluster and service of its tasks."""
QUIET_SECONDS = 15.0
GOALS = {"scheduler": 2.0, "agent": 0.5}


def issued() -> Iterator[Op]:
    """All tasks, and what a scheduler says of their services."""
    for number in range(SERVICES):
        cluster, definition = a_cluster(number, SERVICES), a_definition(number)
        for instance in range(TASKS_A_SERVICE):
            index = number * TASKS_A_SERVICE + instance
            host = a_host(index % HOSTS).name
            task = Task(
                cluster=cluster,
                task_definition=definition,
                service=service_name(number),
                instance=instance,
                port=20_000 + index // HOSTS,
                host=host,
            )
            value = codec.encode(task)
            yield Put(keys.task(task.id), value)
            yield Put(keys.host_task(host, task.id), value)
        status = ClusterStatus(desired=TASKS_A_SERVICE, issued=TASKS_A_SERVICE)
        whole = ServiceStatus(scheduler="default", clusters={cluster_name(number): status})
        yield Put(keys.service_status(service_name(number)), codec.encode(whole))


def own_service(desired: int) -> Op:
    """The service of the measured agent's host."""
    service = Service(name=MEASURED, task_name=MEASURED, task_version=1, desired=desired, max=OWN_TASKS + 1)
    return Put(keys.service(MEASURED), codec.encode(service))


def own() -> list[Op]:
    """That service, and all that it needs."""
    sleep = Container(name="main", type="bash", executor={"start": "exec sleep 100000"})
    definition = TaskDefinition(name=MEASURED, version=1, containers=[sleep])
    cluster = Cluster(name=MEASURED, services=[MEASURED], hosts=[MEASURED])
    return [
        Put(keys.task_definition(MEASURED, 1), codec.encode(definition)),
        Put(keys.cluster(MEASURED), codec.encode(cluster)),
        own_service(OWN_TASKS),
    ]


@contextlib.contextmanager
def running(url: str, what: Sequence[str], log: Path) -> Iterator[psutil.Process]:
    with log.open("wb") as out:
        started = subprocess.Popen([SKED, "--backend", url, "run", *what], stdout=out, stderr=out)
    try:
        yield psutil.Process(started.pid)
    finally:
        started.terminate()
        started.wait(60)


@contextlib.contextmanager
def own_tasks(store: Store, agent: psutil.Process) -> Iterator[None]:
    """The agent's tasks run while the block does."""
    store.commit(own())
    try:
        until("the agent's tasks", lambda: len(store.read(keys.host_tasks(MEASURED)).entries) == OWN_TASKS)
        until("their start", lambda: sum(one.name() == "sleep" for one in agent.children(recursive=True)) == OWN_TASKS)
        yield
    finally:
        store.commit([own_service(0)])
        until("their end", lambda: not store.read(keys.host_tasks(MEASURED)).entries)


def revisions(store: Store) -> dict[str, Revision]:
    return {key: entry.revision for key, entry in store.read("").entries.items()}


def until_quiet(store: Store) -> dict[str, Revision]:
    """Wait until nothing is written for a while, and the markers of what was (they stand for two minutes) are cleared;
    returns every key with its revision."""
    before = revisions(store)
    while True:
        time.sleep(QUIET_SECONDS)
        now = revisions(store)
        if now == before and not any(key.startswith(keys.CHANGED) for key in now):
            return now
        before = now


class Subject:
    """One of the two processes, and what it has used and asked since the last ``begin``."""

    def __init__(self, name: str, process: psutil.Process, proxy: CountingProxy | None) -> None:
        self.name, self._process, self._proxy = name, process, proxy
        self.begin()

    def begin(self) -> None:
        self._cpu, self._begun = self._used(), time.monotonic()
        self._seen = Counter(self._proxy.seen) if self._proxy else Counter()

    def _used(self) -> float:
        spent = self._process.cpu_times()
        return float(spent.user + spent.system)

    def report(self) -> str:
        seconds = time.monotonic() - self._begun
        percent = (self._used() - self._cpu) / seconds * 100
        word = "reached" if percent < GOALS[self.name] else "missed"
        line = f"  {self.name}: {percent:.2f} % of a core (goal: under {GOALS[self.name]:g} %): {word}; "
        if self._proxy is None:
            return line + "no requests: SQLite works in the process itself"
        asked = self._proxy.seen - self._seen
        most = ", ".join(f"{count} {what}" for what, count in asked.most_common(6))
        return line + f"{asked.total() / seconds:.2f} requests per second ({most})"


def measure(engine: Engine, seconds: float, folder: Path) -> None:
    proxies = {}
    if engine.name != "embedded":
        proxies = {name: CountingProxy(engine.address) for name in GOALS}
    urls = {name: f"{engine.name}://127.0.0.1:{proxy.port}" for name, proxy in proxies.items()}
    agent_options = ["agent", "--policy", "development", "--host", MEASURED, "--state-dir", str(folder / "agent")]
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(store_of(engine))
        declare(store, services=SERVICES, desired=TASKS_A_SERVICE)
        write(store, issued())
        stack.enter_context(living_hosts(store, range(HOSTS)))
        started = {
            name: stack.enter_context(running(urls.get(name, engine.url), options, folder / f"{name}.log"))
            for name, options in (("scheduler", ["scheduler"]), ("agent", agent_options))
        }
        stack.enter_context(own_tasks(store, started["agent"]))
        before = until_quiet(store)
        tasks = sum(key.startswith(keys.TASKS) for key in before)
        print(f"{engine.name}: {SERVICES + 1} services, {tasks} tasks, {HOSTS + 1} hosts, {seconds:g} s", flush=True)
        subjects = [Subject(name, process, proxies.get(name)) for name, process in started.items()]
        writes, cpu = engine.writes(), engine.cpu()
        for subject in subjects:
            subject.begin()
        time.sleep(seconds)
        for subject in subjects:
            print(subject.report())
        writes, cpu = engine.writes() - writes, engine.cpu() - cpu
        if cpu:
            print(f"  {engine.name}'s own process: {cpu / seconds * 100:.2f} % of a core")
        after = revisions(store)
        changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
        word = "reached" if not changed and not writes else "missed"
        named = f" ({', '.join(changed[:5])})" if changed else ""
        print(f"  keys changed: {len(changed)}{named}, transactions: {writes} (goal: none): {word}", flush=True)
    for proxy in proxies.values():
        proxy.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help=f"{', '.join(NAMES)}; default: all")
    parser.add_argument("--seconds", type=float, default=135.0)
    told = parser.parse_args()
    if unknown := set(told.engines) - set(NAMES):
        parser.error(f"no such engine: {', '.join(unknown)}")
    for name in told.engines or NAMES:
        with fresh(name) as engine, tempfile.TemporaryDirectory(prefix="sked-bench-") as folder:
            measure(engine, told.seconds, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
