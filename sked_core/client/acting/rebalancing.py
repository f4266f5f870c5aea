"""Which tasks had better run elsewhere, what that gains and costs; and having it done."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from sked_core.client.acting import moving
from sked_core.client.looking.foresight import live_world, schedulers_of, thought_out
from sked_core.client.outcomes import CONFLICT, Ended
from sked_core.client.session import Session, repeated
from sked_core.logic.rebalance import DEFAULT_MOST, Proposal
from sked_core.logic.rebalance import rebalance as proposed
from sked_core.model.spec import known
from sked_core.runtime.scheduling.live_world import Live


@dataclass(frozen=True, slots=True)
class Rebalance:
    """A proposal, the state that it was made from, and whether schedulers were asked for its moves."""

    proposal: Proposal
    live: Live
    applied: bool

    @property
    def number(self) -> int:
        """By which ``rebalance(if_revision=…)`` does exactly this or nothing."""
        return self.proposal.number(self.live.since)

    @property
    def services(self) -> list[str]:
        """Those with tasks that move."""
        return sorted({move.task.service for move in self.proposal.moves})


class NotAsProposed(Ended):
    """What was reviewed is not what would be moved now. ``now`` is: what surfaces show before the hint."""

    def __init__(self, number: int, now: Proposal) -> None:
        message = f"what was reviewed as {number} is not what would be moved now"
        super().__init__(message, code=CONFLICT, hint="review that:  sked rebalance")
        self.now = now


def rebalance(
    sked: Session,
    *,
    services: Collection[str] = (),
    hosts: Collection[str] = (),
    most: int = DEFAULT_MOST,
    apply: bool = False,
    if_revision: int | None = None,
    why: str = "sked rebalance",
) -> Rebalance:
    """What had better move, of ``services`` and from or to ``hosts`` (none: of all), in ``most`` moves; with ``apply``
    schedulers are asked for it, with ``if_revision`` only if it is what was proposed under that number.

    Raises NotAsProposed, NotFound, InvalidValue, Conflict, Unavailable.
    """

    def attempt() -> Rebalance:
        live = live_world(sked)
        for service in services:
            live.world.declared(service)
        for host in hosts:
            known("host", host, live.world.hosts)
        schedulers = schedulers_of(sked, live.world)
        found = thought_out(
            sked, schedulers, lambda: proposed(live.world, schedulers, most=most, services=services, hosts=hosts)
        )
        if if_revision is not None and not found.same(if_revision):
            raise NotAsProposed(if_revision, found)
        if apply and found.moves:
            moving.write(sked, live, found, why)
        return Rebalance(found, live, applied=apply and bool(found.moves))

    return repeated(attempt)


def cancel(sked: Session, services: Collection[str] = ()) -> list[str]:
    """Give up the moves of ``services`` (none: of all) that have not begun; returns what was done, in lines."""
    return repeated(lambda: moving.cancel(sked, services))


def gains(found: Proposal) -> Iterator[tuple[str, str, str]]:
    """What the moves change, in words and numbers: what, before, after."""
    before, after = found.before, found.after

    def said(name: str, one: Any) -> str:
        if name == "tasks":
            return f"{one.tasks[0]} and {one.tasks[1]}"
        value = getattr(one, name)
        return f"{value:.0%}" if isinstance(value, float) else str(value)

    for name, what in (
        ("broken", "tasks that break a rule"),
        ("wishes", "weight of the wishes that are met"),
        ("difference", "largest difference between hosts in tasks of one service"),
        ("tasks", "tasks on a host, most and fewest"),
        ("memory", "memory of the fullest host given away"),
        ("cpu", "cpu of the fullest host given away"),
        ("used", "hosts with tasks"),
    ):
        spread = name == "used" and after.used > before.used  # what spreads is out for nothing else
        if said(name, before) != said(name, after) and not spread:
            yield what, said(name, before), said(name, after)


def rebalance_json(made: Rebalance, again: str) -> dict[str, Any]:
    """A proposal for programs; ``again``: the command that does exactly this."""
    found = made.proposal
    return {
        "revision": str(made.number),  # more digits than many readers of JSON keep of a number
        "apply": again if found.moves and not made.applied else "",
        "applied": made.applied,
        "moves": [
            {
                "task": move.task.id,
                "cluster": move.task.cluster.name,
                "service": move.task.service,
                "from": move.task.host,
                "to": move.to,
                "why": move.why,
            }
            for move in found.moves
        ],
        "before": asdict(found.before),
        "after": asdict(found.after),
        "services": [
            {"cluster": cluster, "service": service, **asdict(effort)}
            for (cluster, service), effort in found.efforts.items()
        ],
        "left_out": [
            {"cluster": cluster, "service": service, "why": why} for (cluster, service), why in found.left_out.items()
        ],
        "more": found.more,
    }
