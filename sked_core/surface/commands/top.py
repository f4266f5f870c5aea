"""``sked top``: what tasks have reserved of hosts, the largest first."""

from __future__ import annotations

import click

from sked_core.client.looking.usage import ORDERS, HostUse, TaskUse, hosts_by_use, tasks_by_use
from sked_core.client.session import Session
from sked_core.surface.listings import Column, Listing
from sked_core.surface.options import command, listing_option, watch_option
from sked_core.surface.presenting import present

FULL = 0.9
"""From this share on it is shown as something to look at."""


def _of(part: int, whole: int, share: float, unit: str = "") -> str:
    return f"{part}/{whole}{unit} {share:.0%}"


HOSTS = Listing(
    "HostUseList",
    lambda one: f"host/{one.row.host.name}",
    HostUse.json,
    (
        Column("host", lambda one: one.row.host.name),
        Column("state", lambda one: one.row.state, look=lambda one: "" if one.row.state == "ready" else "warn"),
        Column("tasks", lambda one: one.tasks),
        Column(
            "memory reserved",
            lambda one: _of(one.row.memory, one.row.host.memory, one.memory_share, " MB"),
            look=lambda one: "warn" if one.memory_share >= FULL else "",
        ),
        Column(
            "cpu reserved",
            lambda one: _of(one.row.cpu_units, one.row.host.cpu_units, one.cpu_share),
            look=lambda one: "warn" if one.cpu_share >= FULL else "",
        ),
        Column("disk reserved", lambda one: _of(one.row.disk, one.row.host.disk, one.disk_share, " MB"), wide=True),
    ),
)
TASKS = Listing(
    "TaskUseList",
    lambda one: f"task/{one.row.task.id}",
    TaskUse.json,
    (
        Column("id", lambda one: one.row.task.id),
        Column("host", lambda one: one.row.task.host),
        Column("memory reserved", lambda one: f"{one.memory} MB"),
        Column("of its host", lambda one: f"{one.memory_share:.0%}"),
        Column("cpu reserved", lambda one: one.cpu_units),
        Column("of its host's", lambda one: f"{one.cpu_share:.0%}"),
        Column("healthy", lambda one: one.row.healthy, wide=True),
    ),
)


@command(
    "top",
    "sked top",
    "sked top tasks --by cpu",
    "sked top -w",
)
@click.argument("what", type=click.Choice(["hosts", "tasks"]), default="hosts")
@click.option("--by", "order", type=click.Choice(list(ORDERS)), default="memory", show_default=True, help="The order.")
@watch_option
@listing_option
def top(what: str, order: str, watch: bool, output: str) -> None:
    """Show hosts, or tasks, by what is reserved: the share of memory and cpu that tasks have asked for, largest first.

    These are the figures that schedulers go by, not what processes use at this moment: for that look on the host
    itself, with `docker stats` or `systemd-cgtop`.
    """
    listing = HOSTS if what == "hosts" else TASKS

    def rows(seen: Session) -> list[HostUse] | list[TaskUse]:
        return hosts_by_use(seen, order) if what == "hosts" else tasks_by_use(seen, order)

    present(listing, rows, output, watch=watch)
