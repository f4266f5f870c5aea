"""What has to be so in the end, once faults have ended and time has passed: desired = issued = actual (B13)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sked_core.model import keys
from sked_core.model.types import TaskId
from sked_core.testing.sim.engine import STRANGER

if TYPE_CHECKING:
    from sked_core.testing.sim.users import Users
    from sked_core.testing.sim.world import World


def unsettled(world: World, users: Users) -> list[tuple[str, str]]:
    """What is not as it should be, each with the invariant that it would break if it stayed so."""
    found = [*_issued(world, users), *_actual(world)]
    for name in sorted(users.wishes):
        active = world.judge.mirror.rollout(name)
        if active is not None:
            state = f"{active.state}, waited {active.waited:g} s: {active.reason}"
            found.append(("B7", f"roll-out {active.number} of {name} has not ended ({state})"))
        if keys.moves(name) in world.judge.mirror.values:
            found.append(("B13", f"moves of {name} are left: {world.judge.mirror.values[keys.moves(name)].decode()}"))
    return found


def _issued(world: World, users: Users) -> list[tuple[str, str]]:
    mirror = world.judge.mirror
    found: list[tuple[str, str]] = []
    for cluster in mirror.clusters():
        for name in cluster.services:
            service = mirror.service(name)
            if service is None:
                continue
            tasks = mirror.tasks_of((cluster.name, name))
            good = [
                task
                for task in tasks
                if task.scheduled and not task.rejected and task.task_definition.version == service.task_version
            ]
            if len(good) != service.desired or len(tasks) != len(good):
                states = ", ".join(f"{task.id} on {task.host}{_state(task)}" for task in tasks)
                found.append(("B13", f"{name} is to have {service.desired} tasks, there are: {states or 'none'}"))
    declared = {(cluster.name, name) for cluster in mirror.clusters() for name in cluster.services}
    for task_id in sorted(mirror.shared):
        task = mirror.task(task_id)
        if task is None:
            found.append(("A9", f"{task_id} can't be read"))
        elif (task.cluster.name, task.service) not in declared:
            found.append(("B13", f"{task_id} is left of a service that nobody declares"))
        if not mirror.is_consistent(task_id):
            found.append(("B5", f"the two keys of {task_id} differ"))
    for host, records in sorted(mirror.own.items()):
        found += [("B5", f"{host} has {one}, which {keys.TASKS} lacks") for one in records if one not in mirror.shared]
    return found


def _state(task: object) -> str:
    scheduled, rejected = getattr(task, "scheduled", True), getattr(task, "rejected", False)
    reason = getattr(task, "reject_reason", "")
    return f" (rejected: {reason})" if rejected else "" if scheduled else " (withdrawn)"


def _actual(world: World) -> list[tuple[str, str]]:
    """Each host runs exactly what is issued to it, healthy, and registered."""
    mirror, found = world.judge.mirror, []
    for host in world.hosts.values():
        wanted = {task_id for task_id in mirror.own.get(host.name, ()) if _runs(world, host.name, task_id)}
        there: dict[str, int] = {}
        for one in host.engine.containers.values():
            if one.owner[1] != STRANGER:
                there[one.handle.task_id] = there.get(one.handle.task_id, 0) + one.running
                owner = mirror.task(one.handle.task_id)
                moved = owner is not None and owner.host not in ("", host.name)
                if moved or one.handle.task_id not in wanted:
                    what = f"{host.name} has {one.handle.task_id}, which is not issued to it"
                    found.append(("A13" if moved else "A6", what))
        for task_id in sorted(wanted):
            task = mirror.task(task_id)
            size = len(task.task_definition.containers) if task is not None else 1
            if there.get(task_id, 0) != size:
                found.append(("B13", f"{task_id} is issued to {host.name} and does not run there"))
            elif not world.registry.is_healthy(host.name, TaskId(task_id)):
                found.append(("B13", f"{task_id} on {host.name} is not healthy"))
        registered = set(world.registry.tasks.get(host.name, ()))
        if registered != wanted:
            found.append(("B13", f"{host.name} has registered {sorted(registered)}, and not {sorted(wanted)}"))
    return found


def _runs(world: World, host: str, task_id: str) -> bool:
    record = world.judge.hosts.record_of(host, task_id)
    return record is not None and record.scheduled and not record.rejected


def leases(world: World) -> list[tuple[str, str]]:
    """B12: no more leases than processes."""
    count, living = len(world.store.data.expiry), len(world.living)
    owners = sorted(world.store.data.owners[lease] for lease in world.store.data.expiry)
    return [("B12", f"{count} leases of {living} processes: {', '.join(owners)}")] if count > living else []
