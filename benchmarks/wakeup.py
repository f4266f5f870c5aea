"""How long it takes from a change in the store until whoever waits for it is awake.

python benchmarks/wakeup.py [embedded|consul|etcd ...] [--changes N]

A writer changes a key every 20 to 60 ms (at random), and processes that wait for it note when they are woken: one in
Sked's ``Store.wait``, beside it one with the engine's own watch. They take turns: each watches a prefix of its own,
which changes every other time. Time counts from before the commit is sent, so it holds the commit itself; how long that
takes is printed as well.

Then the whole: a service's record is written by a plain put, a scheduler wakes, takes the lock and commits, and the new
task wakes the agent of its host.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import time

from bed import until
from engines import NAMES, Engine, fresh, store_of
from figures import Figure, milliseconds
from population import a_host, a_service, declare, living_hosts, service_name
from scheduling import schedulers, settle
from watching import Waiter, raw_ways

from sked_core.interfaces.store import Put, Store
from sked_core.model import codec, keys

SHORTEST_PAUSE, LONGEST_PAUSE = 0.020, 0.060


def pause() -> None:
    time.sleep(random.uniform(SHORTEST_PAUSE, LONGEST_PAUSE))


def shown(figure: Figure) -> str:
    return f"  {figure.name}: p50 {milliseconds(figure.median)}, p99 {milliseconds(figure.percentile(99))}"


def compared(ours: Figure, peer: Figure) -> str:
    median, tail = ours.median / peer.median, ours.percentile(99) / peer.percentile(99)
    return f"  {ours.name} takes {median:.2f} times as long as the {peer.name} at p50, {tail:.2f} times at p99"


def wait_alone(engine: Engine, store: Store, changes: int) -> None:
    """Sked's wait and the engine's watches."""
    ways = ("store", *raw_ways(engine.name))
    prefixes = {way: f"bench/{number}/" for number, way in enumerate(ways)}
    for prefix in prefixes.values():
        store.commit([Put(f"{prefix}key", b"0")])  # a prefix that holds nothing is another case
    begun: dict[str, list[float]] = {way: [] for way in ways}
    took: list[float] = []
    with contextlib.ExitStack() as stack:
        waiters = {way: stack.enter_context(Waiter(engine, prefixes[way], way)) for way in ways}
        for number in range(changes):
            for way in ways:
                pause()
                begun[way].append(time.monotonic())
                store.commit([Put(f"{prefixes[way]}key", str(number).encode())])
                took.append(time.monotonic() - begun[way][-1])
        pause()
        for way, waiter in waiters.items():
            waiter.stop()
            store.commit([Put(f"{prefixes[way]}key", b"end")])
    figures = {way: Figure(way, waiter.delays(begun[way])) for way, waiter in waiters.items()}
    ours = Figure("Store.wait", figures.pop("store").samples)
    for figure in (Figure("the commit alone", took), ours, *figures.values()):
        print(shown(figure))
    for peer in figures.values():
        print(compared(ours, peer))


def whole(engine: Engine, store: Store, changes: int) -> None:
    """From a service's record to its task, and to the agent's waking."""
    declare(store, services=changes, desired=0)
    ways = ("store", raw_ways(engine.name)[0])
    prefix = keys.host_tasks(a_host(0).name)
    begun: list[float] = []
    with living_hosts(store, (0,)), schedulers(engine, 1):
        store.commit([Put(keys.host_task(a_host(0).name, "stands-here-0"), b"{}")])
        settle(engine, store, changes, 1)
        with contextlib.ExitStack() as stack:
            waiters = [stack.enter_context(Waiter(engine, prefix, way)) for way in ways]
            for number in range(changes):
                task = f"{prefix}cluster-{number // 20:03}-{service_name(number)}-1-0"
                pause()
                begun.append(time.monotonic())
                store.commit([Put(keys.service(service_name(number)), codec.encode(a_service(number, 1)))])
                until("the task", lambda task=task: store.read(task).entries)
            pause()
            for waiter in waiters:
                waiter.stop()
            store.commit([Put(keys.host_task(a_host(0).name, "stands-here-0"), b"{} ")])
    stands, wakes = (waiter.delays(begun) for waiter in reversed(waiters))
    print(shown(Figure("put of a service to its task under state/hosts (seen by the engine's watch)", stands)))
    print(shown(Figure("put of a service to the wake-up of its host's agent (Store.wait)", wakes)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help=f"{', '.join(NAMES)}; default: all")
    parser.add_argument("--changes", type=int, default=500)
    told = parser.parse_args()
    if unknown := set(told.engines) - set(NAMES):
        parser.error(f"no such engine: {', '.join(unknown)}")
    for name in told.engines or NAMES:
        print(f"{name}, {told.changes} changes each")
        with fresh(name) as engine, store_of(engine) as store:
            wait_alone(engine, store, told.changes)
        with fresh(name) as engine, store_of(engine) as store:
            whole(engine, store, told.changes)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
