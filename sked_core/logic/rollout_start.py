"""How a roll-out begins and ends: what is put, what moves to the history, what leaves it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec.structs import replace

from sked_core.errors import InvalidValue
from sked_core.interfaces.store import Check, Delete, Entry, Op, Put, Revision
from sked_core.model import keys
from sked_core.model.codec import decode, encode, patch
from sked_core.model.types import Rollout, Service

Kind = Literal["update", "undo", "rollback"]
MAX_KEPT = 20
"""How many ended roll-outs of a service are kept."""
MAX_REMOVED = 10
"""How many one commit removes at most: more than one is there only where somebody wrote them by hand."""


def parse(entry: Entry | None) -> Rollout | None:
    """The roll-out in ``entry``; None where there is none or it can't be read: then a new one takes its place."""
    try:
        return decode(entry.value, Rollout) if entry else None
    except InvalidValue:
        return None


def numbers(history: Iterable[str]) -> list[int]:
    """The numbers of ended roll-outs, lowest first, from keys below ``keys.rollout_history``."""
    found = [keys.last_segment(key) for key in history]
    return sorted(int(name) for name in found if name.isascii() and name.isdecimal() and len(name) < 16)


def begin(
    service_before: Service | None,
    service_after: Service,
    active: Rollout | None,
    last_number: int,
    *,
    kind: Kind = "update",
    by: str,
    why: str,
    at: str,
    result: Literal["superseded", "rolled_back"] = "superseded",
    reason: str = "",
) -> tuple[Rollout, Rollout | None]:
    """The new roll-out, to what ``service_after`` wants, and ``active`` as it ended (None where none was under way).

    ``service_before``: the declaration that is replaced, None where it is not known. ``last_number``: the highest
    number in the history, 0 for none. ``result`` and ``reason``: how ``active`` ended. The ``from`` of the new one is
    the version that was last left in peace: that of an unfinished update, or what an undo or rollback went back to.
    """
    to = service_after.task_name, service_after.task_version
    former = (service_before.task_name, service_before.task_version) if service_before else ("", 0)
    if active is not None:
        pair = (active.from_name, active.from_version), (active.task_name, active.task_version)
        former, other = pair if active.kind == "update" else pair[::-1]
        former = other if former == to else former
    if former == to:
        former = "", 0
    started = Rollout(
        number=max(last_number, active.number if active else 0) + 1,
        kind=kind,
        task_name=to[0],
        task_version=to[1],
        from_name=former[0],
        from_version=former[1],
        promoted=service_before is not None and service_before.desired == 0,  # nothing for canaries to be beside
        by=by,
        why=why,
        at=at,
    )
    ended = replace(active, result=result, reason=reason or active.reason, ended=at) if active else None
    return started, ended


def begin_ops(
    service: str, started: Rollout, ended: Rollout | None, active: Entry | None, history: Iterable[int]
) -> list[Op]:
    """The ops that put what ``begin`` returned, guarded by the revision of ``active``: the entry under
    ``keys.rollout``, if any, whether or not it could be read. ``history``: the ``numbers`` that are kept."""
    key = keys.rollout(service)
    ops: list[Op] = [Check(key, active.revision if active else Revision(0)), Put(key, encode(started))]
    return ops + (_keep(service, ended, active, history) if ended else [])


def end_ops(service: str, ended: Rollout, active: Entry, history: Iterable[int]) -> list[Op]:
    """The ops that move a roll-out, ``ended`` with its result, from where it was under way to the history."""
    key = keys.rollout(service)
    return [Check(key, active.revision), Delete(key), *_keep(service, ended, active, history)]


def _keep(service: str, ended: Rollout, active: Entry | None, history: Iterable[int]) -> list[Op]:
    fields = {name: getattr(ended, name) for name in Rollout.__struct_fields__}
    value = patch(active.value, **fields) if active and parse(active) else encode(ended)
    surplus = sorted({*history} - {ended.number}, reverse=True)[MAX_KEPT - 1 :]
    removed = [Delete(keys.ended_rollout(service, number)) for number in surplus[:MAX_REMOVED]]
    return [Put(keys.ended_rollout(service, ended.number), value), *removed]
