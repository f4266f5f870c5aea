"""The scheduler's loop on the reference store: what it writes, what it leaves alone, and what it reports."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runtime.stage import Stage
from sked_core.clock import SystemClock
from sked_core.errors import Denied
from sked_core.interfaces.store import Delete, Fence, Put, Snapshot
from sked_core.logic.presence import BLIND_SECONDS
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.types import Liveness, ServiceStatus, UpdatePolicy
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.scheduling.loop import SchedulerLoop
from sked_core.runtime.state import marker
from sked_core.testing.builders import a_cluster, a_definition, a_service, a_task
from sked_core.testing.fakes import RecordingStore

Until = Callable[..., Any]
GARBAGE = b'{"name": '


class World(Stage):
    """With an agent that runs whatever is issued, and schedulers that are stepped by hand, one after another."""

    def __init__(self, until: Until) -> None:
        super().__init__(until)
        self.store = RecordingStore(self.memory)

    def scheduler(self, *, beside: bool = False, **more: Any) -> SchedulerLoop:
        """One more, after the end of those before it unless it is to run ``beside`` them."""
        for former in [] if beside else self.loops:
            if former._keeper._lease is not None:
                former._keeper._lease.revoke()
            former._keeper.drop()
        return super().scheduler(**{"store": self.store, **more})

    def step_until(self, what: str, holds: Callable[[], Any], *loops: SchedulerLoop, pace: float = 0.0) -> None:
        """``pace``: seconds that pass before each step."""

        def look() -> Any:
            self.clock.advance(pace)
            for loop in loops:
                loop.step()
            return holds()

        self.until(what, look)

    # --- the store -----------------------------------------------------------------------------------------------

    def write(self, key: str, value: bytes) -> None:
        self.memory.commit([Put(key, value)])

    def remove(self, *some: str) -> None:
        self.memory.commit([Delete(key) for key in some])

    def value(self, key: str) -> bytes | None:
        entry = self.memory.read(key).entries.get(key)
        return entry.value if entry else None

    def issued(self) -> list[str]:
        """Ids of the tasks that should run."""
        return sorted(name for name, task in self.tasks().items() if task.scheduled and not task.rejected)

    def by_host(self) -> set[str]:
        return {keys.last_segment(key) for key in self.memory.read(keys.HOST_TASKS).entries}

    def status(self, service: str) -> ServiceStatus | None:
        value = self.value(keys.service_status(service))
        return decode(value, ServiceStatus) if value else None

    # --- agents --------------------------------------------------------------------------------------------------

    def agents(self, *, healthy: bool = True) -> None:
        """What all agents would do now: start what is issued, remove what is withdrawn."""
        for task in self.tasks().values():
            if task.scheduled and not task.rejected:
                self.health.register(task)
                self.health.say(task.id, healthy=healthy)
            elif not task.scheduled:
                self.health.deregister(task.id)
                both = (keys.task(task.id), keys.host_task(task.host, task.id))
                self.memory.commit([*map(Delete, both), marker(task.service, task.host)])


@pytest.fixture
def world(until: Until) -> Iterator[World]:
    with contextlib.closing(World(until)) as world:
        yield world


@pytest.fixture
def web(world: World, declare) -> World:
    """Two hosts, and a service of three tasks that has been placed and runs."""
    world.hosts("h1", "h2")
    declare(world.memory, a_cluster(), a_service(desired=3), a_definition())
    world.scheduler().step()
    world.agents()
    assert world.issued() == ["default-web-1-0", "default-web-1-1", "default-web-1-2"]
    return world


def test_a_service_is_placed_with_both_keys_of_each_task_and_its_lock_is_given_back(web: World) -> None:
    assert web.by_host() == set(web.issued())
    assert sorted(task.host for task in web.tasks().values()) in (["h1", "h1", "h2"], ["h1", "h2", "h2"])
    for task_id, task in web.tasks().items():
        assert web.value(keys.task(task_id)) == web.value(keys.host_task(task.host, task_id))
    assert web.memory.read(keys.SERVICE_LOCKS).entries == {}
    status = web.status("web")
    assert status is not None
    assert (status.scheduler, status.clusters["default"].desired, status.clusters["default"].issued) == (
        "default",
        3,
        3,
    )


def test_a_deleted_service_is_withdrawn_and_once_it_is_gone_nothing_is_left_of_it(web: World) -> None:
    web.remove(keys.service("web"))
    loop = web.scheduler()
    loop.step()
    assert web.issued() == []
    assert len(web.tasks()) == 3, "the agents confirm that they stopped, nobody else"
    web.agents()
    web.step_until("forgotten", lambda: web.status("web") is None, loop, pace=0.1)
    assert web.tasks() == {}


def test_a_service_taken_out_of_its_cluster_is_withdrawn(web: World) -> None:
    web.write(keys.cluster("default"), encode(a_cluster(services=())))
    web.scheduler().step()
    assert web.issued() == []


def test_tasks_that_were_issued_by_hand_are_left_alone(web: World, issue) -> None:
    issue(web.memory, a_task("h1", 0, service="by-hand"), a_task("h9", 0, service="elsewhere"))
    web.write(keys.service("web"), encode(a_service(desired=4)))
    web.scheduler().step()  # it did look: the fourth task is there
    assert web.issued() == ["default-by-hand-1-0", "default-elsewhere-1-0", *(f"default-web-1-{i}" for i in range(4))]


class TestUndecodable:
    """What can't be read is left alone, said once, and keeps nobody else waiting."""

    @pytest.fixture(autouse=True)
    def other(self, web: World, declare) -> None:
        """Another service in a cluster of its own, whose placement shows that the scheduler has looked."""
        declare(web.memory, a_cluster("second", ("other",)), a_service("other", desired=1), a_definition("other"))

    def look(self, web: World, caplog: pytest.LogCaptureFixture, key: str) -> None:
        with caplog.at_level(logging.WARNING, "sked.scheduler"):
            loop = web.scheduler()
            loop.step()
            loop.step()
        assert "second-other-1-0" in web.issued()
        said = [record.getMessage() for record in caplog.records if key in record.getMessage()]
        assert len(said) == 1
        assert "is left alone" in said[0]

    @pytest.mark.parametrize("value", [GARBAGE, b"", b"null", b"[]", b'{"name": "web", "desired": -1}', b"\xff\xfe"])
    def test_service(self, web: World, caplog, value: bytes) -> None:
        web.write(keys.service("web"), value)
        before = web.tasks()
        self.look(web, caplog, "config/services/web")
        assert {name: task for name, task in web.tasks().items() if name in before} == before

    def test_cluster(self, web: World, caplog) -> None:
        before = web.tasks()
        web.write(keys.cluster("default"), GARBAGE)
        web.write(keys.service("web"), encode(a_service(desired=1)))
        self.look(web, caplog, "config/clusters/default")
        assert {name: task for name, task in web.tasks().items() if name in before} == before

    def test_task(self, web: World, caplog) -> None:
        key = keys.task("default-web-1-1")
        web.write(key, GARBAGE)
        web.write(keys.service("web"), encode(a_service(desired=4)))
        with caplog.at_level(logging.WARNING, "sked.scheduler"):
            web.scheduler().step()
        assert web.value(key) == GARBAGE
        assert "state/tasks/default-web-1-1 is left alone" in caplog.text
        readable = {keys.last_segment(k) for k in web.memory.read(keys.TASKS).entries} - {"default-web-1-1"}
        # Its id is not given to another task: the numbers go on after it.
        assert readable >= {"default-web-1-0", "default-web-1-2", "default-web-1-3", "second-other-1-0"}

    def test_a_record_under_the_wrong_key(self, web: World, caplog) -> None:
        web.write(keys.task("default-web-1-7"), encode(a_task("h1", 3)))
        self.look(web, caplog, "state/tasks/default-web-1-7")
        assert web.value(keys.task("default-web-1-7")) == encode(a_task("h1", 3))

    def test_host(self, web: World, caplog) -> None:
        before = web.tasks()
        web.write(keys.host("h1"), GARBAGE)
        self.look(web, caplog, "config/hosts/h1")
        assert {name: task for name, task in web.tasks().items() if name in before} == before

    def test_definition(self, web: World, caplog) -> None:
        web.write(keys.task_definition("web", 1), GARBAGE)
        web.write(keys.service("web"), encode(a_service(desired=9)))
        self.look(web, caplog, "config/task_definitions/web/1")
        assert len([name for name in web.issued() if "web" in name]) == 3
        status = web.status("web")
        assert status is not None
        assert "no task definition web version 1" in status.clusters["default"].blocked

    def test_mark(self, web: World, caplog) -> None:
        web.write(keys.mark("h1"), b'{"state": "on fire"}')
        self.look(web, caplog, "hosts/marks/h1")
        assert len([name for name in web.issued() if "web" in name]) == 3


