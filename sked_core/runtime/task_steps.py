"""Deciding about each task of a host, and carrying the decision out in threads. The agent's main thread calls in."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from msgspec import UNSET

from sked_core.errors import ExecutorError, Rejected, SkedError, Unavailable
from sked_core.interfaces.executor import Executor
from sked_core.interfaces.store import Store
from sked_core.logic import backoff
from sked_core.logic.lifecycle import Decision, Step, decide, failed, held_back
from sked_core.model import duration, keys
from sked_core.model.types import Task, TaskId
from sked_core.runtime import agent_records
from sked_core.runtime.admission import Admission
from sked_core.runtime.agent_disk import AgentDisk, Note
from sked_core.runtime.agent_settings import AgentSettings
from sked_core.runtime.host_facts import Machine
from sked_core.runtime.issued_feed import Issue, Record
from sked_core.runtime.local_tasks import LocalTasks, Slot
from sked_core.runtime.task_runner import Held, TaskRunner

log = logging.getLogger("sked.agent")
NEVER = float("inf")
WRITE_REFUSED_SECONDS = 30.0
WRITE_RETRY_SECONDS = 2.0
"""When to write a retirement or rejection again that the store did not take."""
Message = Callable[[float], None]
"""What the agent's main thread is asked to do; called with the monotonic time."""


@dataclass(frozen=True, slots=True)
class Engines:
    """Executors by what is known of them: made at all, looked through for what an earlier agent started, and
    those that do not answer with the error."""

    available: frozenset[str]
    recovered: frozenset[str]
    failing: Mapping[str, str]


