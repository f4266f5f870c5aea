"""A cluster that is simulated in one thread: time, hosts, processes, and who does something next."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from random import Random

from sked_core.interfaces.executor import ExecutorContext, State
from sked_core.interfaces.store import Op
from sked_core.testing.builders import a_container, a_definition, a_task
from sked_core.testing.sim.disk import Files
from sked_core.testing.sim.engine import STRANGER, EngineFaults, Registry, SimContainer, SimEngine, SimExecutor
from sked_core.testing.sim.judge import Judge
from sked_core.testing.sim.processes import NEVER, Process, SimAgent, SimScheduler, plugins
from sked_core.testing.sim.scene import BEGIN, Scene, SimClock, SimHost
from sked_core.testing.sim.store import KINDS, Faults, Killed, SimClient, SimStore

STORY_LINES = 5000
LONGEST_CALL_SECONDS = 9.0
"""How long a call to a slow store may last: less than the deadlines of real clients."""
DELIVER_CHANCE = 0.05
MOST_ACTS_A_SECOND = 3000


class World(Scene):
    """One simulated cluster. All that happens follows from ``dice`` (and the calls of whoever drives it).

    ``mixing``: the chance of each call that others do something before it is carried out. ``lasting``: the chance of
    each job to take long. ``telling``: whether the story is kept.
    """

    def __init__(
        self, dice: Random, *, kind: str = "consul", hosts: int = 3, schedulers: int = 2, telling: bool = False
    ) -> None:
        self.dice, self.clock, self.telling = dice, SimClock(), telling
        self.story: deque[tuple[float, str, str]] = deque(maxlen=STORY_LINES)
        self.store = SimStore(self.clock, dice, KINDS[kind])
        self.store.before, self.store.after = self._before, self._after
        self.mixing = self.lasting = 0.0
        self.health_version = 0
        self._turns: list[float] = []
        self._depth = 0
        self.planned: tuple[float, str] | None = None
        self.counts: dict[str, int] = {}
        """How often what was done, by kind."""
        self.acts = 0
        self.hosts: dict[str, SimHost] = {}
        for number in range(hosts):
            name = f"h{number}"
            self.hosts[name] = SimHost(name, SimEngine(name, self.clock, dice, self._told), Files(name))
            self._settle_strangers(self.hosts[name])
        self.registry = Registry(self.clock, dice, {host.name: host.engine for host in self.hosts.values()})
        self.judge = Judge(self)
        self.name, self.alive = "nobody", True
        self.plugins = plugins(self._executor)
        self.user = self.store.client("user")
        self.user.sure = True
        self.living: list[Process] = []
        self._schedulers = 0
        self.scheduler_ends: list[float] = []
        for _ in range(schedulers):
            self.start_scheduler()
        for host in self.hosts.values():
            self.start_agent(host)

    def _settle_strangers(self, host: SimHost) -> None:
        """Have something run there that looks like a task, and is somebody else's."""
        task = a_task(host.name, definition=a_definition(containers=[a_container(type="sim", executor={})]))
        host.engine.make((host.name, STRANGER), task, task.task_definition.containers[0], frozenset())

    def _executor(self, context: ExecutorContext) -> SimExecutor:
        """The executor of an agent that begins; schedulers use one only to check specs."""
        host = self.hosts.get(context.host, self.hosts["h0"])
        return SimExecutor(host.engine, host.agent or self, context)

    def point(self, what: str) -> None:
        """Whoever only checks specs makes no calls that matter."""

    # --- the story -----------------------------------------------------------------------------------------------

    def tell(self, who: str, what: str) -> None:
        if self.telling:
            self.story.append((self.clock.now, who, what))

    def lines(self, last: int = 0) -> list[str]:
        """The story, one line for each thing that was done or came of it."""
        told = list(self.story)[-last:] if last else list(self.story)
        return [f"{at - BEGIN:9.2f} s  {who:<10} {what}" for at, who, what in told]

    def count(self, kind: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def _told(self, what: str, one: SimContainer, by: str) -> None:
        """An engine has started, stopped or lost a container."""
        self.health_version += 1
        if what == "start":
            for at in (one.healthy_from, one.turns_at):
                if at < NEVER:
                    heapq.heappush(self._turns, at)
        if self.telling:
            word = {"start": "starts", "stop": "stops", "end": "sees end:", "remove": "removes what ended:"}[what]
            detail = f" ({one.detail})" if what == "end" else ""
            self.tell(by or f"engine {one.owner[0]}", f"{word} {one.handle.task_id}/{one.handle.container}{detail}")
        self.judge.engine(what, one, by)

    # --- processes -----------------------------------------------------------------------------------------------

    def start_scheduler(self) -> SimScheduler:
        scheduler = SimScheduler(self, f"s{self._schedulers}")
        self._schedulers += 1
        self.living.append(scheduler)
        self.tell(scheduler.name, "begins")
        return scheduler

    def start_agent(self, host: SimHost, *, accept: bool = False) -> SimAgent:
        # Where it was to accept the store and could not before it was killed, it is told so again.
        accept = accept or (host.name not in self.judge.hosts.unproven and self.judge.hosts.has_seen_more(host.name))
        agent = SimAgent(self, host, accept=accept)
        self.living.append(agent)
        self.tell(agent.name, "begins" + (" with --accept-store" if accept else ""))
        self.judge.began(agent, accept=accept)
        return agent

    def schedulers_within(self, seconds: float) -> int:
        """How many schedulers lived at some time of the last so many seconds."""
        since = self.clock.now - seconds
        return len(self.schedulers()) + sum(at >= since for at in self.scheduler_ends)

    def schedulers(self) -> list[SimScheduler]:
        return [process for process in self.living if isinstance(process, SimScheduler)]

    def agents(self) -> list[SimAgent]:
        return [process for process in self.living if isinstance(process, SimAgent)]

    def kill(self, process: Process, *, how: str = "is killed") -> None:
        if process.alive:
            process.die()
            self.tell(process.name, how)
        if process in self.living:
            self.living.remove(process)
            if isinstance(process, SimScheduler):
                self.scheduler_ends.append(self.clock.now)
        if isinstance(process, SimAgent):
            process.host.release(process)

    def _kill_agent(self, host: SimHost, how: str) -> None:
        for agent in [agent for agent in self.agents() if agent.host is host]:
            self.kill(agent, how=how)

    def takes(self, pool: str) -> float:
        """How long a job of ``pool`` takes from now on until it is carried out, in seconds."""
        if self.lasting and self.dice.random() < self.lasting:
            return self.dice.uniform(5.0, 60.0)
        return self.dice.uniform(0.0, 0.3)

    # --- what happens around each call -----------------------------------------------------------------------------

    def _before(self, client: SimClient, what: str, prefix: str, ops: Sequence[Op]) -> None:
        process: Process | None = client.process
        if process is not None:
            self.judge.sends(process, ops)
            self.point_of(process, what)
            if self.store.faults.slow and self.dice.random() < self.store.faults.slow:
                self.advance(self.clock.now + self.dice.uniform(0.0, LONGEST_CALL_SECONDS))

    def _after(self, client: SimClient, what: str, prefix: str) -> None:
        process: Process | None = client.process
        if self.store.data.log:
            self.look()
        if process is None:
            return
        if what == "read":
            process.read_at[prefix] = self.clock.now
            self.judge.reads(process, prefix)
        if process.doom < 0:  # killed once the call was carried out, before it knows
            self.kill(process, how=f"is killed right after a {what}")
            raise Killed

    def point_of(self, process: Process, what: str) -> None:
        """``process`` makes a call: it may be killed or paused here, and others may do something meanwhile."""
        if not process.alive:
            raise Killed
        self.judge.calls(process, what)
        if process.doom > 0 and process.waits_for in ("", what):
            process.doom -= 1
            if process.doom == 0:
                if what == "commit" and self.dice.random() < 0.5:
                    process.doom = -1
                else:
                    self.kill(process, how=f"is killed right before a {what}")
                    raise Killed
        if self._depth:
            return
        self._depth += 1
        try:
            if process.nap > 0 and process.waits_for in ("", what):
                process.nap -= 1
                if process.nap == 0:
                    seconds = self.dice.choice((3.0, 8.0, 14.0, 25.0, 45.0))
                    self.tell(process.name, f"is paused for {seconds:g} s right before a {what}")
                    self.run_for(seconds, without=process)
                    self.tell(process.name, f"goes on with its {what}")
            elif self.mixing and self.dice.random() < self.mixing:
                self.act_of_somebody(without=process)
        finally:
            self._depth -= 1
        if not process.alive:
            raise Killed

    def act_of_somebody(self, without: Process | None = None) -> None:
        """Have some process do something that it might do about now, or a late write arrive."""
        if self.store.late and self.dice.random() < 0.3:
            self.deliver()
            return
        process = self.dice.choice(self.living) if self.living else None
        if process is None or process.paused_until > self.clock.now:
            return
        if isinstance(process, SimAgent) and process.jobs and self.dice.random() < 0.6:
            process.act_job(self.dice.randrange(len(process.jobs)))
        elif process is not without and not process.under_way:
            self._act(process, self.dice.choice(sorted(process.dues)))

    def deliver(self) -> None:
        """Have a late write arrive."""
        told = self.store.deliver(self.dice.randrange(len(self.store.late)))
        self.tell("store", told)
        self.look()

    def _act(self, process: Process, what: str) -> None:
        self.acts += 1
        process.act(what)
        if not process.alive:
            self.kill(process)
        if self.store.data.log:
            self.look()

    def look(self) -> None:
        """Have everybody who watches, and the judge, take in what was committed since the last time."""
        log = self.store.data.log
        while log:
            commits, self.store.data.log = log, []
            for commit in commits:
                self.judge.commit(commit)
                keys = (*commit.puts, *commit.deletes)
                for process in self.living:
                    for key in keys:
                        process.changed(key)
                    if commit.reset is not None:
                        process.reconnect()
            log = self.store.data.log

    # --- time ----------------------------------------------------------------------------------------------------

    def advance(self, to: float) -> None:
        """Move the clock, and let happen what happens by itself."""
        if to > self.clock.now:
            self.clock.now = to
        while self._turns and self._turns[0] <= self.clock.now:
            heapq.heappop(self._turns)
            self.health_version += 1
            for host in self.hosts.values():
                host.engine.settle()
        self.store.data.sweep()
        if self.store.data.log:
            self.look()

    def run_for(self, seconds: float, without: Process | None = None, *, until: float = NEVER) -> None:
        """Let everybody do what is due, in order of time, for so long. Processes that are paused, or whose call is
        still under way, do nothing."""
        end, moment, since = self.clock.now + seconds, self.clock.now, self.acts
        while not self.judge.violations:
            if self.clock.now > moment + 1.0:
                moment, since = self.clock.now, self.acts
            elif self.acts > since + MOST_ACTS_A_SECOND:
                self.judge.violated("C3", f"{self.acts - since} acts within a second: a tight loop")
                return
            due, chosen, what = end, None, ""
            now, version = self.clock.now, self.health_version
            for process in self.living:
                if process is without or process.under_way:
                    continue
                planned = process.planned
                if planned is None or process.planned_for != version:
                    process.planned_for = version
                    planned = process.planned = process.next(now)
                at, activity = planned
                if at < due and process.paused_until < due:
                    due, chosen, what = max(at, process.paused_until), process, activity
            if self._turns and self._turns[0] < due:
                due, chosen = self._turns[0], None
            self.advance(due)
            if chosen is not None:
                self._act(chosen, what)
            elif self.clock.now >= end:
                return
            if self.store.late and self.dice.random() < DELIVER_CHANCE:
                self.deliver()

    # --- the end of faults ----------------------------------------------------------------------------------------

    def heal(self) -> None:
        """End all faults: everything is reachable and alive again, and what was on its way arrives."""
        self.tell("world", "all faults end")
        self.store.faults, self.store.down = Faults(), False
        self.mixing = self.lasting = 0.0
        self.registry.failing = 0.0
        for process in self.living:
            process.client.cut, process.doom, process.nap, process.paused_until = False, 0, 0, 0.0
            process.reconnect()
        while self.store.late:
            self.deliver()
        for host in self.hosts.values():
            host.engine.faults = EngineFaults()
            host.engine.refuses.clear()
            if not host.up:
                self.power_on(host)
            for one in host.engine.containers.values():
                one.sick = False
        for agent in self.agents():
            agent.planned = None
            for job in agent.jobs:
                job.due = min(job.due, self.clock.now + 0.3)
        self.accept()
        for host in self.hosts.values():
            if host.agent is None:
                self.start_agent(host)
        if not self.schedulers():
            self.start_scheduler()

    def accept(self) -> int:
        """An operator has all agents that refuse the store accept it as it is; returns how many."""
        hosts = [self.hosts[name] for name in sorted(self.judge.hosts.unproven) if self.hosts[name].up]
        for host in hosts:
            if host.agent is not None:
                self._kill_agent(host, how="is stopped")
            self.start_agent(host, accept=True)
        return len(hosts)

    def power_off(self, host: SimHost) -> None:
        """The machine is gone, with all that runs on it."""
        if host.agent is not None:
            self._kill_agent(host, how="is gone with its host")
        host.up = False
        self.registry.gone.add(host.name)
        for one in host.engine.containers.values():
            if one.running:
                one.state, one.detail = State.EXITED, "the machine went down"
        self.health_version += 1

    def power_on(self, host: SimHost) -> None:
        host.up = True
        self.registry.gone.discard(host.name)
        self.start_agent(host)