class TestStoreIdentity:
    def test_a_store_that_came_back_empty_is_not_worked_on(self, web: World, declare, caplog) -> None:
        loop = web.scheduler()
        loop.step()
        web.remove(*web.memory.read(keys.CONFIG).entries, *web.memory.read(keys.STATE).entries, keys.STORE_UID)
        declare(web.memory, a_cluster(), a_service(desired=3), a_definition())
        web.hosts("h1")
        web.store.commits.clear()
        with caplog.at_level(logging.ERROR, "sked.scheduler"):
            for _ in range(3):
                assert loop.step() > 0
        assert web.store.commits == []
        assert caplog.text.count("came back empty") == 1, "said once, not with every look"

    def test_a_store_under_another_name_is_started_over_with(self, web: World, caplog) -> None:
        loop = web.scheduler()
        loop.step()
        web.write(keys.STORE_UID, b"another-store")
        web.write(keys.service("web"), encode(a_service(desired=4)))
        with caplog.at_level(logging.ERROR, "sked.scheduler"):
            web.step_until("placed", lambda: len(web.issued()) == 4, loop)
        assert "another one than before (another-store, was this-store)" in caplog.text

    def test_the_first_scheduler_names_a_store_that_has_no_name(self, world: World) -> None:
        world.remove(keys.STORE_UID)
        world.scheduler().step()
        assert len(world.value(keys.STORE_UID) or b"") == 16


