"""What becomes of a roll-out: how far it may go now, and when it has succeeded or failed. Pure.

The steps themselves are ``reconcile``'s: it issues and withdraws within ``min`` and ``max``, and waits for health. Here
is decided whether it may: a roll-out is held while canaries wait, or while it is paused or has failed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from sked_core.logic.lifecycle import GAVE_UP, UNHEALTHY_AGAIN
from sked_core.logic.plan import WAITING_FOR, Goal, Issued
from sked_core.model.duration import to_seconds
from sked_core.model.types import Failure, Rollout, Task, TaskDefinition, TaskId, UpdatePolicy

FAILED_STARTS = 3
"""A task of the new version that failed so often in a row makes the roll-out fail."""
WITHOUT_CHECKS_SECONDS = 5.0
"""How long a task without checks has to run before it counts as healthy: nothing else speaks for it."""
MAX_LOG_LINES = 20


@dataclass(frozen=True, slots=True)
class Part:
    """One cluster's share of a roll-out. ``steady``: tasks that have been healthy for long enough; ``failures``: of
    tasks that don't run well."""

    goal: Goal
    issued: Sequence[Issued]
    steady: Collection[TaskId] = ()
    failures: Mapping[TaskId, Failure] = field(default_factory=dict)
    refused: str = ""
    """Why every host rejects tasks of the new version, if so."""

    def new(self) -> list[Task]:
        """The tasks of the new version that are to run."""
        return [one.task for one in self.issued if one.task.scheduled and self.goal.wants(one.task)]

    def progress(self) -> int:
        """How many tasks of the new version are steady."""
        return sum(task.id in self.steady for task in self.new())

    def done(self) -> bool:
        """Whether all that runs is of the new version, and healthy."""
        new = self.new()
        return len(new) == len(self.issued) == self.goal.service.desired == self.progress()

    def canaries(self, policy: UpdatePolicy) -> int:
        """How many canaries there are to be."""
        return min(policy.canaries, self.goal.service.desired)


def healthy_for(policy: UpdatePolicy, definition: TaskDefinition) -> float:
    """Seconds for which a task of ``definition`` has to be healthy before it is relied on."""
    if policy.healthy_for != "":
        return to_seconds(policy.healthy_for)
    return 0.0 if any(container.checks for container in definition.containers) else WITHOUT_CHECKS_SECONDS


def canary_stage(rollout: Rollout, policy: UpdatePolicy) -> bool:
    """Whether only canaries may run of the new version. Going back knows no canaries."""
    return rollout.kind == "update" and not rollout.promoted and policy.canaries > 0


def canaries_well(rollout: Rollout, policy: UpdatePolicy, parts: Sequence[Part]) -> bool:
    """Whether the canaries are all there and steady: what a promotion waits for."""
    return canary_stage(rollout, policy) and all(part.progress() >= part.canaries(policy) for part in parts)


