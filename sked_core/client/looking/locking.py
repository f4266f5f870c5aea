"""Who holds the lock of which service."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sked_core.client.reading import by_name
from sked_core.client.session import Session
from sked_core.model import keys
from sked_core.model.types import Presence
from sked_core.model.wording import natural


@dataclass(frozen=True, slots=True)
class Held:
    """A lock. ``holder``: the scheduler process; ``since``: when it took it, as its clock says; ``running``: whether
    that process is there, as far as its lease tells."""

    service: str
    holder: str
    since: str
    running: bool

    def json(self) -> dict[str, Any]:
        return asdict(self)


def locks(sked: Session) -> list[Held]:
    """The locks that are held now, by service. Raises Unavailable."""
    schedulers = by_name(sked.store, keys.SCHEDULERS, Presence)
    found = []
    for key, entry in sked.store.read(keys.SERVICE_LOCKS).entries.items():
        holder, _, since = entry.value.decode("utf-8", "replace").partition(" since ")
        found.append(Held(keys.last_segment(key), holder, since, holder in schedulers))
    return sorted(found, key=lambda one: natural(one.service))
