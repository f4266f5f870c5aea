"""Waiting for what was applied to become true."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sked_core.model import keys
from sked_core.model.manifest import Manifest
from sked_core.model.types import Service, ServiceStatus
from sked_core.surface import errors, reading
from sked_core.surface.commands.listing import healthy_ids, why
from sked_core.surface.options import Session
from sked_core.surface.render import note

LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Progress:
    """One service in one cluster. ``why``: what the scheduler says of tasks that it could not place."""

    name: str
    desired: int
    healthy: int
    stale: int
    why: str

    @property
    def done(self) -> bool:
        return self.healthy == self.desired and not self.stale

    def __str__(self) -> str:
        stale = f", {self.stale} still to be stopped" if self.stale else ""
        return f"{self.name}: {self.healthy} of {self.desired} healthy{stale}"


def wait_until_healthy(sked: Session, manifest: Manifest, *, timeout: float, again: str) -> None:
    """Return once all tasks of the manifest's services are healthy and none is left that should not be.

    Raises Ended with code 9 after ``timeout`` seconds, with 8 if some tasks could not be placed, and with 130 on
    Ctrl-C; ``again`` is how to attach again. What was applied goes on in any case.
    """
    names = {service.name for service in manifest.services}
    names |= {name for cluster in manifest.clusters for name in cluster.services}
    deadline = time.monotonic() + timeout
    shown: list[str] = []
    try:
        while True:
            progress = _look(sked, names)
            lines = [str(one) for one in progress if not one.done]
            for line in lines:
                if line not in shown:
                    note(line)
            shown = lines
            if not lines:
                note("all tasks are healthy")
                return
            if time.monotonic() >= deadline:
                raise _timed_out(progress, timeout, again)
            time.sleep(min(LOOK_SECONDS, max(0.0, deadline - time.monotonic())))
    except KeyboardInterrupt:
        raise errors.Ended(
            "interrupted; what was applied goes on", code=errors.INTERRUPTED, hint=f"attach again:  {again}"
        ) from None


def _timed_out(progress: list[Progress], timeout: float, again: str) -> errors.Ended:
    late = [one for one in progress if not one.done]
    unplaced = [one for one in late if one.why]
    reasons = [f"{one.name}: {one.why}" for one in unplaced]
    return errors.Ended(
        f"not healthy after {timeout:g} s: " + "; ".join(str(one) for one in late),
        code=errors.UNPLACED if unplaced else errors.TIMED_OUT,
        hint="\n".join([*reasons, "what was applied goes on", f"attach again:  {again}"]),
    )


def _look(sked: Session, names: set[str]) -> list[Progress]:
    services = {item.value.name: item.value for item in reading.services(sked.store) if item.value.name in names}
    statuses = reading.by_name(sked.store, keys.SERVICE_STATUS, ServiceStatus)
    tasks = [item.value for item in reading.tasks(sked.store) if item.value.service in services]
    healthy = healthy_ids(sked, tasks)
    progress = []
    for cluster in (item.value for item in reading.clusters(sked.store)):
        for service in (services[name] for name in cluster.services if name in services):
            own = [task for task in tasks if (task.cluster.name, task.service) == (cluster.name, service.name)]
            current = [
                task for task in own if _version(service) == (task.task_definition.name, task.task_definition.version)
            ]
            current = [task for task in current if task.scheduled and not task.rejected]
            status = statuses[service.name].clusters.get(cluster.name) if service.name in statuses else None
            progress.append(
                Progress(
                    name=f"{cluster.name}/{service.name}",
                    desired=service.desired,
                    healthy=sum(task.id in healthy for task in current),
                    stale=len(own) - len(current),
                    why=why(status) if status and (status.waiting or status.blocked) else "",
                )
            )
    return progress


def _version(service: Service) -> tuple[str, int]:
    return service.task_name, service.task_version
