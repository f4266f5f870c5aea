"""``sked locks`` and ``sked config``."""

from __future__ import annotations

import click

from sked_core.surface.listings import Column, Listing
from sked_core.surface.options import Flags, command, global_options, listing_option, output_option
from sked_core.surface.presenting import present
from sked_core.surface.render import emit, note, out, table


@command("locks", "sked locks", "sked locks -o json")
@listing_option
def locks(output: str) -> None:
    """List the locks of services that are held now: by which scheduler, since when, and whether that one is there.

    A scheduler holds the lock of a service for the moments in which it places tasks of it, so that usually there are
    none. One that stays for minutes is of a scheduler that hangs: it ends with that one's lease.
    """
    from sked_core.client.looking.locking import locks as held

    columns = (
        Column("service", lambda one: one.service),
        Column("held by", lambda one: one.holder),
        Column("since", lambda one: one.since),
        Column("running", lambda one: one.running, look=lambda one: "" if one.running else "warn"),
    )
    present(Listing("LockList", lambda one: f"service/{one.service}", lambda one: one.json(), columns), held, output)


config = click.Group("config", params=global_options(), help="Look at the configuration.")


@command("show", "sked config show", "sked config show --origin", "sked config show -o json")
@click.option("--origin", is_flag=True, help="Also where each value is from.")
@output_option
def show_(origin: bool, output: str) -> None:
    """Show each setting as it counts here. Secrets are masked. A mistake in a configuration file ends it with 3.

    Below the settings stand the variables of stores and engines that are set.
    """
    from sked_core.client.origins import origins

    flags = click.get_current_context().find_root().ensure_object(Flags)
    found = origins(backend=flags.backend, prefix=flags.prefix, config=flags.config)
    if output == "json":
        return emit("SettingList", [one.json() for one in found])
    columns = ("setting", "value", *(["from"] if origin else []))
    rows = [(one.name, one.value or one.default, *([one.origin or "default"] if origin else [])) for one in found]
    out(table(columns, rows))
    if not origin:
        note("where each is from: sked config show --origin")
    return None


config.add_command(show_)
