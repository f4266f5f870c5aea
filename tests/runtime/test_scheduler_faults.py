"""What a scheduler makes of hostile records, of stores that fail in odd ways, and of hosts that are many or go away."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from runtime.stage import Stage
from sked_core.errors import SkedError
from sked_core.interfaces.store import Delete, Op, Put, Revision, Snapshot
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.types import ClusterStatus, ServiceStatus
from sked_core.runtime.scheduling.loop import SchedulerLoop
from sked_core.runtime.scheduling.service_status import MAX_HOSTS_SHOWN
from sked_core.testing.builders import a_cluster, a_container, a_definition, a_service, a_task
from sked_core.testing.fakes import FakeEngine, RecordingStore


class Fleet(Stage):
    """One scheduler, stepped by hand, and hosts that run what is issued."""

    def later(self, loop: SchedulerLoop, seconds: float) -> None:
        """Move the clock, and have the loop look at all that stands in the store now."""
        self.clock.advance(seconds)
        loop._keeper.drop()  # the lease lives by the machine's clock
        loop._feed.invalidate()
        loop.step()

    def run_all(self) -> None:
        """All that is issued runs and is healthy."""
        for task in self.tasks().values():
            self.health.register(task)

    def status(self, service: str) -> ClusterStatus:
        key = keys.service_status(service)
        return decode(self.memory.read(key).entries[key].value, ServiceStatus).clusters["default"]


@pytest.fixture
def fleet(until: Callable[..., Any]) -> Iterator[Fleet]:
    with contextlib.closing(Fleet(until)) as fleet:
        yield fleet


class TestRecords:
    @pytest.mark.parametrize("key", ["Web_Old", "web/old", "-", "x" * 200])
    def test_a_status_of_no_possible_service_keeps_nobody_from_being_scheduled(
        self, fleet: Fleet, declare: Any, key: str
    ) -> None:
        fleet.hosts("h1")
        declare(fleet.memory, a_cluster(), a_service(desired=1), a_definition())
        fleet.memory.commit([Put(keys.SERVICE_STATUS + key, b'{"scheduler":"default"}')])
        fleet.scheduler().step()
        assert list(fleet.tasks()) == ["default-web-1-0"]

    @pytest.mark.parametrize("prefix", [keys.SERVICES, keys.ROLLOUTS, keys.MOVES])
    @pytest.mark.parametrize("record", [b"{}", b'{"name":"Web_1","task_name":"web","task_version":1}', b"\xff"])
    def test_what_stands_under_no_possible_name_of_a_service_keeps_nobody_from_being_scheduled(
        self, fleet: Fleet, declare: Any, prefix: str, record: bytes
    ) -> None:
        fleet.hosts("h1")
        declare(fleet.memory, a_cluster(), a_service(desired=1), a_definition())
        loop = fleet.scheduler()
        fleet.memory.commit([Put(f"{prefix}Web_1", record), Put(f"{prefix}<b>", record)])
        loop.step()
        assert list(fleet.tasks()) == ["default-web-1-0"]
        declare(fleet.memory, a_service(desired=2))
        fleet.memory.commit([Put(f"{prefix}Web_2", record)])
        fleet.later(loop, 2.0)
        assert len(fleet.tasks()) == 2
        figures = loop.figures()
        assert figures is not None and set(figures.services) == {"web"}

    @pytest.mark.parametrize("key", [keys.cluster("default"), keys.service("web")])
    def test_a_record_that_bears_another_name_than_its_key_removes_nothing(
        self, fleet: Fleet, declare: Any, caplog: pytest.LogCaptureFixture, key: str
    ) -> None:
        fleet.hosts("h1")
        declare(fleet.memory, a_cluster(), a_service(desired=2), a_definition())
        loop = fleet.scheduler()
        loop.step()
        fleet.run_all()
        before = fleet.tasks()
        assert len(before) == 2
        record = json.loads(fleet.memory.read(key).entries[key].value) | {"name": "typo"}
        fleet.memory.commit([Put(key, json.dumps(record).encode())])
        with caplog.at_level(logging.WARNING, "sked.scheduler"):
            for _ in range(4):
                fleet.later(loop, 2.0)
        assert f"{key} is left alone: the key says {keys.last_segment(key)}, the record typo" in caplog.text
        assert fleet.tasks() == before


@pytest.mark.parametrize("error", [SkedError("permission denied"), ValueError("a plugin's bug"), OSError("odd")])
def test_whatever_the_store_raises_is_a_pause(
    fleet: Fleet, declare: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    fleet.hosts("h1")
    declare(fleet.memory, a_cluster(), a_service(desired=1), a_definition())
    loop = fleet.scheduler()

    def fail(prefix: str) -> Any:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(fleet.stores[0], "read", fail)
        assert [0 < loop.step() <= 5.0 for _ in range(5)] == [True] * 5
    assert fleet.tasks() == {}
    loop.step()
    assert list(fleet.tasks()) == ["default-web-1-0"]


class Slow(RecordingStore):
    """Each call takes half a second of ``clock``."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage.memory.client())
        self._clock = stage.clock

    def read(self, prefix: str) -> Snapshot:
        self._clock.advance(0.5)
        return super().read(prefix)

    def commit(self, ops: Sequence[Op]) -> Revision:
        self._clock.advance(0.5)
        return super().commit(ops)