class TaskSteps:
    """Takes one step at a time with each task. ``submit(pool, job)`` runs a job in a thread and then posts what it
    returns; ``publish`` has the host's record published anew."""

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
        submit: Callable[[str, Callable[[], Message]], None],
        publish: Callable[[], None],
    ) -> None:
        self._tasks, self._runner, self._executors, self._disk = tasks, runner, executors, disk
        self._store, self._settings = store, settings
        self._admission = Admission(tasks, executors, settings, machine)
        self._submit, self._publish = submit, publish
        self._absent_since: dict[TaskId, float] = {}
        self._faults: dict[str, str] = {}
        self._held: frozenset[TaskId] = frozenset()
        self._read_at = 0.0
        self._reads = 0

    def take(self, issue: Issue, now: float) -> None:
        """Take in one authoritative read."""
        self._reads += 1
        for task_id, record in issue.records.items():
            fresh = task_id not in self._tasks.slots
            slot = self._tasks.slot(task_id)
            if fresh and self._reads > 1:
                slot.new = True
            if slot.record is None or slot.record.revision != record.revision:
                self._renew(slot, record)
        for fault in issue.faults.keys() - self._faults.keys():
            log.warning("%s is left as it is: its record is no valid task: %s", fault, issue.faults[fault])
        self._faults = dict(issue.faults)
        gone = [i for i, slot in self._tasks.slots.items() if i not in issue.records and i not in issue.faults]
        for task_id in gone:
            self._tasks.slots[task_id].record = None
        here = {i for i in gone if self._tasks.slots[i].local.exists}
        self._absent_since = {i: self._absent_since.get(i, now) for i in here}
        self._read_at = now

    def _renew(self, slot: Slot, record: Record) -> None:
        """The record is new or was written anew: an earlier verdict no longer counts."""
        slot.record = record
        slot.local.verdict = ""
        if record.task.rejected:
            slot.local.attempts, slot.local.unhealthy_restarts, slot.local.next_try = 0, 0, 0.0

    def act(self, issue: Issue, now: float, *, engines: Engines, frozen: bool) -> float:
        """Decide about every task that nothing is being done to, and begin what is due.

        Returns when to decide again (monotonic seconds). ``frozen``: the store is a stranger's; dead tasks are
        restarted, nothing else is stopped, and nothing is written.
        """
        running = sum(slot.local.running > 0 for slot in self._tasks.slots.values())
        brake = held_back(self._absent_since, running, self._read_at, held=self._held)
        if brake - self._held:
            log.error("%d running tasks vanished from the store at once: stopped only if they stay away", len(brake))
        self._held = brake
        due = NEVER
        for slot in self._tasks.slots.values():  # all of them before any start, which they must leave room for
            if slot.record is not None and slot.busy is None and slot.local.exists:
                self._reserve(slot, slot.record)
        for task_id, slot in list(self._tasks.slots.items()):
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
            may_restart = decision.step in (Step.START, Step.RESTART) or (
                decision.step is Step.EXAMINE and not slot.local.up
            )
            if frozen and not may_restart:
                continue
            if record is not None and decision.step is Step.NONE and slot.stays:
                self._return(slot, record.task)
            self._begin(slot, decision, now)
        return due

    def _kinds(self, slot: Slot) -> set[str]:
        """Types of the executors that know about the task, or have to run it."""
        kinds = {one.type for one in slot.held}
        if slot.record is not None:
            kinds |= {container.type for container in slot.record.task.task_definition.containers}
        elif slot.task is not None:
            kinds |= {container.type for container in slot.task.task_definition.containers}
        return kinds

    def _reserve(self, slot: Slot, record: Record) -> None:
        """Count what an earlier agent started against this host, as its record says."""
        if slot.task is None or slot.local.digest == record.digest:
            slot.task = record.task
        if not slot.ports:
            with contextlib.suppress(Rejected):
                slot.ports = self._admission.ports(slot.task)

    def _ask_engines(self, slot: Slot, engines: Engines) -> None:
        """Whether what is known of the task is the truth. While an engine that may run it does not answer, it is
        left alone; one that was issued only after this agent began is rejected, so that another host can take it."""
        silent = sorted((self._kinds(slot) & engines.available) - engines.recovered)
        # A type that is not here any more (a plugin that broke, a policy that changed) says nothing of what it ran.
        missing = self._kinds(slot) - engines.available if slot.task is not None else set()
        slot.local.unknown = bool(silent or missing)
        if silent and silent[0] in engines.failing and slot.new and slot.record is not None:
            slot.local.unknown = False
            slot.local.verdict = f"executor {silent[0]} does not answer on this host: {engines.failing[silent[0]]}"

    def _begin(self, slot: Slot, decision: Decision, now: float) -> None:
        match decision.step:
            case Step.NONE:
                return
            case Step.FORGET:
                self._disk.drop_note(slot.local.id)
                del self._tasks.slots[slot.local.id]
                self._submit("store", partial(self._tidy, slot.local.id))
            case Step.START:
                self._begin_start(slot, now)
            case Step.EXAMINE | Step.LEAVE:
                log.info("deregistering %s: %s", slot.local.id, decision.reason)
                self._run(slot, decision.step, partial(self._deregister, slot, decision), pool="health")
            case Step.STOP | Step.RESTART:
                log.info("stopping %s: %s", slot.local.id, decision.reason)
                self._run(slot, decision.step, partial(self._stop, slot, list(slot.held), decision))
            case Step.RETIRE | Step.REJECT:
                if slot.record is not None:
                    self._run(slot, decision.step, partial(self._write, slot, slot.record, decision), pool="store")

    def _run(self, slot: Slot, step: Step, job: Callable[[], Message], *, pool: str = "") -> None:
        slot.busy, slot.epoch = step, slot.epoch + 1
        if not pool:
            # Starts may take long (pulls, setup, artifacts): they must not keep anything from being stopped.
            kind = min(self._kinds(slot) & set(self._executors), default="store")
            pool = f"{kind} {'start' if step is Step.START else 'stop'}"

        def guarded() -> Message:
            try:
                return job()
            except Exception as error:  # noqa: BLE001 - a plugin's mistake is a failed step, not the agent's end
                return partial(self._botched, slot, error)

        self._submit(pool, guarded)

    def _botched(self, slot: Slot, error: Exception, now: float) -> None:
        """An error that nobody foresaw: what exists now is not known, the next sweep tells."""
        log.error("%s: %s in its %s", slot.local.id, error.__class__.__name__, slot.busy, exc_info=error)
        failed(slot.local, str(error) or error.__class__.__name__, now)
        slot.local.next_stop = slot.local.next_write = slot.local.next_try
        slot.busy = None

    # --- start -------------------------------------------------------------------------------------------------

    def _begin_start(self, slot: Slot, now: float) -> None:
        record = slot.record
        if record is None:
            return
        try:
            ports = self._admission.ports(record.task)
            if not self._admission.admit(record.task, ports):
                return  # the end of a stop wakes this decision
        except Rejected as error:
            slot.local.verdict = str(error)
            self._begin(slot, Decision(Step.REJECT, str(error)), now)
            return
        slot.local.attempts += 1
        slot.task, slot.ports = record.task, ports
        self._run(slot, Step.START, partial(self._start, slot, record.task, ports, slot.local.attempts))

    def _start(self, slot: Slot, task: Task, ports: frozenset[int], attempt: int) -> Message:
        self._disk.write_note(Note(task=task, attempts=attempt))
        try:
            held = self._runner.start(task, ports, list(slot.held))
        except Rejected as error:
            return partial(self._refused, slot, str(error))
        except ExecutorError as error:
            if error.permanent:
                return partial(self._refused, slot, str(error))
            return partial(self._not_started, slot, str(error))
        return partial(self._started, slot, task, held)

    def _register(self, slot: Slot, task: Task) -> Message:
        self._runner.register(task)
        return partial(self._registered, slot)

    def _registered(self, slot: Slot, now: float) -> None:
        slot.busy = None

    def _started(self, slot: Slot, task: Task, held: list[Held], now: float) -> None:
        log.info("started %s", slot.local.id)
        slot.hold(held, alive=True)
        slot.local.started_at, slot.local.registered, slot.local.left_at = now, True, None
        slot.local.healthy = slot.local.healthy_since = slot.local.unhealthy_since = None
        # In a thread of its own kind: a slow health provider must not hold up the starts of other tasks.
        self._run(slot, Step.START, partial(self._register, slot, task), pool="health")

    def _refused(self, slot: Slot, reason: str, now: float) -> None:
        slot.busy = None
        slot.hold([], alive=False)
        slot.local.verdict, slot.ports = reason, frozenset()
        self._publish()  # with the ports that strangers hold, before the scheduler looks for another place

    def _not_started(self, slot: Slot, error: str, now: float) -> None:
        log.warning("%s did not start (try %d): %s", slot.local.id, slot.local.attempts, error)
        slot.busy = None
        slot.hold([], alive=False)
        failed(slot.local, error, now)

    # --- stop, what comes before it, and the two writes ------------------------------------------------------------

    def _deregister(self, slot: Slot, decision: Decision) -> Message:
        self._runner.deregister(slot.local.id)
        return partial(self._deregistered, slot, decision)

    def _deregistered(self, slot: Slot, decision: Decision, now: float) -> None:
        slot.busy, slot.local.registered = None, False
        if decision.step is Step.LEAVE:
            slot.local.left_at = now
        elif slot.local.up:
            slot.local.verdict = decision.reason

    def _return(self, slot: Slot, task: Task) -> None:
        """It is to run on after all."""
        log.info("%s stays: registering it again", slot.local.id)
        slot.local.left_at, slot.local.registered = None, True
        self._run(slot, Step.START, partial(self._register, slot, task), pool="health")

    def _stop(self, slot: Slot, held: list[Held], decision: Decision) -> Message:
        try:
            self._runner.stop(slot.local.id, held)
        except SkedError as error:
            return partial(self._not_stopped, slot, str(error))
        return partial(self._stopped, slot, decision)

    def _stopped(self, slot: Slot, decision: Decision, now: float) -> None:
        slot.busy = None
        slot.hold([], alive=False)
        slot.ports = frozenset()
        slot.local.stops_failed = 0
        slot.local.registered, slot.local.left_at = False, None
        self._absent_since.pop(slot.local.id, None)
        if decision.step is Step.RESTART:
            slot.local.unhealthy_restarts += 1
            failed(slot.local, decision.reason, now)
        else:
            slot.local.attempts = slot.local.unhealthy_restarts = 0
            slot.local.started_at = None

    def _not_stopped(self, slot: Slot, error: str, now: float) -> None:
        log.warning("%s could not be stopped: %s", slot.local.id, error)
        slot.local.stops_failed += 1
        slot.local.next_stop = now + backoff.delay(slot.local.stops_failed, slot.local.id, cap=30.0)
        slot.busy = None

    def _write(self, slot: Slot, record: Record, decision: Decision) -> Message:
        try:
            if decision.step is Step.REJECT:
                log.info("rejecting %s: %s", slot.local.id, decision.reason)
                agent_records.reject(self._store, self._settings.host, record, decision.reason)
            else:
                agent_records.retire(self._store, self._settings.host, record)
        except Unavailable as error:
            log.debug("%s: %s", slot.local.id, error)
        except SkedError as error:
            log.error("%s could not be written: %s", slot.local.id, error)
            return partial(self._not_written, slot)
        return partial(self._written, slot)

    def _not_written(self, slot: Slot, now: float) -> None:
        """The store refuses it (a permission lacks, the record is too large): that seldom passes by itself."""
        slot.busy = None
        slot.local.next_write = now + WRITE_REFUSED_SECONDS

    def _tidy(self, task_id: TaskId) -> Message:
        try:
            agent_records.tidy(self._store, self._settings.host, task_id, self._disk.identity().store_uid)
        except SkedError as error:
            log.warning("%s may still stand under %s: %s", task_id, keys.TASKS, error)
        return nothing_more

    def _written(self, slot: Slot, now: float) -> None:
        slot.busy = None
        slot.local.next_write = now + WRITE_RETRY_SECONDS  # by then a new read shows whether it was taken


def shutdown_delay(task: Task | None) -> float:
    """How long what was started from ``task`` runs on after it was deregistered, in seconds."""
    wanted = task.task_definition.shutdown_delay if task is not None else UNSET
    return 0.0 if wanted is UNSET else duration.to_seconds(wanted)


def nothing_more(now: float) -> None:
    """What there is to do after a job whose result says it all."""
