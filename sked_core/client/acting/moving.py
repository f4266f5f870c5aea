"""Having moves made: writing them down, and giving them up."""

from __future__ import annotations

from collections.abc import Collection

from sked_core.client.session import Session
from sked_core.errors import InvalidValue
from sked_core.interfaces.store import Check, Delete, Op, Put, Revision
from sked_core.logic.rebalance import Proposal
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.types import Event, Moves, TaskMove
from sked_core.model.wording import counted
from sked_core.runtime.journal import MAX_BYTES_OF_COMMIT, Journal
from sked_core.runtime.scheduling.live_world import Live
from sked_core.runtime.state import MAX_COMMIT_BYTES, batches


def write(sked: Session, live: Live, proposal: Proposal, why: str) -> None:
    """Ask schedulers for the moves, on the condition that nothing of what they rest on has changed. Raises Conflict."""
    journal, world = sked.journal(), live.world
    records = proposal.records(world, by=journal.who, why=why, at=journal.now())
    groups: list[list[Op]] = []
    told: dict[str, Event] = {}
    for name, moves in records.items():
        key, service = keys.moves(name), keys.service(name)
        tasks = [Check(keys.task(move.task), world.issued[move.task].revision) for move in moves.moves]  # type: ignore[index]
        groups.append(
            [Check(key, Revision(0)), Check(service, live.revisions[service]), *tasks, Put(key, encode(moves))]
        )
        count = counted(len(moves.moves), "move")
        told[key] = journal.event("service.rebalanced", f"service/{name}", service=name, why=f"{count}: {why}")
    room, size = sked.store.max_ops - 1, MAX_COMMIT_BYTES - MAX_BYTES_OF_COMMIT
    for batch in batches(groups, max_ops=room, max_bytes=size):
        journal.commit(batch, [told[op.key] for op in batch if isinstance(op, Put)])


def cancel(sked: Session, services: Collection[str]) -> list[str]:
    """Give up the moves of ``services`` (none: of all) that have not begun; returns what was done, in lines. Raises
    Conflict if a scheduler was faster."""
    journal, lines = sked.journal(), []
    entries = {keys.last_segment(key): entry for key, entry in sked.store.read(keys.MOVES).entries.items()}
    for name in sorted(services or entries):
        if name not in entries:
            lines.append(f"rebalance/{name} unchanged: no moves are under way")
            continue
        key = keys.moves(name)
        try:
            left = decode(entries[name].value, Moves).moves
        except InvalidValue:
            left = []
        events = [_given_up_by_hand(journal, name, move) for move in left]
        journal.commit([Check(key, entries[name].revision), Delete(key)], events)
        lines.append(f"rebalance/{name} cancelled: {counted(len(left), 'move')} left")
    return lines


def _given_up_by_hand(journal: Journal, service: str, move: TaskMove) -> Event:
    subject, why = f"task/{move.task}", "sked rebalance --cancel"
    return journal.event(
        "move.cancelled", subject, service=service, host=move.to, why=why, before=move.source, after=move.to
    )
