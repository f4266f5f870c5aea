"""Deliberate bugs in schedulers and in what people's commands do, for B1 to B7 and B9 to B13."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace

from sim.mutating import Mutations, Patch
from sked_core.interfaces.store import Delete, Put, Revision
from sked_core.logic import fleet, move_steps, presence, reconcile, rollout
from sked_core.model import keys
from sked_core.model.validate import _Validation
from sked_core.runtime import lock
from sked_core.runtime.scheduling import evaluation, plan_commits, service_moves

SCHEDULER = Mutations()


def _unfenced(self: Any, ops: Any, *, release: bool = False) -> Revision:
    last = [Delete(self.key)] if release else []
    return self._store.commit([*ops, *last])  # type: ignore[no-any-return]


@SCHEDULER.of("B1", "no-fence", "commits are sent without the fence of the lock")
def _no_fence(patch: Patch) -> None:
    patch.setattr(lock.Lock, "commit", _unfenced)


@SCHEDULER.of("B1", "no-lock", "a scheduler goes on although another one has the lock")
def _no_lock(patch: Patch) -> None:
    honest = lock.try_lock

    def try_lock(store: Any, keeper: Any, key: str, holder: str) -> Any:
        return honest(store, keeper, key, holder) or lock.Lock(store, keeper, key, keeper.lease())

    patch.setattr(evaluation, "try_lock", try_lock)
    patch.setattr(lock.Lock, "commit", _unfenced)


@SCHEDULER.of("B2", "trusts-for-ever", "a lease is trusted however long ago it was renewed")
def _trusts_for_ever(patch: Patch) -> None:
    patch.setattr(lock.LeaseKeeper, "_trusted", lambda self, lease: True)


def _plans_for(patch: Patch, **bounds: Any) -> None:
    """Have plans be made as if the service's bounds were others: each a function of the service."""
    honest = reconcile.reconcile

    def planned(goal: Any, *args: Any, **kwargs: Any) -> Any:
        changed = {name: bound(goal.service) for name, bound in bounds.items()}
        return honest(dataclasses.replace(goal, service=replace(goal.service, **changed)), *args, **kwargs)

    patch.setattr(evaluation, "reconcile", planned)


@SCHEDULER.of("B3", "one-below-min", "plans go one below `min`")
def _one_below_min(patch: Patch) -> None:
    _plans_for(patch, min=lambda service: max(0, service.min - 1))


@SCHEDULER.of("B3", "one-above-max", "plans go one above `max`")
def _one_above_max(patch: Patch) -> None:
    _plans_for(patch, max=lambda service: service.max + 1)


@SCHEDULER.of("B3", "moves-above-max", "tasks are moved however many `max` allows")
def _moves_above_max(patch: Patch) -> None:
    patch.setattr(move_steps, "_room", lambda steps: 1)


@SCHEDULER.of("B4", "first-port", "every task is given the first port of its host's range", also=("A14",))
def _first_port(patch: Patch) -> None:
    patch.setattr(fleet.Fleet, "pick_port", lambda self, name, task_id: self.hosts[name].host.port_range[0])


@SCHEDULER.of("B5", "one-key", "of a task's two keys only the shared one is written")
def _one_key(patch: Patch) -> None:
    honest = plan_commits.change_ops

    def torn(change: Any, raw: Any) -> Any:
        return [op for op in honest(change, raw) if not (isinstance(op, Put) and op.key.startswith(keys.HOST_TASKS))]

    patch.setattr(plan_commits, "change_ops", torn)


@SCHEDULER.of("B6", "one-id-for-two", "services are accepted whose tasks would have the ids of others")
def _one_id_for_two(patch: Patch) -> None:
    patch.setattr(_Validation, "_check_colliding_ids", lambda self: None)


@SCHEDULER.of("B7", "never-fails", "no roll-out ever fails, neither by what its tasks say nor by its deadline")
def _never_fails(patch: Patch) -> None:
    patch.setattr(rollout, "deadline", lambda *args: float("inf"))
    patch.setattr(rollout, "_flaws", lambda part: [])


@SCHEDULER.of("B7", "never-ends", "a roll-out whose tasks are all well does not end")
def _never_ends(patch: Patch) -> None:
    patch.setattr(rollout.Part, "done", lambda self: False)


@SCHEDULER.of("B9", "forgives-rejections", "hosts that reject a service are not left alone")
def _forgives_rejections(patch: Patch) -> None:
    patch.setattr(presence.Rejections, "avoided", lambda self, service, definition, now: {})


@SCHEDULER.of("B9", "never-longer", "hosts that reject a service again and again are left alone for no longer")
def _never_longer(patch: Patch) -> None:
    patch.setattr(presence, "backoff", SimpleNamespace(delay=lambda failures, key: 1.0))


@SCHEDULER.of("B10", "lost-at-once", "a host is taken for lost as soon as its agent is absent")
def _lost_at_once(patch: Patch) -> None:
    patch.setattr(presence.Absences, "_due", lambda self, host, now: host not in self.declared)


@SCHEDULER.of("B10", "counts-outages", "the time of an outage of the store counts as absence of the hosts")
def _counts_outages(patch: Patch) -> None:
    patch.setattr(presence.Absences, "reset", lambda self: None)


@SCHEDULER.of("B10", "counts-silence", "the time in which no host at all is there counts as absence of each")
def _counts_silence(patch: Patch) -> None:
    honest = presence.Absences.update

    def update(self: Any, hosts: Any, alive: Any, now: float) -> None:
        honest(self, hosts, alive or {"somebody"}, now)

    patch.setattr(presence.Absences, "update", update)


@SCHEDULER.of("B10", "any-number-lost", "any number of hosts is taken for lost at once")
def _any_number_lost(patch: Patch) -> None:
    patch.setattr(presence, "LOST_COUNT", 1000)


@SCHEDULER.of("B11", "always-writes", "a scheduler writes whenever it has looked at a service")
def _always_writes(patch: Patch) -> None:
    patch.setattr(evaluation.Evaluator, "_anything_to_do", lambda self, service, draft, *, first: True)


@SCHEDULER.of("B12", "lease-for-each", "a scheduler takes a lease for each service", also=("B13",))
def _lease_for_each(patch: Patch) -> None:
    honest = evaluation.try_lock

    def try_lock(store: Any, keeper: Any, key: str, holder: str) -> Any:
        store.grant(keeper.lease().ttl * 100)
        return honest(store, keeper, key, holder)

    patch.setattr(evaluation, "try_lock", try_lock)


@SCHEDULER.of(
    "B13", "only-the-first", "of several schedulers only the one that was started first ever works", also=("B7",)
)
def _only_the_first(patch: Patch) -> None:
    honest = evaluation.Evaluator.evaluate

    def evaluate(self: Any, service: str, now: float, *, first: bool) -> Any:
        return honest(self, service, now, first=first) if self._name == "s0" else evaluation.Outcome()

    patch.setattr(evaluation.Evaluator, "evaluate", evaluate)


@SCHEDULER.of("B13", "moves-for-ever", "moves that have ended stay in their record")
def _moves_for_ever(patch: Patch) -> None:
    patch.setattr(service_moves.ServiceMoves, "written", lambda *args: ((), ()))
