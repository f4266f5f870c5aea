"""The built-in health provider: real probes of real servers, results in a real store."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from rigs.local import free_ports
from sked_core.clock import SystemClock
from sked_core.errors import Unavailable
from sked_core.interfaces.health import HealthContext
from sked_core.interfaces.store import Op, Put, Revision, Snapshot
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.types import Check, Cluster, Container, Health, Task, TaskDefinition, TaskId
from sked_core.runtime.health.probes import ProbeHealth, StoredHealth
from sked_core.runtime.stores.memory import MemoryStore
from sked_core.testing.builders import an_open_policy


class BreakableStore(MemoryStore):
    """A store that can go away, and counts what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = threading.Event()
        self.commits: list[list[Op]] = []

    def read(self, prefix: str) -> Snapshot:
        if self.broken.is_set():
            raise Unavailable("the store is away")
        return super().read(prefix)

    def commit(self, ops: list[Op]) -> Revision:  # type: ignore[override]
        if self.broken.is_set():
            raise Unavailable("the store is away")
        self.commits.append(list(ops))
        return super().commit(ops)


@pytest.fixture
def store() -> BreakableStore:
    return BreakableStore()


@pytest.fixture
def provider(store: BreakableStore) -> Iterator[Callable[[str], ProbeHealth]]:
    made = []

    def make(host: str = "h-1") -> ProbeHealth:
        context = HealthContext(store, "memory://", host, SystemClock(), policy=an_open_policy())
        made.append(ProbeHealth(context))
        return made[-1]

    yield make
    for one in made:
        one.close()


def task(*checks: Check, instance: int = 0, service: str = "web", port: int = 0) -> Task:
    container = Container(name="main", type="bash", checks=list(checks))
    definition = TaskDefinition(name=service, version=1, containers=[container])
    cluster = Cluster(name="prod")
    return Task(cluster=cluster, task_definition=definition, service=service, instance=instance, port=port, host="h-1")


def health_of(probes: ProbeHealth, some: Task) -> Health | None:
    return probes.health([(some.cluster.name, some.service)]).get(some.id)


