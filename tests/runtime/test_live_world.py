"""One read of a store as a World: what a scheduler would make of the same entries."""

from __future__ import annotations

import pytest

from sked_core.interfaces.store import Delete, Put
from sked_core.logic.presence import Rejections
from sked_core.logic.world import no_ports
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Liveness, Mark, ServiceStatus
from sked_core.runtime.scheduling.live_world import read_world
from sked_core.runtime.scheduling.view import View
from sked_core.runtime.stores.memory import MemoryStore
from sked_core.testing.builders import a_cluster, a_definition, a_host, a_service, a_task


@pytest.fixture
def store():
    """Two services in two clusters, tasks of a third that is no longer declared, five hosts of which one is down."""
    store = MemoryStore()
    default, other = a_cluster(services=("web", "api")), a_cluster("other", services=("web",), hosts=["h1"])
    gone = a_task("h2", cluster=default, service="gone", definition=a_definition("gone"))
    tasks = [a_task("h1", cluster=default), a_task("h1", 1, cluster=other), gone]
    hosts = [a_host(f"h{number}").host for number in range(1, 6)]
    store.commit(
        [
            *(Put(keys.cluster(one.name), encode(one)) for one in (default, other)),
            *(Put(keys.service(name), encode(a_service(name))) for name in ("web", "api")),
            Put(keys.task_definition("web", 1), encode(a_definition("web"))),
            *(Put(keys.task(one.id), encode(one)) for one in tasks),
            *(Put(keys.host(one.name), encode(one)) for one in hosts),
            *(Put(keys.live(f"h{number}"), encode(Liveness("a"))) for number in (1, 2, 3, 4)),
            Put(keys.mark("h4"), encode(Mark("draining", deadline=60.0))),
            Put(keys.service_status("gone"), encode(ServiceStatus(scheduler="default"))),
        ]
    )
    yield store
    store.close()


CONFIG = (keys.HOSTS, keys.SERVICES, keys.CLUSTERS, keys.TASK_DEFINITIONS)


def test_its_goals_are_those_of_a_scheduler(store):
    view = View(no_ports, Rejections())
    config = store.read(keys.CONFIG).entries
    below = {prefix: {key: one for key, one in config.items() if key.startswith(prefix)} for prefix in CONFIG}
    view.take_hosts(below[keys.HOSTS])
    view.take_declared(below[keys.SERVICES], below[keys.CLUSTERS])
    view.take_definitions(below[keys.TASK_DEFINITIONS], ())
    view.take_tasks(store.read(keys.TASKS).entries)
    goals = read_world(store, no_ports).world.goals()
    assert goals == {pair: goal for name in ("api", "gone", "web") for pair, goal in view.goals(name).items()}
    assert [pair for pair, goal in goals.items() if goal.cluster is None] == [("default", "gone")]


def test_a_host_that_is_down_is_lost_and_a_deadline_is_over(store):
    hosts = read_world(store, no_ports).world.hosts
    assert [name for name, view in hosts.items() if view.lost] == ["h5"]
    assert hosts["h4"].forced and hosts["h4"].mark == "draining"


def test_no_more_hosts_are_lost_than_a_scheduler_would_believe(store):
    store.commit([Delete(keys.live(name)) for name in ("h1", "h2", "h3")])
    hosts = read_world(store, no_ports).world.hosts
    assert [name for name, view in hosts.items() if view.lost] == ["h1", "h2"]
    store.commit([Delete(keys.live("h4"))])
    assert not any(view.lost for view in read_world(store, no_ports).world.hosts.values())


def test_what_cannot_be_read_and_what_nobody_works_on_has_no_goal(store):
    store.commit(
        [Put(keys.cluster("other"), b"{"), Put(keys.service("api"), b"["), Delete(keys.service_status("gone"))]
    )
    world = read_world(store, no_ports).world
    assert list(world.goals()) == [("default", "web")]
    assert set(world.faults) == {keys.cluster("other"), keys.service("api")}


def test_it_says_when_what_it_rests_on_was_written(store):
    live = read_world(store, no_ports)
    assert all(revision <= live.since for revision in live.revisions.values())
    store.commit([Put(keys.mark("h1"), encode(Mark("cordoned")))])
    later = read_world(store, no_ports)
    assert [key for key, revision in later.revisions.items() if revision > live.since] == [keys.mark("h1")]
