"""``sked report``: how a task with a ttl check says that it is well, where no Consul keeps the check."""

from __future__ import annotations

import os

import click

from sked_core.interfaces.store import Put
from sked_core.model import keys
from sked_core.model.codec import encode
from sked_core.model.types import Health
from sked_core.surface.options import command, session

OUTPUT_CHARACTERS = 1000


@command(
    "report",
    "sked report",
    "sked report --unhealthy --message 'queue is full'",
)
@click.option("--unhealthy", is_flag=True, help="Say that the task is not well.")
@click.option("--message", default="", help="What to show with it.")
@click.option("--task", "task_id", metavar="ID", help="Default: $SKED_TASK_ID, which every task has.")
@click.option("--host", metavar="HOST", help="Default: $SKED_HOST, which every task has.")
def report(unhealthy: bool, message: str, task_id: str | None, host: str | None) -> None:
    """Say that a task with a ttl check is well; to be called again before the ttl has passed."""
    task_id, host = task_id or os.environ.get("SKED_TASK_ID"), host or os.environ.get("SKED_HOST")
    if not task_id or not host:
        raise click.UsageError("which task? Outside a task, give --task and --host")
    key = keys.report(host, task_id)
    with session() as sked:
        sked.store.commit([Put(key, encode(Health(not unhealthy, message[:OUTPUT_CHARACTERS])))])
