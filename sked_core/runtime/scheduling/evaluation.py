"""One service at a time: what has to change, and the commits that bring it about under the service's lock.

Several threads may evaluate different services at once, and share one picture of everything. They take turns: the
monitor is held by whoever runs, and given up just for the time of a call to the store. So nothing that is shared
changes under one's hands but where the store is asked, and what a plan takes is reserved before the next one is made.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from sked_core.errors import Conflict, SkedError, Unavailable
from sked_core.interfaces.health import HealthProvider
from sked_core.interfaces.store import Check, Delete, Op, Revision
from sked_core.logic import backoff
from sked_core.logic.plan import Change, Goal, Plan
from sked_core.logic.presence import Rejections
from sked_core.logic.reconcile import reconcile
from sked_core.logic.recording import Keep
from sked_core.logic.rollout import FAILED_STARTS, Part
from sked_core.logic.settled import asks_for_health, settled
from sked_core.logic.world import Pair
from sked_core.model import keys
from sked_core.model.decisions import Decision
from sked_core.model.types import Health, Task, TaskId, UpdatePolicy
from sked_core.runtime.about import about
from sked_core.runtime.journal import Journal
from sked_core.runtime.lock import LeaseKeeper, Lock, try_lock
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.scheduling.announced import NOTE
from sked_core.runtime.scheduling.asked_schedulers import AskedSchedulers
from sked_core.runtime.scheduling.feed import SchedulerFeed
from sked_core.runtime.scheduling.known_health import HEALTH_AGE_SECONDS, KnownHealth
from sked_core.runtime.scheduling.plan_commits import commits_of, decision_of, signed
from sked_core.runtime.scheduling.rollout_moves import Move, RolloutMoves
from sked_core.runtime.scheduling.service_moves import ServiceMoves
from sked_core.runtime.scheduling.service_status import status_of
from sked_core.runtime.scheduling.view import View
from sked_core.runtime.stores.yielding_store import YieldingStore

log = logging.getLogger("sked.scheduler")
RETRY_SECONDS = 1.0
"""When to look again after another scheduler held a lock, or health was not known."""
SHORTEST_SECONDS = 0.05
"""When to look again at the earliest where time alone brings something to do."""
SOON_SECONDS = 0.2
"""When to look again after a conflict, and how often at most a service that waits for room or health is looked at."""
MAX_HOSTS_SHADOWED = 20_000
"""Of how many hosts the figures are taken down where another scheduler is to be asked as well: 10 ms a thousand."""
MAX_PATIENCE_SECONDS = 60.0
"""When to look again at the latest at what no plan could be made for, because its scheduler failed."""
CHANGES_LOGGED = 20
"""How many of the changes to one service the log names."""
LATE_SECONDS = (0.0, 10.0, 30.0)
"""How long after a commit whose answer was lost it is made sure that its lock is not left held: the store may carry out
late what it was asked for."""
ATTEMPTS = 3
"""How often a commit that was refused is planned anew before the lock is given back."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """``again``: seconds after which to look again even if nothing changes, None for never. ``open``: whether the
    service waits for room or health."""

    again: float | None = None
    open: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be done about one service: a plan for each pair, and what becomes of its roll-out. ``again``: seconds
    after which there may be more to do though nothing has changed; ``patience``: where it goes no further."""

    plans: Mapping[Pair, Plan]
    move: Move = field(default_factory=Move)
    rolling: bool = False
    again: float = float("inf")
    patience: float = HEALTH_AGE_SECONDS

    @property
    def changes(self) -> list[Change]:
        return [change for plan in self.plans.values() for change in plan.changes]

    def issued(self) -> list[Task]:
        """The tasks that are issued with it."""
        return [change.after for change in self.changes if change.after is not None and change.after.scheduled]

    def outcome(self) -> Outcome:
        plans = self.plans.values()
        blocked, waiting = any(plan.blocked for plan in plans), any(plan.waiting for plan in plans)
        again = min(self.again, self.patience if blocked or self.rolling else float("inf"))
        return Outcome(None if again == float("inf") else max(again, SHORTEST_SECONDS), open=blocked or waiting)


