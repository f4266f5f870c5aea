"""The command line as a function, and stores with something in them."""

from __future__ import annotations

import io
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from sked_core.client import settings
from sked_core.interfaces.store import Put, Store
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Cluster, Container, Host, Liveness, Presence, Service, Task, TaskDefinition
from sked_core.runtime.health.probes import StoredHealth
from sked_core.runtime.plugins.backend import open_store
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.scheduling.loop import SchedulerLoop
from sked_core.surface import cli, progress
from sked_core.testing.builders import a_cluster, a_definition, a_host, a_service, a_task
from sked_core.testing.clock import FakeClock
from sked_core.testing.fakes import FakeHealth

MANIFEST = """\
clusters:
  - {name: default, services: [web]}
services:
  - {name: web, task_name: web, task_version: 1, desired: 2}
task_definitions:
  - {name: web, version: 1, containers: [{name: web, type: bash, executor: {start: sleep 1000}}]}
"""


@dataclass(frozen=True)
class Ran:
    """What one command came to."""

    code: int
    out: str
    err: str


Sked = Callable[..., Ran]
Schedule = Callable[[], None]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the machine that runs the tests reaches them, and nothing is written outside of ``tmp_path``."""
    for name in [name for name in os.environ if name.startswith("SKED_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(settings, "SYSTEM_FILE", tmp_path / "etc" / "sked.toml")
    monkeypatch.setattr(logging.getLogger("sked"), "handlers", [])  # what an earlier test in this process has set up


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An embedded store of this test, chosen by the environment."""
    url = f"sqlite://{tmp_path / 'sked.db'}"
    monkeypatch.setenv("SKED_BACKEND", url)
    return url


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = open_store(url, Plugins([]))
    yield store
    store.close()


@pytest.fixture
def sked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Sked:
    """``sked("tasks", "-o", "json")``, with ``stdin``, in this process."""

    def run(*args: str, stdin: str = "") -> Ran:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capsys.readouterr()
        code = cli.run(args)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Ran(code, out, err)

    return run


@pytest.fixture
def at_first_pause(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """``at_first_pause(act)``: what others do once a command that waits has looked and found that it has to."""

    def at(act: Callable[[], None]) -> None:
        left = [act]

        def sleep(seconds: float) -> None:
            if left:
                left.pop()()
            time.sleep(seconds)

        monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))

    return at


@pytest.fixture
def attended(store: Store) -> None:
    """A scheduler process is there, as far as the store tells."""
    store.commit([Put(keys.scheduler("s-1"), encode(Presence(["default"])))])


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "web.yml"
    path.write_text(MANIFEST)
    return path


def _task(
    *, cluster: str = "default", service: str = "helloworld", version: int = 4, instance: int = 0, **more: object
) -> Task:
    container = Container(name=service, type="docker", executor={"image": "hello"})
    definition = TaskDefinition(name=service, version=version, containers=[container], memory=100, cpu_units=50)
    fields: dict[str, object] = {"host": "node-1.local"} | more
    return Task(
        cluster=Cluster(name=cluster, services=[service]),
        task_definition=definition,
        service=service,
        instance=instance,
        **fields,  # type: ignore[arg-type]
    )


@pytest.fixture
def task() -> Callable[..., Task]:
    """``task(service="web", instance=3, host="b")``: a task, by default that of the layout example."""
    return _task


@pytest.fixture
def issue(store: Store) -> Callable[..., None]:
    """``issue(*tasks, healthy=None)``: write both keys of each, and its health if that is given."""

    def write(*tasks: Task, healthy: bool | None = None) -> None:
        for one in tasks:
            value = encode(one)
            ops = [Put(keys.task(one.id), value), Put(keys.host_task(one.host, one.id), value)]
            if healthy is not None:
                health = StoredHealth(healthy, "", one.cluster.name, one.service)
                ops.append(Put(keys.health(one.host, one.id), encode(health)))
            store.commit(ops)

    return write


@pytest.fixture
def declare(store: Store) -> Callable[..., None]:
    """``declare(*objects)``: write clusters, services, task definitions and hosts as they are."""

    def write(*objects: Cluster | Service | TaskDefinition | Host) -> None:
        for one in objects:
            match one:
                case Cluster():
                    key = keys.cluster(one.name)
                case Service():
                    key = keys.service(one.name)
                case TaskDefinition():
                    key = keys.task_definition(one.name, one.version)
                case Host():
                    key = keys.host(one.name)
            store.commit([Put(key, encode(one))])

    return write


@pytest.fixture
def up(store) -> Callable[..., None]:
    """``up(h1=1000)``: living hosts of so much memory."""

    def write(**sizes: int) -> None:
        for name, memory in sizes.items():
            host: Host = a_host(name, memory=memory).host
            store.commit([Put(keys.host(name), encode(host)), Put(keys.live(name), encode(Liveness("a")))])

    return write


@pytest.fixture
def running(declare, issue) -> Callable[..., list[Task]]:
    """``running("web", "h1", "h2", memory=300)``: a declared service with healthy tasks on these hosts."""

    def write(name: str, *hosts: str, memory: int = 0, desired: int | None = None) -> list[Task]:
        definition, cluster = a_definition(name, memory=memory), a_cluster(f"of-{name}", services=(name,))
        declare(cluster, definition, a_service(name, desired=len(hosts) if desired is None else desired))
        tasks = [a_task(host, number, definition, service=name, cluster=cluster) for number, host in enumerate(hosts)]
        issue(*tasks, healthy=True)
        return tasks

    return write


@pytest.fixture
def hosts(store, declare) -> Callable[..., None]:
    """``hosts("a", "b", memory=…)``: hosts of 8 GB whose agents live, unless ``alive`` says otherwise."""

    def add(*names: str, alive: bool = True, **facts: object) -> None:
        for name in names:
            declare(a_host(name, **facts).host)
            if alive:
                store.commit([Put(keys.live(name), encode(Liveness("agent")))])

    return add


@pytest.fixture
def schedule(store) -> Iterator[Schedule]:
    """One look of a scheduler at everything."""
    loops = []

    def step() -> None:
        loop = SchedulerLoop(
            name=f"s{len(loops)}", store=store, plugins=Plugins([]), health=FakeHealth(), clock=FakeClock()
        )
        loops.append(loop)
        loop.start_watching()
        loop.step()
        store.commit([Put(keys.STORE_UID, b"this-store")])

    store.commit([Put(keys.STORE_UID, b"this-store")])
    yield step
    for loop in loops:
        loop._halt.set()
