"""``sked rollout``: look at the roll-outs of a service, hold them, go on, go back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import click

from sked_core.client import outcomes
from sked_core.client.acting import rollout_edits
from sked_core.client.acting.rollout_edits import Edited
from sked_core.client.looking.rollouts import (
    View,
    details,
    every,
    headline,
    history_json,
    known_rollouts,
    latest,
    look,
    route,
    status_json,
)
from sked_core.client.naming import named
from sked_core.client.session import Session
from sked_core.model.spec import plain
from sked_core.model.types import Rollout
from sked_core.model.wording import first_line
from sked_core.surface.completing import services
from sked_core.surface.options import command, duration, global_options, output_option, session, timeout_option
from sked_core.surface.progress import Shown
from sked_core.surface.render import emit, out, table

rollout = click.Group(
    "rollout", params=global_options(), help="Look at the roll-outs of a service, hold them, go back."
)
why_option = click.option("--why", default="", help="Kept with it, for people.")


@command(
    "status",
    "sked rollout status web",
    "sked rollout status web -w",
)
@click.argument("service", shell_complete=services)
@click.option("-w", "--watch", is_flag=True, help="Show the progress until it has ended or failed.")
@click.option("--timeout", callback=duration, help="With --watch: for how long at most; no limit by default.")
@output_option
def status(service: str, watch: bool, timeout: float | None, output: str) -> int:
    """Show the roll-out of SERVICE that is under way, or the last one: how far it is, what it waits for, what fails.

    Ends with 1 if it has failed; with --watch also if it was rolled back.
    """
    with session() as sked:
        service = named(sked.store, "service", service)
        last = latest(sked, service)
        if watch and last is not None:
            from sked_core.surface.waiting import follow

            shown = Shown(sys.stdout if output == "table" else None)
            _describe(service, last, shown.say if output == "table" else lambda _: None)
            try:
                follow(sked, service, last.number, timeout=timeout or float("inf"), shown=shown)
            finally:
                if output == "json":
                    _print_json(sked, service)
            return 0
        if output == "json":
            return _print_json(sked, service)
        views = look(sked, [service])
        if last is None:
            out(f"{service}: no roll-out yet")
        else:
            _describe(service, last, lambda line: out(plain(line)))
        former = [one for _, one in every(sked, service) if last and one.number == last.number - 1]
        for view in views:
            _print(view, last, former if last and last.kind == "rollback" else [])
        return 0


@command("history", "sked rollout history web")
@click.argument("service", shell_complete=services)
@output_option
def history_(service: str, output: str) -> None:
    """List the last roll-outs of SERVICE: from where to where, by whom, what came of it."""
    with session() as sked:
        if not every(sked, service):  # those of a service that is gone may still be kept, by its whole name
            service = named(sked.store, "service", service)
        if output == "json":
            return emit("RolloutList", history_json(sked, service))
        found = known_rollouts(sked, service)
    columns = ("number", "kind", "from", "to", "result", "by", "at", "ended", "why", "reason")
    rows = [
        (
            one.number,
            one.kind,
            f"{one.from_name}/{one.from_version}" if one.from_name else "",
            f"{one.task_name}/{one.task_version}",
            one.result or one.state,
            one.by,
            one.at,
            one.ended,
            one.why,
            first_line(one.reason),
        )
        for _, one in found
    ]
    return out(table(columns, rows))


@command("pause", "sked rollout pause web --why 'error rate'")
@click.argument("service", shell_complete=services)
@why_option
def pause(service: str, why: str) -> None:
    """Hold the roll-out of SERVICE where it is. Tasks that are lost meanwhile are replaced by their former version."""
    with session() as sked:
        _say(rollout_edits.pause(sked, service, why=why), "paused")


@command("resume", "sked rollout resume web")
@click.argument("service", shell_complete=services)
@why_option
def resume(service: str, why: str) -> None:
    """Let the roll-out of SERVICE go on that was paused or has failed. What failed is tried again."""
    with session() as sked:
        _say(rollout_edits.resume(sked, service, why=why), "resumed")


@command("promote", "sked rollout promote web")
@click.argument("service", shell_complete=services)
@why_option
def promote(service: str, why: str) -> None:
    """Say that the canaries of SERVICE are good: the rest follows."""
    with session() as sked:
        _say(rollout_edits.promote(sked, service, why=why), "promoted")


@command(
    "undo",
    "sked rollout undo web --wait",
    "sked rollout undo web --to 3",
)
@click.argument("service", shell_complete=services)
@click.option("--to", type=click.IntRange(0), metavar="VERSION", help="Default: what the last roll-out replaced.")
@why_option
@click.option("--wait", is_flag=True, help="Return once it is done.")
@timeout_option("5m")
def undo(service: str, to: int | None, why: str, wait: bool, timeout: float) -> None:
    """Roll SERVICE back to what it was before its last roll-out, or to any version that is stored."""
    with session() as sked:
        begun = rollout_edits.undo(sked, service, to, why=why)
        if begun is None:
            out(f"service/{service} unchanged: version {to} is what is declared")
            return
        out(f"service/{service} undone (began roll-out {begun.number}: {route(begun)})")
        if wait:
            from sked_core.surface.waiting import follow

            follow(sked, service, begun.number, timeout=timeout, shown=Shown())


for _command in (status, history_, pause, resume, promote, undo):
    rollout.add_command(_command)


def _say(done: Edited, what: str) -> None:
    out(f"rollout/{done.service}/{done.before.number} {what if done.changed else 'unchanged'}")


def _describe(service: str, latest: Rollout, say: Callable[[str], None]) -> None:
    why = f": {latest.why}" if latest.why else ""
    say(f"{service}: roll-out {latest.number} began {latest.at} by {latest.by or '(not known)'}{why}")


def _print(view: View, latest: Rollout | None, former: Sequence[Rollout]) -> None:
    """One look; ``former``: what a rollback came of. Raises Ended if the roll-out that is under way has failed."""
    lines = [line for one in former for line in (headline(view.service.name, one), *one.reason.splitlines()[1:])]
    lines += [headline(view.service.name, latest)] if latest and view.active is None else []
    lines += view.lines(times=True, failing=False)
    reason = latest.reason if latest else ""
    lines += reason.splitlines()[1:]
    lines += details([one for one in (*view.failing, *view.unwell) if one.task not in reason])
    for line in lines:
        out(plain(line))
    if latest and view.active and latest.state == "failed":
        name = view.service.name
        hint = f"go back:  sked rollout undo {name}\ngo on:    sked rollout resume {name}"
        raise outcomes.Ended(f"roll-out {latest.number} of {name} has failed", code=outcomes.FAILED, hint=hint)


def _print_json(sked: Session, service: str) -> int:
    emit("RolloutStatus", status_json(sked, service))
    last = latest(sked, service)
    return outcomes.FAILED if last is not None and last.state == "failed" and not last.result else 0
