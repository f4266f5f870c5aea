"""The rows of the fault matrix, each a function of a stage. Importing this module registers all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from campaign.judge import Terms
from campaign.stage import Stage

Play = Callable[[Stage], None]


@dataclass(frozen=True, slots=True)
class Row:
    """``store``: what it plays on; ``settings``: of that server. ``instead``: why it is not done as the matrix has it,
    and what is. ``needs``: other services, as fixtures. ``alone``: it builds its own store and stage."""

    name: str
    fault: str
    play: Play
    store: str = "consul"
    settings: Mapping[str, object] = field(default_factory=dict)
    terms: Terms = field(default_factory=Terms)
    needs: tuple[str, ...] = ()
    instead: str = ""


ROWS: dict[str, Row] = {}


def row(name: str, fault: str, **more: Any) -> Callable[[Play], Play]:
    """Registers a row. Its name is F and a number, with a letter where one row of the matrix is several plays."""

    def register(play: Play) -> Play:
        ROWS[name] = Row(name, fault, play, **more)
        return play

    return register


def load() -> dict[str, Row]:
    """All rows, by name, in order."""
    from campaign import rows_agents, rows_engines, rows_hosts, rows_networks, rows_people, rows_stores  # noqa: F401

    return dict(sorted(ROWS.items(), key=lambda item: (int("".join(filter(str.isdigit, item[0]))), item[0])))
