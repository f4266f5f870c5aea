"""Waiting until moves are made."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

from sked_core.client import outcomes
from sked_core.client.looking.moves import left_of, progress
from sked_core.client.session import Session
from sked_core.client.wording import counted
from sked_core.errors import InvalidValue
from sked_core.model import keys
from sked_core.model.codec import decode
from sked_core.model.types import Event, TaskMove
from sked_core.surface.progress import Shown

LOOK_SECONDS = 0.5
AGAIN = "sked rebalance --wait"


def follow(
    sked: Session,
    services: Collection[str],
    *,
    timeout: float,
    what: str = "move",
    again: str = AGAIN,
    begun: Iterable[TaskMove] = (),
    since: Collection[str] | None = None,
) -> None:
    """Return once no moves of ``services`` (none: of all) are left, showing how far they are. ``what`` they are called;
    ``again``: how to attach again; ``begun``: those that were asked for, beside those that are left; ``since``: the
    events that were there before that.

    Raises Ended with code 1 if schedulers have given some up, 9 after ``timeout`` seconds, 130 on Ctrl-C. The moves go
    on in any case.
    """
    deadline, shown = time.monotonic() + timeout, Shown()
    asked = {move.task: move for move in begun}
    known = set(sked.store.read(keys.EVENTS).entries if since is None else since)
    given_up: list[str] = []
    try:
        while True:
            left = left_of(sked, services)
            asked |= {move.task: move for moves in left.values() for move in moves}
            shown.show(_lines(left))
            events = sked.store.read(keys.EVENTS).entries
            given_up += _given_up({key: events[key].value for key in sorted(events.keys() - known)}.values(), asked)
            known |= events.keys()
            if not left:
                break
            if time.monotonic() >= deadline:
                raise outcomes.Ended(
                    f"not all {what}s are done after {timeout:g} s",
                    code=outcomes.TIMED_OUT,
                    hint="\n".join([*_lines(left), f"the {what}s go on", f"attach again:  {again}"]),
                )
            time.sleep(min(LOOK_SECONDS, max(0.0, deadline - time.monotonic())))
    except KeyboardInterrupt:
        hint = f"attach again:  {again}\ngive them up:  sked rebalance --cancel"
        raise outcomes.Ended(f"interrupted; the {what}s go on", code=outcomes.INTERRUPTED, hint=hint) from None
    done = f"{len(asked) - len(given_up)} of {counted(len(asked), what)} made"
    if given_up:
        look = ["look again:  sked rebalance"] if what == "move" else []
        raise outcomes.Ended(done, code=outcomes.FAILED, hint="\n".join([*given_up, *look]))
    shown.say(done)


def _lines(left: dict[str, list[TaskMove]]) -> list[str]:
    return [f"{name}: {progress(moves)}" for name, moves in left.items()]


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
