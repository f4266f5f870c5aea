"""The agent process: makes what runs on this host match what is issued to it.

One thread decides (``tick``), from what others delivered to its inbox; workers start and stop, those of one executor
apart from those of another. So a hung engine, a slow store or a failing health check delays only what depends on it.

``run`` is all that a process needs. A simulation drives an agent from one thread instead: it gives ``workers`` that
keep the jobs until it runs them, a clock, a ``machine`` and a store of its own, calls ``open()`` once, and then, in any
order and as often as it likes, what the threads of ``run`` would do:

- ``tick()``: one round of the main thread; returns the seconds after which the next is due if nothing happens. Jobs
  come out of it through ``workers.submit``; what they find is taken in by the next ``tick``.
- ``feed.read_and_deliver()``: one read of what is issued (the thread repeats it after each change below
  ``state/hosts/<host>/``, at least every minute, and sooner where it says so); raises what the store raises.
- ``presence.announce()``: every PUBLISH_SECONDS, and when ``presence.wanted`` is set; raises what the store raises.
- ``keeper.renew_if_due()``: about every second.
- ``want_health()``: when the health provider reports a change.
- ``flush_events()``: about every second; raises what the store raises.

An agent that dies is dropped, together with the jobs that had not begun, after ``disk.unlock()`` (what the kernel does
for a dead process). One that ends by itself: ``close()``. An agent without a lease of another part of its process gives
its own back by ``keeper.lease().revoke()``.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from sked_core.clock import Clock
from sked_core.errors import Conflict, SkedError, StoreChanged
from sked_core.interfaces.executor import Executor
from sked_core.interfaces.health import HealthProvider
from sked_core.interfaces.store import Store
from sked_core.model.types import Host, TaskId
from sked_core.runtime.agent import host_facts
from sked_core.runtime.agent import looks as agent_looks
from sked_core.runtime.agent.disk import AgentDisk
from sked_core.runtime.agent.endings import EndingNotes
from sked_core.runtime.agent.events import AgentEvents
from sked_core.runtime.agent.failures import FailureNotes
from sked_core.runtime.agent.figures import AgentFigures, local_tasks
from sked_core.runtime.agent.host_facts import Machine
from sked_core.runtime.agent.host_presence import HostPresence
from sked_core.runtime.agent.intake import Intake
from sked_core.runtime.agent.issued_feed import Issue, IssuedFeed
from sked_core.runtime.agent.local_tasks import LocalTasks, Slot
from sked_core.runtime.agent.looks import Looks
from sked_core.runtime.agent.policing import Policing, open_executors
from sked_core.runtime.agent.secret_watch import SecretWatch
from sked_core.runtime.agent.settings import AgentSettings
from sked_core.runtime.agent.task_access import TaskAccess
from sked_core.runtime.agent.task_ends import TaskEnds
from sked_core.runtime.agent.task_runner import TaskRunner
from sked_core.runtime.agent.task_secrets import SecretSource, TaskSecrets
from sked_core.runtime.agent.task_steps import TaskSteps
from sked_core.runtime.agent.vouching import Vouching
from sked_core.runtime.journal import Journal, Observer
from sked_core.runtime.lock import LeaseKeeper
from sked_core.runtime.loop import Watcher, call_when_set
from sked_core.runtime.plugins.registry import Plugins
from sked_core.runtime.pulse import Pulse
from sked_core.runtime.workers import Message, ThreadPools, Workers

log = logging.getLogger("sked.agent")
FLUSH_SECONDS = 1.0
"""Between two writes of events."""
CLOSE_SECONDS = 10.0
"""How long an agent that is asked to end waits for the steps under way."""


class AgentLoop:
    """One agent. ``run`` blocks until ``stop`` is set and leaves the tasks running."""

    presence: HostPresence
    feed: IssuedFeed
    _vouching: Vouching
    _tasks: LocalTasks
    _intake: Intake
    _failures: FailureNotes
    _endings: EndingNotes
    _looks: Looks
    _ends: TaskEnds
    _steps: TaskSteps
    _watch: SecretWatch

    def __init__(
        self,
        *,
        store: Store,
        plugins: Plugins,
        health: HealthProvider,
        settings: AgentSettings,
        clock: Clock,
        keeper: LeaseKeeper | None = None,
        observer: Observer = lambda _: None,
        workers: Workers | None = None,
        machine: Machine = host_facts,
        secrets: SecretSource | None = None,
    ) -> None:
        """``keeper``: of the lease that this process has already, if it has one. ``observer``: of its events.
        ``workers``: where jobs run, threads unless given. ``machine``: what it asks about this machine. ``secrets``:
        what its tasks may have, if that is any."""
        self._store, self._plugins, self._health, self._clock = store, plugins, health, clock
        self._settings, self._machine = settings, machine
        self.keeper = keeper or LeaseKeeper(store, clock)
        self.journal = Journal(store, clock, f"agent {settings.host}", observer)
        self._events = AgentEvents(self.journal, settings.host)
        self.disk = AgentDisk(settings.state_dir)
        self._workers = workers or ThreadPools()
        self._executors: dict[str, Executor] = {}
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._halt = threading.Event()
        self._pulse = Pulse(clock)
        self._issue: Issue | None = None
        self._serves: list[str] | None = None
        self.opened = threading.Event()
        """Set once the state folder is held."""
        self._frozen = ""
        """Why nothing is started or stopped, if so."""
        self._under_way = 0
        self._counting = threading.Lock()
        self._source = secrets or SecretSource()
        self._secrets = TaskSecrets(settings.policy.secrets, self._source, disk=self.disk, clock=clock)
        self._runner = TaskRunner(
            self._executors,
            health,
            machine,
            stop_grace=settings.stop_grace,
            clock=clock,
            secrets=self._secrets,
            policing=Policing(settings.policy, self._executors, frozenset({settings.address})),
            unchecked=lambda task_id, why: self._post(partial(self._say_unchecked, task_id, why)),
        )

    # --- the process -------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Take hold of the state folder and of what it remembers; nothing is started, and no thread begins. Once.

        Raises SkedError if another agent has this folder.
        """
        self.disk.lock()
        settings = self._settings
        self._vouching = Vouching(settings, self.disk, self._clock)
        self._tasks = LocalTasks(self.disk.notes(), self._clock.monotonic())
        self._intake = Intake(self._tasks)
        self._failures = FailureNotes(store=self._store, host=settings.host, clock=self._clock, submit=self._submit)
        self._endings = EndingNotes(store=self._store, host=settings.host, disk=self.disk, submit=self._submit)
        self.presence = HostPresence(
            self._store,
            host=settings.host,
            agent=self.disk.identity().agent,
            describe=self._describe,
            clock=self._clock,
            keeper=self.keeper,
            ready=self._wake.set,
        )
        self.feed = IssuedFeed(
            self._store, settings.host, self.disk, self._deliver, clock=self._clock, accept=settings.accept_store
        )
        self._looks = Looks(
            tasks=self._tasks,
            executors=self._executors,
            runner=self._runner,
            health=self._health,
            stop_grace=settings.stop_grace,
            events=self._events,
            submit=self._submit,
            post=self._post,
            publish=self.presence.publish_soon,
        )
        self._ends = TaskEnds(
            host=settings.host,
            failures=self._failures,
            endings=self._endings,
            events=self._events,
            disk=self.disk,
            clock=self._clock,
        )
        self._steps = TaskSteps(
            tasks=self._tasks,
            runner=self._runner,
            executors=self._executors,
            disk=self.disk,
            store=self._store,
            settings=settings,
            machine=self._machine,
            intake=self._intake,
            failures=self._failures,
            ends=self._ends,
            events=self._events,
            clock=self._clock,
            submit=self._submit_step,
            publish=self.presence.publish_soon,
            vouched=self._vouching.check,
        )
        self._watch = SecretWatch(
            tasks=self._tasks,
            secrets=self._secrets,
            events=self._events,
            host=settings.host,
            seconds=settings.policy.secrets.look_seconds,
            submit=self._submit,
            now=self._clock.monotonic(),
        )
        if self.disk.identity().mark:
            self._executors.update(open_executors(self._plugins, self._settings, self.disk.identity().mark))
        log.info("agent of %s started, state in %s", settings.host, settings.state_dir)
        for doubt in host_facts.doubts(settings, self._machine):
            log.warning("%s", doubt)
        self._events.host("agent.started")
        self.opened.set()

    def run(self, stop: threading.Event) -> None:
        """Run tasks until ``stop`` is set. Raises SkedError if another agent has this host's name or folder."""
        self.open()
        self.feed.start(self._halt)
        threads = [*self.presence.start(self._halt), threading.Thread(target=self._keep_events, name="events")]
        threads[-1].start()
        own = partial(self._health.wait, hosts=(self._settings.host,))
        Watcher("health", own, self.want_health, self._halt)
        call_when_set(stop, self._wake.set)
        try:
            while not stop.is_set():
                self._wake.clear()
                self._pulse.begin()
                try:
                    pause = self.tick()
                except OSError as error:  # no descriptors, no memory: what is left of the round is done in the next
                    log.error("a round was not finished: %s", error)
                    pause = agent_looks.INSPECT_SECONDS
                self._pulse.rest(pause)
                self._clock.wait(self._wake, pause)
                if self.presence.usurper:
                    raise Conflict(
                        f"another agent (id {self.presence.usurper}) runs as host {self._settings.host}",
                        hint="give this one a name of its own: --host NAME",
                    )
        finally:
            self.close(threads)

    def close(self, threads: list[threading.Thread] | None = None) -> None:
        """End, and leave the tasks running. ``threads``: those that end once the agent halts."""
        # Steps under way are finished rather than torn, if that does not take long; the lease is kept meanwhile.
        deadline = self._clock.monotonic() + CLOSE_SECONDS
        self._workers.close()
        while self._under_way and self._clock.monotonic() < deadline:
            self._clock.wait(self._wake, 0.1)
            self._wake.clear()
        if self._under_way:
            log.warning("%d steps are left under way; the next agent finds what came of them", self._under_way)
        self._halt.set()
        self.presence.publish_soon()
        for thread in threads or ():
            thread.join(2.0)
        for executor in self._executors.values():
            executor.close()
        self._source.close()
        self.disk.unlock()
        log.info("agent of %s stopped; its tasks go on running", self._settings.host)

    def serve_at(self, urls: list[str]) -> None:
        """Publish where logs and commands of this host's tasks are offered from now on. Callable from any thread."""
        self._serves = urls
        if getattr(self, "presence", None) is not None:
            self.presence.publish_soon()

    def access(self) -> TaskAccess:
        """The way to the containers of this host's tasks, for other threads."""

        def slots() -> Mapping[TaskId, Slot]:
            return self._tasks.slots if getattr(self, "_tasks", None) else {}

        return TaskAccess(slots, self._executors, self._secrets.masks.mask)

    def pulses(self) -> dict[str, Pulse]:
        """Of its loops, by name. Callable from any thread."""
        found = {"agent": self._pulse}
        if getattr(self, "_steps", None) is not None:  # it is open
            found |= {"issued": self.feed.pulse, "presence": self.presence.pulse}
        return found

    def figures(self) -> AgentFigures | None:
        """What there is to be told of this agent now; None before it is open. Callable from any thread."""
        if getattr(self, "_steps", None) is None:
            return None
        return AgentFigures(
            pulses=self.pulses(),
            tasks=local_tasks(self._tasks),
            ends=self._ends.counts,
            engines=self._looks.engines(),
            frozen=bool(self._frozen),
            look_age=self.feed.age(),
            under_way=self._under_way,
        )

    def flush_events(self) -> None:
        """Keep in the store what was told since the last time, unless that store is a stranger's. Raises SkedError."""
        if not self.presence.paused.is_set():
            self.journal.flush()

    def _keep_events(self) -> None:
        halted = False
        while not halted:
            halted = self._halt.wait(FLUSH_SECONDS)
            try:
                self.flush_events()
            except Exception as error:  # noqa: BLE001 - they are kept with the next ones
                log.log(logging.DEBUG if isinstance(error, SkedError) else logging.ERROR, "events wait: %s", error)

    def _describe(self) -> Host:
        """What this host says of itself. Called by the presence's thread."""
        engines = self._looks.engines()
        executors = (engines.recovered - engines.failing.keys()) & set(self._settings.policy.executors)
        ready = {kind: self._executors[kind] for kind in executors}
        host = host_facts.describe(self._settings, self._machine, own_ports=self._tasks.all_ports(), executors=ready)
        return host if self._serves is None else msgspec.structs.replace(host, serves=list(self._serves))

    # --- one round ---------------------------------------------------------------------------------------------

    def tick(self) -> float:
        """Take in what has happened, decide about every task, begin what is due. Returns seconds to wait."""
        now = self._clock.monotonic()
        while not self._inbox.empty():
            self._inbox.get()(now)
        if not self.presence.held:
            return agent_looks.INSPECT_SECONDS  # before the name is ours, another agent may be looking after all of it
        self._looks.begin(now, issued=self._issue is not None, frozen=bool(self._frozen))
        due = self._looks.due(now)
        if not self._frozen:
            self._watch.begin(now)
        if self._issue is not None:  # before the first authoritative read nothing is started or stopped
            due = min(due, self._steps.act(self._issue, now, engines=self._looks.engines(), frozen=bool(self._frozen)))
            if not self._frozen:
                self._failures.begin(self._tasks.slots, now)
            self._endings.begin(now, frozen=bool(self._frozen))
        return max(0.0, min(agent_looks.INSPECT_SECONDS, due - now))

    def want_health(self) -> None:
        """Have the health of what runs here read. Callable from any thread."""
        self._post(lambda now: self._looks.want_health(now))

    def _say_unchecked(self, task_id: TaskId, why: str, now: float) -> None:
        if (slot := self._tasks.slots.get(task_id)) is not None:
            self._events.unchecked(slot, why)

    def _post(self, message: Message) -> None:
        """Have the main thread call ``message`` with the time. Callable from any thread."""
        self._inbox.put(message)
        self._wake.set()

    def _submit(self, pool: str, job: Callable[[], Message]) -> None:
        """Have workers run ``job``, then the main thread what it returns."""
        self._workers.submit(pool, lambda: self._post(job()))

    def _submit_step(self, pool: str, job: Callable[[], Message]) -> None:
        """Submit a step with a task: an agent that ends waits for those, and not for looks, which may hang."""

        def counted() -> Message:
            with self._counting:
                self._under_way += 1
            try:
                return job()
            finally:
                with self._counting:
                    self._under_way -= 1

        self._submit(pool, counted)

    def _deliver(self, issue: Issue | StoreChanged) -> None:
        self._post(partial(self._take_issue, issue))

    def _take_issue(self, issue: Issue | StoreChanged, now: float) -> None:
        if isinstance(issue, StoreChanged):
            if self._frozen != str(issue):  # also when it is frozen for another reason than before
                for line in (str(issue), *issue.hint.splitlines()):
                    log.error("%s", line.strip())
                self._events.host("agent.frozen", str(issue))
            self._frozen = str(issue)
        else:
            if self._frozen:
                log.info("the store is the right one again")
            self._frozen = ""
            self._issue = issue
            if not self._executors:
                self._executors.update(open_executors(self._plugins, self._settings, self.disk.identity().mark))
            self._intake.take(issue, now)
            self._vouching.take(issue)
        if isinstance(issue, StoreChanged) and issue.stranger:
            self.presence.paused.set()
        elif self.presence.paused.is_set():
            self.presence.paused.clear()
            self.presence.publish_soon()