class Evaluator:
    """Evaluates services for the scheduler process ``name``. Every method is called with the monitor held."""

    def __init__(
        self,
        *,
        store: YieldingStore,
        plugins: Plugins,
        health: HealthProvider,
        keeper: LeaseKeeper,
        view: View,
        feed: SchedulerFeed,
        rejections: Rejections,
        moves: RolloutMoves,
        service_moves: ServiceMoves,
        journal: Journal,
        name: str,
        shadow: Callable[[str, Decision], None] | None = None,
        sign: Callable[[Task], Task] | None = None,
    ) -> None:
        """``shadow`` is told of every decision about a service once it is carried out, and returns at once. ``sign``:
        what a task goes through before it is issued."""
        self._sign = sign
        self._store, self._plugins, self._keeper = store, plugins, keeper
        self._view, self._feed, self._rejections, self._name = view, feed, rejections, name
        self._moves, self._service_moves, self._journal, self._shadow = moves, service_moves, journal, shadow
        self.health = KnownHealth(health, store)
        self._schedulers = AskedSchedulers(plugins, view.renew_fleet)
        self._unplanned: dict[str, tuple[int, str]] = {}
        """Services that no plan could be made for, how often in a row, and why."""
        self._unsure: dict[str, list[float]] = {}
        """Services whose lock this process may hold without knowing, since the answer to a commit was lost; and when to
        look (monotonic seconds)."""

    def forget_times(self) -> None:
        """The store did not answer for a while: nothing can be said of what lasted how long."""
        self.health.forget_times()
        self._moves.forget_times()
        self._service_moves.forget_times()

    def scheduler_of(self, service: str) -> str:
        """The scheduler that the service is placed by; empty for a service that nobody has declared."""
        declared, status = self._view.service(service), self._view.status(service)
        return declared.scheduler if declared else status.scheduler if status else ""

    def evaluate(self, service: str, now: float, *, first: bool) -> Outcome:
        """Plan for one service; if there is anything to do, carry it out under its lock.

        ``first``: whether this process is first in line for it. The others only finish what it has left undone.
        Raises Unavailable, LeaseLost.
        """
        with about(service=service):
            try:
                return self._evaluate(service, now, first=first)
            except Exception as error:
                error.add_note(f"{NOTE}{service}")
                raise

    def _evaluate(self, service: str, now: float, *, first: bool) -> Outcome:
        if keys.service(service) in self._view.services.faults:
            return Outcome()
        if self._feed.outgrown(service):
            self._feed.read_tasks(service)
        draft = self._draft(service, now, first=first)
        if draft is not None and not draft.plans and not draft.move.ops:
            return self._forget_status(service) if first else Outcome()
        if draft is None or not self._anything_to_do(service, draft, first=first):
            return draft.outcome() if draft else Outcome(RETRY_SECONDS)
        lock: Lock | None = None
        try:
            for _ in range(ATTEMPTS):
                with self._view.held(draft.issued()):
                    lock = lock or try_lock(self._store, self._keeper, keys.service_lock(service), self._name)
                    if lock is None:
                        return Outcome(RETRY_SECONDS)
                    try:
                        self._carry_out(lock, service, draft)
                        return draft.outcome()
                    except Conflict as error:
                        log.debug("%s: %s; looking again", service, error)
                self._feed.read_again(service, now)
                draft = self._draft(service, now, first=first)
                if draft is None:
                    break
            if lock is not None:
                lock.release()
        except BaseException:
            self._unsure[service] = [now + late for late in LATE_SECONDS]
            raise
        return Outcome(SOON_SECONDS)

    def give_back(self, now: float) -> None:
        """Give back locks that this process may hold without knowing it. Raises Unavailable."""
        for service, looks in list(self._unsure.items()):
            if now >= looks[0]:
                Lock(self._store, self._keeper, keys.service_lock(service), self._keeper.lease()).release()
                looks.pop(0)
                if not looks and self._unsure.get(service) is looks:
                    del self._unsure[service]

    def _anything_to_do(self, service: str, draft: Draft, *, first: bool) -> bool:
        status = status_of(service, self.scheduler_of(service), draft.plans, self._view, self._journal.now())
        changing = bool(draft.changes or draft.move.ops)
        if not first:
            return changing  # what is said of it is left to whoever is first in line, and knows why hosts refused
        if not changing and status != self._view.status(service):
            self._feed.read_status(service)  # nobody watches these: another one may have said so
            status = status_of(service, self.scheduler_of(service), draft.plans, self._view, self._journal.now())
        return changing or status != self._view.status(service)

    def _carry_out(self, lock: Lock, service: str, draft: Draft) -> None:
        """Commit what ``draft`` says and give the lock back. Raises Conflict if it was made on what is not true any
        more: what has been committed by then stands, and the lock is kept."""
        if self._sign is not None:
            draft = replace(draft, plans={pair: signed(plan, self._sign) for pair, plan in draft.plans.items()})
        scheduler = self.scheduler_of(service)
        decision = decision_of(service, scheduler, draft.plans, self._view, self._journal)
        commits = list(
            commits_of(
                service,
                draft.plans,
                draft.move,
                self._view,
                self._feed,
                scheduler=scheduler,
                journal=self._journal,
                decision=decision,
            )
        )
        changes = draft.changes
        tasks = {keys.task(change.after.id): change.after for change in changes if change.after is not None}
        for number, (ops, events) in enumerate(commits, 1):
            if changes:  # that the tasks are what was planned on, and what this process has made of them since
                ops = [self._feed.guard(service), *ops]
            revision = lock.commit(ops, release=number == len(commits))
            self._feed.wrote(service, ops, revision, tasks=tasks)
            self._journal.tell(events)
        if not commits:
            lock.release()
        if decision is not None and self._shadow is not None:
            self._shadow(service, decision)
        more = f" and {len(changes) - CHANGES_LOGGED} more" if len(changes) > CHANGES_LOGGED else ""
        if changes:
            log.info("%s: %s%s", service, ", ".join(map(str, changes[:CHANGES_LOGGED])), more)
        for event in draft.move.events:
            log.info("%s: %s %s", service, event.what, f"({event.why})" if event.why else "")

    def _draft(self, service: str, now: float, *, first: bool) -> Draft | None:
        """What is to be done for the service; None while the health that it depends on is not known."""
        goals = self._view.goals(service)
        fault = self._view.rollouts.faults.get(keys.rollout(service))
        try:
            if not self._schedulers.has(self.scheduler_of(service), now):
                return Draft({})
            if fault is not None:
                said = f"{keys.rollout(service)} can't be read: {fault}; repair or remove it"
                return Draft({pair: Plan(blocked=said) for pair in goals})
            made = self._made(service, goals, now, first=first)
            self._unplanned.pop(service, None)
            return made
        except Unavailable as error:
            log.warning("health of %s is not known: %s", service, error)
            return None
        except SkedError as error:
            times, said = self._unplanned.get(service, (0, ""))
            if str(error) != said:
                log.error("%s: %s", service, error)
            self._unplanned[service] = times + 1, str(error)
            pause = backoff.delay(times + 1, service, base=HEALTH_AGE_SECONDS, cap=MAX_PATIENCE_SECONDS)
            return Draft({pair: Plan(blocked=str(error)) for pair in goals}, patience=pause)

    def _made(self, service: str, goals: Mapping[Pair, Goal], now: float, *, first: bool) -> Draft:
        rolling, moving = self._moves.active(service), self._service_moves.under_way(service)
        unsettled = [pair for pair, goal in goals.items() if rolling or moving or not self._settled(pair, goal)]
        issued = {pair: self._view.tasks_of(pair) for pair in unsettled}
        fleet = self._view.fleet  # until health is asked for, which others may use to put another one in place
        # Health is asked for only where it counts: a host's tasks are placed anew without a word about the others.
        looked_at = [
            pair for pair in unsettled if rolling or moving or asks_for_health(goals[pair], issued[pair], fleet)
        ]
        policy = goals[looked_at[0]].service.update_policy if looked_at else UpdatePolicy()
        rollout = self._view.rollouts.entries.get(keys.rollout(service))
        for pair in looked_at:
            self.health.newer_than(pair, rollout.revision if rollout else Revision(0))
        health = {pair: self.health.of(pair, issued[pair], now) for pair in looked_at}
        steady = {pair: self.health.steady(pair, issued[pair], policy, now) for pair in looked_at}
        move = Move()
        if rolling:
            wanted = [pair for pair in looked_at if goals[pair].cluster is not None]
            parts = [
                Part(
                    goals[pair],
                    issued[pair],
                    steady[pair],
                    self.health.failures(pair, issued[pair], now),
                    self._refused(goals[pair]),
                )
                for pair in wanted
            ]
            move = self._moves.move(service, parts, now, first=first)
        if move.alone:
            return Draft(dict.fromkeys(goals, Plan()), move, rolling, 0.0)
        again = min([move.pause, *(self.health.next_steady(pair, issued[pair], policy, now) for pair in looked_at)])
        gone = self._service_moves.given_up(service, now, rolling=rolling) if moving else ""
        if moving and not gone:
            goals = {pair: self._service_moves.goal(pair, goal) for pair, goal in goals.items()}
            again = min(again, self._service_moves.patience(service, now))
        asked = {
            pair: self._plan(pair, goals[pair], move, health.get(pair, {}), steady.get(pair, ()), now)
            for pair in issued
        }
        plans = dict.fromkeys(goals, Plan()) | self._planned(service, asked, now)
        if moving:
            ops, events = self._service_moves.written(service, goals, plans, gone)
            move = replace(move, ops=(*move.ops, *ops), events=(*move.events, *events))
        elif fault := self._service_moves.fault(service):
            plans = {pair: replace(plan, blocked=plan.blocked or fault) for pair, plan in plans.items()}
        return Draft(plans, move, rolling, again)

    def _refused(self, goal: Goal) -> str:
        """Why every host that could take a task of ``goal`` has rejected one, often enough to be believed."""
        if goal.definition is None or goal.cluster is None:
            return ""
        hosts = self._view.fleet.ready(goal.cluster.hosts)
        return self._rejections.everywhere(goal.service.name, goal.definition, hosts, FAILED_STARTS)

    def _settled(self, pair: Pair, goal: Goal) -> bool:
        return settled(goal, self._view.tasks_of(pair), self._view.fleet)

    def _plan(
        self,
        pair: Pair,
        goal: Goal,
        move: Move,
        health: Mapping[TaskId, Health],
        steady: Collection[TaskId],
        now: float,
    ) -> Callable[..., Plan]:
        """What makes the plan on a ``fleet``: of what others may change it uses nothing else."""
        hold = move.holds.get(pair[0]) if goal.cluster is not None else None
        if hold is not None:
            hold = replace(hold, avoid=self._rejections.avoided(pair[1], hold.former, now))
        return partial(
            reconcile,
            replace(goal, hold=hold),
            self._view.tasks_of(pair),
            health=health,
            steady=steady,
            scheduler=self._schedulers[self.scheduler_of(pair[1])],
            avoid=self._rejections.avoided(pair[1], goal.definition, now) if goal.definition else {},
            unreadable=self._view.unreadable(),
            keep=self._keep(pair),
        )

    def _planned(self, service: str, asked: Mapping[Pair, Callable[..., Plan]], now: float) -> dict[Pair, Plan]:
        """The plans, made one after another. Raises PluginError, where a scheduler hung with another fleet in place."""
        fleet = self._view.fleet

        def work() -> dict[Pair, Plan]:
            with fleet.trial():
                return {pair: plan(fleet=fleet) for pair, plan in asked.items()}

        return self._schedulers.ask(self.scheduler_of(service), now, work) if asked else {}

    def _keep(self, pair: Pair) -> Keep:
        status = self._view.status(pair[1])
        cluster = status.clusters.get(pair[0]) if status else None
        waiting = cluster.waiting if cluster else 0
        return Keep(waiting=waiting) if self._shadow is None else Keep(hosts=MAX_HOSTS_SHADOWED, waiting=waiting)

    def _forget_status(self, service: str) -> Outcome:
        """The service is deleted and its last task gone: nothing is left to say. While it has tasks, whoever places by
        its scheduler sees by its status that they are to be withdrawn, also a process outside that comes back later."""
        key = keys.service_status(service)
        entry = self._view.statuses.entries.get(key)
        tasks = any(self._view.tasks_of(pair) for pair in self._view.pairs(service))
        if entry is None or tasks or self._view.service(service) is not None:
            return Outcome()
        ops: list[Op] = [Check(key, entry.revision), Check(keys.service(service), Revision(0)), Delete(key)]
        told = [keys.rollout(service), keys.moves(service), *self._store.read(keys.rollout_history(service)).entries]
        told += [keys.decision(service, number) for number in range(keys.KEPT_DECISIONS)]
        ops += [Delete(one) for one in told[: self._store.max_ops - len(ops)]]
        try:
            self._feed.wrote(service, ops, self._store.commit(ops), tasks={})
        except Conflict:
            self._feed.invalidate()
            return Outcome(SOON_SECONDS)
        return Outcome()
