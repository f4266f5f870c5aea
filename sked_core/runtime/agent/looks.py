"""What an agent looks at: what its executors run, what is registered for health, and how healthy it is.

The agent's main thread decides when to look and takes in what was found; the looks themselves are jobs of workers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from sked_core.interfaces.executor import Executor, Handle, Observation
from sked_core.interfaces.health import HealthProvider
from sked_core.logic.lifecycle import observe_health
from sked_core.model.types import Health, Task, TaskId
from sked_core.runtime.about import about
from sked_core.runtime.agent.events import AgentEvents
from sked_core.runtime.agent.local_tasks import Engines, LocalTasks
from sked_core.runtime.agent.task_runner import TaskRunner
from sked_core.runtime.plugins.answers import observations_of
from sked_core.runtime.workers import Message, Submit, nothing_more

log = logging.getLogger("sked.agent")
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
NEVER = float("inf")


class Looks:
    """The looks of one agent. ``post`` has the main thread call something; ``publish`` has the host's record published
    anew."""

    def __init__(
        self,
        *,
        tasks: LocalTasks,
        executors: Mapping[str, Executor],
        runner: TaskRunner,
        health: HealthProvider,
        stop_grace: float,
        events: AgentEvents,
        submit: Submit,
        post: Callable[[Message], None],
        publish: Callable[[], None],
    ) -> None:
        self._tasks, self._executors, self._runner, self._health = tasks, executors, runner, health
        self._grace, self._events = stop_grace, events
        self._submit, self._post, self._publish = submit, post, publish
        self._recovered: set[str] = set()
        self._failing: dict[str, str] = {}
        self._engines = Engines(frozenset(), frozenset(), self._failing)
        self._pending: set[str] = set()
        self._again: set[str] = set()
        self._due: dict[str, float] = {}

    def begin(self, now: float, *, issued: bool, frozen: bool) -> None:
        """Begin the looks that are due: engines to recover from, containers to inspect, health to tend. ``issued``:
        whether it is known what should run here."""
        for kind, executor in self._executors.items():
            if kind not in self._recovered:
                if self._is_due(f"recover {kind}", now, RECOVER_SECONDS):
                    self._once(f"recover {kind}", f"{kind} look", partial(self._recover, kind, executor))
                continue
            if self._is_due(f"inspect {kind}", now, INSPECT_SECONDS):
                self._inspect(kind, executor)
            unsure = self._tasks.unsure_of(kind) and self._is_due(f"resolve {kind}", now, RECOVER_SECONDS)
            if self._is_due(f"sweep {kind}", now, SWEEP_SECONDS) or unsure:
                self._once(f"sweep {kind}", f"{kind} look", partial(self._sweep, kind, executor, self._tasks.epochs()))
        if issued and self._is_due("tend", now, TEND_SECONDS):
            tidy = not frozen and self._recovered == set(self._executors)
            self._once("tend", "health", partial(self._tend, self._tasks.running(), tidy))
        if self._is_due("health", now, HEALTH_SECONDS):
            self.want_health(now)

    def due(self, now: float) -> float:
        """When the next look is due. What was due by now has been begun; what it finds comes by itself."""
        return min((due for due in self._due.values() if due > now), default=NEVER)

    def engines(self) -> Engines:
        """What is known of the executors now."""
        known = self._engines
        if known.available != self._executors.keys() or known.recovered != self._recovered:
            known = Engines(frozenset(self._executors), frozenset(self._recovered), self._failing)
            self._engines = known
        return known

    def want_health(self, now: float) -> None:
        """Read the health of what runs here. Called by the main thread."""
        running = self._tasks.running()
        if running:
            self._once("health", "health", partial(self._read_health, running, now))

    def _is_due(self, what: str, now: float, interval: float) -> bool:
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + interval
        return True

    def _once(self, name: str, pool: str, job: Callable[[], Message]) -> None:
        """Submit ``job`` unless the one before under this name is still under way. Its errors end here."""
        if name in self._pending:
            self._again.add(name)  # what the look under way has seen may be out of date already
            return
        self._pending.add(name)

        def run() -> Message:
            try:
                message = job()
            except (Exception, SystemExit) as error:  # noqa: BLE001 - no plugin ends the agent, nor all later looks
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

    def _missed(self, name: str, error: BaseException, now: float) -> None:
        """A look failed: what it would have told stays unknown, and unknown is not absent."""
        what, _, kind = name.partition(" ")
        if what in ("recover", "inspect") and kind not in self._failing:
            self._failing[kind] = str(error)
            log.warning("executor %s does not answer: %s", kind, error)
            self._publish()
        else:
            log.debug("%s failed: %s", name, error)

    def _answered(self, kind: str) -> None:
        if kind in self._failing:
            del self._failing[kind]
            log.info("executor %s answers again", kind)
            self._publish()

    # --- containers ----------------------------------------------------------------------------------------------

    def _recover(self, kind: str, executor: Executor) -> Message:
        found = observations_of(executor.recover(), kind)
        executor.watch(partial(self._post, partial(self._look_now, kind)))
        return partial(self._recovered_from, kind, executor, found)

    def _recovered_from(self, kind: str, executor: Executor, found: Mapping[Handle, Observation], now: float) -> None:
        self._adopt(kind, executor, found, None, now)
        self._recovered.add(kind)
        self._answered(kind)
        if found:
            log.info("executor %s: took over %d containers", kind, len(found))
            self._events.host("agent.adopted", f"took over {len(found)} containers of executor {kind}")
        self._due[f"sweep {kind}"] = now + SWEEP_SECONDS
        self._due["tend"] = now
        self._publish()

    def _sweep(self, kind: str, executor: Executor, epochs: Mapping[TaskId, int]) -> Message:
        return partial(self._adopt, kind, executor, observations_of(executor.recover(), kind), epochs)

    def _adopt(
        self,
        kind: str,
        executor: Executor,
        found: Mapping[Handle, Observation],
        epochs: Mapping[TaskId, int] | None,
        now: float,
    ) -> None:
        for handle in self._tasks.adopt(kind, found, epochs, now):
            log.warning(
                "%s of %s is one too many; stopping it", handle.ref, handle.task_id, extra={"task": handle.task_id}
            )
            self._once(f"stop {handle.ref}", f"{kind} stop", partial(self._stop_surplus, executor, handle))

    def _stop_surplus(self, executor: Executor, handle: Handle) -> Message:
        executor.stop(handle, self._grace)
        return nothing_more

    def _look_now(self, kind: str, now: float) -> None:
        self._due[f"inspect {kind}"] = now

    def _inspect(self, kind: str, executor: Executor) -> None:
        handles, epochs = self._tasks.to_inspect(kind)
        if handles or kind in self._failing:

            def inspect() -> Message:
                # Where nothing is left that could be inspected, all there is to see is whether it answers again.
                seen = observations_of(executor.inspect(handles) if handles else executor.recover(), kind)
                return partial(self._observed, kind, seen if handles else {}, epochs)

            self._once(f"inspect {kind}", f"{kind} look", inspect)

    def _observed(
        self, kind: str, seen: Mapping[Handle, Observation], epochs: Mapping[TaskId, int], now: float
    ) -> None:
        self._answered(kind)
        for task_id, how in self._tasks.observe(kind, seen, epochs, now).items():
            with about(**self._tasks.slots[task_id].named()):
                log.warning("%s ended: %s", task_id, how)

    # --- health --------------------------------------------------------------------------------------------------

    def _tend(self, running: list[Task], tidy: bool) -> Message:
        """Register again whatever runs (a provider may have lost it), and deregister what an earlier agent left."""
        ids = frozenset(task.id for task in running if self._register(task))
        # Those just registered as well: what was stopped meanwhile must not stay registered.
        return partial(self._tidy, ids, ids | (self._health.registered() if tidy else frozenset()))

    def _register(self, task: Task) -> bool:
        with about(task=task.id, service=task.service):
            return self._runner.register(task)

    def _tidy(self, vouched: frozenset[TaskId], registered: frozenset[TaskId], now: float) -> None:
        for task_id in vouched & self._tasks.slots.keys():
            self._tasks.slots[task_id].vouched = True
        for task_id in sorted(registered):
            if not self._tasks.may_be_registered(task_id):
                log.info("deregistering %s, which should not be registered", task_id, extra={"task": task_id})
                self._once(f"deregister {task_id}", "health", partial(self._deregister, task_id))

    def _deregister(self, task_id: TaskId) -> Message:
        self._health.deregister(task_id)
        return nothing_more

    def _read_health(self, running: Sequence[Task], asked: float) -> Message:
        pairs, hosts = {(task.cluster.name, task.service) for task in running}, {task.host for task in running}
        return partial(self._take_health, self._health.health(pairs, hosts), asked)

    def _take_health(self, health: Mapping[TaskId, Health], asked: float, now: float) -> None:
        """``asked``: when; an agent that was paused meanwhile knows nothing newer than that."""
        for task_id, slot in self._tasks.slots.items():
            if slot.local.running and slot.busy is None and slot.vouched and task_id in health:
                before, seen = slot.local.healthy, health[task_id]
                output = self._runner.masks.mask_cut(task_id, seen.output)
                observe_health(slot.local, seen.healthy, asked, output)
                # A fresh registration is often unhealthy at first; and what an agent adopts has been well for long.
                if seen.healthy and (before is False or (before is None and not slot.adopted)):
                    self._events.task("task.healthy", slot)
                elif before and not seen.healthy:
                    self._events.task("task.unhealthy", slot, output)
