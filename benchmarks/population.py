"""Hosts, services and tasks in a store, as agents, users and schedulers would have written them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence

from sked_core.clock import SystemClock
from sked_core.interfaces.store import Op, Put, Store
from sked_core.model import codec, keys
from sked_core.model.types import Check, Cluster, Container, Host, Liveness, Service, TaskDefinition
from sked_core.runtime.lock import LeaseKeeper
from sked_core.runtime.state import batches, store_uid

SERVICES_A_CLUSTER = 20
"""Every task carries its whole cluster, so the length of that list counts in what is written."""


def service_name(number: int) -> str:
    return f"service-{number:04}"


def cluster_name(number: int) -> str:
    return f"cluster-{number // SERVICES_A_CLUSTER:03}"


def a_definition(number: int) -> TaskDefinition:
    """As in the documentation: one Docker container that serves HTTP on a provided port, and is checked."""
    container = Container(
        name="web",
        type="docker",
        executor={"image": "registry.example/web:1.2.3", "container_port": 80, "env": ["MODE=production"]},
        checks=[Check(http="http://127.0.0.1:$PROVIDED_PORT", interval="10s")],
        memory=64,
        cpu_units=50,
    )
    name = service_name(number)
    return TaskDefinition(name=name, version=1, provide_port=True, tags=[f"urlprefix-/{name}"], containers=[container])


def a_service(number: int, desired: int) -> Service:
    name = service_name(number)
    most = desired + max(1, -(-desired // 4))
    return Service(name=name, task_name=name, task_version=1, desired=desired, min=desired, max=most, auto_bounds=True)


def a_cluster(number: int, services: int) -> Cluster:
    """The cluster of service ``number`` where there are so many ``services``."""
    first = number // SERVICES_A_CLUSTER * SERVICES_A_CLUSTER
    members = [service_name(member) for member in range(first, min(first + SERVICES_A_CLUSTER, services))]
    return Cluster(name=cluster_name(number), services=members)


def a_host(number: int) -> Host:
    """With room for more than a thousand of the tasks above."""
    return Host(
        name=f"host-{number:03}",
        address=f"10.0.0.{number}",
        memory=256 * 1024,
        cpu_units=128 * 1024,
        disk=4_000_000,
        executors=["bash", "docker"],
    )


def write(store: Store, ops: Iterable[Op]) -> None:
    """All of it, in as few commits as the store allows."""
    for batch in batches([[op] for op in ops], max_ops=store.max_ops):
        store.commit(batch)


def declare(store: Store, *, services: int, desired: int) -> None:
    """The store's name, and services with ``desired`` tasks each, in clusters."""
    store_uid(store, create=True)
    numbers = range(services)
    write(store, [Put(keys.task_definition(service_name(n), 1), codec.encode(a_definition(n))) for n in numbers])
    write(store, [Put(keys.service(service_name(n)), codec.encode(a_service(n, desired))) for n in numbers])
    firsts = range(0, services, SERVICES_A_CLUSTER)
    write(store, [Put(keys.cluster(cluster_name(n)), codec.encode(a_cluster(n, services))) for n in firsts])


@contextlib.contextmanager
def living_hosts(store: Store, names: Sequence[int]) -> Iterator[None]:
    """Hosts whose agents are alive, as far as anybody can tell, while the block runs."""
    keeper, stop = LeaseKeeper(store, SystemClock()), threading.Event()
    renewer = keeper.serve(stop)
    lease = keeper.lease()
    write(store, [Put(keys.host(a_host(n).name), codec.encode(a_host(n))) for n in names])
    write(store, [Put(keys.live(a_host(n).name), codec.encode(Liveness(f"agent-{n}")), lease) for n in names])
    try:
        yield
    finally:
        stop.set()
        renewer.join(30)