def test_what_is_declared_is_placed_however_long_the_store_takes_for_each_call(fleet: Fleet, declare) -> None:
    fleet.hosts("h1")
    declare(fleet.memory, a_cluster(), a_service(desired=2), a_definition())
    fleet.scheduler(store=Slow(fleet)).step()
    assert len(fleet.tasks()) == 2


class TestHosts:
    def test_thousands_that_refuse_keep_no_status_from_being_written(self, fleet: Fleet, declare: Any) -> None:
        names = [f"host-{number:05}.example.internal" for number in range(3500)]
        fleet.hosts(*names)
        cluster = a_cluster(hosts=names[1:2])
        declare(fleet.memory, cluster, a_service(desired=2), a_definition(memory=8000))
        loop = fleet.scheduler()
        loop.step()
        fleet.later(loop, 2.0)
        assert [task.host for task in fleet.tasks().values()] == names[1:2]
        status = fleet.status("web")
        assert status.waiting == 1
        assert names[1] in status.hosts, "the cluster's own hosts come first"
        assert len(status.hosts) == MAX_HOSTS_SHOWN + 1
        assert status.hosts["..."] == ["and 3400 more hosts"]

    def test_of_many_that_vanish_at_once_few_are_taken_for_lost(
        self, fleet: Fleet, declare: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        names = [f"h{number}" for number in range(10)]
        fleet.hosts(*names)
        declare(fleet.memory, a_cluster(), a_service(desired=20, min=20, max=25), a_definition())
        loop = fleet.scheduler()
        loop.step()
        fleet.run_all()
        before = fleet.tasks()
        assert {task.host for task in before.values()} == set(names)
        fleet.memory.commit([Delete(keys.live(name)) for name in names[1:]])
        for _ in range(6):
            fleet.later(loop, 31.0)
        after = fleet.tasks()
        left = {task.host for name, task in before.items() if name not in after or after[name].host != task.host}
        assert 0 < len(left) <= 3
        assert len(after) == 20
        assert "more hosts vanished than is plausible: tasks stay on" in caplog.text

    def test_all_tasks_of_a_lost_host_are_replaced_where_a_smaller_number_is_free(
        self, fleet: Fleet, declare: Any
    ) -> None:
        fleet.hosts("h1", alive=False)
        fleet.hosts("h2")
        declare(fleet.memory, a_cluster(), a_service(desired=2), a_definition())
        for task in (a_task("h1", 1), a_task("h1", 2)):
            both = (keys.task(task.id), keys.host_task("h1", task.id))
            fleet.memory.commit([Put(key, encode(task)) for key in both])
        loop = fleet.scheduler()
        loop.step()
        assert {task.host for task in fleet.tasks().values()} == {"h1"}
        fleet.later(loop, 61.0)
        for _ in range(4):
            fleet.later(loop, 2.0)
        assert [task.host for task in fleet.tasks().values()] == ["h2", "h2"]
        assert {keys.last_segment(key) for key in fleet.memory.read(keys.HOST_TASKS).entries} == set(fleet.tasks())


def test_two_services_whose_containers_take_one_port_do_not_share_a_host(
    fleet: Fleet, declare: Any, offering: Any
) -> None:
    fleet.hosts("h1")
    taking = [a_definition(name, containers=[a_container(executor={"ports": [5000]})]) for name in ("a", "b")]
    services = [a_service(name, desired=1) for name in ("a", "b")]
    declare(fleet.memory, a_cluster(services=("a", "b")), *services, *taking)
    loop = fleet.scheduler(plugins=offering(sked_executors={"bash": FakeEngine().executor}))
    loop.step()
    fleet.later(loop, 2.0)
    assert list(fleet.tasks()) == ["default-a-1-0"]
    assert fleet.status("b").hosts == {"h1": ["port 5000 is held by another task"]}
