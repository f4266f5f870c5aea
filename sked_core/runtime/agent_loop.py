"""The agent process: makes what runs on this host match what is issued to it.

One thread decides (``tick``), from what others delivered to its inbox; threads of a pool per executor start and
stop. So a hung engine, a slow store or a failing health check delays only what depends on it.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from sked_core.clock import Clock
from sked_core.errors import Conflict, SkedError, StoreChanged
from sked_core.interfaces.executor import Executor, ExecutorContext, Handle, Observation
from sked_core.interfaces.health import HealthProvider
from sked_core.interfaces.store import Store
from sked_core.logic.lifecycle import observe_health
from sked_core.model.types import Health, Host, Task, TaskId
from sked_core.runtime import host_facts
from sked_core.runtime.agent_disk import AgentDisk
from sked_core.runtime.agent_settings import AgentSettings
from sked_core.runtime.host_presence import HostPresence
from sked_core.runtime.issued_feed import Issue, IssuedFeed
from sked_core.runtime.journal import Observer
from sked_core.runtime.local_tasks import LocalTasks
from sked_core.runtime.lock import LeaseKeeper
from sked_core.runtime.loop import Watcher, call_when_set
from sked_core.runtime.plugins import Plugins
from sked_core.runtime.task_runner import TaskRunner
from sked_core.runtime.task_steps import Engines, Message, TaskSteps, nothing_more

log = logging.getLogger("sked.agent")
POOL_THREADS = 8
"""Steps at once per executor: more than 4 to 8 starts in parallel gain nothing (measured for Docker)."""
INSPECT_SECONDS = 5.0
"""Between two looks at all containers; an executor's watch wakes the agent sooner."""
TEND_SECONDS = 15.0
"""Between two rounds over the registrations of health."""
RECOVER_SECONDS = 5.0
"""Between two tries to reach an engine that does not answer."""
SWEEP_SECONDS = 60.0
"""Between two looks for containers that nobody remembers: left by a start whose outcome was never learnt."""
HEALTH_SECONDS = 5.0
"""Between two reads of health where no change was reported."""
CLOSE_SECONDS = 10.0
"""How long an agent that is asked to end waits for the steps under way."""
NEVER = float("inf")


