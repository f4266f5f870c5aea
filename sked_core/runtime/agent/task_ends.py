"""What is told of it when a task fails or ends: the failure that stands while it is so, the ending that is kept, and
the event. The agent's main thread calls in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sked_core.clock import Clock
from sked_core.logic.keeping import bounded
from sked_core.logic.lifecycle import Decision, failed
from sked_core.model.endings import Cause, Ending
from sked_core.model.spec import plain_lines
from sked_core.model.types import Failure
from sked_core.runtime.agent.disk import AgentDisk
from sked_core.runtime.agent.endings import EndingNotes
from sked_core.runtime.agent.events import AgentEvents
from sked_core.runtime.agent.failures import FailureNotes
from sked_core.runtime.agent.local_tasks import Slot
from sked_core.runtime.agent.task_runner import TAIL_LINES, shortened
from sked_core.runtime.journal import utc

ENDING_LINES = 40
"""How many of the last lines of a task an ending keeps."""
RESTARTED = "somebody asked for a restart"


class TaskEnds:
    """Tells of each end once, however many agents see it one after another."""

    def __init__(
        self,
        *,
        host: str,
        failures: FailureNotes,
        endings: EndingNotes,
        events: AgentEvents,
        disk: AgentDisk,
        clock: Clock,
    ) -> None:
        self._host, self._failures, self._endings, self._events = host, failures, endings, events
        self._disk, self._clock = disk, clock
        self.counts: Counter[tuple[str, str]] = Counter()
        """How many runs ended, by service and cause."""

    def failed(
        self, slot: Slot, error: str, now: float, *, cause: Cause | None = None, said: Sequence[Sequence[str]] = ()
    ) -> None:
        """It died, did not start or was unhealthy for too long: count that, and tell it as ``tell`` does."""
        failed(slot.local, error, now)
        self.tell(slot, now, cause=cause, said=said)

    def tell(self, slot: Slot, now: float, *, cause: Cause | None = None, said: Sequence[Sequence[str]] = ()) -> None:
        """It failed as ``slot.local`` says: have it kept in the store, as long as it is to run here; and how its run
        ended, if that has a ``cause``. ``said``: the last lines of each container."""
        if cause is not None:
            slot.local.log = shortened(said, TAIL_LINES)
            self.ended(slot, cause, slot.local.last_error, said)
        if slot.going or slot.record is None:
            return
        most = slot.record.task.task_definition.max_attempts
        over = bool(slot.local.verdict) or slot.local.attempts >= most
        failure = self._failures.note(slot.local, now, unhealthy=cause == "unhealthy", gives_up=over)
        if slot.told:
            return
        after = "no further try" if over else f"next try at {failure.next_try}"
        before = f"start {failure.attempts} of {most}"
        self._events.task("task.failed", slot, failure.reason, before=before, after=after)
        self.renote(slot, told=True)

    def ended(self, slot: Slot, cause: Cause, reason: str, said: Sequence[Sequence[str]] = ()) -> None:
        """Have it kept how its run ended, unless that was told before; a rejection is none of a run."""
        issued = slot.record.task if slot.record is not None else None
        task = (issued or slot.task) if cause == "rejected" else (slot.task or issued)
        if task is None or (cause != "rejected" and (slot.ended or slot.told)):
            return
        slot.ended = slot.ended or cause != "rejected"
        self.counts[task.service, cause] += 1
        ran, local = cause not in ("rejected", "start_failed"), slot.local
        ending = Ending(
            task=task.id,
            cluster=task.cluster.name,
            service=task.service,
            instance=task.instance,
            task_name=task.task_definition.name,
            task_version=task.task_definition.version,
            host=self._host,
            cause=cause,
            reason=plain_lines(reason),
            exits=dict(slot.exits) if ran else {},
            output=plain_lines(local.check_output) if ran else "",
            log=shortened(said, ENDING_LINES),
            attempts=max(1, local.attempts) if cause != "rejected" else local.attempts,
            started=utc(slot.began) if ran and slot.began else "",
            ended=utc(self._clock.wall()),
        )
        self._endings.note(bounded(ending))

    def rejected(self, slot: Slot, reason: str, failure: Failure | None) -> None:
        """It stands in the store that this host won't run it."""
        if failure is not None:
            self._failures.kept(slot.local.id, failure)
        self._events.task("task.rejected", slot, reason)
        self.ended(slot, "rejected", reason)

    def stopping(self, slot: Slot, decision: Decision) -> None:
        """It is about to be stopped for good."""
        if not slot.stopping:
            self._events.task("task.stopping", slot, decision.reason)
        slot.stopping = True

    def stopped(self, slot: Slot, decision: Decision, said: Sequence[Sequence[str]], *, was_up: bool) -> None:
        """Nothing of it is left, as somebody wanted. ``was_up``: it ran until then."""
        if was_up:
            self.ended(slot, "stopped", RESTARTED if _restarts(slot) else decision.reason, said)
        else:
            self.ended(slot, "crashed", slot.local.last_error, said)
        self._events.task("task.stopped", slot, decision.reason)
        slot.stopping = False

    def renote(self, slot: Slot, *, told: bool = False) -> None:
        """Bring the disk's note of it up to date."""
        slot.noted = slot.local.attempts
        if slot.task is not None:
            self._disk.write_note(slot.note(slot.task, told=told))


def _restarts(slot: Slot) -> bool:
    """Whether what was stopped is to run on as it was, once more."""
    wanted, ran = slot.record.task if slot.record is not None else None, slot.task
    if wanted is None or ran is None or not wanted.scheduled or wanted.restarts == ran.restarts:
        return False
    return (wanted.task_definition, wanted.port) == (ran.task_definition, ran.port)
