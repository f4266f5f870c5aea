"""What was known when tasks were placed, and all of `sked explain` for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from sked_core.client import reading
from sked_core.client.looking.explaining import Explained, Found, task_now
from sked_core.client.looking.foresight import with_scheduler
from sked_core.client.notices import notice
from sked_core.client.session import Session
from sked_core.errors import InvalidValue, NotFound, PluginError
from sked_core.logic.decision import asked_of
from sked_core.logic.explanation import Verdict, question_then
from sked_core.logic.explanation import explain as judge
from sked_core.model.decisions import Batch, Decision
from sked_core.model.spec import plain
from sked_core.model.types import Task
from sked_core.runtime.plugins import aside


def task_found(sked: Session, task_id: str) -> Found:
    """The task of this id where it is now, and why. Raises NotFound if its record can't be read."""
    task = next((item.value for item in reading.tasks(sked.store) if item.value.id == task_id), None)
    if task is None:
        raise NotFound(f"the record of task {task_id} can't be read")
    return task_now(sked, task)


def verdicts_then(sked: Session, service: str, decision: Decision, batch: Batch, number: int) -> Sequence[Verdict]:
    """The verdict on every host as things stood before task ``number`` of the batch was placed; none where the figures
    of hosts were not kept or can't be read."""
    if batch.seen is None:
        return ()
    try:
        return with_scheduler(
            sked,
            decision.scheduler,
            lambda scheduler, called: judge(question_then(batch, service, scheduler, called, number)),
            aside.PATIENCE_SECONDS,
        )
    except (InvalidValue, PluginError) as error:
        notice(f"sked: the record of decision {decision.number} can't be used: {plain(str(error))}")
        return ()


def verdicts_before(sked: Session, found: Found) -> Sequence[Verdict]:
    """The verdict on every host as things stood before the task was placed; none where that is not kept."""
    if found.decision is None or found.batch is None:
        return ()
    return verdicts_then(sked, found.task.service, found.decision, found.batch, found.number)


def explained_json(one: Explained) -> dict[str, Any]:
    """What is to be said of a service in one cluster, for programs."""
    service = one.goal.service
    return {
        "service": service.name,
        "cluster": one.cluster,
        "scheduler": service.scheduler,
        "task_name": service.task_name,
        "task_version": service.task_version,
        "desired": service.desired,
        "placed": one.placed,
        "waiting": one.waiting,
        "blocked": one.status.blocked,
        "note": one.note,
        "asked": asked_of(one.demand, max(1, one.waiting)) if one.demand else None,
        "hosts": [verdict_json(verdict) for verdict in one.verdicts],
        "nearest": one.nearest,
        "less": one.less,
        "tasks": [
            {
                "id": task.task.id,
                "host": task.task.host,
                "healthy": task.healthy,
                "rejected": task.task.rejected,
                "failure": task.failure,
                "decision": task.decision.number if task.decision else None,
                "terms": task.terms,
            }
            for task in one.tasks
        ],
    }


def task_json(found: Found, then: Sequence[Verdict]) -> dict[str, Any]:
    """A task where it is now, and why; ``then``: see ``verdicts_before``."""
    task: Task = found.task
    return {
        "id": task.id,
        "host": task.host,
        "healthy": found.healthy,
        "rejected": task.rejected,
        "reject_reason": task.reject_reason,
        "scheduled": task.scheduled,
        "failure": found.failure,
        "decision": found.decision.number if found.decision else None,
        "at": found.decision.at if found.decision else "",
        "by": found.decision.by if found.decision else "",
        "terms": found.terms,
        "hosts": [verdict_json(one) for one in then],
    }


def decision_json(decision: Decision, then: Sequence[Sequence[Verdict]]) -> dict[str, Any]:
    """A decision as it is stored; ``then``: the verdicts on hosts before each of its batches."""
    found: dict[str, Any] = msgspec.to_builtins(decision)
    return found | {"hosts": [[verdict_json(one) for one in verdicts] for verdicts in then]}


def verdict_json(one: Verdict) -> dict[str, Any]:
    """What is to be said of one host."""
    return {
        "host": one.host,
        "fits": not one.reasons,
        "place": one.place,
        "terms": one.terms,
        "tasks": one.tasks,
        "reasons": one.reasons,
        "ways": [{"text": str(way), "steps": way.steps} for way in one.ways],
    }