def test_with_nothing_to_do_twenty_steps_write_nothing(web: World) -> None:
    loops = [web.scheduler(), web.scheduler(beside=True)]
    for loop in loops:
        loop.step()
    web.store.commits.clear()
    for _ in range(20):
        for loop in loops:
            loop.step()
    assert web.store.commits == []


def test_with_nothing_to_do_it_asks_to_be_left_alone_for_a_minute(web: World) -> None:
    loop = web.scheduler()
    loop.step()
    assert loop.step() == 60.0


def test_two_schedulers_never_issue_more_than_max(world: World, declare) -> None:
    world.hosts("h1", "h2", "h3")
    service = a_service(desired=6, min=4, max=7)
    declare(world.memory, a_cluster(), service, a_definition(), a_definition(version=2))
    stores = [RecordingStore(world.memory.client()) for _ in range(2)]
    loops = [world.scheduler(beside=True, store=store, clock=SystemClock()) for store in stores]
    most, stop = [0], threading.Event()

    def schedule(loop: SchedulerLoop) -> None:
        while not stop.is_set():
            loop._keeper.renew_if_due()
            loop.step()

    def count() -> int:
        now = len(world.issued())
        most[0] = max(most[0], now)
        return now

    threads = [threading.Thread(target=schedule, args=(loop,), daemon=True) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        world.until("placed", lambda: count() == 6)
        world.agents()
        for version in (2, 1, 2):
            replaced = {"min": 4, "max": 7, "desired": 6, "version": version, "update": UpdatePolicy(healthy_for="1ms")}
            world.write(keys.service("web"), encode(a_service(**replaced)))

            def all_of(wanted: int = version) -> bool:
                count()
                world.agents()
                tasks = world.tasks().values()
                return len(tasks) == 6 and all(task.task_definition.version == wanted for task in tasks)

            world.until(f"all of version {version}", all_of)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert most[0] <= 7
    for store in stores:
        for ops in store.commits:
            touched = [op.key for op in ops if op.key.startswith(keys.STATE)]
            assert not touched or any(isinstance(op, Fence) for op in ops), "a write without the lock"


class Guarded(RecordingStore):
    """One that does not let anybody read what ``refuses`` names."""

    refuses = ""

    def read(self, prefix: str) -> Snapshot:
        if prefix == self.refuses:
            raise Denied(f"{prefix} may not be read")
        return super().read(prefix)


class TestLostHosts:
    def gone(self, web: World) -> None:
        self.stayed = {name for name, task in web.tasks().items() if task.host == "h2"}
        web.remove(keys.live("h1"))

    def moved(self, web: World) -> bool:
        return all(task.host == "h2" for task in web.tasks().values() if task.scheduled)

    def test_its_tasks_are_replaced_after_lost_after_and_not_before(self, web: World) -> None:
        loop = web.scheduler(lost_after=8.0)
        loop.step()
        self.gone(web)
        web.step_until("absence noticed", lambda: loop._absences.since, loop)
        web.clock.advance(7.9)
        assert 0.0 < loop.step() <= 0.11, "it looks again just when the host may be lost"
        assert not self.moved(web)
        web.clock.advance(0.2)
        web.step_until("moved", lambda: self.moved(web), loop)
        assert self.stayed <= set(web.issued())
        assert len(web.issued()) == 3

    def test_an_outage_gives_every_host_the_whole_time_again(self, web: World) -> None:
        loop = web.scheduler(lost_after=8.0)
        loop.step()
        self.gone(web)
        web.step_until("absence noticed", lambda: loop._absences.since, loop)
        web.clock.advance(7.0)
        web.store.down = "no leader"
        assert loop.step() > 0
        web.clock.advance(2.5)
        loop._keeper.renew_if_due()
        web.store.down = ""
        loop.step()
        web.clock.advance(7.0)
        loop.step()
        assert not self.moved(web)
        web.clock.advance(1.1)
        loop._keeper.renew_if_due()
        web.step_until("moved", lambda: self.moved(web), loop)

    def test_what_a_scheduler_did_not_see_while_it_was_stopped_counts_for_no_absence(self, web: World) -> None:
        loop = web.scheduler(lost_after=30.0)
        loop.step()
        self.gone(web)
        web.step_until("absence noticed", lambda: loop._absences.since, loop)
        web.clock.advance(5.0)
        loop.step()
        web.clock.advance(300.0)
        loop._keeper.renew_if_due()  # by its own thread, before the loop goes on
        loop.step()
        assert not self.moved(web)
        web.clock.advance(30.0 - 5.0 - BLIND_SECONDS - 0.1)
        loop._keeper.renew_if_due()
        loop.step()
        assert not self.moved(web)
        web.clock.advance(0.2)
        web.step_until("moved", lambda: self.moved(web), loop)

    def test_a_round_that_fails_sees_nothing_either(self, web: World) -> None:
        store = Guarded(web.memory)
        loop = web.scheduler(lost_after=30.0, store=store)
        loop.step()
        self.gone(web)
        web.step_until("absence noticed", lambda: loop._absences.since, loop)
        store.refuses = keys.CONFIG
        loop._feed.invalidate()
        for _ in range(12):
            web.clock.advance(5.0)
            loop._keeper.renew_if_due()
            loop.step()
            assert loop._failures
        store.refuses = ""
        loop.step()
        assert not loop._failures and not self.moved(web)
        web.clock.advance(30.0)
        loop._keeper.renew_if_due()
        web.step_until("moved", lambda: self.moved(web), loop)

    def test_before_a_host_is_lost_it_is_looked_for_once_more(self, web: World) -> None:
        loop = SchedulerLoop(
            store=web.store, plugins=Plugins([]), health=web.health, name="s", clock=web.clock, lost_after=8.0
        )  # nothing tells it of changes: as after a stop, before its watches have had their answers
        loop.step()
        self.gone(web)
        loop._feed.invalidate()
        loop.step()
        assert loop._absences.since
        web.clock.advance(7.0)
        web.write(keys.live("h1"), encode(Liveness("agent")))
        web.clock.advance(1.1)
        loop.step()
        assert not self.moved(web) and not loop._absences.since

    def test_a_scheduler_that_has_just_started_waits_the_whole_time(self, web: World) -> None:
        self.gone(web)
        web.scheduler(lost_after=8.0).step()
        assert not self.moved(web)
        web.clock.advance(100.0)
        web.scheduler(lost_after=8.0).step()
        assert not self.moved(web)


class Greedy:
    """A scheduler with a mistake: everything goes to a host that nobody knows."""

    def place(self, demand: Any, count: int, candidates: Any) -> Iterator[str]:
        yield from ["nowhere"] * count


class TestSchedulers:
    def test_a_plugins_mistake_is_reported_and_others_are_served(self, world: World, declare, offering) -> None:
        world.hosts("h1")
        declare(world.memory, a_cluster(services=("bad", "web")), a_service(desired=1), a_definition())
        declare(world.memory, a_service("bad", desired=2, scheduler="greedy"), a_definition("bad"))
        world.scheduler(plugins=offering(sked_schedulers={"greedy": Greedy})).step()
        assert world.issued() == ["default-web-1-0"]
        status = world.status("bad")
        assert status is not None
        assert status.clusters["default"].blocked.startswith("scheduler greedy of ")
        assert "placed a task of bad on 'nowhere'" in status.clusters["default"].blocked
        assert world.memory.read(keys.SERVICE_LOCKS).entries == {}

    def test_one_that_is_installed_but_broken_is_not_taken_for_a_program_outside(
        self, world, declare, offering
    ) -> None:
        def broken() -> None:
            raise RuntimeError("no licence")

        world.hosts("h1")
        declare(world.memory, a_cluster(), a_service(desired=1, scheduler="broken"), a_definition())
        world.scheduler(plugins=offering(sked_schedulers={"broken": broken})).step()
        status = world.status("web")
        assert status is not None
        assert "scheduler broken of" in status.clusters["default"].blocked
        assert "no licence" in status.clusters["default"].blocked

    @pytest.mark.parametrize("raised", [ValueError("a bug"), KeyError("x")])
    def test_a_scheduler_that_raises_does_not_end_the_loop(self, world, declare, offering, raised) -> None:
        class Raising:
            def place(self, demand: Any, count: int, candidates: Any) -> Iterator[str]:
                raise raised

        world.hosts("h1")
        declare(world.memory, a_cluster(services=("bad", "web")), a_service(desired=1), a_definition())
        declare(world.memory, a_service("bad", desired=2, scheduler="raising"), a_definition("bad"))
        world.scheduler(plugins=offering(sked_schedulers={"raising": Raising})).step()
        assert world.issued() == ["default-web-1-0"]
        status = world.status("bad")
        assert status is not None
        assert "raising" in status.clusters["default"].blocked
        assert world.memory.read(keys.SERVICE_LOCKS).entries == {}

    def test_a_name_that_nobody_here_offers_is_left_to_programs_outside(self, world: World, declare, issue) -> None:
        world.hosts("h1")
        declare(world.memory, a_cluster(services=("mine", "web")), a_service(desired=1), a_definition())
        declare(world.memory, a_service("mine", desired=1, scheduler="my-own"), a_definition("mine"))
        theirs = [a_task("h1", number, a_definition("mine"), service="mine") for number in range(3)]
        issue(world.memory, *theirs)
        world.scheduler().step()
        assert world.issued() == ["default-mine-1-0", "default-mine-1-1", "default-mine-1-2", "default-web-1-0"]
        assert world.status("mine") is None

    def test_of_a_deleted_one_it_stays_known_whose_the_tasks_are_until_they_are_gone(
        self, world: World, declare, issue
    ) -> None:
        world.hosts("h1")
        declare(world.memory, a_cluster(services=("mine",)))
        theirs = a_task("h1", 0, a_definition("mine"), service="mine")
        issue(world.memory, theirs)
        world.write(keys.service_status("mine"), encode(ServiceStatus(scheduler="my-own", clusters={})))
        loop = world.scheduler()
        for _ in range(3):
            world.clock.advance(61)
            loop.step()
        assert world.issued() == [theirs.id] and world.status("mine") is not None
        world.remove(keys.task(theirs.id), keys.host_task("h1", theirs.id))
        world.step_until("forgotten", lambda: world.status("mine") is None, loop, pace=61)

    def test_its_markers_are_removed_as_well_while_it_is_there_and_while_it_is_not(self, world: World, declare) -> None:
        world.hosts("h1")
        declare(world.memory, a_cluster(services=("mine",)), a_service("mine", scheduler="my-own"), a_definition())
        loop = world.scheduler()
        for present in (b'{"schedulers": ["my-own"]}', None):
            key = keys.scheduler("one-outside")
            world.memory.commit([Put(key, present) if present else Delete(key), marker("mine", "one-outside")])
            world.step_until("removed", lambda: world.value(keys.changed("mine")) is None, loop, pace=61)


def test_what_can_not_be_placed_is_reported_host_by_host(world: World, declare) -> None:
    world.hosts("big", memory=4096)
    world.hosts("small", memory=100)
    world.hosts("other", executors=["docker"])
    world.hosts("silent")
    world.remove(keys.live("silent"))
    declare(world.memory, a_cluster(), a_service(desired=3), a_definition(memory=3000))
    world.scheduler().step()
    status = world.status("web")
    assert status is not None
    web = status.clusters["default"]
    assert (web.desired, web.issued, web.waiting) == (3, 1, 2)
    assert web.hosts == {
        "big": ["memory: free 1096 MB < 3000 MB"],
        "other": ["executor bash not available (not installed, or not in its policy)"],
        "silent": ["its agent is not running"],
        "small": ["memory: free 100 MB < 3000 MB"],
    }
    world.store.commits.clear()
    world.scheduler().step()
    assert set(world.status("web").clusters["default"].hosts) == {"big", "other", "silent", "small"}
    assert all(op.key != keys.service_status("web") for ops in world.store.commits for op in ops)  # no news


def test_room_that_appears_is_used_at_once(world: World, declare) -> None:
    world.hosts("small", memory=100)
    declare(world.memory, a_cluster(), a_service(desired=1), a_definition(memory=3000))
    loop = world.scheduler()
    loop.step()
    assert world.issued() == []
    world.hosts("big", memory=4096)
    world.step_until("placed", world.issued, loop, pace=0.1)
    status = world.status("web")
    assert status is not None
    assert (status.clusters["default"].waiting, status.clusters["default"].hosts) == (0, {})


def test_a_rejected_task_goes_elsewhere_and_where_there_is_nothing_else_it_waits(web: World) -> None:
    task = web.tasks()["default-web-1-0"]
    other = "h2" if task.host == "h1" else "h1"
    rejected = json.loads(web.value(keys.task(task.id)) or b"")
    rejected |= {"rejected": True, "reject_reason": "port 80 is taken"}
    for key in (keys.task(task.id), keys.host_task(task.host, task.id)):
        web.write(key, encode(rejected))
    web.scheduler().step()
    moved = web.tasks()["default-web-1-0"]
    assert (moved.host, moved.rejected) == (other, False)
    assert web.value(keys.host_task(task.host, task.id)) is None
    assert len(web.by_host()) == 3


def test_large_services_are_committed_in_parts_that_never_tear_a_task(world: World, declare) -> None:
    store = RecordingStore(world.memory, max_ops=30)
    world.hosts(*(f"h{number}" for number in range(10)))
    declare(world.memory, a_cluster(), a_service(desired=200), a_definition())
    started = time.monotonic()
    world.scheduler(store=store).step()
    assert len(world.issued()) == 200
    assert time.monotonic() - started < 60
    world.agents()
    world.write(keys.service("web"), encode(a_service(desired=0)))
    world.scheduler(store=store).step()
    assert world.issued() == []
    parts = 0
    for ops in store.commits:
        written = [op.key for op in ops if isinstance(op, Put | Delete)]
        shared = {keys.last_segment(key) for key in written if key.startswith(keys.TASKS)}
        by_host = {keys.last_segment(key) for key in written if key.startswith(keys.HOST_TASKS)}
        assert shared == by_host
        assert len(ops) <= 30
        parts += bool(shared)
    assert parts >= 2 * 200 * 3 // 30
    assert world.memory.read(keys.SERVICE_LOCKS).entries == {}


def test_a_scheduler_that_loses_the_lock_midway_leaves_whole_tasks_and_another_finishes(world: World, declare) -> None:
    class Meddled(RecordingStore):
        """After the third commit somebody deletes the lock."""

        def commit(self, ops):
            revision = super().commit(ops)
            if len(self.commits) == 3:
                world.remove(keys.service_lock("web"))
            return revision

    world.hosts("h1", "h2")
    declare(world.memory, a_cluster(), a_service(desired=60), a_definition())
    world.scheduler(store=Meddled(world.memory, max_ops=30)).step()
    assert 0 < len(world.issued()) < 60
    assert world.by_host() == set(world.tasks())
    world.scheduler().step()
    assert len(world.issued()) == 60
    assert world.by_host() == set(world.tasks())


def test_health_that_is_not_known_touches_nothing(web: World) -> None:
    web.write(keys.task_definition("web", 2), encode(a_definition(version=2)))
    web.write(keys.service("web"), encode(a_service(version=2, desired=3, min=0)))
    web.health.down = "no answer"
    before = web.tasks()
    loop = web.scheduler()
    assert loop.step() <= 1.0
    assert web.tasks() == before
    web.health.down = ""
    web.step_until("goes on", lambda: web.tasks() != before, loop, pace=0.1)


def test_run_ends_when_it_is_told_to_and_gives_its_lease_back(world: World, declare) -> None:
    world.hosts("h1")
    declare(world.memory, a_cluster(), a_service(desired=2), a_definition())
    loop = SchedulerLoop(
        store=world.store, plugins=Plugins([]), health=world.health, name="s", clock=SystemClock(), lost_after=60.0
    )
    stop = threading.Event()
    thread = threading.Thread(target=loop.run, args=(stop,), daemon=True)
    thread.start()
    world.until("placed", lambda: len(world.issued()) == 2)
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
    assert world.memory._data.expiry == {}
