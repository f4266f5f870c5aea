"""What schedulers say of a service for people to read: one small record, also where thousands of hosts refuse."""

from __future__ import annotations

from collections.abc import Mapping

from sked_core.logic.fleet import NOT_OF_CLUSTER
from sked_core.logic.plan import WAITING_FOR, Plan
from sked_core.logic.world import Pair
from sked_core.model.types import ClusterStatus, ServiceStatus
from sked_core.runtime.scheduling.view import View

MAX_HOSTS_SHOWN = 100
MAX_REASON = 300
"""How many hosts, and how many characters of a reason, the status of a service keeps."""


def status_of(service: str, scheduler: str, plans: Mapping[Pair, Plan], view: View, now: str) -> ServiceStatus:
    """The status once ``plans`` of ``service`` are carried out; it is ``now`` (RFC 3339)."""
    clusters = {}
    before_it = view.status(service)
    decisions = before_it.decisions if before_it else 0
    goals = {service: view.goals(service) for service in {pair[1] for pair in plans}}
    for pair, plan in plans.items():
        goal = goals[pair[1]].get(pair)
        issued = sum(one.task.scheduled and not one.task.rejected for one in view.tasks_of(pair))
        former = [change.before.task for change in plan.changes if change.before is not None]  # all of them are of it
        issued -= sum(task.scheduled and not task.rejected for task in former)
        issued += sum(change.after is not None and change.after.scheduled for change in plan.changes)
        known = before_it.clusters.get(pair[0]) if before_it else None
        stuck = bool(plan.blocked) and not plan.blocked.startswith(WAITING_FOR)
        clusters[pair[0]] = ClusterStatus(
            desired=goal.service.desired if goal and goal.cluster else 0,
            issued=issued,
            waiting=plan.waiting,
            blocked=plan.blocked,
            hosts=shown(plan.refusals),
            since=((known.since if known else "") or now) if stuck else "",
        )
    decisions += any(plan.batches for plan in plans.values())
    return ServiceStatus(scheduler=scheduler, clusters=clusters, decisions=decisions)


def shown(refusals: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    """The refusals that a status keeps: hosts of the cluster first, and no more than a record should hold."""
    foreign = [host for host, reasons in refusals.items() if reasons[0].startswith(NOT_OF_CLUSTER)]
    ordered = [*(host for host in refusals if host not in set(foreign)), *foreign]
    kept = {host: [reason[:MAX_REASON] for reason in refusals[host]] for host in ordered[:MAX_HOSTS_SHOWN]}
    if len(ordered) > MAX_HOSTS_SHOWN:
        kept["..."] = [f"and {len(ordered) - MAX_HOSTS_SHOWN} more hosts"]
    return kept
