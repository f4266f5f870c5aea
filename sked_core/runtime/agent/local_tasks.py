"""The tasks of one host as its agent knows them: what is remembered, which containers exist, what is under way."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sked_core.interfaces.executor import Handle, Observation, State
from sked_core.logic import backoff
from sked_core.logic.lifecycle import Local, Step, failed
from sked_core.model.codec import digest
from sked_core.model.types import Task, TaskId
from sked_core.runtime.agent.disk import Note
from sked_core.runtime.agent.issued_feed import Record
from sked_core.runtime.agent.task_runner import Held


@dataclass(frozen=True, slots=True)
class Engines:
    """Executors: made at all, looked through for what an earlier agent started, not answering (with the error)."""

    available: frozenset[str]
    recovered: frozenset[str]
    failing: Mapping[str, str]


@dataclass(slots=True)
class Slot:
    """One task. Only the agent's main thread touches it.

    ``epoch`` grows with every step: what was observed before a step began says nothing after it.
    """

    local: Local
    record: Record | None = None
    held: list[Held] = field(default_factory=list)
    alive: dict[Held, bool] = field(default_factory=dict)
    busy: Step | None = None
    epoch: int = 0
    ports: frozenset[int] = frozenset()
    noted: int = 0
    """The count of starts that the disk holds."""
    unsure: set[str] = field(default_factory=set)
    """Types of the executors that have to be asked what a start whose outcome is not known has left behind."""
    adopted: bool = False
    """Whether what runs was started by an earlier agent."""
    stopping: bool = False
    """Whether it was told that it is to be stopped."""
    unreadable: bool = False
    """Whether a record stands in the store that is no valid task: whatever runs of it is left alone."""
    new: bool = False
    """Issued only after this agent began: it can't have been started by an earlier one."""
    vouched: bool = False
    """Whether its registration is known to have been taken: until then, what health says under its id may be about a
    task of another host, from before it moved."""
    task: Task | None = None
    """What its containers were started from, as far as known: what is still reserved while it goes away."""
    call_off: threading.Event = field(default_factory=threading.Event)
    """Set once the start under way is not wanted any more; its thread looks at it."""
    told: bool = False
    """Whether an earlier agent told how it ended."""
    ended: bool = False
    """Whether it is kept how its last run ended."""
    began: float = 0.0
    """When it was started last (seconds since the epoch); 0: not known."""
    exits: dict[str, int] = field(default_factory=dict)
    """Exit codes by container of what has ended since then, as far as known."""
    waits: bool = False
    """Whether it was told that its start waits for others to go."""

    def named(self) -> dict[str, str]:
        """What logs call it."""
        task = self.record.task if self.record is not None else self.task
        return {"task": self.local.id, "service": task.service if task is not None else ""}

    @property
    def kinds(self) -> set[str]:
        """Types of the executors that know about the task, or have to run it."""
        task = self.record.task if self.record is not None else self.task
        wanted = {container.type for container in task.task_definition.containers} if task is not None else set()
        return {one.type for one in self.held} | wanted

    @property
    def outdated(self) -> bool:
        """Whether what is being started is not what should run here any more."""
        new = self.record if self.record is not None and self.record.task is not self.task else None
        return self.going or (new is not None and self.task is not None and new.digest != digest(self.task))

    @property
    def going(self) -> bool:
        """Whether it is about to leave this host."""
        record = self.record
        if record is None:
            return not self.unreadable
        return self.busy is Step.STOP or not record.task.scheduled or record.task.rejected

    @property
    def stays(self) -> bool:
        """Whether it was leaving, and is wanted again as it runs."""
        digest = self.record.digest if self.record is not None else ""
        same = self.local.digest == digest and not self.local.renew
        return self.local.left_at is not None and not self.going and same

    @property
    def running(self) -> Task | None:
        """What was started; None if that is not known. Its record may say something else by now, which nobody has
        vouched for yet."""
        if self.record is not None and self.record.digest == self.local.digest:
            return self.record.task
        return self.task if self.task is not None and digest(self.task) == self.local.digest else None

    def note(self, task: Task, *, told: bool = False) -> Note:
        """What the disk is to hold of it, started from ``task``."""
        local = self.local
        return Note(
            task=task,
            attempts=local.attempts,
            unhealthy_restarts=local.unhealthy_restarts,
            began=self.began,
            told=told,
        )

    def recount(self) -> None:
        """Bring the counts of ``local`` in line with what is known of each container."""
        self.local.running = sum(self.alive.get(one, False) for one in self.held)
        self.local.dead = len(self.held) - self.local.running
        told = self.held[0].handle.digest if self.held else ""
        # An executor that keeps no digest is taken to run what was started here last, not something else for ever.
        self.local.digest = told or (digest(self.task) if self.held and self.task is not None else "")

    def saw(self, handle: Handle, seen: Observation) -> None:
        """Take note of how a container ended, if it has."""
        if seen.exit_code is not None:
            self.exits[handle.container] = seen.exit_code

    def hold(self, held: Iterable[Held], *, alive: bool) -> None:
        """Take ``held`` for all that exists of the task."""
        self.held = list(held)
        self.alive = dict.fromkeys(self.held, alive)
        self.recount()


