"""Several schedulers on one store: who works on what, what each reads, and what it takes notice of."""

from __future__ import annotations

import threading
import time
from typing import Any

from runtime.stage import Declare, Stage, services
from sked_core.clock import SystemClock
from sked_core.errors import LeaseLost
from sked_core.interfaces.store import Delete, Fence, Op, Put, Snapshot
from sked_core.logic.turns import TURN_SECONDS, rank
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.runtime.scheduling.evaluation import SOON_SECONDS
from sked_core.runtime.scheduling.feed import LONGEST_REST, MARKER_SECONDS, OTHERS_SECONDS, RESYNC_SECONDS
from sked_core.runtime.scheduling.loop import SchedulerLoop
from sked_core.runtime.state import marker
from sked_core.testing.builders import a_cluster, a_definition, a_service, a_task
from sked_core.testing.fakes import RecordingStore


def lock_takers(store: RecordingStore) -> list[str]:
    """The services whose lock this store's process took, once for every time."""
    taken = [op.key for ops in store.commits for op in ops if isinstance(op, Put) and op.lease]
    return [keys.last_segment(key) for key in taken if key.startswith(keys.SERVICE_LOCKS)]


def acquainted(stage: Stage) -> list[SchedulerLoop]:
    """Two schedulers, each of which has seen the other."""
    loops = [stage.scheduler(), stage.scheduler()]
    for loop in (*loops, *loops):
        loop._feed.invalidate()
        loop.step()
    return loops


