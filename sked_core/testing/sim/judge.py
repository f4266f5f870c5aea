"""What must hold at every moment (docs/guarantees.md), judged from outside: by what the store carried out, what engines
did, and which calls processes made. It never asks the code under test what it meant to do.

``Judge`` is told of everything as it happens. What it finds is in ``violations``; the first one counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sked_core.interfaces.store import Fence, Op, Put
from sked_core.model import keys
from sked_core.model.types import Health, Mark, Rollout, Service, Task, TaskId
from sked_core.testing.sim.engine import SimContainer
from sked_core.testing.sim.hosts_judge import HostsJudge
from sked_core.testing.sim.mirror import Mirror
from sked_core.testing.sim.processes import LOST_AFTER_SECONDS, Process, SimAgent, SimScheduler
from sked_core.testing.sim.scene import Scene
from sked_core.testing.sim.store import Commit, SimLease

EPSILON = 0.001
LOST_WINDOW_SECONDS = 600.0
REJECTIONS_A_MINUTE = 9
"""Of one version of a service by one host, for each scheduler that was there: 1, 2, 4, 8 … seconds lie between them.
Those of one round, issued before its first one was written, count as one; a roll-out that is begun, or goes on after it
had failed, is another try."""

ENDINGS_A_HOST, ENDING_BYTES = 32, 8 * 1024


@dataclass(frozen=True, slots=True)
class Violation:
    """What did not hold: the invariant's letter and number, and what happened."""

    invariant: str
    what: str
    at: float

    def __str__(self) -> str:
        return f"{self.invariant}: {self.what}"


