"""The moves that are under way: how many are left, how far the next one is, and whether anybody makes them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sked_core.client import reading
from sked_core.client.session import Session
from sked_core.model import keys
from sked_core.model.types import Moves, TaskMove
from sked_core.model.wording import counted


def unattended(sked: Session, services: Collection[str]) -> list[str]:
    """A line for each of ``services`` (none: of all) with moves left that nobody would make."""
    left = left_of(sked, services)
    return reading.unattended(sked.store, [one.value for one in reading.services(sked.store) if one.value.name in left])


def left_of(sked: Session, services: Collection[str]) -> dict[str, list[TaskMove]]:
    """The moves of ``services`` (none: of all) that are left to be made, by service."""
    found = reading.by_name(sked.store, keys.MOVES, Moves)
    return {name: moves.moves for name, moves in sorted(found.items()) if not services or name in services}


def progress(moves: Sequence[TaskMove]) -> str:
    """How many are left, and how far the next one is."""
    what = "restart" if all(move.restarts for move in moves) else "move"
    return f"{counted(len(moves), what)} left: {_next(moves)}"


def _next(moves: Sequence[TaskMove]) -> str:
    move = next((one for one in moves if one.state != "waiting"), moves[0])
    way = f"{move.task} on {move.to}" if move.restarts else f"{move.task} from {move.source} to {move.to}"
    if move.state == "starting":
        return f"{way}, its replacement {move.replacement} is becoming healthy"
    return f"{way}, it is being stopped" if move.state == "stopping" else f"{way}, which waits"
