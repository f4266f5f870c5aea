"""How long `sked tasks` takes with many tasks, and how much memory: of the whole process, as people wait for it.

python benchmarks/listing.py [TASKS] [ENGINE …]

Goals with 10,000 tasks: under 1 s and 150 MB, on every engine. Services have 100 tasks each.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from catalog import Catalog
from engines import fresh, store_of
from population import a_definition, a_host, a_service, cluster_name, declare, living_hosts, service_name, write

from sked_core.interfaces.store import Put
from sked_core.model import codec, keys
from sked_core.model.types import Cluster, Task

GOAL_SECONDS, GOAL_MB = 1.0, 150.0
A_SERVICE, HOSTS, TURNS = 100, 100, 5
COMMANDS = (("tasks",), ("tasks", "-o", "json"), ("tasks", "-o", "name"), ("services",), ("hosts",), ("status",))


def tasks_of(count: int) -> list[Task]:
    found = []
    for number in range(count):
        service, instance = divmod(number, A_SERVICE)
        found.append(
            Task(
                cluster=Cluster(name=cluster_name(service), services=[service_name(service)]),
                task_definition=a_definition(service),
                service=a_service(service, A_SERVICE).name,
                instance=instance,
                host=a_host(number % HOSTS).name,
                port=20000 + number // HOSTS,
            )
        )
    return found


def measured(arguments: tuple[str, ...], url: str) -> tuple[float, float, float]:
    """Wall seconds, seconds of processor time, and the most MB of memory that it held."""
    command = [sys.executable, "-m", "sked_core.surface.cli", *arguments, "--backend", url]
    begun = time.perf_counter()
    # As where it is installed: with modules compiled before.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    _, status, used = os.wait4(process.pid, 0)
    took = time.perf_counter() - begun
    if status:
        raise SystemExit(f"{' '.join(command)}: status {status}")
    return took, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main(count: int, engines: list[str]) -> None:
    for name in engines:
        with fresh(name) as engine, store_of(engine) as store:
            tasks = tasks_of(count)
            declare(store, services=-(-count // A_SERVICE), desired=A_SERVICE)
            with living_hosts(store, range(HOSTS)):
                both = [(keys.task(one.id), keys.host_task(one.host, one.id)) for one in tasks]
                write(store, [Put(key, codec.encode(one)) for one, two in zip(tasks, both, strict=True) for key in two])
                if name == "consul":
                    catalog = Catalog(engine.url.partition("//")[2])
                    catalog.nodes([a_host(number) for number in range(HOSTS)])
                    catalog.passing(tasks)
                else:
                    write(
                        store,
                        [
                            Put(
                                keys.health(one.host, one.id),
                                codec.encode(
                                    {"healthy": True, "output": "", "cluster": one.cluster.name, "service": one.service}
                                ),
                            )
                            for one in tasks
                        ],
                    )
                for arguments in COMMANDS:
                    measured(arguments, engine.url)
                    walls, processors, memories = zip(
                        *(measured(arguments, engine.url) for _ in range(TURNS)), strict=True
                    )
                    seconds, cpu, most = statistics.median(walls), statistics.median(processors), max(memories)
                    word = "reached" if seconds < GOAL_SECONDS and most < GOAL_MB else "missed"
                    goal = f" (goal: {GOAL_SECONDS:g} s, {GOAL_MB:g} MB): {word}" if arguments == ("tasks",) else ""
                    figures = f"{seconds:.2f} s (processor {cpu:.2f} s), {most:.0f} MB{goal}"
                    print(f"{name}: sked {' '.join(arguments)}: {figures}", flush=True)


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 10_000,
        sys.argv[2:] or ["embedded", "consul", "etcd"],
    )