class AgentLoop:
    """One agent. ``run`` blocks until ``stop`` is set and leaves the tasks running."""

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
    ) -> None:
        """``keeper``: of the lease that this process has already, if it has one. ``observer``: of its events."""
        self._store, self._plugins, self._health, self._clock = store, plugins, health, clock
        self._observer = observer
        self._keeper = keeper or LeaseKeeper(store, clock)
        self._settings = settings
        self._disk = AgentDisk(settings.state_dir)
        self._executors: dict[str, Executor] = {}
        self._recovered: set[str] = set()
        self._failing: dict[str, str] = {}
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._halt = threading.Event()
        self._tasks = LocalTasks({})
        self._issue: Issue | None = None
        self._frozen = ""
        """Why nothing is started or stopped, if so."""
        self._under_way = 0
        self._counting = threading.Lock()
        self._pending: set[str] = set()
        self._again: set[str] = set()
        self._due: dict[str, float] = {}
        self._presence: HostPresence | None = None
        self._runner = TaskRunner(self._executors, health, stop_grace=settings.stop_grace)
        self._steps: TaskSteps | None = None

    def run(self, stop: threading.Event) -> None:
        """Run tasks until ``stop`` is set. Raises SkedError if another agent has this host's name or folder."""
        self._disk.lock()
        self._tasks = LocalTasks(self._disk.notes())
        self._steps = TaskSteps(
            tasks=self._tasks,
            runner=self._runner,
            executors=self._executors,
            disk=self._disk,
            store=self._store,
            settings=self._settings,
            submit=self._submit_step,
            publish=self._publish_soon,
        )
        if self._disk.identity().mark:
            self._open_executors()
        presence = self._presence = HostPresence(
            self._store,
            host=self._settings.host,
            agent=self._disk.identity().agent,
            describe=self._describe,
            clock=self._clock,
            keeper=self._keeper,
            ready=self._wake.set,
        )
        accept = self._settings.accept_store
        IssuedFeed(self._store, self._settings.host, self._disk, self._deliver, accept=accept).start(self._halt)
        threads = presence.start(self._halt)
        Watcher("health", self._health.wait, partial(self._post, self._want_health), self._halt)
        call_when_set(stop, self._wake.set)
        log.info("agent of %s started, state in %s", self._settings.host, self._settings.state_dir)
        try:
            while not stop.is_set():
                self._wake.clear()
                self._clock.wait(self._wake, self.tick())
                if presence.usurper:
                    raise Conflict(
                        f"another agent (id {presence.usurper}) runs as host {self._settings.host}",
                        hint="give this one a name of its own: --host NAME",
                    )
        finally:
            self._close(threads)
        log.info("agent of %s stopped; its tasks go on running", self._settings.host)

    def _close(self, threads: list[threading.Thread]) -> None:
        # Steps under way are finished rather than torn, if that does not take long; the lease is kept meanwhile.
        deadline = self._clock.monotonic() + CLOSE_SECONDS
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        while self._under_way and self._clock.monotonic() < deadline:
            self._clock.wait(self._wake, 0.1)
            self._wake.clear()
        if self._under_way:
            log.warning("%d steps are left under way; the next agent finds what came of them", self._under_way)
        self._halt.set()
        self._publish_soon()
        for thread in threads:
            thread.join(2.0)
        for executor in self._executors.values():
            executor.close()
        self._disk.unlock()

    def _open_executors(self) -> None:
        """Make an executor of every type that is installed and allowed."""
        allowed = self._settings.allow_executors
        for kind in self._plugins.names("executor"):
            if allowed is not None and kind not in allowed:
                continue
            context = ExecutorContext(
                host=self._settings.host,
                store_uid=self._disk.identity().mark,
                state_dir=self._settings.state_dir / "executors" / kind,
            )
            try:
                self._executors[kind] = self._plugins.executor(kind)(context)
            except SkedError as error:
                log.error("executor %s: %s", kind, error)

    def _describe(self) -> Host:
        """What this host says of itself. Called by the presence's thread."""
        executors = self._recovered - self._failing.keys()
        return host_facts.describe(self._settings, own_ports=self._tasks.all_ports(), executors=executors)

    def _publish_soon(self) -> None:
        if self._presence is not None:
            self._presence.publish_soon()

    # --- one round ---------------------------------------------------------------------------------------------

    def tick(self) -> float:
        """Take in what has happened, decide about every task, begin what is due. Returns seconds to wait."""
        now = self._clock.monotonic()
        while not self._inbox.empty():
            self._inbox.get()(now)
        self._look_around(now)
        # What was due by now has been begun; what it finds comes through the inbox.
        due = min((due for due in self._due.values() if due > now), default=NEVER)
        if self._issue is not None and self._steps is not None and self._presence is not None and self._presence.held:
            # Before the first authoritative read, and before the name is ours, nothing is started or stopped.
            due = min(due, self._steps.act(self._issue, now, engines=self._engines(), frozen=bool(self._frozen)))
        return max(0.0, min(INSPECT_SECONDS, due - now))

    def _engines(self) -> Engines:
        return Engines(frozenset(self._executors), frozenset(self._recovered), self._failing)

    def _post(self, message: Message) -> None:
        """Have the main thread call ``message`` with the time. Callable from any thread."""
        self._inbox.put(message)
        self._wake.set()

    def _deliver(self, issue: Issue | StoreChanged) -> None:
        self._post(partial(self._take_issue, issue))

    def _take_issue(self, issue: Issue | StoreChanged, now: float) -> None:
        if isinstance(issue, StoreChanged):
            if self._frozen != str(issue):  # also when it is frozen for another reason than before
                for line in (str(issue), *issue.hint.splitlines()):
                    log.error("%s", line.strip())
            self._frozen = str(issue)
        else:
            if self._frozen:
                log.info("the store is the right one again")
            self._frozen = ""
            self._issue = issue
            if not self._executors:
                self._open_executors()
            if self._steps is not None:
                self._steps.take(issue, now)
        if self._presence is not None and isinstance(issue, StoreChanged) and issue.stranger:
            self._presence.paused.set()
        elif self._presence is not None and self._presence.paused.is_set():
            self._presence.paused.clear()
            self._presence.publish_soon()

    def _look_around(self, now: float) -> None:
        """Begin the looks that are due: engines to recover from, containers to inspect, health to tend.

        Nothing before this host's name is ours: another agent of that name may be looking after all of it.
        """
        if self._presence is None or not self._presence.held:
            return
        for kind, executor in self._executors.items():
            if kind not in self._recovered:
                if self._is_due(f"recover {kind}", now, RECOVER_SECONDS):
                    self._once(f"recover {kind}", f"{kind} look", partial(self._recover, kind, executor))
                continue
            if self._is_due(f"inspect {kind}", now, INSPECT_SECONDS):
                self._inspect(kind, executor)
            if self._is_due(f"sweep {kind}", now, SWEEP_SECONDS):
                self._once(f"sweep {kind}", f"{kind} look", partial(self._sweep, kind, executor, self._tasks.epochs()))
        if self._issue is not None and self._is_due("tend", now, TEND_SECONDS):
            tidy = not self._frozen and self._recovered == set(self._executors)
            self._once("tend", "health", partial(self._tend, self._tasks.running(), tidy))
        if self._is_due("health", now, HEALTH_SECONDS):
            self._want_health(now)

    def _is_due(self, what: str, now: float, interval: float) -> bool:
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + interval
        return True

    # --- looks, made in threads, taken in by the main thread ----------------------------------------------------

    def _submit(self, pool: str, job: Callable[[], Message]) -> None:
        """Run ``job`` in a thread of the named pool, then what it returns in the main thread."""
        if pool not in self._pools:
            self._pools[pool] = ThreadPoolExecutor(POOL_THREADS, thread_name_prefix=pool)
        self._pools[pool].submit(lambda: self._post(job()))

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

    def _once(self, name: str, pool: str, job: Callable[[], Message]) -> None:
        """Submit ``job`` unless the one before under this name is still under way. Its errors end here."""
        if name in self._pending:
            self._again.add(name)  # what the look under way has seen may be out of date already
            return
        self._pending.add(name)

        def run() -> Message:
            try:
                message = job()
            except Exception as error:  # noqa: BLE001 - a plugin's mistake must not end the agent
                message = partial(self._missed, name, error)
            return partial(self._finish, name, message)

        self._submit(pool, run)

    def _finish(self, name: str, message: Message, now: float) -> None:
        self._pending.discard(name)
        message(now)
        if name in self._again:
            self._again.discard(name)
            if name in self._due:
                self._due[name] = now

    def _missed(self, name: str, error: Exception, now: float) -> None:
        """A look failed: what it would have told stays unknown, and unknown is not absent."""
        what, _, kind = name.partition(" ")
        if what in ("recover", "inspect") and kind not in self._failing:
            self._failing[kind] = str(error)
            log.warning("executor %s does not answer: %s", kind, error)
            self._publish_soon()
        else:
            log.debug("%s failed: %s", name, error)

    def _answered(self, kind: str) -> None:
        if kind in self._failing:
            del self._failing[kind]
            log.info("executor %s answers again", kind)
            self._publish_soon()

    def _recover(self, kind: str, executor: Executor) -> Message:
        found = executor.recover()
        executor.watch(partial(self._post, partial(self._look_now, kind)))
        return partial(self._recovered_from, kind, executor, found)

    def _recovered_from(self, kind: str, executor: Executor, found: Mapping[Handle, Observation], now: float) -> None:
        self._adopt(kind, executor, found, None, now)
        self._recovered.add(kind)
        self._answered(kind)
        if found:
            log.info("executor %s: took over %d containers", kind, len(found))
        self._due[f"sweep {kind}"] = now + SWEEP_SECONDS
        self._due["tend"] = now
        self._publish_soon()

    def _sweep(self, kind: str, executor: Executor, epochs: Mapping[TaskId, int]) -> Message:
        return partial(self._adopt, kind, executor, executor.recover(), epochs)

    def _adopt(
        self,
        kind: str,
        executor: Executor,
        found: Mapping[Handle, Observation],
        epochs: Mapping[TaskId, int] | None,
        now: float,
    ) -> None:
        for handle in self._tasks.adopt(kind, found, epochs, now):
            log.warning("%s of %s is one too many; stopping it", handle.ref, handle.task_id)
            self._once(f"stop {handle.ref}", f"{kind} stop", partial(self._stop_surplus, executor, handle))

    def _stop_surplus(self, executor: Executor, handle: Handle) -> Message:
        executor.stop(handle, self._settings.stop_grace)
        return nothing_more

    def _look_now(self, kind: str, now: float) -> None:
        self._due[f"inspect {kind}"] = now

    def _inspect(self, kind: str, executor: Executor) -> None:
        handles, epochs = self._tasks.to_inspect(kind)
        if handles:

            def inspect() -> Message:
                return partial(self._observed, kind, executor.inspect(handles), epochs)

            self._once(f"inspect {kind}", f"{kind} look", inspect)

    def _observed(
        self, kind: str, seen: Mapping[Handle, Observation], epochs: Mapping[TaskId, int], now: float
    ) -> None:
        self._answered(kind)
        for task_id, how in self._tasks.observe(kind, seen, epochs, now).items():
            log.warning("%s ended: %s", task_id, how)

    def _tend(self, running: list[Task], tidy: bool) -> Message:
        """Register again whatever runs (a provider may have lost it), and deregister what an earlier agent left."""
        for task in running:
            self._runner.register(task)
        ids = frozenset(task.id for task in running)
        # Those just registered as well: what was stopped meanwhile must not stay registered.
        return partial(self._tidy, ids | (self._health.registered() if tidy else frozenset()))

    def _tidy(self, registered: frozenset[TaskId], now: float) -> None:
        for task_id in registered:
            if not self._tasks.known(task_id):
                log.info("deregistering %s, which is not here", task_id)
                self._once(f"deregister {task_id}", "health", partial(self._deregister, task_id))

    def _deregister(self, task_id: TaskId) -> Message:
        self._health.deregister(task_id)
        return nothing_more

    def _want_health(self, now: float) -> None:
        pairs = {(task.cluster.name, task.service) for task in self._tasks.running()}
        if pairs:
            self._once("health", "health", partial(self._read_health, frozenset(pairs)))

    def _read_health(self, pairs: frozenset[tuple[str, str]]) -> Message:
        return partial(self._take_health, self._health.health(pairs))

    def _take_health(self, health: Mapping[TaskId, Health], now: float) -> None:
        for task_id, slot in self._tasks.slots.items():
            if slot.local.running and slot.busy is None and task_id in health:
                observe_health(slot.local, health[task_id].healthy, now, health[task_id].output)
