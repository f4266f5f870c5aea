"""What the contract of health providers needs: places with agents and readers, outages, ports, and time."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sked_core.clock import SystemClock
from sked_core.errors import Unavailable
from sked_core.interfaces.health import HealthContext, HealthProvider
from sked_core.interfaces.store import Store
from sked_core.model.types import Check, Cluster, Container, Health, Task, TaskDefinition, TaskId
from sked_core.runtime.health.probes import ProbeHealth
from sked_core.testing.builders import an_open_policy
from sked_core.testing.needed import SampleTests
from sked_core.testing.samples import HealthPlace, HealthSample

CANARY = "s3cr3t-canary-51c0"
MASK = "(masked)"
CALL_SECONDS = 20.0
"""Within which every call ends, also when nothing answers."""
LONG = 120.0
OUTAGE_SECONDS = 2.5
"""So long that whoever works in the background notices."""


class Removable:
    """A store as it is, until ``away`` is set: then it answers nothing."""

    def __init__(self, store: Store, away: threading.Event) -> None:
        self._store, self._away = store, away

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found) or name == "close":
            return found

        def ask(*arguments: Any) -> Any:
            if self._away.is_set():
                raise Unavailable("the kit took the store away")
            return found(*arguments)

        return ask


class Place:
    """Where one test tries a provider: agents of hosts and readers, all with the same store. ``at`` names what is
    registered, so that tests can share an engine."""

    def __init__(self, sample: HealthSample, place: HealthPlace, at: str) -> None:
        self.sample, self.at = sample, at
        self.cluster, self.uid = f"c{at}", f"uid-{at}"
        self._place = place
        self._away = threading.Event()
        self._opened: list[tuple[HealthProvider, Store]] = []
        self._kept: list[tuple[HealthProvider, TaskId]] = []
        self._ports: list[socket.socket] = []

    def provider(self, host: str = "", mask: Callable[[str, str], str] = lambda _, text: text) -> HealthProvider:
        """That of the agent of a host, or of somebody who only reads."""
        store: Any = Removable(self._place.open(), self._away)
        name = f"{host}-{self.at}" if host else ""
        policy = an_open_policy()
        context = HealthContext(store, self._place.url, name, SystemClock(), self.uid, policy, mask, ProbeHealth)
        made = self.sample.make(context)
        self._opened.append((made, store))
        return made

    def port(self) -> int:
        """Where nobody listens but ``listening``: it is held until the test ends."""
        self._ports.append(socket.socket())
        self._ports[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._ports[-1].bind(("127.0.0.1", 0))
        return int(self._ports[-1].getsockname()[1])

    def host(self, name: str) -> str:
        return f"{name}-{self.at}"

    def task(self, *checks: Check, instance: int = 0, service: str = "web", host: str = "a", cluster: str = "") -> Task:
        """With a container for each check."""
        spec = {"start": "exec sleep 1000"}
        containers = [
            Container(name=f"c{number}", type="bash", executor=spec, checks=[check] if check else None)
            for number, check in enumerate(checks or [None])
        ]
        definition = TaskDefinition(name=service, version=1, containers=containers)
        return Task(
            cluster=Cluster(name=cluster or self.cluster),
            task_definition=definition,
            service=service,
            instance=instance,
            host=self.host(host),
        )

    def keep(self, provider: HealthProvider, task: Task) -> None:
        """Register, to be taken away when the test ends."""
        self._kept.append((provider, task.id))
        provider.register(task)

    def health(self, provider: HealthProvider, task: Task) -> Health | None:
        return provider.health([(task.cluster.name, task.service)]).get(task.id)

    def is_healthy(self, provider: HealthProvider, task: Task) -> bool:
        found = self.health(provider, task)
        return found is not None and found.healthy

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        with self._place.outage() if self._place.outage else contextlib.nullcontext():
            self._away.set()
            try:
                yield
            finally:
                self._away.clear()

    def leave(self) -> None:
        for provider, task_id in self._kept:
            with contextlib.suppress(Unavailable):  # of those that were closed meanwhile
                provider.deregister(task_id)
        for provider, store in self._opened:
            provider.close()
            store.close()
        for held in self._ports:
            held.close()


class HealthTests(SampleTests):
    """``sample`` says which provider. ``patience``: seconds within which what must happen has to have happened."""

    sample: ClassVar[HealthSample]
    patience: ClassVar[float] = 60.0

    @pytest.fixture
    def another_place(self, tmp_path: Path) -> Iterator[Callable[[], Place]]:
        made: list[Place] = []

        def make() -> Place:
            folder = tmp_path / str(len(made))
            folder.mkdir()
            made.append(Place(self.sample, self.sample.fresh(folder), secrets.token_hex(4)))
            return made[-1]

        yield make
        for number, place in enumerate(made):
            place.leave()
            if self.sample.clear is not None:
                self.sample.clear(tmp_path / str(number))

    @pytest.fixture
    def place(self, another_place: Callable[[], Place]) -> Place:
        return another_place()

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + self.patience
        while not condition():
            assert time.monotonic() < deadline, f"not within {self.patience:g} s: {what}"
            time.sleep(0.02)

    def wakes(
        self, place: Place, reader: HealthProvider, change: Callable[[], object], seen: Callable[[], object]
    ) -> None:
        """``change`` is seen by somebody who looks only when ``wait`` wakes."""
        since = reader.wait(0, 0.1)
        since = reader.wait(since, 0.5)  # what was on its way
        begun = time.monotonic()

        def watch() -> None:
            at = since
            while not seen():
                assert time.monotonic() - begun < self.patience, "wait slept through the change"
                at = reader.wait(at, 2 * self.patience)

        with ThreadPoolExecutor(1) as pool:
            watching = pool.submit(watch)
            change()
            watching.result(LONG + 2 * self.patience)
        assert time.monotonic() - begun < self.patience, "wait slept through the change"

    def in_time(self, call: Callable[[], Any]) -> Any:
        begun = time.monotonic()
        try:
            return call()
        finally:
            assert time.monotonic() - begun < CALL_SECONDS, "every call has to end within a deadline"

    def unavailable(self, known: Callable[[], bool]) -> None:
        """``known`` raises Unavailable, after some moments in which it may hold."""

        def raises() -> bool:
            try:
                assert known(), "it tells what it does not know"
            except Unavailable:
                return True
            return False

        self.until(lambda: self.in_time(raises), "it is Unavailable what can't be asked for")

    def answers(self, call: Callable[[], Any], instead: Any = None) -> Any:
        """What ``call`` returns, or ``instead`` of nothing; False where it raises Unavailable."""
        try:
            found = call()
        except Unavailable:
            return False
        return instead if found is None else found


def tcp(port: int) -> Check:
    return Check(tcp=f"127.0.0.1:{port}", interval="1s", timeout="10s")


@contextlib.contextmanager
def listening(port: int = 0) -> Iterator[int]:
    """Connections are taken until the end of the block, by the kernel."""
    with socket.create_server(("127.0.0.1", port), backlog=1000, reuse_port=True) as server:
        yield int(server.getsockname()[1])