def test_four_divide_the_services_and_none_is_worked_on_twice(stage: Stage, declare: Declare) -> None:
    loops = [stage.scheduler(clock=SystemClock()) for _ in range(4)]
    for loop in loops:
        loop.step()
    for loop in loops:  # now each has seen all others
        loop._feed.invalidate()
        loop.step()
    stop = threading.Event()
    threads = [threading.Thread(target=loop.run, args=(stop,), daemon=True) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        names = services(stage, declare, 80, desired=3)
        stage.until("all are placed", lambda: len(stage.tasks()) == 240)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    shares = [lock_takers(store) for store in stage.stores]
    assert sorted(name for share in shares for name in share) == sorted(names), "each was locked once, by one"
    assert all(len(share) >= 5 for share in shares)
    for store in stage.stores:
        for ops in store.commits:
            touched = [op.key for op in ops if op.key.startswith(keys.STATE)]
            assert not touched or any(isinstance(op, Fence) for op in ops)


def test_who_is_first_works_and_the_next_only_a_turn_later(stage: Stage, declare: Declare) -> None:
    loops = acquainted(stage)
    services(stage, declare, 1)
    first, second = sorted(loops, key=lambda loop: rank("service-0", loop._name, loop._feed.present, "default"))
    stage.seen(second, keys.CONFIG)
    pause = second.step()
    assert stage.tasks() == {}
    assert 0 < pause <= TURN_SECONDS
    stage.clock.advance(TURN_SECONDS + 0.01)
    second.step()  # the first one is paused, or busy
    assert list(stage.tasks()) == ["default-service-0-1-0"]
    stage.seen(first, keys.SCHEDULING)
    before = len(stage.stores[loops.index(first)].commits)
    for _ in range(3):
        first.step()
        stage.clock.advance(0.3)
    assert len(stage.stores[loops.index(first)].commits) == before, "nothing is left for the first"


def test_a_change_costs_reading_what_it_concerns(stage: Stage, declare: Declare) -> None:
    names = services(stage, declare, 40)
    loop = stage.scheduler()
    loop.step()
    assert len(stage.tasks()) == 40
    loop.step()
    stage.stores[0].reads.clear()
    (task,) = (task for task in stage.tasks().values() if task.service == names[7])
    both = [keys.task(task.id), keys.host_task(task.host, task.id)]
    stage.memory.commit([*map(Delete, both), marker(task.service, "h1")])
    stage.seen(loop, keys.SCHEDULING)
    stage.clock.advance(1.0)
    loop.step()
    assert task.id in stage.tasks(), "it was issued anew"
    assert set(stage.stores[0].reads) == {
        keys.STORE_UID,
        keys.SCHEDULING,
        keys.service_tasks("default", names[7]),
    }


def test_services_of_others_are_read_once_a_second_at_most(stage: Stage, declare: Declare) -> None:
    services(stage, declare, 1, desired=40)
    loops = acquainted(stage)
    (other,) = (loop for loop in loops if loop._rank("service-0") == 1)
    store = stage.stores[loops.index(other)]
    prefix = keys.service_tasks("default", "service-0")
    other.step()
    stage.clock.advance(5.0)
    other.step()
    store.reads.clear()
    for _ in range(3):
        stage.memory.commit([marker("service-0", "somebody")])
        stage.seen(other, keys.SCHEDULING)
        assert other.step() <= OTHERS_SECONDS
    assert prefix not in store.reads
    stage.clock.advance(OTHERS_SECONDS)
    other.step()
    assert store.reads.count(prefix) == 1


def test_what_somebody_has_just_worked_on_is_not_stood_in_for(stage: Stage, declare: Declare) -> None:
    loops = acquainted(stage)
    services(stage, declare, 1, desired=40)
    first, second = sorted(loops, key=lambda loop: rank("service-0", loop._name, loop._feed.present, "default"))
    stage.seen(second, keys.CONFIG)
    second.step()
    stage.clock.advance(TURN_SECONDS)
    stage.seen(first, keys.CONFIG)
    first.step()  # late, but before the other one's turn has quite come
    stage.seen(second, keys.SCHEDULING)
    stage.clock.advance(0.01)
    second.step()
    assert lock_takers(stage.stores[loops.index(second)]) == []
    assert len(stage.tasks()) == 40


def test_where_most_services_have_changed_all_tasks_are_read_at_once(stage: Stage, declare: Declare) -> None:
    names = services(stage, declare, 40)
    loops = acquainted(stage)
    watcher = loops[0]
    watcher.step()
    store = stage.stores[0]
    stage.clock.advance(5.0)
    watcher._keeper.drop()
    watcher.step()
    store.reads.clear()
    others = [name for name in names if watcher._rank(name)]
    assert len(others) > 5
    stage.memory.commit([marker(name, "somebody") for name in others])
    stage.seen(watcher, keys.SCHEDULING)
    watcher.step()
    stage.clock.advance(OTHERS_SECONDS)
    watcher.step()
    assert store.reads.count(keys.TASKS) == 1
    assert not [prefix for prefix in store.reads if prefix.startswith(keys.TASKS) and prefix != keys.TASKS]


def test_markers_are_removed_when_everybody_has_seen_them(stage: Stage, declare: Declare) -> None:
    services(stage, declare, 3)
    loop = stage.scheduler()
    loop.step()
    assert len(stage.memory.read(keys.CHANGED).entries) == 3
    for _ in range(3):
        stage.clock.advance(MARKER_SECONDS / 2 + 1)
        loop._keeper.drop()  # the lease lives by the machine's clock
        loop.step()
    assert stage.memory.read(keys.CHANGED).entries == {}
    commits = len(stage.stores[0].commits)
    for _ in range(3):
        loop.step()
    assert len(stage.stores[0].commits) == commits
    declare(stage.memory, a_service("service-1", desired=2))
    stage.seen(loop, keys.CONFIG)
    loop.step()
    assert len(stage.tasks()) == 4, "a guard of no marker holds as well"


def test_a_change_without_a_marker_is_noticed_with_the_next_whole_read(stage: Stage, declare: Declare) -> None:
    services(stage, declare, 1)
    loop = stage.scheduler()
    loop.step()
    (task,) = stage.tasks().values()
    ops: list[Op] = [Delete(keys.task(task.id)), Delete(keys.host_task(task.host, task.id))]
    stage.memory.commit(ops)
    loop.step()
    assert stage.tasks() == {}
    stage.clock.advance(RESYNC_SECONDS)
    loop._keeper.drop()
    loop.step()
    assert list(stage.tasks()) == [task.id]


def test_who_lost_its_place_in_line_takes_it_again_with_the_look_that_shows_it(stage: Stage) -> None:
    loop = stage.scheduler()
    loop.step()
    assert list(stage.memory.read(keys.SCHEDULERS).entries) == [keys.scheduler("s0")]
    loop._keeper.lease().revoke()
    loop._keeper.drop()
    stage.seen(loop, keys.SCHEDULING)
    stage.clock.advance(1.0)
    loop.step()
    assert list(stage.memory.read(keys.SCHEDULERS).entries) == [keys.scheduler("s0")]


def test_a_read_that_took_long_leaves_it_deaf_for_a_second_at_most(stage: Stage, declare: Declare) -> None:
    class Slow(RecordingStore):
        def read(self, prefix: str) -> Snapshot:
            if prefix == keys.SERVICES:
                stage.clock.advance(8.0)  # the store hung, or this process was paused
            return super().read(prefix)

    loop = stage.scheduler(store=Slow(stage.memory.client()))
    loop.step()
    services(stage, declare, 1)
    stage.seen(loop, keys.CONFIG)
    loop._keeper.drop()
    loop.step()
    declare(stage.memory, a_service("service-0", desired=2))
    stage.seen(loop, keys.CONFIG)
    reads = stage.stores[0].reads.count(keys.SERVICES)
    assert loop.step() <= LONGEST_REST
    assert stage.stores[0].reads.count(keys.SERVICES) == reads, "it rests for a while"
    stage.clock.advance(LONGEST_REST)
    loop._keeper.drop()
    loop.step()
    assert len(stage.tasks()) == 2


def test_tasks_in_a_cluster_that_the_service_joined_later_are_counted(stage: Stage, declare: Declare) -> None:
    services(stage, declare, 1)
    loop = stage.scheduler()
    loop.step()
    stage.memory.commit([marker("service-0", "somebody")])
    stage.seen(loop, keys.SCHEDULING)
    loop.step()  # reads the service by itself, as a part of one cluster
    second = a_cluster("second", ("service-0",))
    joined = a_task("h1", 5, a_definition("service-0"), service="service-0", cluster=second)
    both = [Put(key, encode(joined)) for key in (keys.task(joined.id), keys.host_task("h1", joined.id))]
    stage.memory.commit(both)
    declare(stage.memory, second)
    stage.seen(loop, keys.CONFIG)
    stage.clock.advance(1.0)
    loop.step()
    assert sorted(stage.tasks()) == ["default-service-0-1-0", "second-service-0-1-5"]


def test_changes_do_not_wake_it_out_of_its_pause_after_a_failure(stage: Stage, declare: Declare) -> None:
    services(stage, declare, 1)
    loop = stage.scheduler(clock=SystemClock())

    def lost() -> Any:
        raise LeaseLost("the lease could not be renewed in time")

    loop._keeper.lease = lost  # type: ignore[method-assign]
    stop, begun = threading.Event(), time.monotonic()
    thread = threading.Thread(target=loop.run, args=(stop,), daemon=True)
    thread.start()

    def looks() -> int:
        return stage.stores[0].reads.count(keys.STORE_UID)

    while time.monotonic() - begun < (1.5 if looks() > 1 else 60):
        loop.wake()
        time.sleep(0.001)
    found = looks()
    taken = time.monotonic() - begun
    stop.set()
    thread.join(60)
    assert 2 <= found <= 2 + taken / SOON_SECONDS


def test_garbage_below_scheduling_disturbs_nobody(stage: Stage, declare: Declare) -> None:
    services(stage, declare, 1)
    places = ("schedulers/x", "schedulers/x/y", "changed/-", "changed/UPPER", "changed/a/b", "else")
    stage.memory.commit([Put(keys.SCHEDULING + place, b"\xff{") for place in places])
    loop = stage.scheduler()
    loop.step()
    assert len(stage.tasks()) == 1
    stage.clock.advance(2 * MARKER_SECONDS)
    loop._keeper.drop()
    assert loop.step() > 0
    assert keys.SCHEDULING + "else" in stage.memory.read(keys.SCHEDULING).entries
