"""A server of the API in this process, on a store that a test fills."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from sked_core.client import settings
from sked_core.client.acting.declaring import declare
from sked_core.client.copied.mirror import Mirror
from sked_core.client.session import Session, open_session
from sked_core.interfaces.store import Delete, Op, Put, Store
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Host, Liveness, Task
from sked_core.model.yaml_source import parse
from sked_core.runtime.state import marker
from sked_core.serving.listening import Listen, open_tcp
from sked_core.serving.server import HttpServer
from sked_core.testing.builders import a_definition, a_task
from sked_web.app import build
from sked_web.state import State

MANIFEST = b"""\
clusters:
  - {name: default, services: [web]}
services:
  - {name: web, task_name: web, task_version: 1, desired: 2}
task_definitions:
  - {name: web, version: 1, containers: [{name: web, type: bash, executor: {start: sleep 1000}}]}
  - {name: web, version: 2, containers: [{name: web, type: bash, executor: {start: sleep 2000}}]}
"""
TOKENS = """\
ann admin admin-token-0123456789
oto operate operate-token-0123456789
rea read read-token-0123456789
"""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the machine that runs the tests reaches them."""
    import os

    for name in [name for name in os.environ if name.startswith("SKED_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(settings, "SYSTEM_FILE", tmp_path / "etc" / "sked.toml")


@dataclass(frozen=True)
class Web:
    """A server that runs: the session that it serves, and its URL."""

    sked: Session
    state: State
    url: str

    @property
    def store(self) -> Store:
        return self.sked.store

    def client(self, token: str = "", **headers: str) -> httpx.Client:
        more = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers={**more, **headers}, timeout=60, trust_env=False)

    def settled(self) -> None:
        """What was committed so far can be seen."""
        assert self.state.mirror.settle(30)

    def apply(self, manifest: bytes = MANIFEST) -> None:
        declare(self.sked, [parse(manifest, "test.yml")], "test")
        self.settled()

    def host(self, *names: str) -> None:
        for name in names:
            host = Host(name=name, memory=8192, cpu_units=4096, disk=100_000, executors=["bash"])
            self.store.commit([Put(keys.host(name), encode(host)), Put(keys.live(name), encode(Liveness("a")))])
        self.settled()

    def issue(self, *tasks: Task) -> None:
        for start in range(0, len(tasks), 50):
            ops: list[Op] = []
            for task in tasks[start : start + 50]:
                ops += [Put(keys.task(task.id), encode(task)), Put(keys.host_task(task.host, task.id), encode(task))]
            self.store.commit([*ops, *(marker(name, "test") for name in sorted({task.service for task in tasks}))])
        self.settled()

    def withdraw(self, *tasks: Task) -> None:
        for task in tasks:
            gone = [Delete(keys.task(task.id)), Delete(keys.host_task(task.host, task.id))]
            self.store.commit([*gone, marker(task.service, "test")])
        self.settled()


@contextmanager
def serving(url: str, listen: Listen | None = None) -> Iterator[Web]:
    """Serve the store at ``url``."""
    with open_session(settings.resolve(backend=url), "tester") as sked:
        mirror = Mirror(sked)
        mirror.start()
        assert mirror.ready(30)
        state = State(sked, mirror)
        listener = open_tcp(listen or Listen("127.0.0.1:0"))
        server = HttpServer(build(state), [listener])
        server.start()
        try:
            yield Web(sked, state, listener.url)
        finally:
            server.stop()
            mirror.close()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """For everybody on this machine, with an embedded store."""
    with serving(f"sqlite://{tmp_path / 'sked.db'}") as opened:
        yield opened


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Web]:
    """The same, for bearers of the tokens above."""
    tokens = tmp_path / "tokens"
    tokens.write_text(TOKENS)
    tokens.chmod(0o600)
    with serving(f"sqlite://{tmp_path / 'sked.db'}", Listen("127.0.0.1:0", tokens=tokens)) as opened:
        yield opened


@pytest.fixture
def api(web: Web) -> Iterator[httpx.Client]:
    with web.client() as client:
        yield client


def tasks_of(count: int, **fields: object) -> list[Task]:
    return [a_task(f"h{number % 3}", number, a_definition(), **fields) for number in range(count)]


def until(true: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)
