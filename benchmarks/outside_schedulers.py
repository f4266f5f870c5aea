"""How long the schedulers of examples/schedulers take to place a service of 100 tasks on 10 hosts, on a real Consul and
a real etcd: from the service's record to the last task's. No agents run: hosts are records.

    scripts/services start; python benchmarks/outside_schedulers.py
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sked_core.interfaces.store import Delete, Put, Store
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Host, Liveness
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.stores.prefixed import Prefixed
from sked_core.testing.builders import a_cluster, a_definition, a_service

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples" / "schedulers"
COMMANDS = {
    "python": [sys.executable, "-S", "-E", str(EXAMPLES / "python" / "scheduler.py")],
    "node": ["node", str(EXAMPLES / "node" / "scheduler.mjs")],
    "shell": [str(EXAMPLES / "shell" / "scheduler.sh")],
}
TASKS, HOSTS = 100, 10


def main() -> None:
    env = dict(line.split("=", 1) for line in (ROOT / ".services" / "env").read_text().splitlines())
    print(f"| {TASKS} tasks on {HOSTS} hosts, seconds | Consul | etcd |\n| --- | --- | --- |")
    for language, command in COMMANDS.items():
        took = [
            measured(command, url) for url in (f"consul://{env['CONSUL_HTTP_ADDR']}", f"etcd://{env['ETCD_ENDPOINT']}")
        ]
        print(f"| `{language}/` | {took[0]:.1f} | {took[1]:.1f} |", flush=True)


def measured(command: list[str], url: str) -> float:
    prefix = f"bench-{secrets.token_hex(4)}/"
    store = Prefixed(open_store(url, Plugins.load()), prefix)
    hosts = [f"host-{number}" for number in range(HOSTS)]
    definition, cluster = a_definition(provide_port=True), a_cluster()
    records = {keys.STORE_UID: prefix.encode(), keys.cluster("default"): encode(cluster)}
    records[keys.task_definition("web", 1)] = encode(definition)
    store.commit([Put(key, value) for key, value in records.items()])
    for host in hosts:
        record = Host(name=host, memory=8000, cpu_units=8000, disk=8000, executors=["bash", "docker"])
        store.commit([Put(keys.host(host), encode(record)), Put(keys.live(host), encode(Liveness(agent=host)))])
    more = {"SKED_BACKEND": url, "SKED_PREFIX": prefix}
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen([*command, "outside"], env=os.environ | more | {"TMPDIR": folder})
        try:
            until(lambda: len(store.read(keys.SCHEDULERS).entries) == 1)
            begun = time.monotonic()
            wanted = a_service(scheduler="outside", desired=TASKS, min=TASKS, max=TASKS)
            store.commit([Put(keys.service("web"), encode(wanted))])
            until(lambda: len(store.read_keys(keys.TASKS)) == TASKS)
            return time.monotonic() - begun
        finally:
            process.terminate()
            process.wait(10)
            wipe(store)
            store.close()


def until(holds) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 300
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit("it never came to it")
        time.sleep(0.02)


def wipe(store: Store) -> None:
    while left := list(store.read("").entries):
        with contextlib.suppress(Exception):
            store.commit([Delete(key) for key in left[: store.max_ops]])


if __name__ == "__main__":
    main()
