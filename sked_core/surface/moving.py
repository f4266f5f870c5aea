"""Having moves made: writing them down, giving them up, and waiting until they are done."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from sked_core.clock import SystemClock
from sked_core.errors import InvalidValue
from sked_core.interfaces.store import Check, Delete, Op, Put, Revision
from sked_core.logic.rebalance import Proposal
from sked_core.model import keys
from sked_core.model.codec import decode, encode
from sked_core.model.types import Event, Moves, TaskMove
from sked_core.runtime.journal import MAX_BYTES_OF_COMMIT, Journal, utc
from sked_core.runtime.live_world import Live
from sked_core.runtime.state import MAX_COMMIT_BYTES, batches
from sked_core.surface import errors, reading
from sked_core.surface.identity import told_by
from sked_core.surface.options import Session
from sked_core.surface.progress import Shown

LOOK_SECONDS = 0.5
AGAIN = "sked rebalance --wait"


def write(sked: Session, live: Live, proposal: Proposal, why: str) -> None:
    """Ask schedulers for the moves, on the condition that nothing of what they rest on has changed. Raises Conflict."""
    journal, world = told_by(sked), live.world
    records = proposal.records(world, by=journal.who, why=why, at=utc(SystemClock().wall()))
    groups: list[list[Op]] = []
    told: dict[str, Event] = {}
    for name, moves in records.items():
        key, service = keys.moves(name), keys.service(name)
        tasks = [Check(keys.task(move.task), world.issued[move.task].revision) for move in moves.moves]  # type: ignore[index]
        groups.append(
            [Check(key, Revision(0)), Check(service, live.revisions[service]), *tasks, Put(key, encode(moves))]
        )
        count = errors.counted(len(moves.moves), "move")
        told[key] = journal.event("service.rebalanced", f"service/{name}", service=name, why=f"{count}: {why}")
    room, size = sked.store.max_ops - 1, MAX_COMMIT_BYTES - MAX_BYTES_OF_COMMIT
    for batch in batches(groups, max_ops=room, max_bytes=size):
        events = [told[op.key] for op in batch if isinstance(op, Put)]
        sked.store.commit([*batch, journal.put(events)])
        journal.tell(events)


def cancel(sked: Session, services: Collection[str]) -> list[str]:
    """Give up the moves of ``services`` (none: of all) that have not begun; returns what was done, in lines. Raises
    Conflict if a scheduler was faster."""
    journal, lines = told_by(sked), []
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
        told = [journal.put(events)] if events else []
        sked.store.commit([Check(key, entries[name].revision), Delete(key), *told])
        journal.tell(events)
        lines.append(f"rebalance/{name} cancelled: {errors.counted(len(left), 'move')} left")
    return lines


def _given_up_by_hand(journal: Journal, service: str, move: TaskMove) -> Event:
    subject, why = f"task/{move.task}", "sked rebalance --cancel"
    return journal.event(
        "move.cancelled", subject, service=service, host=move.to, why=why, before=move.source, after=move.to
    )


def follow(sked: Session, services: Collection[str], *, timeout: float) -> None:
    """Return once no moves of ``services`` (none: of all) are left, showing how far they are.

    Raises Ended with code 1 if schedulers have given some up, 9 after ``timeout`` seconds, 130 on Ctrl-C. The moves go
    on in any case.
    """
    deadline, shown = time.monotonic() + timeout, Shown()
    asked: dict[str, TaskMove] = {}
    known = set(sked.store.read(keys.EVENTS).entries)
    given_up: list[str] = []
    try:
        while True:
            left = _left(sked, services)
            asked |= {move.task: move for moves in left.values() for move in moves}
            shown.show(_lines(left))
            events = sked.store.read(keys.EVENTS).entries
            given_up += _given_up({key: events[key].value for key in sorted(events.keys() - known)}.values(), asked)
            known |= events.keys()
            if not left:
                break
            if time.monotonic() >= deadline:
                raise errors.Ended(
                    f"not all moves are done after {timeout:g} s",
                    code=errors.TIMED_OUT,
                    hint="\n".join([*_lines(left), "the moves go on", f"attach again:  {AGAIN}"]),
                )
            time.sleep(min(LOOK_SECONDS, max(0.0, deadline - time.monotonic())))
    except KeyboardInterrupt:
        hint = f"attach again:  {AGAIN}\ngive them up:  sked rebalance --cancel"
        raise errors.Ended("interrupted; the moves go on", code=errors.INTERRUPTED, hint=hint) from None
    done = f"{len(asked) - len(given_up)} of {errors.counted(len(asked), 'move')} made"
    if given_up:
        raise errors.Ended(done, code=errors.FAILED, hint="\n".join([*given_up, "look again:  sked rebalance"]))
    shown.say(done)


def unattended(sked: Session, services: Collection[str]) -> list[str]:
    """A line for each of ``services`` (none: of all) with moves left that nobody would make."""
    left = _left(sked, services)
    return reading.unattended(sked.store, [one.value for one in reading.services(sked.store) if one.value.name in left])


def _left(sked: Session, services: Collection[str]) -> dict[str, list[TaskMove]]:
    found = reading.by_name(sked.store, keys.MOVES, Moves)
    return {name: moves.moves for name, moves in sorted(found.items()) if not services or name in services}


def _lines(left: dict[str, list[TaskMove]]) -> list[str]:
    return [f"{name}: {said(moves)}" for name, moves in left.items()]


def said(moves: Sequence[TaskMove]) -> str:
    """How many are left, and how far the next one is."""
    return f"{errors.counted(len(moves), 'move')} left: {_next(moves)}"


def _next(moves: Sequence[TaskMove]) -> str:
    move = next((one for one in moves if one.state != "waiting"), moves[0])
    way = f"{move.task} from {move.source} to {move.to}"
    if move.state == "starting":
        return f"{way}, its replacement {move.replacement} is becoming healthy"
    return f"{way}, it is being stopped" if move.state == "stopping" else f"{way}, which waits"


def _given_up(values: Collection[bytes], asked: Collection[str]) -> list[str]:
    """What events say of moves among ``asked`` that are not made."""
    lines = []
    for value in values:
        try:
            events = decode(value, list[Event])
        except InvalidValue:
            continue
        for event in events:
            task = event.subject.removeprefix("task/")
            if event.what == "move.cancelled" and task in asked:
                lines.append(f"{task} stays: {event.why}")
    return lines
