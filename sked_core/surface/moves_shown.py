"""Waiting until moves are made."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sked_core.client import outcomes
from sked_core.client.looking.moves import left_of, progress
from sked_core.client.session import Session
from sked_core.errors import InvalidValue
from sked_core.model import keys
from sked_core.model.codec import decode
from sked_core.model.types import Event, TaskMove
from sked_core.model.wording import counted
from sked_core.surface.progress import Shown, wait_for

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
    shown = Shown()
    asked = {move.task: move for move in begun}
    known = set(sked.store.read(keys.EVENTS).entries if since is None else since)
    given_up: list[str] = []

    def pending() -> dict[str, list[TaskMove]]:
        nonlocal known
        left = left_of(sked, services)
        asked.update({move.task: move for moves in left.values() for move in moves})
        shown.show(_lines(left))
        events = sked.store.read(keys.EVENTS).entries
        given_up.extend(_given_up([events[key].value for key in sorted(events.keys() - known)], asked))
        known |= events.keys()
        return left

    hint = f"attach again:  {again}\ngive them up:  sked rebalance --cancel"
    if left := wait_for(pending, timeout, f"the {what}s go on", hint):
        raise outcomes.Ended(
            f"not all {what}s are done after {timeout:g} s",
            code=outcomes.TIMED_OUT,
            hint="\n".join([*_lines(left), f"the {what}s go on", f"attach again:  {again}"]),
        )
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