def deadline(rollout: Rollout, policy: UpdatePolicy, parts: Sequence[Part]) -> float:
    """Seconds without progress after which something changes: promotion or failure; infinite where nothing does."""
    if rollout.state != "running":
        return float("inf")
    if canaries_well(rollout, policy, parts):
        return to_seconds(policy.promote_after) if policy.promote_after != "" else float("inf")
    return to_seconds(policy.progress_deadline)


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a roll-out has come. ``stage``: which one, and its state; ``well``: whether its canaries are; ``steady``:
    new tasks, with their hosts, that are or were steady at this stage; ``left``: the fewest others that were left."""

    stage: tuple[int, str, bool]
    well: bool
    steady: frozenset[tuple[TaskId, str]]
    left: int

    def beyond(self, before: Reached) -> bool:
        """Whether it is further than ``before``. A task that only became steady again is no progress."""
        return self.stage != before.stage or self.left < before.left or not self.steady <= before.steady

    def since(self, before: Reached) -> Reached:
        """The same with what had been reached ``before``."""
        if self.stage != before.stage:
            return self
        return Reached(self.stage, self.well, self.steady | before.steady, min(self.left, before.left))


def reached(rollout: Rollout, policy: UpdatePolicy, parts: Sequence[Part]) -> Reached:
    """How far ``rollout`` is now."""
    return Reached(
        (rollout.number, rollout.state, rollout.promoted),
        canaries_well(rollout, policy, parts),
        frozenset((task.id, task.host) for part in parts for task in part.new() if task.id in part.steady),
        sum(len(part.issued) - len(part.new()) for part in parts),
    )


def judge(rollout: Rollout, policy: UpdatePolicy, parts: Sequence[Part], waited: float, blocked: str = "") -> Rollout:
    """The roll-out as it should stand now, ``rollout`` itself if nothing is different.

    ``parts``: one for each cluster; ``waited``: seconds without progress (see ``Reached``); ``blocked``: why the last
    plan went no further. ``result`` is set where it has succeeded; ``state`` and ``reason`` where it has failed.
    """
    progress = {part.goal.cluster.name: part.progress() for part in parts if part.goal.cluster is not None}
    if progress != rollout.progress:
        rollout = replace(rollout, progress=progress)
    if not parts:
        return replace(rollout, result="withdrawn")
    if rollout.state == "paused":
        return rollout
    if all(part.done() for part in parts):
        return replace(rollout, result="succeeded", state="running", reason="")
    if rollout.state == "failed":
        return rollout
    flaw = next((flaw for part in parts for flaw in _flaws(part)), "")
    if flaw:
        return replace(rollout, state="failed", reason=flaw)
    if waited < deadline(rollout, policy, parts):
        return rollout
    if canaries_well(rollout, policy, parts):
        return replace(rollout, promoted=True)
    stuck = f": {blocked or _stopping(parts)}".removesuffix(": ")
    return replace(rollout, state="failed", reason=f"no progress for {to_seconds(policy.progress_deadline):g} s{stuck}")


def tries_anew(rollout: Rollout, former: Rollout | None) -> bool:
    """Whether somebody has begun it, or has it go on after it had failed, since what is recorded was ``former``."""
    if former is None or former.number != rollout.number:
        return True
    return former.state == "failed" and rollout.state != "failed"


def _stopping(parts: Sequence[Part]) -> str:
    """What is left to be waited for where all that is new is well."""
    left = (one.task for part in parts for one in part.issued if not one.task.scheduled)
    return next((f"{WAITING_FOR} {task.id} to be stopped on {task.host}" for task in left), "")


def _flaws(part: Part) -> list[str]:
    """Why the new version itself can't be relied on, task by task."""
    found = []
    for task in part.new():
        failure = part.failures.get(task.id)
        if failure is not None and (failure.unhealthy or failure.attempts >= FAILED_STARTS):
            found.append(told(task.id, failure))
        elif task.rejected and task.reject_reason.startswith((GAVE_UP, UNHEALTHY_AGAIN)):
            known = failure or Failure(host=task.host)
            found.append(told(task.id, replace(known, reason=task.reject_reason, attempts=1)))  # it says how many
    if part.refused and not found:
        found.append(f"every host rejects it: {part.refused}")
    return found


def told(task_id: str, failure: Failure) -> str:
    """A failure in some lines: what happened, what its check said, and the last lines of its log."""
    tries = f" ({failure.attempts} starts)" if failure.attempts > 1 else ""
    lines = [f"{task_id} on {failure.host}: {failure.reason}{tries}"]
    if failure.output and failure.output not in failure.reason:
        lines.append(f"check: {failure.output}")
    return "\n".join([*lines, *(f"| {line}" for line in failure.log[-MAX_LOG_LINES:])])


def former_definition(rollout: Rollout, parts: Sequence[Part], known: TaskDefinition | None) -> TaskDefinition | None:
    """What keeps the count up while the roll-out is held: ``known``, the definition that it comes from, or else the one
    that most of the other tasks have; None where there are none."""
    if known is not None:
        return known
    others = [one.task.task_definition for part in parts for one in part.issued if not part.goal.wants(one.task)]
    counts = Counter((definition.name, definition.version) for definition in others)
    if not counts:
        return None
    name_and_version = max(counts, key=lambda key: (counts[key], key))
    return next(one for one in others if (one.name, one.version) == name_and_version)


def why_held(service: str, rollout: Rollout, policy: UpdatePolicy, parts: Sequence[Part]) -> str:
    """Why the roll-out goes no further for now, with what to type; empty if it may go on."""
    if rollout.state == "paused":
        return f"roll-out {rollout.number} is paused: sked rollout resume {service}"
    if rollout.state == "failed":
        first = rollout.reason.partition("\n")[0]
        return f"roll-out {rollout.number} failed: {first}: sked rollout undo {service}, or resume {service}"
    if canaries_well(rollout, policy, parts):
        after = f", or after {to_seconds(policy.promote_after):g} s" if policy.promote_after != "" else ""
        return f"the canaries are healthy, the rest waits: sked rollout promote {service}{after}"
    return f"{WAITING_FOR} the canaries to become healthy" if canary_stage(rollout, policy) else ""
