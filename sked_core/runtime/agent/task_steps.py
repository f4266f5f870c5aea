"""Deciding about each task of a host, and carrying the decision out in threads. The agent's main thread calls in."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial

from sked_core.clock import Clock
from sked_core.errors import ExecutorError, Rejected, SkedError, Unavailable
from sked_core.interfaces.executor import Executor
from sked_core.interfaces.failpoints import failpoint
from sked_core.interfaces.store import Store
from sked_core.logic import backoff
from sked_core.logic.lifecycle import Decision, Step, decide, shutdown_delay
from sked_core.model import keys
from sked_core.model.codec import digest
from sked_core.model.endings import Cause
from sked_core.model.ports import Binding, counted_all
from sked_core.model.types import Failure, Task
from sked_core.runtime.about import about
from sked_core.runtime.agent import records as agent_records
from sked_core.runtime.agent.admission import Admission
from sked_core.runtime.agent.disk import AgentDisk, Note
from sked_core.runtime.agent.events import AgentEvents
from sked_core.runtime.agent.failures import FailureNotes
from sked_core.runtime.agent.host_facts import Machine
from sked_core.runtime.agent.intake import Intake
from sked_core.runtime.agent.issued_feed import Issue, Record
from sked_core.runtime.agent.local_tasks import Engines, LocalTasks, Slot
from sked_core.runtime.agent.settings import AgentSettings
from sked_core.runtime.agent.task_ends import TaskEnds
from sked_core.runtime.agent.task_runner import Held, Said, TaskRunner
from sked_core.runtime.workers import Message, Submit, naming

log = logging.getLogger("sked.agent")
NEVER = float("inf")
WRITE_REFUSED_SECONDS = 30.0
WRITE_RETRY_SECONDS = 2.0
"""When to write a retirement or rejection again that the store did not take."""


class TaskSteps:
    """Takes one step at a time with each task. ``publish`` has the host's record published anew."""

    def __init__(
        self,
        *,
        tasks: LocalTasks,
        runner: TaskRunner,
        executors: Mapping[str, Executor],
        disk: AgentDisk,
        store: Store,
        settings: AgentSettings,
        machine: Machine,
        intake: Intake,
        failures: FailureNotes,
        ends: TaskEnds,
        events: AgentEvents,
        clock: Clock,
        submit: Submit,
        publish: Callable[[], None],
        vouched: Callable[[Record], None],
    ) -> None:
        """``vouched``: raises Rejected for a record that nobody has signed whose word counts here."""
        self._vouched = vouched
        self._tasks, self._runner, self._executors, self._disk = tasks, runner, executors, disk
        self._store, self._settings = store, settings
        self._admission = Admission(tasks, executors, settings, machine)
        self._submit, self._publish = submit, publish
        self._intake, self._failures, self._ends, self._events = intake, failures, ends, events
        self._clock = clock
        self._frozen = False

    def act(self, issue: Issue, now: float, *, engines: Engines, frozen: bool) -> float:
        """Decide about every task that nothing is being done to, and begin what is due.

        Returns when to decide again (monotonic seconds). ``frozen``: the store is a stranger's; dead tasks are
        restarted, nothing else is stopped, and nothing is written.
        """
        due, self._frozen = NEVER, frozen
        for task_id, slot in self._tasks.slots.items():  # all of them before any start, which they must leave room for
            slot.unreadable = task_id in issue.faults
            if slot.busy is None and slot.local.exists:
                self._reserve(slot, slot.record)
        brake = self._intake.brake()
        for task_id, slot in list(self._tasks.slots.items()):
            if slot.busy is Step.START and slot.outdated and not frozen and task_id not in brake:
                slot.call_off.set()
            if slot.busy is not None or task_id in issue.faults or task_id in brake:
                continue
            record = slot.record
            self._ask_engines(slot, engines)
            decision = decide(
                slot.local,
                record.task if record else None,
                digest=record.digest if record else "",
                grace=record.grace if record else 0.0,
                delay=shutdown_delay(slot.task),
                now=now,
            )
            due = min(due, decision.due)
            ended = decision.step is Step.EXAMINE and not slot.local.up
            may_restart = ended or decision.step in (Step.START, Step.RESTART)
            if frozen and not may_restart:
                continue
            if record is not None and decision.step is Step.NONE and slot.stays:
                self._return(slot, record.task)
            if slot.noted > 1 and slot.local.up and slot.local.attempts <= 1:  # it was well for long enough
                self._ends.renote(slot)
            if decision.step is not Step.NONE:
                with about(**slot.named()):
                    self._begin(slot, decision, now)
        return due

    def _reserve(self, slot: Slot, record: Record | None) -> None:
        """Count what an earlier agent started against this host, as its record says, or its note where there is no
        record any more."""
        if record is not None and (slot.task is None or slot.local.digest == record.digest):
            slot.task = record.task
        if slot.task is not None and not slot.ports:
            with contextlib.suppress(Rejected):
                slot.ports = counted_all(self._admission.bindings(slot.task))

    def _ask_engines(self, slot: Slot, engines: Engines) -> None:
        """Whether what is known of the task is the truth. While an engine that may run it does not answer, it is
        left alone; one that was issued only after this agent began is rejected, so that another host can take it."""
        kinds = slot.kinds
        silent = sorted((kinds & engines.available) - engines.recovered)
        # A type that is not here any more (a plugin that broke, a policy that changed) says nothing of what it ran.
        missing = slot.task is not None and not kinds <= engines.available
        slot.local.unknown = bool(silent or missing or slot.unsure)
        if silent and silent[0] in engines.failing and slot.new and slot.record is not None:
            slot.local.unknown = False
            slot.local.verdict = f"executor {silent[0]} does not answer on this host: {engines.failing[silent[0]]}"

    def _begin(self, slot: Slot, decision: Decision, now: float) -> None:
        match decision.step:
            case Step.FORGET:
                self._run(slot, decision.step, partial(self._forget, slot), pool="store")
            case Step.START:
                self._begin_start(slot, now)
            case Step.EXAMINE:
                ended = [one for one in slot.held if not slot.alive.get(one)] or list(slot.held)
                self._run(slot, decision.step, partial(self._examine, slot, ended, slot.task, decision))
            case Step.LEAVE:
                self._ends.stopping(slot, decision)
                self._run(slot, decision.step, partial(self._leave, slot), pool="health")
            case Step.STOP | Step.RESTART:
                if decision.step is Step.STOP:
                    self._ends.stopping(slot, decision)
                log.info("stopping %s: %s", slot.local.id, decision.reason)
                self._run(
                    slot, decision.step, partial(self._stop, slot, list(slot.held), slot.task, decision, slot.ended)
                )
            case Step.RETIRE | Step.REJECT:
                if slot.record is not None:
                    failure = self._failures.latest(slot.local.id)
                    write = partial(self._write, slot, slot.record, decision, failure)
                    self._run(slot, decision.step, write, pool="store")

    def _run(self, slot: Slot, step: Step, job: Callable[[], Message], *, pool: str = "") -> None:
        slot.busy, slot.epoch = step, slot.epoch + 1
        if not pool:
            # Starts may take long (pulls, setup, artifacts): they must not keep anything from being stopped.
            kind = min(slot.kinds & set(self._executors), default="store")
            pool = f"{kind} {'stop' if step is Step.RESTART else step.value}"

        def guarded() -> Message:
            try:
                return job()
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin has failed, not the agent
                return partial(self._botched, slot, error)

        self._submit(pool, naming(guarded, slot.named()))

    def _botched(self, slot: Slot, error: BaseException, now: float) -> None:
        """An error that nobody foresaw: what exists now is not known, a look tells."""
        log.error("%s: %s in its %s", slot.local.id, error.__class__.__name__, slot.busy, exc_info=error)
        starting = slot.busy is Step.START
        if starting:
            slot.unsure = slot.kinds & self._executors.keys()
        slot.busy, slot.local.registered = None, False
        cause: Cause | None = "start_failed" if starting else None
        self._ends.failed(slot, str(error) or error.__class__.__name__, now, cause=cause)
        slot.local.next_stop = slot.local.next_write = slot.local.next_try

    # --- start -------------------------------------------------------------------------------------------------

    def _begin_start(self, slot: Slot, now: float) -> None:
        record = slot.record
        if record is None:
            return
        try:
            self._vouched(record)
            bindings = self._admission.bindings(record.task)
            ports = counted_all(bindings)
            waits = self._admission.admit(record.task, ports)
        except Rejected as error:
            self._judged(slot, str(error), now)
            if slot.local.verdict:
                self._begin(slot, Decision(Step.REJECT, str(error)), now)
            return
        if waits:  # the end of a stop wakes this decision
            if not slot.waits:
                self._events.task("task.waiting", slot, waits)
            slot.waits = True
            return
        slot.local.attempts, slot.waits = slot.local.attempts + 1, False
        slot.local.log, slot.local.renew, slot.call_off = [], "", threading.Event()
        slot.told, slot.ended = False, False
        slot.began, slot.exits = self._clock.wall(), {}
        slot.task, slot.ports, slot.noted = record.task, ports, slot.local.attempts
        self._run(slot, Step.START, partial(self._start, slot, record.task, bindings, slot.note(record.task)))

    def _judged(self, slot: Slot, reason: str, now: float) -> None:
        """This host can't run it, which is to be written; where nobody can be told, it may pass."""
        if self._frozen:
            self._ends.failed(slot, reason, now, cause="start_failed")
        else:
            slot.local.verdict = reason

    def _start(self, slot: Slot, task: Task, bindings: frozenset[Binding], note: Note) -> Message:
        self._disk.write_note(note)
        failpoint("noted")
        try:
            held = self._runner.start(task, bindings, list(slot.held), slot.call_off)
        except Rejected as error:
            return partial(self._refused, slot, str(error))
        except ExecutorError as error:
            if error.permanent:
                return partial(self._refused, slot, str(error))
            left = self._runner.leftovers(task)
            return partial(self._not_started, slot, task, str(error), left, self._runner.tail(list(left or ()), task))
        return partial(self._started, slot, task, held)

    def _register(self, slot: Slot, task: Task) -> Message:
        failpoint("registering")
        registered = self._runner.register(task)
        failpoint("registered")
        return partial(self._registered, slot, registered)

    def _registered(self, slot: Slot, vouched: bool, now: float) -> None:
        slot.busy, slot.vouched = None, vouched

    def _started(self, slot: Slot, task: Task, held: list[Held], now: float) -> None:
        log.info("started %s", slot.local.id)
        self._events.task("task.started", slot, f"start {slot.local.attempts}" if slot.local.attempts > 1 else "")
        slot.hold(held, alive=True)
        slot.adopted, slot.stopping, slot.local.check_output = False, False, ""
        slot.local.started_at, slot.local.registered, slot.local.left_at = now, True, None
        slot.local.healthy = slot.local.healthy_since = slot.local.unhealthy_since = None
        # In a thread of its own kind: a slow health provider must not hold up the starts of other tasks.
        self._run(slot, Step.START, partial(self._register, slot, task), pool="health")

    def _refused(self, slot: Slot, reason: str, now: float) -> None:
        slot.busy = None
        slot.hold([], alive=False)
        slot.ports = frozenset()
        if not slot.call_off.is_set():
            self._judged(slot, reason, now)
        self._publish()  # with the ports that strangers hold, before the scheduler looks for another place

    def _not_started(
        self, slot: Slot, task: Task, error: str, left: dict[Held, bool] | None, said: Said, now: float
    ) -> None:
        """``left``: what a look found of it since; None if it could not look: that comes before anything."""
        mine = [one for one, runs in (left or {}).items() if runs and one.handle.digest == digest(task)]
        if len(mine) == len(task.task_definition.containers):
            log.warning("%s runs, though its start failed: %s", slot.local.id, error)
            self._started(slot, task, mine, now)
            return
        log.warning("%s did not start (try %d): %s", slot.local.id, slot.local.attempts, error)
        slot.busy = None
        slot.hold(left or (), alive=False)
        slot.alive.update(left or {})
        slot.recount()
        slot.unsure = slot.kinds & self._executors.keys() if left is None else set()
        if slot.call_off.is_set():
            slot.local.attempts = max(0, slot.local.attempts - 1)  # it is no failure of what is wanted now
        else:
            self._ends.failed(slot, error, now, cause="start_failed", said=said)

    # --- stop, what comes before it, and the two writes ------------------------------------------------------------

    def _examine(self, slot: Slot, held: list[Held], task: Task | None, decision: Decision) -> Message:
        self._runner.deregister(slot.local.id)
        return partial(self._examined, slot, decision, self._runner.tail(held, task))

    def _examined(self, slot: Slot, decision: Decision, said: Said, now: float) -> None:
        slot.busy, slot.local.registered = None, False
        if slot.local.up:  # it did not end, it is given up
            slot.local.verdict = slot.local.last_error = decision.reason
        self._ends.tell(slot, now, cause="unhealthy" if slot.local.up else "crashed", said=said)

    def _leave(self, slot: Slot) -> Message:
        self._runner.deregister(slot.local.id)
        return partial(self._left, slot)

    def _left(self, slot: Slot, now: float) -> None:
        slot.busy, slot.local.registered, slot.local.left_at = None, False, now

    def _return(self, slot: Slot, task: Task) -> None:
        """It is to run on after all."""
        log.info("%s stays: registering it again", slot.local.id)
        slot.local.left_at, slot.local.registered, slot.stopping = None, True, False
        self._run(slot, Step.START, partial(self._register, slot, task), pool="health")

    def _stop(self, slot: Slot, held: list[Held], task: Task | None, decision: Decision, known: bool) -> Message:
        said = [] if known else self._runner.tail(held, task)
        try:
            self._runner.stop(slot.local.id, held)
        except SkedError as error:
            return partial(self._not_stopped, slot, str(error))
        return partial(self._stopped, slot, decision, said)

    def _stopped(self, slot: Slot, decision: Decision, said: Said, now: float) -> None:
        was_up = slot.local.up
        slot.busy = None
        slot.hold([], alive=False)
        slot.ports = frozenset()
        slot.local.stops_failed = 0
        slot.local.registered, slot.local.left_at = False, None
        if decision.step is Step.RESTART:
            slot.local.unhealthy_restarts += 1
            self._ends.failed(slot, decision.reason, now, cause="unhealthy", said=said)
        else:
            self._ends.stopped(slot, decision, said, was_up=was_up)
            slot.local.attempts = slot.local.unhealthy_restarts = 0
            slot.local.started_at = None

    def _not_stopped(self, slot: Slot, error: str, now: float) -> None:
        log.warning("%s could not be stopped: %s", slot.local.id, error)
        slot.local.stops_failed += 1
        slot.local.registered = False  # that comes first
        slot.local.next_stop = now + backoff.delay(slot.local.stops_failed, slot.local.id, cap=30.0)
        slot.busy = None

    def _write(self, slot: Slot, record: Record, decision: Decision, failure: Failure | None) -> Message:
        try:
            if decision.step is Step.REJECT:
                log.info("rejecting %s: %s", slot.local.id, decision.reason)
                if agent_records.reject(self._store, self._settings.host, record, decision.reason, failure):
                    return partial(self._rejected, slot, decision.reason, failure)
            else:
                self._note_gone(slot)
                agent_records.retire(self._store, self._settings.host, record)
                failpoint("retired")
        except Unavailable as error:
            log.debug("%s: %s", slot.local.id, error)
        except SkedError as error:
            log.error("%s could not be written: %s", slot.local.id, error)
            return partial(self._not_written, slot)
        return partial(self._written, slot)

    def _rejected(self, slot: Slot, reason: str, failure: Failure | None, now: float) -> None:
        self._ends.rejected(slot, reason, failure)
        self._written(slot, now)

    def _not_written(self, slot: Slot, now: float) -> None:
        """The store refuses it (a permission lacks, the record is too large): that seldom passes by itself."""
        slot.busy = None
        slot.local.next_write = now + WRITE_REFUSED_SECONDS

    def _forget(self, slot: Slot) -> Message:
        task_id = slot.local.id
        self._note_gone(slot)
        try:
            agent_records.tidy(self._store, self._settings.host, task_id, self._disk.identity().store_uid)
        except SkedError as error:
            log.warning("%s may still stand under %s: %s", task_id, keys.TASKS, error)
            return partial(self._not_written, slot)
        return partial(self._forgotten, slot)

    def _note_gone(self, slot: Slot) -> None:
        if slot.task is not None:
            self._disk.write_note(Note(task=slot.task, gone=True))
            failpoint("gone")

    def _forgotten(self, slot: Slot, now: float) -> None:
        slot.busy = None
        if slot.record is None:  # else it was issued again
            self._disk.drop_note(slot.local.id)
            del self._tasks.slots[slot.local.id]

    def _written(self, slot: Slot, now: float) -> None:
        slot.busy = None
        slot.local.next_write = now + WRITE_RETRY_SECONDS  # by then a new read shows whether it was taken
