"""How many lists of 100 tasks the API answers a second, and how soon, while 200 event streams are open.

python benchmarks/api.py [SECONDS] [CONNECTIONS]

An embedded store with 5,000 tasks; ten of them change every second, which all streams are told. Lists are asked for at
cursors all over the 5,000. The peer, in turn with it in the same run: ``/healthz`` of the same server, which does
nothing, so it is the limit of HTTP here. Prints also how soon a change that was committed is told on the streams.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from sked_core.interfaces.store import Op, Put, Store
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Failure
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.state import batches, marker
from sked_core.testing.builders import a_cluster, a_definition, a_service, a_task

TASKS, SERVICES, STREAMS, A_SECOND = 5000, 50, 200, 10
TURNS = 3


def fill(store: Store) -> list[str]:
    names = [f"service-{number:02}" for number in range(SERVICES)]
    cluster = a_cluster(services=tuple(names))
    ops: list[list[Op]] = [[Put(keys.cluster("default"), encode(cluster))]]
    ids = []
    for name in names:
        definition = a_definition(name)
        ops.append([Put(keys.service(name), encode(a_service(name, desired=TASKS // SERVICES)))])
        ops.append([Put(keys.task_definition(name, 1), encode(definition))])
        for instance in range(TASKS // SERVICES):
            task = a_task(f"host-{instance % 20}", instance, definition, service=name)
            value = encode(task)
            ops.append([Put(keys.task(task.id), value), Put(keys.host_task(task.host, task.id), value)])
            ids.append(task.id)
        ops.append([marker(name, "benchmark")])
    for batch in batches(ops, max_ops=store.max_ops):
        store.commit(batch)
    return ids


class Load:
    """Connections that ask without a pause; ``took``: seconds of each answer."""

    def __init__(self, url: str, connections: int, path: Callable[[int], str]) -> None:
        self._address, self._path = urlsplit(url).netloc, path
        self._stop = threading.Event()
        self.took: list[float] = []
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(connections)]

    def run(self, seconds: float) -> float:
        begun = time.perf_counter()
        for thread in self._threads:
            thread.start()
        time.sleep(seconds)
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return len(self.took) / (time.perf_counter() - begun)

    def _run(self, number: int) -> None:
        connection = http.client.HTTPConnection(self._address)
        count = number
        while not self._stop.is_set():
            begun = time.perf_counter()
            connection.request("GET", self._path(count))
            answer = connection.getresponse()
            body = answer.read()
            self.took.append(time.perf_counter() - begun)
            assert answer.status == 200, body[:200]
            count += 7
        connection.close()


class Stream(threading.Thread):
    """Reads one event stream; ``told``: when each change was read."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._address = urlsplit(url).netloc
        self.told: dict[str, float] = {}
        self.ready = threading.Event()

    def run(self) -> None:
        connection = http.client.HTTPConnection(self._address)
        connection.request("GET", "/v1/stream?kind=task")
        answer = connection.getresponse()
        while line := answer.readline():
            self.ready.set()
            if line.startswith(b"data:"):
                for change in json.loads(line[5:])["changes"]:
                    self.told[change["name"]] = time.time()


def change(store: Store, ids: list[str], stop: threading.Event, at: dict[str, float]) -> None:
    count = 0
    while not stop.wait(1 / A_SECOND):
        name = ids[count % len(ids)]
        store.commit([Put(keys.failure(name), encode(Failure(host="host-0", attempts=count, reason="exit code 1")))])
        at[name] = time.time()
        count += 37


def share(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    connections = int(sys.argv[2]) if len(sys.argv) > 2 else 8
    with tempfile.TemporaryDirectory() as folder:
        backend = f"sqlite://{folder}/sked.db"
        store = open_store(backend, Plugins([]))
        ids = fill(store)
        command = [sys.executable, "-m", "sked_core.surface.cli", "web", "--listen", "127.0.0.1:0"]
        with Path(folder, "log").open("wb") as log:
            process = subprocess.Popen([*command, "--backend", backend], stderr=log, env=os.environ)
        try:
            url = url_of(Path(folder, "log"))
            _measure(url, store, ids, seconds, connections)
            usage = Path(f"/proc/{process.pid}/status").read_text()
            print("memory:", next(line.split(None, 1)[1] for line in usage.splitlines() if line.startswith("VmRSS")))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            store.close()


def url_of(log: Path) -> str:
    deadline = time.monotonic() + 60
    while "serving on " not in (text := log.read_text()):
        assert time.monotonic() < deadline, text
        time.sleep(0.1)
    return text.split("serving on ")[1].split()[0]


def _measure(url: str, store: Store, ids: list[str], seconds: float, connections: int) -> None:
    cursors = _cursors(url)
    streams = [Stream(url) for _ in range(STREAMS)]
    for stream in streams:
        stream.start()
    assert all(stream.ready.wait(60) for stream in streams)
    stop, at = threading.Event(), {}
    changing = threading.Thread(target=change, args=(store, ids, stop, at))
    changing.start()
    kinds: dict[str, Callable[[int], str]] = {
        "lists of 100 tasks": lambda count: f"/v1/tasks?limit=100&cursor={cursors[count % len(cursors)]}",
        "peer: /healthz": lambda _: "/healthz",
    }
    for turn in range(TURNS):
        for what, path in kinds.items():
            load = Load(url, connections, path)
            rate = load.run(seconds)
            p50, p99 = (1000 * share(load.took, part) for part in (0.5, 0.99))
            print(f"{turn + 1} {what}: {rate:.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms, {STREAMS} streams open")
    stop.set()
    changing.join()
    time.sleep(1)
    late = [told[name] - when for told in (one.told for one in streams) for name, when in at.items() if name in told]
    p50, p99 = (1000 * share(late, part) for part in (0.5, 0.99))
    print(f"from commit to each of {STREAMS} streams, under that load: p50 {p50:.0f} ms, p99 {p99:.0f} ms")


def _cursors(url: str) -> list[str]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    found = [""]
    while True:
        connection.request("GET", f"/v1/tasks?limit=100&cursor={found[-1]}")
        answer = json.loads(connection.getresponse().read())
        if not answer["next"]:
            return found
        found.append(answer["next"])


if __name__ == "__main__":
    main()
