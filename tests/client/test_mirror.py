"""The mirror says what the store says, soon after, also once the store was away."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from client.acting import issue, until, withdraw
from rigs.local import Server
from sked_core.client import reading
from sked_core.client.copied import mirror as mirrors
from sked_core.client.copied.feed import Change, Feed
from sked_core.client.copied.mirror import Mirror
from sked_core.client.copied.picture import session_of
from sked_core.client.looking.listing import health_of, places_of
from sked_core.client.notices import noticed
from sked_core.client.session import Session
from sked_core.errors import Unavailable
from sked_core.interfaces.store import Delete, Put, Store
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Failure, Host, Liveness, Mark, Presence, ServiceStatus
from sked_core.runtime.health.probes import StoredHealth
from sked_core.testing.builders import a_cluster, a_service, a_task


@pytest.fixture
def start() -> Iterator[Callable[[Session], Mirror]]:
    """Starts a mirror of a session, and returns it once everything was read."""
    started = []

    def begin(sked: Session) -> Mirror:
        started.append(Mirror(sked))
        started[-1].start()
        assert started[-1].ready(30)
        return started[-1]

    yield begin
    for each in started:
        each.close()


def declare(store: Store) -> None:
    store.commit([Put(keys.cluster("default"), encode(a_cluster())), Put(keys.service("web"), encode(a_service()))])
    store.commit([Put(keys.host("h1"), encode(Host(name="h1"))), Put(keys.live("h1"), encode(Liveness("a")))])


def test_changes_of_every_kind_are_seen_and_told(any_sked: Session, start: Callable[[Session], Mirror]) -> None:
    store, task = any_sked.store, a_task("h1")
    declare(store)
    mirror = start(any_sked)
    seen = mirror.look()
    assert list(seen.objects(keys.SERVICES)) == ["web"]
    issue(store, task)
    until(lambda: mirror.look().tasks())
    store.commit([Put(keys.mark("h1"), encode(Mark("cordoned")))])
    until(lambda: mirror.look().objects(keys.MARKS))
    store.commit([Put(keys.failure(task.id), encode(Failure(host="h1", reason="exit code 1")))])
    until(lambda: mirror.look().objects(keys.FAILURES))
    store.commit([Put(keys.service_status("web"), encode(ServiceStatus(scheduler="default")))])
    until(lambda: mirror.look().objects(keys.SERVICE_STATUS))
    journal = any_sked.journal()
    store.commit([journal.put([journal.event("host.cordoned", "host/h1")])])
    until(lambda: mirror.look().area(keys.EVENTS))
    withdraw(store, task)
    until(lambda: not mirror.look().tasks())
    store.commit([Delete(keys.live("h1"))])
    until(lambda: not mirror.look().area(keys.LIVE))
    changes = mirror.feed.after(seen.number)
    assert changes is not None
    assert [one.number for one in changes] == list(range(seen.number + 1, mirror.look().number + 1))
    told = [(one.kind, one.name, one.service, one.host, one.gone) for one in changes]
    where = ("task", task.id, "web", "h1")
    for wanted in [(*where, False), ("host", "h1", "", "", False), ("service", "web", "", "", False), (*where, True)]:
        assert wanted in told
    assert "event" in {one.kind for one in changes}
    assert seen.tasks() == {}, "a picture does not change"


@pytest.mark.parametrize("any_sked", ["sqlite", "etcd"], indirect=True)
def test_health_that_agents_write_is_seen(any_sked: Session, start: Callable[[Session], Mirror]) -> None:
    store, task = any_sked.store, a_task("h1")
    declare(store)
    issue(store, task)
    mirror = start(any_sked)
    before = mirror.look()
    store.commit([Put(keys.health("h1", task.id), encode(StoredHealth(True, "", "default", "web")))])
    until(lambda: mirror.look().health)
    assert mirror.look().health[task.id].healthy
    assert mirror.feed.after(before.number) == [Change(before.number + 1, "task", task.id, "web", "h1")]
    assert mirror.look().changed(keys.HEALTH) > before.number
    assert mirror.look().changed(keys.SERVICES) <= before.number


@pytest.mark.parametrize("any_sked", ["sqlite", "etcd"], indirect=True)
def test_only_the_host_of_a_task_is_believed_about_its_health(
    any_sked: Session, start: Callable[[Session], Mirror]
) -> None:
    store, task = any_sked.store, a_task("h1")
    declare(store)
    issue(store, task)
    mirror = start(any_sked)
    told = [
        Put(keys.health(host, task.id), encode(StoredHealth(host == "h2", "", "default", "web")))
        for host in ("h1", "h2")
    ]
    store.commit(told)
    until(lambda: task.id in mirror.look().health)
    assert not mirror.look().health[task.id].healthy
    issue(store, a_task("h2"))  # it is there now: what h2 has said already counts
    until(lambda: mirror.look().health[task.id].healthy)


def test_health_in_consul_is_seen(
    private_consul: Callable[..., Server], open_at: Callable[[str], Session], start: Callable[[Session], Mirror]
) -> None:
    sked, task = open_at(private_consul().url), a_task("h1")  # type: ignore[attr-defined]
    declare(sked.store)
    issue(sked.store, task)
    mirror = start(sked)
    agent = sked.health(host="h1")
    try:
        agent.register(task)
        until(lambda: task.id in mirror.look().health)
        agent.deregister(task.id)
        until(lambda: task.id not in mirror.look().health)
    finally:
        agent.close()


@pytest.mark.parametrize("kind", ["consul", "etcd"])
def test_an_outage_shows_and_what_happened_in_it_is_seen_afterwards(
    kind: str,
    request: pytest.FixtureRequest,
    open_at: Callable[[str], Session],
    start: Callable[[Session], Mirror],
) -> None:
    engine = request.getfixturevalue(f"private_{kind}")()
    sked = open_at(engine.url)
    declare(sked.store)
    mirror = start(sked)
    told: list[bool] = []
    mirror.feed.listen(lambda: told.append(mirror.stale() is not None))
    before = mirror.look()
    assert mirror.stale() is None
    engine.kill()
    until(lambda: mirror.stale() is not None)
    staleness = mirror.stale()
    assert staleness is not None
    assert staleness.trouble
    assert mirror.look().number == before.number
    assert told == [True]
    engine.start()
    until(lambda: mirror.stale() is None)
    issue(open_at(engine.url).store, a_task("h1"))
    until(lambda: mirror.look().tasks())
    assert told[-1] is False


def test_a_frozen_store_is_noticed_too(
    private_etcd: Callable[..., Server], open_at: Callable[[str], Session], start: Callable[[Session], Mirror]
) -> None:
    engine = private_etcd()
    sked = open_at(engine.url)  # type: ignore[attr-defined]
    declare(sked.store)
    mirror = start(sked)
    engine.pause()  # type: ignore[attr-defined]
    until(lambda: mirror.stale() is not None, 60)
    engine.resume()  # type: ignore[attr-defined]
    until(lambda: mirror.stale() is None, 60)


def test_nothing_is_known_of_a_store_that_never_answered(open_at: Callable[[str], Session], free_port) -> None:
    mirror = Mirror(open_at(f"consul://127.0.0.1:{free_port()}"))
    mirror.start()
    until(lambda: mirror.stale() is not None)
    assert not mirror.ready(0)
    with pytest.raises(Unavailable, match="Consul"):
        mirror.look()
    mirror.close()


def test_what_was_committed_is_there_once_it_has_settled(sked: Session, start: Callable[[Session], Mirror]) -> None:
    declare(sked.store)
    mirror = start(sked)
    for desired in range(1, 30):
        sked.store.commit([Put(keys.service("web"), encode(a_service(desired=desired)))])
        assert mirror.settle(30)
        assert mirror.look().objects(keys.SERVICES)["web"].desired == desired


def test_tasks_without_a_marker_are_found_by_the_next_full_read(
    sked: Session, start: Callable[[Session], Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "RESYNC_SECONDS", 0.2)
    declare(sked.store)
    mirror = start(sked)
    by_hand = a_task("h1", instance=7)
    sked.store.commit([Put(keys.host_task("h1", by_hand.id), encode(by_hand))])
    until(lambda: mirror.look().tasks())
    assert [item.value for item in reading.tasks(session_of(sked, mirror.look()).store)] == [by_hand]
    issue(sked.store, by_hand)
    until(lambda: mirror.look().area(keys.TASKS))
    until(lambda: not mirror.look().area(keys.HOST_TASKS))


def test_a_picture_answers_what_the_store_would(sked: Session, start: Callable[[Session], Mirror]) -> None:
    declare(sked.store)
    issue(sked.store, *(a_task(f"h{number % 2}", instance=number) for number in range(12)))
    sked.store.commit([Put(keys.service("broken"), b'{"name": 7}'), Put("locks/services/web", b"me")])
    seen = session_of(sked, start(sked).look(), "another")
    prefixes = [
        *(keys.CONFIG, keys.SERVICES, keys.service("web"), keys.STATE, keys.TASKS, keys.HOST_STATES, keys.LOCKS),
        *(keys.host_tasks("h1"), keys.service_tasks("default", "web"), keys.task("default-web-1-1"), ""),
    ]
    for prefix in prefixes:
        wanted = {key: (one.value, one.revision) for key, one in sked.store.read(prefix).entries.items()}
        if prefix == keys.STATE:  # what both keys of a task say is held once
            wanted = {key: one for key, one in wanted.items() if key.startswith(keys.TASKS)}
        assert {key: (one.value, one.revision) for key, one in seen.store.read(prefix).entries.items()} == wanted
    for host in ("", "h1"):
        both = [reading.tasks(one.store, host=host) for one in (sked, seen)]
        assert [(one.value, one.stored()) for one in both[0]] == [(one.value, one.stored()) for one in both[1]]
    assert places_of(sked, ["web"]) == places_of(seen, ["web"])
    tasks = list(start(sked).look().tasks().values())
    assert health_of(seen, tasks) == health_of(sked, tasks)
    for one in (sked, seen):
        lines: list[str] = []
        with noticed(lines.append):
            assert [item.value.name for item in reading.services(one.store)] == ["web"]
        assert "config/services/broken is left out" in lines[0]


def test_a_feed_forgets_what_is_too_old_and_says_so() -> None:
    feed = Feed(kept=3)
    feed.add([Change(number, "task", f"t{number}") for number in range(1, 6)])
    assert [one.number for one in feed.after(3) or ()] == [4, 5]
    assert [one.number for one in feed.after(2) or ()] == [3, 4, 5]
    assert feed.after(5) == []
    assert feed.after(1) is None
    assert feed.after(6) is None


def test_only_what_stands_under_a_possible_name_is_a_scheduler(
    sked: Session, start: Callable[[Session], Mirror]
) -> None:
    names = ("real", "<script>", "deep/er")
    sked.store.commit([Put(keys.SCHEDULERS + name, encode(Presence(["default"]))) for name in names])
    assert list(start(sked).look().objects(keys.SCHEDULERS)) == ["real"]
