"""Running kept decisions again, by the same scheduler or by another one. Nothing changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sked_core.client.looking import explaining
from sked_core.client.looking.foresight import with_scheduler
from sked_core.client.naming import named
from sked_core.client.session import Session
from sked_core.errors import NotFound, PluginError
from sked_core.logic.replay import Replayed
from sked_core.logic.replay import replay as run_again
from sked_core.model.decisions import Batch, Decision
from sked_core.model.spec import known


@dataclass(frozen=True, slots=True)
class Run:
    """One batch of a decision, run again by the scheduler of that name."""

    decision: Decision
    batch: Batch
    scheduler: str
    replayed: Replayed

    def json(self) -> dict[str, Any]:
        """What ``sked replay -o json`` prints of it."""
        found = self.replayed
        return {
            "decision": self.decision.number,
            "cluster": self.batch.cluster,
            "scheduler": self.scheduler,
            "same": found.same,
            "problem": found.problem,
            "hosts_then": self.batch.hosts,
            "hosts": found.answer.hosts if found.answer else None,
            "waiting_then": self.batch.waiting,
            "waiting": found.answer.waiting if found.answer else None,
            "moved": found.moved,
            "gain": found.gain,
            "differences": found.differences,
        }


@dataclass(frozen=True, slots=True)
class Replay:
    """``runs``, and ``empty``: decisions that hold nothing to run again. ``failed``: some run came to something else
    than it did, or could not be made; that another scheduler chooses other hosts is no failure."""

    runs: Sequence[Run]
    empty: Sequence[Decision]
    failed: bool


def replay(
    sked: Session, service: str, *, number: int | None = None, every: bool = False, scheduler: str = ""
) -> Replay:
    """Run decision ``number`` again, or all that are kept, or the last one; by ``scheduler`` if that is given. Raises
    NotFound, PluginError, Unavailable."""
    kept = explaining.decisions_of(sked.store, service)
    if not kept:  # of a service that is gone they may still be kept
        service = named(sked.store, "service", service)
        kept = explaining.decisions_of(sked.store, service)
    if not kept:
        raise NotFound(f"no decision about {service} is kept", hint="`sked services` lists the services")
    if number is not None:
        kept = [explaining.one_decision(kept, service, number)]
    elif not every:
        kept = kept[-1:]
    if scheduler:
        known("scheduler", scheduler, sked.plugins.names("scheduler"))

    def again(batch: Batch, by: str) -> Replayed:
        try:
            return with_scheduler(sked, by, lambda made, called: run_again(batch, service, made, called))
        except PluginError as error:
            return Replayed(problem=str(error))

    for one in sorted({scheduler or each.scheduler for each in kept}):
        sked.plugins.scheduler(one)  # raises with what to install
    runs = [
        Run(decision, batch, by, again(batch, by))
        for decision in kept
        for by in (scheduler or decision.scheduler,)
        for batch in decision.batches
    ]
    empty = [decision for decision in kept if not decision.batches]
    failed = any(one.replayed.problem or not (scheduler or one.replayed.same) for one in runs)
    return Replay(runs, empty, failed or bool(empty))
