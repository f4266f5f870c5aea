"""``sked restart`` and ``sked stop``: tasks that run, whatever is declared of them."""

from __future__ import annotations

import time

import click

from sked_core.client import outcomes, reading
from sked_core.client.acting import restarting
from sked_core.client.acting.restarting import ServiceRestart, TaskRestart
from sked_core.client.session import Session
from sked_core.model.spec import plain
from sked_core.model.wording import counted
from sked_core.surface import completing, moves_shown
from sked_core.surface.commands.delete import can_ask, confirm
from sked_core.surface.options import command, session, timeout_option
from sked_core.surface.progress import wait_for
from sked_core.surface.render import note, out
from sked_core.surface.waiting import wait_until_healthy


@command(
    "restart",
    "sked restart web --wait  # every task, one step after another",
    "sked restart default-web-3-0  # this one task",
)
@click.argument("name", metavar="SERVICE|TASK", shell_complete=completing.services_and_tasks)
@click.option("--wait", is_flag=True, help="Return once all of it is healthy again.")
@timeout_option("10m")
@click.option("--why", default="sked restart", help="Kept with it, for people.", show_default=True)
def restart(name: str, wait: bool, timeout: float, why: str) -> None:
    """Restart one task where it is, or all tasks of a service step by step.

    Tasks of a service are replaced on their hosts as in a roll-out: within `min` and `max`, and only while all is
    healthy; schedulers see to it. A single task is stopped and started by its agent at once, whatever `min` says.
    Where one name is both, say service/NAME or task/ID.

    `sked rebalance SERVICE --cancel` gives up what is left of a service's restart.
    """
    with session() as sked:
        kind, found = restarting.kind_of(sked, name)
        if kind == "task":
            done = restarting.restart_task(sked, found, why=why)
            out(f"task/{found} restarts on {done.task.host}")
            if not done.alive:
                note(f"the agent of {done.task.host} does not run: it restarts it once it is back")
            if wait:
                _wait_for_task(sked, done, timeout)
            return
        asked = restarting.restart_service(sked, found, why=why)
        _print(sked, asked)
        if wait:
            end = time.monotonic() + timeout
            again = f"sked rebalance {found} --wait"
            begun, since = asked.moves, asked.since
            moves_shown.follow(sked, [found], timeout=timeout, what="restart", again=again, begun=begun, since=since)
            left = max(1.0, end - time.monotonic())
            wait_until_healthy(sked, [found], {}, timeout=left, again=f"sked rollout status {found}")


@command("stop", "sked stop default-web-3-0", "sked stop default-web-3-0 -y --why 'its disk is slow'")
@click.argument("task", metavar="TASK", shell_complete=completing.tasks)
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@click.option("--why", default="sked stop", help="Kept with it, for people.", show_default=True)
def stop(task: str, yes: bool, why: str) -> None:
    """Stop one task for good. Its scheduler places another one, maybe elsewhere, if the service still wants it.

    To have fewer tasks:  sked scale. To start the same one again where it is:  sked restart.
    """
    can_ask(yes)
    with session() as sked:
        _, name = restarting.kind_of(sked, task if "/" in task else f"task/{task}")
        confirm(f"stop {name}?", yes)
        done = restarting.stop_task(sked, name, why=why)
        if not done.changed:
            out(f"task/{name} unchanged: it is being stopped already")
            return
        out(f"task/{name} is being stopped on {done.task.host}")
        if not done.replaced_by:
            note(f"nothing takes its place: {done.task.service} wants no task there")
            return
        note(f"scheduler {done.replaced_by} places another one, if {done.task.service} has too few then")
        for line in reading.unattended(sked.store, [reading.declared(sked.store, done.task.service).value]):
            note(line)


def _print(sked: Session, asked: ServiceRestart) -> None:
    out(f"service/{asked.service} restarts: {counted(len(asked.moves), 'task')}, step by step")
    for move in asked.moves:
        if not move.restarts:
            note(f"{move.task} goes to {move.to}: {move.source} can't take another one beside it")
    for task, refusal in asked.left_out:
        note(plain(f"{task} is left as it is: {refusal}"))
    for line in reading.unattended(sked.store, [reading.declared(sked.store, asked.service).value]):
        note(line)


def _wait_for_task(sked: Session, done: TaskRestart, timeout: float) -> None:
    hint = f"attach again:  sked explain {done.task.id} -w"
    if wait_for(lambda: not restarting.is_restarted(sked, done), timeout, "the restart goes on", hint):
        raise outcomes.Ended(
            f"{done.task.id} is not healthy after {timeout:g} s",
            code=outcomes.TIMED_OUT,
            hint="\n".join(filter(None, [restarting.why_not_yet(sked, done), hint])),
        )
    note(f"{done.task.id} is healthy again")
