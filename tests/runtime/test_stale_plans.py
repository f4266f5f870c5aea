"""What a plan comes to that was made on what is not true any more, or whose commit is of no known outcome."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from runtime.stage import Declare, Stage, services
from sked_core.errors import Conflict, Unavailable
from sked_core.interfaces.store import Check, Delete, Put, Revision, Snapshot, Store
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.runtime.state import marker
from sked_core.testing.builders import a_cluster, a_definition, a_host, a_service, a_task
from sked_core.testing.fakes import RecordingStore


def another_issues(stage: Stage) -> None:
    """What a scheduler elsewhere may do at any time: it places a task of ``service-0``."""
    task = a_task("h3", 5, a_definition("service-0"), service="service-0")
    both = [Put(key, encode(task)) for key in (keys.task(task.id), keys.host_task("h3", task.id))]
    stage.memory.commit([*both, marker("service-0", "another")])


class Late(RecordingStore):
    """Just before the first commit that issues a task, somebody else changes the service's tasks."""

    def __init__(self, store: Store, interfere: Callable[[], None]) -> None:
        super().__init__(store)
        self._interfere = [interfere]

    def commit(self, ops: Any) -> Revision:
        if self._interfere and any(isinstance(op, Put) and op.key.startswith(keys.TASKS) for op in ops):
            self._interfere.pop()()
        return super().commit(ops)


def test_a_plan_on_what_is_not_true_any_more_is_refused_and_made_anew(stage: Stage, declare: Declare) -> None:
    services(stage, declare, 1, desired=2)
    loop = stage.scheduler(store=Late(stage.memory.client(), lambda: another_issues(stage)))
    loop.step()
    # No key of the plan collides with the stranger's: only the marker tells that there is one task already.
    assert sorted(stage.tasks()) == ["default-service-0-1-0", "default-service-0-1-5"]
    assert stage.memory.read(keys.SERVICE_LOCKS).entries == {}


class Hooked(RecordingStore):
    """Calls ``after`` once, when a read of ``state/tasks/`` has been answered."""

    def __init__(self, store: Store, after: Callable[[], None]) -> None:
        super().__init__(store)
        self._after = [after]

    def read(self, prefix: str) -> Snapshot:
        snapshot = super().read(prefix)
        if prefix == keys.TASKS and self._after:
            self._after.pop()()
        return snapshot


def test_what_changes_while_everything_is_read_is_noticed(stage: Stage, declare: Declare) -> None:
    services(stage, declare, 1, desired=2)
    stage.scheduler(store=Hooked(stage.memory.client(), lambda: another_issues(stage))).step()
    assert sorted(stage.tasks()) == ["default-service-0-1-0", "default-service-0-1-5"]


def test_what_an_agent_changes_between_two_commits_of_one_plan_is_noticed(stage: Stage, declare: Declare) -> None:
    class Between(RecordingStore):
        """After the first commit that issues tasks, an agent removes one of them: the next commit has no task of it."""

        removed = ""

        def commit(self, ops: Any) -> Revision:
            revision = super().commit(ops)
            issued = [op.key for op in ops if isinstance(op, Put) and op.key.startswith(keys.TASKS)]
            if issued and not self.removed:
                self.removed = keys.last_segment(issued[0])
                task = stage.tasks()[self.removed]
                both = [Delete(issued[0]), Delete(keys.host_task(task.host, task.id))]
                stage.memory.commit([*both, marker(task.service, task.host)])
            return revision

    services(stage, declare, 1, desired=40)
    store = Between(stage.memory.client(), max_ops=30)
    loop = stage.scheduler(store=store)
    loop.step()
    assert store.removed
    assert len(stage.tasks()) == 40  # the commit after it was refused, and what lacked was issued again


def test_two_services_in_work_at_once_do_not_take_the_same_room(stage: Stage, declare: Declare) -> None:
    together = threading.Barrier(2)

    class Slow(RecordingStore):
        """Each lock is taken only when the other one is about to be taken: both plans are made by then."""

        def commit(self, ops: Any) -> Revision:
            if any(isinstance(op, Put) and op.key.startswith(keys.SERVICE_LOCKS) for op in ops):
                together.wait(60)
            return super().commit(ops)

    for name in ("h2", "h3"):
        stage.memory.commit([Delete(keys.live(name))])
    stage.memory.commit([Put(keys.host("h1"), encode(a_host("h1", memory=100).host))])
    declare(stage.memory, a_cluster(services=("a", "b")))
    for name in ("a", "b"):
        declare(stage.memory, a_service(name, desired=1), a_definition(name, memory=80))
    loop = stage.scheduler(store=Slow(stage.memory.client()), workers=2)
    loop.step()  # one takes the room, the other says that it waits: both under their locks, at the same time
    assert len(stage.tasks()) == 1
    assert not together.broken


def test_a_definition_that_was_replaced_meanwhile_is_not_issued(stage: Stage, declare: Declare) -> None:
    """Definitions don't change once applied, but one may be deleted and applied anew under its old version."""
    services(stage, declare, 1)

    def apply_anew() -> None:
        stage.memory.commit([Put(keys.task_definition("service-0", 1), encode(a_definition("service-0", memory=77)))])

    stage.scheduler(store=Late(stage.memory.client(), apply_anew)).step()
    for _ in range(3):
        stage.clock.advance(1.0)
        stage.loops[0]._feed.invalidate()
        stage.loops[0].step()
    assert [task.task_definition.memory for task in stage.tasks().values()] == [77]


@pytest.mark.parametrize("written", ["definition", "service"])
def test_what_was_written_again_as_it_was_holds_nothing_up(stage: Stage, declare: Declare, written: str) -> None:
    services(stage, declare, 1)

    def write_again() -> None:
        same = {"definition": a_definition("service-0"), "service": a_service("service-0", desired=1)}[written]
        declare(stage.memory, same)

    stage.scheduler(store=Late(stage.memory.client(), write_again)).step()
    assert list(stage.tasks()) == ["default-service-0-1-0"], "planned anew under the same lock"


def test_a_lock_whose_taking_was_never_confirmed_is_given_back(stage: Stage, declare: Declare) -> None:
    class Lossy(RecordingStore):
        """The answer to the first commit that takes a lock is lost."""

        lost = False

        def commit(self, ops: Any) -> Revision:
            revision = super().commit(ops)
            if not self.lost and any(isinstance(op, Put) and op.key.startswith(keys.SERVICE_LOCKS) for op in ops):
                self.lost = True
                raise Unavailable("no answer")
            return revision

    services(stage, declare, 1)
    loop = stage.scheduler(store=Lossy(stage.memory.client()))
    loop.step()
    assert list(stage.memory.read(keys.SERVICE_LOCKS).entries) == [keys.service_lock("service-0")]
    declare(stage.memory, a_service("service-0", desired=0))  # nothing is left to do for it
    stage.memory.commit([Put(keys.service_status("service-0"), b'{"scheduler":"default","clusters":{"default":{}}}')])
    loop.step()
    assert stage.memory.read(keys.SERVICE_LOCKS).entries == {}
    assert stage.tasks() == {}


def test_a_stale_guard_is_a_conflict_in_the_store(stage: Stage) -> None:
    revision = stage.memory.commit([marker("web", "one")])
    stage.memory.commit([marker("web", "two")])
    with pytest.raises(Conflict):
        stage.memory.commit([Check(keys.changed("web"), revision), marker("web", "three")])
