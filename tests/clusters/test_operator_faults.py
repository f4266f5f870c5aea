"""What operators do to a store by hand or by mistake: locks deleted, leases ended, old snapshots, data that is gone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rigs.sked import service
from sked_core.interfaces.store import Delete, Entry, Store
from sked_core.model import keys

QUIET_SECONDS = 12.0
"""Longer than an agent waits before it believes that many tasks vanished at once (10 s)."""


def test_leases_that_an_operator_ends_and_locks_that_one_deletes_are_taken_again(
    fleet: Any, cluster: Any, store: Store
) -> None:
    fleet.agent("a")
    fleet.agent("b")
    fleet.scheduler()
    before = fleet.works(2)
    for prefix, count in ((keys.LIVE, 3), (keys.SCHEDULERS, 2)):
        held = store.read(prefix).entries
        for key in held:
            cluster.end_lease(f"{fleet.prefix}/{key}")
        fleet.scale(count)
        fleet.until(f"{list(held)} announced anew", lambda prefix=prefix, held=held: renewed(store, prefix, held))
        fleet.untouched(before)
    both = {"services": ["web", "rolled"]}
    with meddler(store) as (deleted, most):
        fleet.scheduler()
        for version in range(1, 11):
            manifest = service("rolled", desired=6, version=version, cluster=both)
            fleet.until(f"applied {version}", lambda manifest=manifest: fleet.rig.apply(manifest) is None)
            fleet.until(f"rolled {version}", lambda version=version: rolled(fleet, version))
            if len(deleted) > 1:
                break
    fleet.untouched(before)
    assert len(deleted) > 1
    assert most[0] <= 2 + 8, "max: a quarter beyond six"


def rolled(fleet: Any, version: int) -> bool:
    """Whether all tasks are healthy, and those of the service ``rolled`` of this version and no other."""
    found = [task["task_definition"] for task in fleet.rig.healthy(8)()]
    return [task["version"] for task in found if task["name"] == "rolled"] == [version] * 6


def renewed(store: Store, prefix: str, held: Mapping[str, Entry]) -> bool:
    """Whether all keys that were held are there again, and are not the same ones."""
    now = store.read(prefix).entries
    return bool(held) and now.keys() == held.keys() and all(now[key].revision > held[key].revision for key in held)


@contextlib.contextmanager
def meddler(store: Store) -> Iterator[tuple[list[str], list[int]]]:
    """Deletes every lock of a service as soon as it is seen; yields those, and the most tasks that were issued then."""
    done, deleted, most = threading.Event(), list[str](), [0]

    def run() -> None:
        while not done.is_set():
            found = list(store.read(keys.SERVICE_LOCKS).entries)  # held for moments only: as often as can be
            if found:
                store.commit([Delete(key) for key in found])
                deleted.extend(found)
                most[0] = max(most[0], len(store.read(keys.TASKS).entries))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield deleted, most
    finally:
        done.set()
        thread.join(60)


def test_an_old_snapshot_freezes_those_whom_it_concerns(fleet: Any, cluster: Any, tmp_path: Path) -> None:
    fleet.agent("a")
    fleet.agent("b")
    fleet.scheduler()
    fleet.works(2)
    cluster.save(tmp_path / "snapshot")
    fleet.scale(6)
    before = fleet.rig.processes()
    cluster.restore(tmp_path / "snapshot")
    for agent in fleet.agents.values():
        fleet.until("frozen", lambda agent=agent: "the store is set back to an older state" in agent.text())
    fleet.untouched(before, QUIET_SECONDS)
    go_on(fleet, before)


def test_data_that_is_gone_freezes_everything(fleet: Any, cluster: Any) -> None:
    fleet.agent("a")
    fleet.agent("c", direct=cluster.members[0])
    scheduler = fleet.scheduler()
    before = fleet.works(6)
    cluster.wipe()
    for agent in fleet.agents.values():
        fleet.until("frozen", lambda agent=agent: "the store is empty: it came back without its data" in agent.text())
    fleet.until("the scheduler waits", lambda: "the store came back empty" in scheduler.text())
    fleet.untouched(before, QUIET_SECONDS)
    go_on(fleet, before)


def go_on(fleet: Any, before: dict[str, list[int]]) -> None:
    """Take the store as it is, in the way of docs/operations.md; nothing that ran may be touched by that."""
    for scheduler in fleet.schedulers:
        scheduler.terminate()
    for agent in fleet.agents.values():
        agent.terminate()
    fleet.agent("a", "--accept-store")
    other = next(name for name in fleet.agents if name != "a")
    fleet.agent(other, "--accept-store", direct=None if other == "b" else fleet.cluster.members[0])
    fleet.until("all tasks are known", lambda: {task["id"] for task in fleet.rig.items()} == before.keys())
    fleet.until("applied", lambda: fleet.rig.apply(service(desired=len(before))) is None)
    fleet.scheduler()
    fleet.healthy(len(before))
    fleet.untouched(before)
    fleet.scale(len(before) + 1)
    fleet.untouched(before)