def until(condition: Callable[[], bool], within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def becomes(probes: ProbeHealth, some: Task, healthy: bool) -> None:
    until(lambda: (found := health_of(probes, some)) is not None and found.healthy is healthy)


def free_port() -> int:
    return free_ports(1)[0]


@contextlib.contextmanager
def listening(port: int) -> Iterator[None]:
    """Accepts connections, through the kernel's backlog, until the end of the block."""
    with socket.create_server(("127.0.0.1", port), backlog=1000):
        yield


TCP = Check(tcp="127.0.0.1:$PROVIDED_PORT", interval="250ms", timeout="1s")


def test_without_checks_healthy_while_registered(provider: Callable[..., ProbeHealth]) -> None:
    probes, some = provider(), task()
    assert health_of(probes, some) is None
    probes.register(some)
    becomes(probes, some, True)
    assert probes.registered() == {some.id}
    probes.deregister(some.id)
    assert health_of(probes, some) is None
    assert probes.registered() == frozenset()
    probes.deregister(some.id)


def test_checks_that_say_nothing_are_none(provider: Callable[..., ProbeHealth]) -> None:
    probes, some = provider(), task(Check())
    probes.register(some)
    becomes(probes, some, True)


def test_follows_the_target_up_and_down(provider: Callable[..., ProbeHealth]) -> None:
    probes, some = provider(), task(TCP, port=free_port())
    probes.register(some)
    becomes(probes, some, False)
    assert "refused" in (health_of(probes, some) or Health(True)).output
    with listening(some.port):
        becomes(probes, some, True)
    becomes(probes, some, False)


def test_every_check_of_every_container_has_to_pass(provider: Callable[..., ProbeHealth]) -> None:
    up, down = Check(script="true", interval="250ms"), Check(script="exit 7", interval="250ms")
    containers = [Container(name="a", type="bash", checks=[up]), Container(name="b", type="bash", checks=[up, down])]
    definition = TaskDefinition(name="web", version=1, containers=containers)
    some = Task(cluster=Cluster(name="prod"), task_definition=definition, service="web", host="h-1")
    probes = provider()
    probes.register(some)
    becomes(probes, some, False)
    assert health_of(probes, some) == Health(False, "script: exit 7")


def test_others_read_what_this_host_found_and_only_of_the_services_asked_for(
    provider: Callable[..., ProbeHealth],
) -> None:
    probes, reader, web, db = provider(), provider(""), task(), task(service="db")
    probes.register(web)
    probes.register(db)
    becomes(reader, web, True)
    becomes(reader, db, True)
    assert reader.health([("prod", "web")]).keys() == {web.id}
    assert reader.health([("prod", "web"), ("prod", "db")]).keys() == {web.id, db.id}
    assert reader.health([("pro", "d-web")]) == {}
    assert reader.health([]) == {}


def test_of_some_hosts_no_more_is_read_than_theirs_where_that_is_less(store: BreakableStore, monkeypatch) -> None:
    for host in range(40):
        said = StoredHealth(host != 7, "", "prod", "web")
        for instance in range(10):
            store.commit([Put(keys.health(f"h-{host}", f"prod-web-1-{host * 10 + instance}"), encode(said))])
    reader = ProbeHealth(HealthContext(store=store, url="memory://", host="", clock=SystemClock()))
    assert len(reader.health([("prod", "web")])) == 400
    read: list[str] = []
    real = store.read
    monkeypatch.setattr(store, "read", lambda prefix: read.append(prefix) or real(prefix))
    found = reader.health([("prod", "web")], ["h-7", "h-8"])
    assert read == ["health/h-7/", "health/h-8/"]
    assert {str(one): health.healthy for one, health in found.items()} == {
        f"prod-web-1-{number}": number >= 80 for number in range(70, 90)
    }
    assert len(reader.health([("prod", "web")], [f"h-{host}" for host in range(40)])) == 400
    assert read[2:] == ["health/"]
    reader.close()


def test_a_change_on_one_host_wakes_who_waits_for_it_and_no_other(store: BreakableStore) -> None:
    reader = ProbeHealth(HealthContext(store=store, url="memory://", host="", clock=SystemClock()))
    here, there = reader.wait(0, 0.1, ["h-1"]), reader.wait(0, 0.1, ["h-2"])
    store.commit([Put(keys.health("h-1", "prod-web-1-0"), b"{}")])
    started = time.monotonic()
    assert reader.wait(here, 60.0, ["h-1"]) != here
    assert time.monotonic() - started < 30.0
    reader.wait(there, 0.3, ["h-2"])
    assert time.monotonic() - started >= 0.3
    reader.close()


def test_a_change_wakes_those_who_wait(provider: Callable[..., ProbeHealth]) -> None:
    probes, reader = provider(), provider("")
    since = reader.wait(0, 0.1)
    started = time.monotonic()
    threading.Timer(0.1, probes.register, args=[task()]).start()
    reader.wait(since, 60.0)
    assert time.monotonic() - started < 30.0
    becomes(reader, task(), True)


def test_nothing_is_written_while_nothing_changes(provider: Callable[..., ProbeHealth], store: BreakableStore) -> None:
    probes = provider()
    noisy = task(Check(script="date +%N; exit 0", interval="250ms"), instance=0)
    failing = task(Check(script="date +%N; exit 1", interval="250ms"), instance=1)
    for some in (noisy, failing):
        probes.register(some)
    becomes(probes, noisy, True)
    becomes(probes, failing, False)
    before = len(store.commits)
    probes.register(noisy)
    time.sleep(1.5)  # several intervals, in which a write would have happened
    assert len(store.commits) == before


def test_200_tasks_are_written_in_a_few_commits_and_probed_by_few_threads(
    provider: Callable[..., ProbeHealth], store: BreakableStore
) -> None:
    probes, port = provider(), free_port()
    with listening(port):
        tasks = [task(Check(tcp="127.0.0.1:$PROVIDED_PORT"), instance=number, port=port) for number in range(200)]
        for some in tasks:
            probes.register(some)
        until(lambda: sum(health.healthy for health in probes.health([("prod", "web")]).values()) == 200)
        assert len(store.commits) < 200  # fewer than tasks: results that come together are written together
        names = [thread.name for thread in threading.enumerate() if thread.name.startswith("sked-")]
        assert len(names) <= 34


def test_one_target_that_hangs_delays_only_its_own_task(provider: Callable[..., ProbeHealth]) -> None:
    hung = Check(script="sleep 100", interval="250ms", timeout="60s")
    probes, good = provider(), task(Check(script="true", interval="250ms"), service="good")
    for number in range(15):
        probes.register(task(hung, instance=number))
    started = time.monotonic()
    probes.register(good)
    becomes(probes, good, True)
    assert time.monotonic() - started < 30.0


def test_a_healthy_task_stays_so_when_the_agent_restarts(
    provider: Callable[..., ProbeHealth], store: BreakableStore
) -> None:
    some = task(TCP, port=free_port())
    with listening(some.port):
        first = provider()
        first.register(some)
        becomes(first, some, True)
        first.close()
        written = len(store.commits)
        second = provider()
        assert second.registered() == {some.id}
        second.register(some)
        for _ in range(50):
            assert health_of(second, some) == Health(True, health_text(store, some))
            time.sleep(0.01)
        assert len(store.commits) == written
    becomes(second, some, False)


def health_text(store: BreakableStore, some: Task) -> str:
    key = keys.health("h-1", some.id)
    return decode(store.read(key).entries[key].value, StoredHealth).output


def test_a_replaced_task_has_to_prove_itself_again(provider: Callable[..., ProbeHealth]) -> None:
    port, slow = free_port(), Check(script="sleep 1", interval="10s", timeout="5s")
    probes, old = provider(), task(Check(script="true"), port=port)
    probes.register(old)
    becomes(probes, old, True)
    probes.deregister(old.id)
    new = task(slow, port=port)
    probes.register(new)
    until(lambda: health_of(probes, new) != Health(True, ""))
    assert not (health_of(probes, new) or Health(False)).healthy
    becomes(probes, new, True)


def test_results_are_published_when_the_store_is_back(
    provider: Callable[..., ProbeHealth], store: BreakableStore
) -> None:
    probes, some, gone = provider(), task(TCP, port=free_port()), task(instance=1)
    with listening(some.port):
        probes.register(some)
        probes.register(gone)
        becomes(probes, some, True)
        becomes(probes, gone, True)
        store.broken.set()
    with pytest.raises(Unavailable):
        probes.health([("prod", "web")])
    probes.deregister(gone.id)
    late = task(instance=2)
    probes.register(late)
    time.sleep(0.6)  # long enough for a probe to fail meanwhile
    store.broken.clear()
    becomes(probes, some, False)
    becomes(probes, late, True)
    until(lambda: health_of(probes, gone) is None)
    assert probes.registered() == {some.id, late.id}


def test_what_stands_undecodable_in_the_store_hurts_nobody_else(
    provider: Callable[..., ProbeHealth], store: BreakableStore
) -> None:
    store.commit([Put(keys.health("h-2", "prod-web-1-9"), b"{")])
    probes, some = provider(), task()
    probes.register(some)
    becomes(probes, some, True)
    assert TaskId("prod-web-1-9") not in probes.health([("prod", "web")])


def test_durations_that_make_no_sense_are_the_defaults(provider: Callable[..., ProbeHealth]) -> None:
    probes, some = provider(), task(Check(script="true", interval="soon", timeout="-1s"))
    probes.register(some)
    becomes(probes, some, True)


def report(store: BreakableStore, some: Task, word: Health) -> None:
    store.commit([Put(keys.report("h-1", some.id), encode(word))])


def report_until_seen(probes: ProbeHealth, store: BreakableStore, some: Task, word: Health) -> None:
    """As a task does it: again and again, since each report counts for its ttl only."""

    def seen() -> bool:
        report(store, some, word)
        return health_of(probes, some) == word

    until(seen)


def test_ttl_the_task_reports_itself(provider: Callable[..., ProbeHealth], store: BreakableStore) -> None:
    probes, some = provider(), task(Check(ttl="2s"))
    probes.register(some)
    becomes(probes, some, False)
    assert "not reported yet" in (health_of(probes, some) or Health(True)).output
    for word in (Health(True), Health(False, "disk full"), Health(True)):
        report_until_seen(probes, store, some, word)
    becomes(probes, some, False)  # nobody reports any more
    assert "no report for more than 2 s" in (health_of(probes, some) or Health(True)).output
    probes.deregister(some.id)
    assert keys.report("h-1", some.id) not in store.read(keys.REPORTS).entries


def test_ttl_does_not_run_out_while_the_store_is_away(
    provider: Callable[..., ProbeHealth], store: BreakableStore
) -> None:
    probes, some = provider(), task(Check(ttl="5s"))
    probes.register(some)
    report_until_seen(probes, store, some, Health(True))
    store.broken.set()
    time.sleep(6.0)  # longer than the ttl
    store.broken.clear()
    assert health_of(probes, some) == Health(True, "")
    report(store, some, Health(True))
    time.sleep(1.0)
    assert health_of(probes, some) == Health(True, "")
