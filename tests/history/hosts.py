"""Many hosts without containers: agents as schedulers see them, played by one thread.

Each announces itself, calls what it was issued healthy after a while, rejects some of it, and confirms what it was
asked to stop, all with the code that real agents write with.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from sked_core.clock import SystemClock
from sked_core.errors import SkedError
from sked_core.interfaces.store import Delete, Entry, Put, Revision, Store
from sked_core.model import codec, keys
from sked_core.model.types import Host
from sked_core.runtime.agent.host_presence import HostPresence
from sked_core.runtime.agent.issued_feed import Record
from sked_core.runtime.agent.records import reject, retire
from sked_core.runtime.health.probes import StoredHealth
from sked_core.runtime.lock import LeaseKeeper
from sked_core.runtime.state import decode_task

LOOK_SECONDS = 0.3
ANNOUNCE_SECONDS = 3.0
REJECTED = 0.04
"""Share of the tasks that a host rejects."""


@dataclass(slots=True)
class _Turn:
    """What is to be done about a task key as it stands, and when."""

    revision: Revision
    at: float
    rejects: bool


class SimulatedHosts:
    """``names`` as hosts with agents, from ``start`` on until ``stop`` is set."""

    def __init__(self, store: Store, names: Sequence[str], seed: int, stop: threading.Event) -> None:
        self._store, self._names, self._stop = store, names, stop
        self._dice = random.Random(seed)
        self._clock = SystemClock()
        self._keeper = LeaseKeeper(store, self._clock)
        self._presences = {name: self._presence(name) for name in names}
        self._turns: dict[str, _Turn] = {}
        self._away: dict[str, float] = {}
        self._mutex = threading.Lock()
        self.calm = threading.Event()
        """Once it is set, nothing is rejected any more, and every host comes back."""

    def start(self) -> list[threading.Thread]:
        """Returns the threads that end after ``stop``."""
        thread = threading.Thread(target=self._run, name="hosts", daemon=True)
        thread.start()
        return [thread, self._keeper.serve(self._stop)]

    def leave(self, name: str, seconds: float) -> None:
        """The host vanishes for a while: nobody acts there, and its key of life goes."""
        with self._mutex:
            self._away[name] = self._clock.monotonic() + seconds
        self._store.commit([Delete(keys.live(name))])

    def _presence(self, name: str) -> HostPresence:
        host = Host(
            name=name, address="127.0.0.1", memory=64_000, cpu_units=64_000, disk=640_000, executors=["bash", "docker"]
        )
        presence = HostPresence(
            self._store,
            host=name,
            agent=f"agent-of-{name}",
            describe=lambda: host,
            clock=self._clock,
            keeper=self._keeper,
            ready=lambda: None,
        )
        presence.paused.clear()
        return presence

    def _here(self) -> list[str]:
        now = self._clock.monotonic()
        with self._mutex:
            return [name for name in self._names if self.calm.is_set() or self._away.get(name, now) <= now]

    def _run(self) -> None:
        announced = float("-inf")
        while not self._stop.is_set():
            with contextlib.suppress(SkedError):
                now = self._clock.monotonic()
                if now - announced >= ANNOUNCE_SECONDS:
                    for name in self._here():
                        self._presences[name].announce()
                    announced = now
                self._look()
            self._stop.wait(LOOK_SECONDS)

    def _look(self) -> None:
        entries = self._store.read(keys.HOST_TASKS).entries
        self._turns = {key: turn for key, turn in self._turns.items() if key in entries}
        here = set(self._here())
        for key, entry in entries.items():
            host = key.removeprefix(keys.HOST_TASKS).partition("/")[0]
            if host in here:
                self._attend(host, key, entry)

    def _attend(self, host: str, key: str, entry: Entry) -> None:
        now = self._clock.monotonic()
        turn = self._turns.get(key)
        if turn is None or turn.revision != entry.revision:
            pause = self._dice.choice([0.0, 0.0, 0.5, 2.0])
            rejects = self._dice.random() < REJECTED and not self.calm.is_set()
            turn = self._turns[key] = _Turn(entry.revision, now + pause, rejects)
        if now < turn.at:
            return
        turn.at = float("inf")
        try:
            self._act(host, key, entry, rejects=turn.rejects)
        except SkedError:
            turn.at = now
            raise

    def _act(self, host: str, key: str, entry: Entry, *, rejects: bool) -> None:
        issued = decode_task(key, entry, host)
        task = issued.task
        record = Record(task, entry.value, entry.revision, codec.digest(task), 0.0)
        if not task.scheduled:
            retire(self._store, host, record)
            self._store.commit([Delete(keys.health(host, task.id))])
        elif task.rejected:
            return
        elif rejects:
            reject(self._store, host, record, "a simulated host won't run it")
        else:
            well = StoredHealth(True, "", task.cluster.name, task.service)
            self._store.commit([Put(keys.health(host, task.id), codec.encode(well))])
