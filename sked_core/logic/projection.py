"""Where everything would go: what schedulers would make of a World until nothing changes any more. Pure.

The decisions are ``reconcile``'s, so that they are those of a real scheduler. Between two rounds everything goes well:
what was issued is healthy, what was withdrawn has stopped. Roll-outs go on to their end, canaries included.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from sked_core.errors import PluginError
from sked_core.interfaces.scheduler import Scheduler
from sked_core.interfaces.store import Revision
from sked_core.logic.plan import WAITING_FOR, Goal, Issued, Plan
from sked_core.logic.presence import Rejections
from sked_core.logic.reconcile import reconcile
from sked_core.logic.settled import settled
from sked_core.logic.world import Pair, World, runs
from sked_core.model.types import Health, Task, TaskId

MAX_WORK = 3_000_000
"""How many tasks, and hosts that refuse one, are looked at in all. A roll-out of 1,000 tasks one by one takes 2,000
rounds, each of which looks at all of them."""


@dataclass(frozen=True, slots=True)
class Move:
    """A task that ends, and the one that takes its place: on another host, of another version, or both."""

    before: Task
    after: Task
    why: str


@dataclass(frozen=True, slots=True)
class Course:
    """What becomes of one pair. ``stay``: tasks that nothing is done about, ``behind``: how many of them are of another
    version than is wanted; ``gone``: what ends without replacement, each with the reason.

    ``waiting``: how many tasks find no host in the end, ``refusals`` why, host by host; ``blocked``: why it goes no
    further. ``fewest``: the least number of healthy tasks on the way, None where there is no way; ``rounds``: in how
    many of them something was done. ``note``: what the end depends on.
    """

    wanted: int = 0
    stay: tuple[Task, ...] = ()
    behind: int = 0
    moves: tuple[Move, ...] = ()
    new: tuple[Task, ...] = ()
    gone: tuple[tuple[Task, str], ...] = ()
    waiting: int = 0
    refusals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    blocked: str = ""
    fewest: int | None = None
    rounds: int = 0
    note: str = ""

    @property
    def changes(self) -> bool:
        """Whether any task starts, moves or ends."""
        return bool(self.moves or self.new or self.gone)

    @property
    def quiet(self) -> bool:
        """Whether all stays as it is, and as it is wanted."""
        return not (self.changes or self.waiting or self.blocked)


@dataclass(frozen=True, slots=True)
class Projection:
    """What becomes of a World: ``after`` is where it ends. ``ended``: whether it does; if not, ``after`` is how far it
    was followed."""

    before: World
    after: World
    courses: Mapping[Pair, Course]
    ended: bool

    def unplaced(self) -> int:
        """How many tasks find no host."""
        return sum(course.waiting for course in self.courses.values())


def project(world: World, schedulers: Mapping[str, Scheduler], *, since: World | None = None) -> Projection:
    """What becomes of ``world``. ``schedulers``: those that are installed, by name. ``since``: the world from which on
    the courses of tasks are told, if it is another one: a task of it that ends in its own place stays.

    Services that wait for the same room are seen to by priority, then by name; real schedulers, of which many may be at
    work at once, may see to them in another order.
    """
    run = _Run(world, schedulers, since or world)
    ended = run.to_the_end()
    after = replace(world, issued={one.id: one for there in run.issued.values() for one in there.values()})
    after = replace(after, health=after.all_healthy())
    return Projection(since or world, after, {pair: run.course(pair) for pair in run.goals}, ended)


class _Run:
    def __init__(self, world: World, schedulers: Mapping[str, Scheduler], since: World) -> None:
        self.world, self.schedulers = world, schedulers
        self.goals = world.goals()
        self.fleet = world.fleet()
        self.issued = {pair: {one.id: one for one in tasks} for pair, tasks in world.tasks().items()}
        self.before = {pair: {one.id: one for one in tasks} for pair, tasks in since.tasks().items()}
        self.health: dict[TaskId, Health] = dict(world.health)
        self.plans: dict[Pair, Plan] = {}
        """The last one of each pair that is not settled."""
        self.fewest: dict[Pair, int] = {}
        self.rounds: dict[Pair, int] = {}
        self.whys: dict[TaskId, str] = {}
        """Why tasks ended."""
        self._same = operator.is_ if since.issued is world.issued else _alike
        self._rejections = Rejections()
        self._rejections.update(world.issued.values(), 0.0)
        self._unreadable = world.unreadable()
        self._moving = [pair for pair, goal in self.goals.items() if goal.moves]

    def to_the_end(self) -> bool:
        due = [pair for pair, goal in self.goals.items() if not self._settled(pair, goal)]
        work, first = 0, True
        while due:
            changed = False
            for pair in due:
                if work > MAX_WORK:
                    return False
                changed |= self._step(pair)
                work += 1 + len(self.issued[pair]) + len(self.plans[pair].refusals)
            if not self._let_time_pass(due) and not changed and not first:
                return True
            first = False  # in which some tasks may not have been healthy yet
            for pair in [pair for pair in due if self._settled(pair, self.goals[pair])]:
                due.remove(pair)
                del self.plans[pair]
        return True

    def _settled(self, pair: Pair, goal: Goal) -> bool:
        return not goal.moves and settled(goal, list(self.issued.get(pair, {}).values()), self.fleet)

    def _step(self, pair: Pair) -> bool:
        """Do what a scheduler would now do about the pair; returns whether that is anything."""
        goal, there = self.goals[pair], self.issued.setdefault(pair, {})
        if goal.moves:
            elsewhere = (move for other in self._moving if other != pair for move in self.goals[other].moves)
            goal = replace(goal, elsewhere=tuple(elsewhere))
        plan = self.plans[pair] = self._plan(pair, goal, list(there.values()))
        if goal.moves:
            self.goals[pair] = replace(goal, moves=plan.moves)
        for change in plan.changes:
            if change.before is not None:
                self.fleet.release(change.before.task)
                del there[change.before.id]
                self.whys[change.before.id] = change.why
            if change.after is not None:
                self.fleet.reserve(change.after)
                there[change.after.id] = Issued(change.after, Revision(0))
                if change.after.scheduled:
                    self.health.pop(change.after.id, None)
        well = sum(runs(one.task) and name in self.health and self.health[name].healthy for name, one in there.items())
        self.fewest[pair] = min(well, self.fewest.get(pair, well))
        self.rounds[pair] = self.rounds.get(pair, 0) + bool(plan.changes)
        return bool(plan.changes or plan.steps)

    def _plan(self, pair: Pair, goal: Goal, issued: list[Issued]) -> Plan:
        name = self.world.scheduler_of(pair[1])
        if name not in self.schedulers:
            return Plan(blocked=f"scheduler {name} is not installed here: what it would do is not known")
        try:
            with self.fleet.trial():
                return reconcile(
                    goal,
                    issued,
                    fleet=self.fleet,
                    health=self.health,
                    scheduler=self.schedulers[name],
                    avoid=self._rejections.avoided(pair[1], goal.definition, 0.0) if goal.definition else {},
                    unreadable=self._unreadable,
                )
        except PluginError as error:
            return Plan(blocked=str(error))

    def _let_time_pass(self, due: list[Pair]) -> bool:
        """What was issued becomes healthy and what was withdrawn stops, where an agent is there to see to it. Returns
        whether that has made room."""
        stopped = False
        for pair in due:
            there = self.issued[pair]
            for one in [one for one in there.values() if self._served(one.task)]:
                if not one.task.scheduled:
                    self.fleet.release(one.task)
                    del there[one.id]
                    stopped = True
                elif not one.task.rejected:
                    self.health[one.id] = Health(True)
        return stopped

    def _runs(self, task: Task) -> bool:
        return runs(task) and not self.fleet.lost(task.host)

    def _served(self, task: Task) -> bool:
        view = self.world.hosts.get(task.host)
        return view is not None and view.alive

    # --- what it came to -------------------------------------------------------------------------------------------

    def course(self, pair: Pair) -> Course:
        goal, plan = self.goals[pair], self.plans.get(pair, Plan())
        wanted = goal.service.desired if goal.cluster is not None else 0
        before, after = self.before.get(pair, {}), self.issued.get(pair, {})
        same = {name for name, one in after.items() if name in before and self._same(before[name], one)}
        kept = [after[name].task for name in same if self._runs(after[name].task)]
        left = (one.task for name, one in before.items() if one.task.scheduled and name not in same)
        new = sorted((one.task for name, one in after.items() if one.task.scheduled and name not in same), key=_place)
        # Those that go since fewer are desired last: what begins takes the place of others.
        gone = sorted(left, key=lambda task: (self.whys.get(task.id) == goal.enough, _place(task)))
        moves = tuple(self._moves(gone, new))
        ended, begun = {move.before.id for move in moves}, {move.after.id for move in moves}
        return Course(
            wanted=wanted,
            stay=tuple(sorted(kept, key=_place)),
            behind=sum(not goal.wants(task) for task in kept),
            moves=moves,
            new=tuple(task for task in new if task.id not in begun),
            gone=tuple((task, self.whys.get(task.id, "not placed again")) for task in gone if task.id not in ended),
            waiting=plan.waiting,
            refusals=plan.refusals,
            blocked=plan.blocked or _stopping([one.task for one in after.values() if not one.task.scheduled]),
            fewest=self.fewest.get(pair) if self._same is operator.is_ else None,
            rounds=self.rounds.get(pair, 0),
            note=self._note(goal, moves),
        )

    def _moves(self, gone: list[Task], new: list[Task]) -> Iterator[Move]:
        """The same id on another host is the same task; else which one takes whose place is a matter of their order."""
        fresh = {task.id: task for task in new}
        same = [(task, fresh.pop(task.id)) for task in gone if task.id in fresh]
        paired = {task.id for task, _ in same}
        rest = zip((task for task in gone if task.id not in paired), fresh.values(), strict=False)
        for before, after in sorted([*same, *rest], key=lambda pair: _place(pair[0])):
            yield Move(before, after, self.whys.get(before.id, "placed anew"))

    def _note(self, goal: Goal, moves: tuple[Move, ...]) -> str:
        if not any(move.before.task_definition != move.after.task_definition for move in moves):
            return ""
        rollout = self.world.rollouts.get(goal.service.name)
        if rollout is not None and rollout.state != "running":
            return f"once roll-out {rollout.number}, which is {rollout.state}, goes on"
        canaries = goal.service.update_policy.canaries
        return "once its canaries are promoted" if canaries and not (rollout and rollout.promoted) else ""


def _alike(before: Issued, after: Issued) -> bool:
    was, now = before.task, after.task
    return runs(was) and (was.host, was.task_definition, runs(was)) == (now.host, now.task_definition, runs(now))


def _stopping(tasks: list[Task]) -> str:
    if not tasks:
        return ""
    first = min(tasks, key=_place)
    return f"{WAITING_FOR} {first.id} to be stopped on {first.host}, where no agent runs"


def _place(task: Task) -> tuple[int, int]:
    return task.task_definition.version, task.instance
