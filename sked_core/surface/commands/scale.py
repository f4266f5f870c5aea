"""``sked scale``: the count of a service, and the bounds that follow it."""

from __future__ import annotations

import click

from sked_core.client import reading
from sked_core.client.session import repeated
from sked_core.interfaces.store import Check, Put
from sked_core.logic.apply import scale as scaled
from sked_core.model import keys
from sked_core.model.spec import plain
from sked_core.surface.options import command, session
from sked_core.surface.render import out


@command("scale")
@click.argument("service")
@click.argument("count", metavar="N")
def scale(service: str, count: str) -> None:
    """Change how many tasks of SERVICE should run in each of its clusters. N is a decimal number: 010 is ten."""
    if not (count.isascii() and count.isdecimal() and len(count) <= 20):
        raise click.UsageError(f"expected a whole number such as 10, got {plain(count[:40])!r}")
    key = keys.service(service)

    def attempt() -> str:
        stored = reading.declared(sked.store, service)
        value = scaled(stored.entry.value, int(count))
        if value == stored.entry.value:
            return "unchanged"
        event = journal.event(
            "service.scaled",
            f"service/{service}",
            service=service,
            before=str(stored.value.desired),
            after=str(int(count)),
        )
        sked.store.commit([Check(key, stored.entry.revision), Put(key, value), journal.put([event])])
        journal.tell([event])
        return "scaled"

    with session() as sked:
        journal = sked.journal()
        outcome = repeated(attempt)
    out(f"service/{service} {outcome} to {int(count)}" if outcome == "scaled" else f"service/{service} unchanged")
