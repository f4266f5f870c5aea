"""Deliberate bugs in agents, for A1 to A15 and B8, B11 to B13."""

from __future__ import annotations

import contextlib
from typing import Any

from sim.mutating import Mutations, Patch
from sked_core.errors import SkedError, StoreChanged
from sked_core.interfaces.executor import Observation, State
from sked_core.interfaces.store import Lease, Revision
from sked_core.logic import lifecycle
from sked_core.model import codec, duration, keys
from sked_core.runtime import ownership
from sked_core.runtime.agent import (
    endings,
    host_presence,
    intake,
    issued_feed,
    local_tasks,
    looks,
    loop,
    records,
    task_ends,
    task_runner,
    task_steps,
)
from sked_core.runtime.workers import Message, nothing_more

AGENT = Mutations()


@AGENT.of("A1", "any-store", "an agent believes whatever store it finds, also an empty one")
def _any_store(patch: Patch) -> None:
    honest = issued_feed.IssuedFeed._check_identity

    def check(self: Any) -> bool:
        try:
            return honest(self)
        except StoreChanged:
            return False

    patch.setattr(issued_feed.IssuedFeed, "_check_identity", check)


@AGENT.of("A1", "any-age", "an agent believes an older copy of its store's data")
def _any_age(patch: Patch) -> None:
    honest = issued_feed.IssuedFeed._read_count
    patch.setattr(issued_feed.IssuedFeed, "_read_count", lambda self, seen: max(honest(self, seen), seen))


@AGENT.of("A2", "no-answer-is-empty", "a read that failed is taken for an empty answer", also=("A1", "A3"))
def _no_answer_is_empty(patch: Patch) -> None:
    honest = issued_feed.IssuedFeed.read_and_deliver

    def read(self: Any) -> tuple[Revision, bool]:
        try:
            return honest(self)
        except SkedError:
            self._deliver(issued_feed.Issue())
            return Revision(0), True

    patch.setattr(issued_feed.IssuedFeed, "read_and_deliver", read)


@AGENT.of("A3", "clean-start", "an agent that starts stops what it finds", also=("A1",))
def _clean_start(patch: Patch) -> None:
    patch.setattr(local_tasks.LocalTasks, "adopt", lambda self, kind, found, epochs, now: sorted(found, key=str))


@AGENT.of("A4", "acts-on-notes", "an agent starts what its notes say before it has read what is issued")
def _acts_on_notes(patch: Patch) -> None:
    honest = loop.AgentLoop.open

    def opened(self: Any) -> None:
        honest(self)
        records = {}
        for task_id, note in self.disk.notes().items():
            grace = duration.to_seconds(note.task.task_definition.grace_period)
            raw = codec.encode(note.task)
            records[task_id] = issued_feed.Record(note.task, raw, Revision(0), codec.digest(note.task), grace)
        if records:
            self.presence.held = True
            self._deliver(issued_feed.Issue(records))

    patch.setattr(loop.AgentLoop, "open", opened)


@AGENT.of("A5", "two-workers", "each start is handed to two workers")
def _two_workers(patch: Patch) -> None:
    honest = task_steps.TaskSteps._begin_start

    def begin(self: Any, slot: Any, now: float) -> None:
        honest(self, slot, now)
        record, bindings = slot.record, self._admission.bindings(slot.record.task)

        def again() -> Message:
            with contextlib.suppress(SkedError):
                self._runner.start(record.task, bindings, [], slot.call_off)
            return nothing_more

        if slot.busy is lifecycle.Step.START:
            self._submit("sim start", again)

    patch.setattr(task_steps.TaskSteps, "_begin_start", begin)


@AGENT.of("A6", "forgets-what-runs", "a task that is no longer issued is forgotten while it runs", also=("A13", "A14"))
def _forgets_what_runs(patch: Patch) -> None:
    honest = lifecycle._wind_down

    def wind_down(local: Any, reason: str, delay: float, now: float) -> lifecycle.Decision:
        if reason == "no longer issued":
            return lifecycle.Decision(lifecycle.Step.FORGET)
        return honest(local, reason, delay, now)

    patch.setattr(lifecycle, "_wind_down", wind_down)


@AGENT.of("A6", "adopts-nothing", "what an earlier agent has started is never looked for", also=("A8", "A13", "A14"))
def _adopts_nothing(patch: Patch) -> None:
    patch.setattr(local_tasks.LocalTasks, "adopt", lambda self, kind, found, epochs, now: [])


@AGENT.of("A8", "forgets-a-container", "of a task's containers only the last one is stopped", also=("A14",))
def _forgets_a_container(patch: Patch) -> None:
    honest = task_runner.TaskRunner.stop
    patch.setattr(task_runner.TaskRunner, "stop", lambda self, task_id, held: honest(self, task_id, list(held)[-1:]))


@AGENT.of("A9", "garbage-is-absent", "a record that can't be read is taken for an absent one")
def _garbage_is_absent(patch: Patch) -> None:
    honest = issued_feed.IssuedFeed._decode
    patch.setattr(
        issued_feed.IssuedFeed, "_decode", lambda self, entries: issued_feed.Issue(honest(self, entries).records)
    )