class Judge:
    """See the module. ``mirror`` is the data of the store as of the last commit that was looked at."""

    def __init__(self, world: Scene) -> None:
        self.world = world
        self.mirror = Mirror()
        self.violations: list[Violation] = []
        self.hosts = HostsJudge(world, self.mirror, self.violated)
        self._alive_seen: dict[tuple[str, str], float] = {}
        """When a scheduler has last read that a host lives, by both names."""
        self._none_seen: set[str] = set()
        """Schedulers that have read that no host lives."""
        self._first_seen: dict[str, float] = {}
        """When such a scheduler has read that one does again."""
        self._given_up: dict[str, dict[str, float]] = {}
        """When a scheduler last replaced tasks of a host as lost."""
        self._known_at: dict[str, int] = {}
        """The revision of the last full read of all tasks, by scheduler."""
        self._by_hand: dict[tuple[str, str], int] = {}
        """The revision at which a person last changed tasks of a pair: nobody is told of that."""
        self._rejections: dict[tuple[str, str, int], dict[str, list[tuple[float, int]]]] = {}
        """When each host rejected a version of a service, and at which revision: by service, name and version."""
        self._marked_at: dict[str, float] = {}
        self._former_marks: dict[str, list[tuple[Mark | None, float, float]]] = {}
        """Marks that were taken away or changed, when that was, and when they had been made, by host."""

    def violated(self, invariant: str, what: str) -> None:
        self.violations.append(Violation(invariant, what, self.world.clock.now))
        self.world.tell("JUDGE", f"{invariant} is violated: {what}")

    # --- what it is told -------------------------------------------------------------------------------------------

    def engine(self, what: str, one: SimContainer, by: str) -> None:
        self.hosts.engine(what, one, by)

    def began(self, agent: SimAgent, *, accept: bool) -> None:
        self.hosts.began(agent.host, accept=accept)

    def calls(self, process: Process, what: str) -> None:
        """``process`` makes a call of any kind."""
        if isinstance(process, SimAgent) and process.in_tick:
            self.violated("A12", f"{process.name} makes a call ({what}) in the thread that must never be held up")

    def sends(self, process: Process, ops: Sequence[Op]) -> None:
        """``process`` sends a commit, which may depend on its lease (B2)."""
        now = self.world.clock.now
        if not isinstance(process, SimScheduler):
            return
        for op in ops:
            lease = op.lease if isinstance(op, Put | Fence) else None
            if isinstance(lease, SimLease) and now > lease.proven + lease.ttl * 2 / 3 + EPSILON:
                self.violated(
                    "B2",
                    f"{process.name} writes by a lease that was last proven {now - lease.proven:.1f} s ago"
                    f" and could have ended after {lease.ttl:g} s",
                )

    def reads(self, process: Process, prefix: str) -> None:
        """``process`` has read ``prefix``."""
        if isinstance(process, SimScheduler):
            if keys.LIVE.startswith(prefix):
                for host in self.mirror.live:
                    self._alive_seen[process.name, host] = self.world.clock.now
                if not self.mirror.live:
                    self._none_seen.add(process.name)
                elif process.name in self._none_seen:
                    self._none_seen.remove(process.name)
                    former = self._first_seen.get(process.name, -LOST_WINDOW_SECONDS)
                    if (
                        self.world.clock.now - former >= LOST_WINDOW_SECONDS
                    ):  # sooner, only the time with none is left out
                        self._first_seen[process.name] = self.world.clock.now
            if prefix == keys.TASKS:
                self._known_at[process.name] = self.world.store.data.revision

    def commit(self, commit: Commit) -> None:
        """The store has carried out ``commit``."""
        mirror = self.mirror
        if commit.reset is not None:
            mirror.reset(commit.reset)
            self.hosts.reset()
            self._known_at.clear()
            self._by_hand.clear()
            self._rejections.clear()  # revisions begin anew
            return
        before = mirror.touched(commit)
        written = {task_id: mirror.written.get(task_id, (0, ""))[0] for task_id in before.ids}
        rollouts = {name: mirror.rollout(name) for name in _services(commit)}
        role = "scheduler" if commit.who.startswith("s") else "agent" if commit.who.startswith("agent") else ""
        holders = dict(mirror.locks) if role == "scheduler" and before.ids else {}
        changed = (keys.last_segment(key) for key in (*commit.puts, *commit.deletes) if key.startswith(keys.MARKS))
        marks = {host: mirror.mark(host) for host in changed}
        counts = {pair: mirror.standing(pair) for pair in before.pairs}
        mirror.take(commit)
        if self.world.telling:
            self._tell(commit)
        if not role:
            self._by_hand.update(dict.fromkeys(before.pairs, commit.revision))
        if before.ids and role:
            self._together(commit, before.ids, before.consistent)
        if before.ids and role == "scheduler":
            self._fenced(commit, before.tasks, holders)
            self._bounds(commit, before.tasks, counts)
            self._ports(commit, before.tasks)
        for task_id, (task, _) in before.tasks.items():
            now = mirror.task(task_id)
            if now is not None and now.rejected and not (task is not None and task.rejected):
                self._rejected(now, written[task_id], commit.revision)
        for name, rollout in rollouts.items():
            self._tried_anew(name, rollout)
        for key, mark in marks.items():
            self._former_marks.setdefault(key, []).append((mark, commit.at, self._marked_at.get(key, 0.0)))
            self._marked_at[key] = commit.at
        for key in commit.puts:
            if key.startswith(keys.LIVE):  # what vanishes again later is another loss
                for given_up in self._given_up.values():
                    given_up.pop(keys.last_segment(key), None)
        if any(key.startswith(keys.CLUSTERS) for key in commit.puts):
            self._one_id_each()
        self.hosts.commit(commit, before)
        for key, (value, _) in commit.puts.items():
            if key.startswith(keys.ENDINGS):
                self._evidence(commit.who, key, value)

    def _evidence(self, who: str, key: str, value: bytes) -> None:
        """A15: what is kept of tasks that ended is bounded, and of each host only its agent writes it."""
        host, _, slot = key.removeprefix(keys.ENDINGS).partition("/")
        if who != f"agent {host}":
            self.violated("A15", f"{who} writes how tasks of {host} ended")
        if slot not in map(str, range(ENDINGS_A_HOST)) or len(value) > ENDING_BYTES:
            self.violated("A15", f"{who} keeps {len(value)} bytes of an ending in slot {slot:.80}")

    def _tell(self, commit: Commit) -> None:
        for key, (value, _) in commit.puts.items():
            if key.startswith(keys.TASKS):
                task = self.mirror.decoded(value)
                state = "garbage" if task is None else "rejected: " + task.reject_reason if task.rejected else ""
                state = state or ("issued" if task is not None and task.scheduled else "withdrawn")
                where = f" on {task.host}" if task is not None else ""
                port = f" port {task.port}" if task is not None and task.port else ""
                self.world.tell(commit.who, f"#{commit.revision} {keys.last_segment(key)}{where}{port}: {state}")
            elif not key.startswith((keys.HOST_TASKS, keys.EVENTS, keys.CHANGED, keys.AGENTS)):
                self.world.tell(commit.who, f"#{commit.revision} writes {key}")
        for key in commit.deletes:
            if not key.startswith((keys.HOST_TASKS, keys.EVENTS, keys.CHANGED)):
                self.world.tell(commit.who or "store", f"#{commit.revision} {key} is gone")

    # --- rules about schedulers ------------------------------------------------------------------------------------

    def _fenced(
        self, commit: Commit, tasks: Mapping[str, tuple[Task | None, bytes]], holders: Mapping[str, str]
    ) -> None:
        """B1: whoever writes the tasks of a service holds its lock at that moment."""
        for task_id, (before, _) in tasks.items():
            task = self.mirror.task(task_id) or before
            if task is None:
                continue
            lease = holders.get(task.service, "")
            if self.world.store.data.owners.get(lease, "") != commit.who:
                self.violated("B1", f"{commit.who} writes {task_id} without the lock of {task.service}")

    def _together(self, commit: Commit, ids: Sequence[str], consistent: set[str]) -> None:
        """B5: both keys of a task change in one commit."""
        for task_id in ids:
            if task_id in consistent and not self.mirror.is_consistent(task_id):
                self.violated("B5", f"{commit.who} leaves the two keys of {task_id} different")

    def _bounds(
        self,
        commit: Commit,
        tasks: Mapping[str, tuple[Task | None, bytes]],
        counts: Mapping[tuple[str, str], int],
    ) -> None:
        """B3: never more than max; healthy ones never below min by the scheduler's own doing. B10: hosts are given up
        late, and few at a time."""
        mirror = self.mirror
        for pair, count in counts.items():
            service = mirror.service(pair[1])
            now = mirror.standing(pair)
            if service is not None and now > service.max and now > count:
                self.violated("B3", f"{commit.who} issues {now} tasks of {pair[1]} in {pair[0]}, max is {service.max}")
        scheduler = next((one for one in self.world.schedulers() if one.name == commit.who), None)
        if scheduler is None or commit.late:
            return
        taken: dict[tuple[str, str], list[Task]] = {}
        for task_id, (before, _) in tasks.items():
            after = mirror.task(task_id)
            if before is None or before.rejected:
                continue
            stays = after is not None and after.scheduled and after.host == before.host
            gone = before.scheduled and not stays
            if (after is None or after.host != before.host) and before.host in mirror.known_hosts:
                self._gives_up(scheduler, before.host)
            elif gone:
                taken.setdefault((before.cluster.name, before.service), []).append(before)
        for pair, withdrawn in taken.items():
            service = mirror.service(pair[1])
            unknown = self._by_hand.get(pair, 0) > self._known_at.get(scheduler.name, -1)
            if service is not None and mirror.wanted(pair) and not unknown:
                self._keeps_min(scheduler, pair, service, withdrawn)

    def _keeps_min(
        self, scheduler: SimScheduler, pair: tuple[str, str], service: Service, withdrawn: Sequence[Task]
    ) -> None:
        known: Mapping[TaskId, Health] = scheduler.health.told.get(pair, {})

        def is_well(task: Task) -> bool:
            return known.get(task.id, Health(False)).healthy and not scheduler.loop._absences.lost(task.host)

        well = [task for task in withdrawn if is_well(task)]
        if not well or any(self._forced(scheduler, task.host) for task in well):
            return
        left = sum(is_well(task) for task in self.mirror.tasks_of(pair) if task.scheduled and not task.rejected)
        if left < service.min:
            self.violated(
                "B3",
                f"{scheduler.name} withdraws {len(well)} healthy of {pair[1]} ({', '.join(task.id for task in well)}):"
                f" {left} are left, min is {service.min}",
            )

    def _forced(self, scheduler: SimScheduler, host: str) -> bool:
        """Whether ``scheduler`` may take the host for one that is drained by force: each mark that was taken away or
        changed counts until it has read so."""
        read_at, now = scheduler.read_at.get(keys.HOST_STATES, 0.0), self.world.clock.now
        marks = [(mark, at) for mark, gone_at, at in self._former_marks.get(host, ()) if read_at <= gone_at]
        marks.append((self.mirror.mark(host), self._marked_at.get(host, 0.0)))
        return any(mark is not None and (mark.force or 0 < mark.deadline <= now - at + EPSILON) for mark, at in marks)

    def _gives_up(self, scheduler: SimScheduler, host: str) -> None:
        """B10: ``scheduler`` replaces or removes tasks of ``host`` that its agent has not let go."""
        now, name = self.world.clock.now, scheduler.name
        last = max(self._alive_seen.get((name, host), 0.0), scheduler.started, scheduler.failed_at)
        last = max(last, self._first_seen.get(name, 0.0))  # while none is there, that says nothing about any of them
        if now - last < LOST_AFTER_SECONDS - EPSILON:
            self.violated("B10", f"{name} takes {host} for lost {now - last:.1f} s after it could last be told alive")
        given_up = self._given_up.setdefault(name, {})
        if now - given_up.get(host, -LOST_WINDOW_SECONDS) >= LOST_WINDOW_SECONDS or host in self.mirror.live:
            given_up[host] = now
        recent = [one for one, at in given_up.items() if now - at < LOST_WINDOW_SECONDS and one not in self.mirror.live]
        if len(recent) > max(2, int(len(self.mirror.known_hosts) * 0.3)):
            self.violated("B10", f"{name} takes {len(recent)} hosts for lost within ten minutes: {', '.join(recent)}")

    def _ports(self, commit: Commit, tasks: Mapping[str, tuple[Task | None, bytes]]) -> None:
        """B4: no scheduler issues a port that it could know to be taken."""
        for task_id, (before, _) in tasks.items():
            task = self.mirror.task(task_id)
            if task is None or not task.scheduled or task.rejected or (before is not None and before.scheduled):
                continue
            ports = self.mirror.ports(task)
            for other_id in self.mirror.on_host(task.host):
                other = self.mirror.task(other_id)
                if other is None or other_id == task_id or not other.scheduled or other.rejected:
                    continue
                known = self.mirror.written.get(other_id, (0, ""))
                seen = known[0] <= self._known_at.get(commit.who, -1) or known[1] == commit.who
                if seen and other.host == task.host and ports & self.mirror.ports(other):
                    self.violated("B4", f"{commit.who} gives {task_id} a port of {other_id} on {task.host}")

    def _one_id_each(self) -> None:
        """B6: no two (cluster, service) pairs that are declared have the same ids."""
        taken: dict[str, tuple[str, str]] = {}
        for cluster in self.mirror.clusters():
            for service in cluster.services:
                other = taken.setdefault(f"{cluster.name}-{service}", (cluster.name, service))
                if other != (cluster.name, service):
                    self.violated("B6", f"tasks of {cluster.name}/{service} have the ids of {'/'.join(other)}")

    def _rejected(self, task: Task, issued: int, revision: int) -> None:
        """B9: a host that keeps rejecting a service is left alone for longer and longer. ``issued``, ``revision``: when
        the task was given to it, and when it said no."""
        now, definition = self.world.clock.now, task.task_definition
        by_host = self._rejections.setdefault((task.service, definition.name, definition.version), {})
        times = by_host.setdefault(task.host, [])
        if times and issued < times[-1][1]:
            return
        times[:] = [one for one in times if now - one[0] < 60.0] + [(now, revision)]
        if len(times) > REJECTIONS_A_MINUTE * max(1, self.world.schedulers_within(60.0)):
            what = f"version {definition.version} of {task.service}"
            self.violated("B9", f"{task.host} has rejected {what} {len(times)} times within a minute")

    def _tried_anew(self, service: str, former: Rollout | None) -> None:
        """A roll-out was written: whoever begins one, or has it go on after it had failed, wants another try."""
        rollout = self.mirror.rollout(service)
        if rollout is not None and (
            former is None or former.number != rollout.number or former.state == "failed" != rollout.state
        ):
            self._rejections.pop((service, rollout.task_name, rollout.task_version), None)


def _services(commit: Commit) -> list[str]:
    """Those whose roll-outs the commit writes."""
    return [keys.last_segment(key) for key in commit.puts if key.startswith(keys.ROLLOUTS)]
