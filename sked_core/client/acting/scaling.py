"""Changing the count of a service."""

from __future__ import annotations

from dataclasses import dataclass

from sked_core.client import reading
from sked_core.client.session import Session, repeated
from sked_core.interfaces.store import Check, Put
from sked_core.logic.apply import scale as scaled
from sked_core.model import keys


@dataclass(frozen=True, slots=True)
class Scaled:
    """How many tasks of a service should run in each of its clusters, before and now."""

    service: str
    before: int
    after: int
    changed: bool


def scale(sked: Session, service: str, count: int, *, why: str = "") -> Scaled:
    """Have ``count`` tasks of a service in each of its clusters; bounds that were not given follow.

    The same count again changes nothing. Raises NotFound, InvalidValue (outside the bounds that were given, with the
    edit to make), Conflict, Unavailable.
    """
    journal, key = sked.journal(), keys.service(service)

    def attempt() -> Scaled:
        stored = reading.declared(sked.store, service)
        value = scaled(stored.entry.value, count)
        done = Scaled(service, stored.value.desired, count, changed=value != stored.entry.value)
        if done.changed:
            subject, before = f"service/{service}", str(done.before)
            event = journal.event("service.scaled", subject, service=service, why=why, before=before, after=str(count))
            journal.commit([Check(key, stored.entry.revision), Put(key, value)], [event])
        return done

    return repeated(attempt)
