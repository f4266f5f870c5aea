"""A second scheduler beside the one that decides: asked about every decision after it was carried out, on the same
inputs. What it would have done differently is logged, told as an event, and kept with the decision. Nothing else.

It is asked by a thread of its own, in a process of its own (see ``shadow_process``). While it is behind, decisions pass
it by.
"""

from __future__ import annotations

import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from sked_core.errors import Conflict, InvalidValue
from sked_core.interfaces.store import Check, Put, Store, entry_at
from sked_core.model import codec, keys
from sked_core.model.decisions import Decision, Shadow
from sked_core.runtime.journal import Journal
from sked_core.runtime.scheduling.shadow_process import DEADLINE_SECONDS, Job

log = logging.getLogger("sked.shadow")
MAX_WAITING = 64
"""Decisions that wait to be asked about; the ones after that are passed over."""
MAX_ANSWER_BYTES = 16 * 1024**2
MAX_ADDED_BYTES = 2 * 1024
"""What an answer may add to the record of a decision; the hosts are left out of a longer one."""


class Shadowing:
    """Asks the scheduler ``name``. ``ask`` may be called from any thread, and never waits; ``close`` ends it.
    ``environment``: variables for its process."""

    def __init__(
        self,
        store: Store,
        name: str,
        journal: Journal,
        deadline: float = DEADLINE_SECONDS,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._store, self._name, self._journal, self._deadline = store, name, journal, deadline
        self._environment = dict(environment or {})
        self._jobs: queue.Queue[tuple[str, Decision] | None] = queue.Queue(MAX_WAITING)
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._passed_over = 0
        self._fault = ""
        self._thread = threading.Thread(target=self._run, name="sked-shadow", daemon=True)
        self._thread.start()

    def ask(self, service: str, decision: Decision) -> None:
        """``decision`` about ``service`` was carried out."""
        if decision.scheduler == self._name:
            return
        try:
            self._jobs.put_nowait((service, decision))
        except queue.Full:
            self._passed_over += 1

    def close(self) -> None:
        """Ask no more. Idempotent."""
        self._closed = True
        self._end()
        try:
            self._jobs.put_nowait(None)
        except queue.Full:
            log.debug("the shadow ends with the process")

    def idle(self) -> bool:
        """Whether everything that it was asked has been answered, for tests."""
        return self._jobs.unfinished_tasks == 0

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None and not self._closed:
            service, decision = job
            try:
                shadows = self._answers(service, decision)
                if self._closed:
                    return
                self._keep(service, decision, shadows)
                self._tell(service, decision, shadows)
            except Exception as error:  # noqa: BLE001 - of no decision that counts
                log.warning("decision %s about %s: %s", decision.number, service, error, extra={"service": service})
            finally:
                self._jobs.task_done()
        self._end()

    # --- asking --------------------------------------------------------------------------------------------------

    def _answers(self, service: str, decision: Decision) -> Sequence[Shadow]:
        late = threading.Event()
        process = self._process
        if process is None or process.poll() is not None:
            process = self._process = self._start()
        assert process.stdin is not None and process.stdout is not None

        def too_late() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self._deadline, too_late)
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(msgspec.json.encode(Job(service, decision.batches)) + b"\n")
            process.stdin.flush()
            line = process.stdout.readline(MAX_ANSWER_BYTES)
            answers: list[Shadow] = msgspec.json.decode(line, type=list[Shadow])
            if len(answers) == len(decision.batches):
                return answers
            fault = "it answered something else than it was asked"
        except (OSError, ValueError, msgspec.DecodeError):  # what it says is no answer, or it ended
            fault = "its process ended"
        finally:
            timer.cancel()
        self._end()
        fault = f"it took longer than {self._deadline:g} s" if late.is_set() else fault
        return [Shadow(scheduler=self._name, fault=fault) for _ in decision.batches]

    def _start(self) -> subprocess.Popen[bytes]:
        """It looks for modules where this process does too, which need not be where Python does (sked.pyz)."""
        path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), *sys.path)))
        return subprocess.Popen(
            [sys.executable, "-m", "sked_core.runtime.scheduling.shadow_process", self._name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": path} | self._environment,
            start_new_session=True,
        )

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    # --- telling -------------------------------------------------------------------------------------------------

    def _keep(self, service: str, decision: Decision, shadows: Sequence[Shadow]) -> None:
        """Add the answers to the record, if it is still that of ``decision``."""
        key = keys.decision(service, decision.number)
        entry = entry_at(self._store, key)
        if entry is None:
            return
        try:
            stored = codec.decode(entry.value, Decision)
            if (stored.number, stored.by, len(stored.batches)) != (decision.number, decision.by, len(shadows)):
                return
            value = codec.encode(_with(stored, shadows))
            if len(value) > len(entry.value) + MAX_ADDED_BYTES:
                value = codec.encode(_with(stored, [replace(one, hosts=[]) for one in shadows]))
            self._store.commit([Check(key, entry.revision), Put(key, value)])
        except (Conflict, InvalidValue) as error:
            log.debug("%s is another one by now: %s", key, error)

    def _tell(self, service: str, decision: Decision, shadows: Sequence[Shadow]) -> None:
        if self._passed_over:
            log.warning("%d decisions were not shown to the shadow %s: it is behind", self._passed_over, self._name)
            self._passed_over = 0
        for batch, shadow in zip(decision.batches, shadows, strict=True):
            if shadow.fault:
                if shadow.fault != self._fault:
                    log.warning(
                        "shadow %s said nothing of decision %d about %s: %s",
                        self._name,
                        decision.number,
                        service,
                        shadow.fault,
                    )
                    self._event("shadow.failed", service, decision, f"{self._name}: {shadow.fault}")
            elif shadow.differs or shadow.waiting != batch.waiting:
                placed = len(batch.hosts) + batch.omitted
                why = f"{self._name} would have put {shadow.differs} of {placed} tasks elsewhere"
                if shadow.waiting != batch.waiting:
                    why += f", and left {shadow.waiting} waiting instead of {batch.waiting}"
                if shadow.gain:
                    why += f"; by its own score better by {shadow.gain:.4g}"
                log.info("decision %d about %s: %s", decision.number, service, why, extra={"service": service})
                self._event("shadow.differed", service, decision, why)
            self._fault = shadow.fault

    def _event(self, what: str, service: str, decision: Decision, why: str) -> None:
        event = self._journal.event(what, f"service/{service}", service=service, why=why)
        self._journal.add(replace(event, decision=decision.number))


def _with(decision: Decision, shadows: Sequence[Shadow]) -> Decision:
    batches = [replace(batch, shadow=shadow) for batch, shadow in zip(decision.batches, shadows, strict=True)]
    return replace(decision, batches=batches)