@AGENT.of("A10", "no-brake", "many tasks that vanish at once are stopped at once")
def _no_brake(patch: Patch) -> None:
    patch.setattr(intake, "held_back", lambda *args, **kwargs: frozenset())


@AGENT.of("A11", "silence-is-an-end", "an engine that does not say what runs is taken to say that all has ended")
def _silence_is_an_end(patch: Patch) -> None:
    _on_silence(patch, State.EXITED)


@AGENT.of(
    "A11",
    "silence-is-absence",
    "an engine that does not say what runs is taken to say that nothing is there",
    also=("A8", "A14"),  # keys are removed, and ports given away, of what still runs
)
def _silence_is_absence(patch: Patch) -> None:
    _on_silence(patch, State.ABSENT)


def _on_silence(patch: Patch, state: State) -> None:
    honest = looks.Looks._missed

    def missed(self: Any, name: str, error: Exception, now: float) -> None:
        honest(self, name, error, now)
        what, _, kind = name.partition(" ")
        if what == "inspect":
            handles, epochs = self._tasks.to_inspect(kind)
            self._observed(kind, {handle: Observation(state) for handle in handles}, epochs, now)

    patch.setattr(looks.Looks, "_missed", missed)


@AGENT.of("A12", "works-itself", "the thread that decides does the work itself")
def _works_itself(patch: Patch) -> None:
    patch.setattr(loop.AgentLoop, "_submit", lambda self, pool, job: self._post(job()))


@AGENT.of(
    "A13",
    "keeps-what-moved",
    "an agent keeps running what was issued to another host while it was away",
    also=("A6", "A14"),
)
def _keeps_what_moved(patch: Patch) -> None:
    honest = lifecycle._wind_down

    def wind_down(local: Any, reason: str, delay: float, now: float) -> lifecycle.Decision:
        if reason == "no longer issued":
            return lifecycle.Decision(lifecycle.Step.NONE)
        return honest(local, reason, delay, now)

    patch.setattr(lifecycle, "_wind_down", wind_down)


@AGENT.of(
    "A13",
    "never-compares",
    "an agent never asks whether its task is issued to another host",
    also=("B5",),  # it stays as it was torn apart
)
def _never_compares(patch: Patch) -> None:
    patch.setattr(ownership.Ownership, "settle", lambda self, entries: entries)


@AGENT.of("A14", "shares-ports", "a task is started though another one on its host still has its port")
def _shares_ports(patch: Patch) -> None:
    patch.setattr(local_tasks.LocalTasks, "port_holder", lambda self, ports, *, but: None)


@AGENT.of("A15", "more-slots", "how tasks ended is kept in ever more slots")
def _more_slots(patch: Patch) -> None:
    patch.setattr(keys, "ending", lambda host, slot: f"{keys.endings(host)}{slot}")
    patch.setattr(endings, "place", lambda slots, ending: (keys.KEPT_ENDINGS + len(slots), ending))


@AGENT.of("B8", "no-pause", "nothing lies between two starts of a task that fails")
def _no_pause(patch: Patch) -> None:
    class NoBackoff:
        @staticmethod
        def delay(*args: Any, **kwargs: Any) -> float:
            return 0.0

    patch.setattr(lifecycle, "backoff", NoBackoff)


@AGENT.of("B8", "counts-nothing", "starts that failed are not counted", also=("B7", "B13"))
def _counts_nothing(patch: Patch) -> None:
    honest = lifecycle.failed

    def failed(local: Any, error: str, now: float) -> None:
        local.attempts = 0
        honest(local, error, now)

    patch.setattr(task_ends, "failed", failed)
    patch.setattr(local_tasks, "failed", failed)


@AGENT.of("B11", "always-publishes", "an agent writes its host's record at every round")
def _always_publishes(patch: Patch) -> None:
    honest = host_presence.HostPresence.announce

    def announce(self: Any) -> None:
        self._published = None
        honest(self)

    patch.setattr(host_presence.HostPresence, "announce", announce)


@AGENT.of("B12", "lease-every-time", "an agent takes another lease at every round")
def _lease_every_time(patch: Patch) -> None:
    honest = host_presence.HostPresence._hold

    def hold(self: Any, _lease: Lease) -> None:
        self._keeper.drop()
        honest(self, self._keeper.lease())

    patch.setattr(host_presence.HostPresence, "_hold", hold)


@AGENT.of("B13", "never-says-gone", "the keys of a task that was withdrawn and is gone are not removed", also=("B7",))
def _never_says_gone(patch: Patch) -> None:
    patch.setattr(records, "retire", lambda *args: None)


@AGENT.of(
    "A6",
    "reads-once",
    "a record that changes is not taken in, also where it asks for the task's end",
    also=("B7", "B13"),
)
def _reads_once(patch: Patch) -> None:
    honest = intake.Intake._renew

    def renew(self: Any, slot: Any, record: Any) -> None:
        if slot.record is None:
            honest(self, slot, record)

    patch.setattr(intake.Intake, "_renew", renew)