class LocalTasks:
    """All slots by task id, and what they reserve together."""

    def __init__(self, notes: Mapping[TaskId, Note], now: float) -> None:
        self._notes, self._opened = dict(notes), now
        self.slots: dict[TaskId, Slot] = {}

    def slot(self, task_id: TaskId) -> Slot:
        """The slot of a task, with the counts that an earlier agent noted."""
        if task_id not in self.slots:
            slot = self.slots[task_id] = Slot(Local(task_id))
            note = self._notes.pop(task_id, None)
            if note is not None:
                slot.task, slot.noted, slot.told, slot.began = note.task, note.attempts, note.told, note.began
                slot.local.attempts, slot.local.unhealthy_restarts = note.attempts, note.unhealthy_restarts
                if note.attempts > 1:  # a task that keeps failing is tried no sooner because the agent is a new one
                    slot.local.next_try = self._opened + backoff.delay(note.attempts, task_id)
        return self.slots[task_id]

    def remember(self) -> None:
        """Make slots of all that was noted: also what is neither issued nor running any more is to be done with."""
        for task_id in list(self._notes):
            self.slot(task_id)

    def epochs(self) -> dict[TaskId, int]:
        """The epoch of every slot that nothing is being done to."""
        return {task_id: slot.epoch for task_id, slot in self.slots.items() if slot.busy is None}

    def adopt(
        self, kind: str, found: Mapping[Handle, Observation], epochs: Mapping[TaskId, int] | None, now: float
    ) -> list[Handle]:
        """Take over what was started and is not remembered, by an earlier agent or by a start whose outcome was
        never learnt. Slots that have moved on since ``epochs`` (None: the very first look) are left alone.

        Returns handles that are one too many: another instance of the same container is held already.
        """
        surplus: list[Handle] = []
        alive_first = sorted(found.items(), key=lambda item: (item[1].state is not State.RUNNING, item[0].ref))
        for handle, seen in alive_first:
            if epochs is not None and handle.task_id in self.slots:
                known = self.slots[handle.task_id]
                if known.busy is not None or known.epoch != epochs.get(handle.task_id):
                    continue
            slot = self.slot(handle.task_id)
            if any(one.handle.ref == handle.ref and one.type == kind for one in slot.held):
                continue
            if any(one.type == kind and one.handle.container == handle.container for one in slot.held):
                surplus.append(handle)
                continue
            held = Held(kind, handle)
            slot.held.append(held)
            slot.alive[held] = seen.state is State.RUNNING
            slot.saw(handle, seen)
            slot.recount()
            slot.local.registered = True  # as far as known: by whoever started it
            if seen.state is State.RUNNING:
                slot.local.started_at, slot.adopted = now, epochs is None
            elif not slot.unsure:  # else its failure is counted already
                failed(slot.local, f"{handle.container}: {seen.detail or 'ended while no agent was there'}", now)
        for task_id, slot in self.slots.items():
            slot.told = slot.told and not slot.local.up
            if slot.busy is None and (epochs is None or slot.epoch == epochs.get(task_id)):
                slot.unsure.discard(kind)
        return surplus

    def unsure_of(self, kind: str) -> bool:
        """Whether some task waits for a look at all that this executor runs."""
        return any(kind in slot.unsure for slot in self.slots.values())

    def observe(
        self, kind: str, seen: Mapping[Handle, Observation], epochs: Mapping[TaskId, int], now: float
    ) -> dict[TaskId, str]:
        """Take note of what an executor saw; returns the tasks that were found to have ended, and how.

        Slots that have moved on since ``epochs`` are left alone.
        """
        ended: dict[TaskId, str] = {}
        for task_id, epoch in epochs.items():
            slot = self.slots.get(task_id)
            if slot is None or slot.epoch != epoch or slot.busy is not None:
                continue
            was_up = slot.local.up
            deaths: list[str] = []
            for one in list(slot.held):
                observation = seen.get(one.handle) if one.type == kind else None
                if observation is None:
                    continue
                if observation.state is State.ABSENT:
                    slot.held.remove(one)
                slot.alive[one] = observation.state is State.RUNNING
                slot.saw(one.handle, observation)
                if observation.state is not State.RUNNING:
                    deaths.append(f"{one.handle.container}: {observation.detail or observation.state.value}")
            slot.recount()
            if deaths and was_up:
                ended[task_id] = "; ".join(deaths)
                failed(slot.local, ended[task_id], now)
        return ended

    def to_inspect(self, kind: str) -> tuple[list[Handle], dict[TaskId, int]]:
        """The handles of one executor that nothing is being done to, and the epochs of their slots."""
        epochs = self.epochs()
        handles = [one.handle for task_id in epochs for one in self.slots[task_id].held if one.type == kind]
        return handles, epochs

    def running(self) -> list[Task]:
        """What runs with all its containers, has nothing done to it, and is to be registered."""
        return [
            task
            for slot in self.slots.values()
            if slot.record is not None
            and slot.busy is None
            and slot.local.up
            and slot.local.registered
            and not slot.going
            and (task := slot.running) is not None
        ]

    def may_be_registered(self, task_id: TaskId) -> bool:
        """Whether the task is registered, something is being done to it, or it can't be told what there is of it."""
        slot = self.slots.get(task_id)
        return slot is not None and (slot.local.registered or slot.local.unknown or slot.busy is not None)

    def all_ports(self) -> frozenset[int]:
        """Host ports of all tasks that are here. Called from other threads: works on a copy."""
        return frozenset(port for slot in list(self.slots.values()) for port in slot.ports)

    def reserved(self, *, but: TaskId, going: bool) -> tuple[int, int, int, int]:
        """(memory MB, cpu units, disk MB, number) of the tasks that exist or are being started, one left out; also
        those that are about to go, if ``going``."""
        memory = cpu = disk = count = 0
        for task_id, slot in self.slots.items():
            task = slot.task
            if task_id == but or (slot.going and not going):
                continue
            if task is not None and (slot.local.exists or slot.unsure or slot.busy is Step.START):
                memory += task.task_definition.total_memory
                cpu += task.task_definition.total_cpu_units
                disk += task.task_definition.total_disk
                count += 1
        return memory, cpu, disk, count

    def port_holder(self, ports: frozenset[int], *, but: TaskId) -> Slot | None:
        """A slot that has, or is taking, one of ``ports``."""
        for task_id, slot in self.slots.items():
            if task_id != but and slot.ports & ports and (slot.local.exists or slot.unsure or slot.busy is not None):
                return slot
        return None
