"""What was true of a service at every moment while something went on: looked at every few milliseconds."""

from __future__ import annotations

import threading
import time
from collections import Counter

from rigs.traffic import Passing
from sked_core.model import codec, keys
from sked_core.model.types import Task
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins

LOOK_SECONDS = 0.03


class Monitor:
    """Samples the store's tasks of one service, and follows Consul's word on who passes, while the block runs.

    ``issued``: the most tasks that stood in the store at once, those that were being stopped among them; ``least``:
    the fewest that Consul called passing; ``double``: ports that two tasks had on one host at once; ``instances``:
    the most tasks with one instance and version at once."""

    def __init__(self, backend: str, http: str, service: str = "web") -> None:
        self._store = open_store(backend, Plugins.load())
        self._prefix = keys.service_tasks("default", service)
        self._passing = Passing(http, f"default-{service}")
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="monitor", daemon=True)
        self._began = 0.0
        self.looks, self.issued, self.least = 0, 0, 0
        self.double: set[tuple[str, int]] = set()
        self.failure: Exception | None = None

    def __enter__(self) -> Monitor:
        deadline = time.monotonic() + 10
        while not self._passing.seen and time.monotonic() < deadline:
            time.sleep(0.01)
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(60)
        self._passing.close()
        self._store.close()
        if self.failure is not None:
            raise self.failure
        assert self.looks > 3, "hardly anything was seen"
        self.least = self._passing.least(self._began)

    def _sample(self) -> None:
        try:
            while not self._done.wait(LOOK_SECONDS):
                entries = self._store.read(self._prefix).entries.values()
                tasks = [codec.decode(entry.value, Task) for entry in entries]
                places = Counter((task.host, task.port) for task in tasks if task.port and task.scheduled)
                self.double |= {place for place, count in places.items() if count > 1}
                self.issued = max(self.issued, len(tasks))
                self.looks += 1
        except Exception as error:
            self.failure = error
