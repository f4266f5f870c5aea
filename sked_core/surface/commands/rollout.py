"""``sked rollout``: look at the roll-outs of a service, hold them, go on, go back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click
from msgspec.structs import replace

from sked_core.client import outcomes, reading
from sked_core.client.declaring import active_entry, begin_rollout, commit_changes
from sked_core.client.rollouts import View, details, headline, history, look, route
from sked_core.client.session import Session, repeated
from sked_core.client.wording import first_line, natural
from sked_core.errors import InvalidValue, NotFound
from sked_core.interfaces.store import Check, Delete, Entry, Op, Put, Store
from sked_core.logic.apply import CONFIGURED, Change
from sked_core.logic.rollout import canary_stage
from sked_core.logic.rollout_start import parse
from sked_core.model import keys
from sked_core.model.codec import decode, patch
from sked_core.model.spec import plain
from sked_core.model.types import Rollout, Service
from sked_core.runtime.state import batches, marker
from sked_core.surface.options import command, duration, global_options, output_option, session, timeout_option
from sked_core.surface.progress import Shown
from sked_core.surface.render import document, out, table

rollout = click.Group(
    "rollout", params=global_options(), help="Look at the roll-outs of a service, hold them, go back."
)
why_option = click.option("--why", default="", help="Kept with it, for people.")


@command("status")
@click.argument("service")
@click.option("-w", "--watch", is_flag=True, help="Show the progress until it has ended or failed.")
@click.option("--timeout", callback=duration, help="With --watch: for how long at most; no limit by default.")
@output_option
def status(service: str, watch: bool, timeout: float | None, output: str) -> int:
    """Show the roll-out of SERVICE that is under way, or the last one: how far it is, what it waits for, what fails.

    Ends with 1 if it has failed; with --watch also if it was rolled back.
    """
    with session() as sked:
        reading.service_entry(sked.store, service)
        latest = _latest(sked, service)
        if watch and latest is not None:
            from sked_core.surface.waiting import follow

            shown = Shown(sys.stdout if output == "table" else None)
            _describe(service, latest, shown.say if output == "table" else lambda _: None)
            try:
                follow(sked, service, latest.number, timeout=timeout or float("inf"), shown=shown)
            finally:
                if output == "json":
                    _print_json(sked, service)
            return 0
        if output == "json":
            return _print_json(sked, service)
        views = look(sked, [service])
        if latest is None:
            out(f"{service}: no roll-out yet")
        else:
            _describe(service, latest, lambda line: out(plain(line)))
        former = [one for _, one in _all(sked, service) if latest and one.number == latest.number - 1]
        for view in views:
            _print(view, latest, former if latest and latest.kind == "rollback" else [])
        return 0


@command("history")
@click.argument("service")
@output_option
def history_(service: str, output: str) -> None:
    """List the last roll-outs of SERVICE: from where to where, by whom, what came of it."""
    with session() as sked:
        found = _all(sked, service)
        if not found:
            reading.service_entry(sked.store, service)
    if output == "json":
        return out(document("RolloutList", [fields | {"service": service} for fields, _ in found]))
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


@command("pause")
@click.argument("service")
@why_option
def pause(service: str, why: str) -> None:
    """Hold the roll-out of SERVICE where it is. Tasks that are lost meanwhile are replaced by their former version."""

    def edit(active: Rollout, who: str) -> dict[str, Any]:
        if active.state == "failed":
            _refuse(service, active, "has failed and stands still", f"go back:  sked rollout undo {service}")
        return {} if active.state == "paused" else {"state": "paused", "reason": f"paused by {who}" + _colon(why)}

    _edit(service, "paused", why, edit)


@command("resume")
@click.argument("service")
@why_option
def resume(service: str, why: str) -> None:
    """Let the roll-out of SERVICE go on that was paused or has failed. What failed is tried again."""

    def edit(active: Rollout, who: str) -> dict[str, Any]:
        return {} if active.state == "running" else {"state": "running", "reason": "", "waited": 0.0}

    _edit(service, "resumed", why, edit, before=_forgive)


@command("promote")
@click.argument("service")
@why_option
def promote(service: str, why: str) -> None:
    """Say that the canaries of SERVICE are good: the rest follows."""

    def edit(active: Rollout, who: str) -> dict[str, Any]:
        if active.promoted:
            return {}
        if not canary_stage(active, declared.update_policy):
            _refuse(service, active, "has no canaries", "canaries are part of the `update` of a service")
        if active.state != "running":
            _refuse(service, active, f"is {active.state}", f"first:  sked rollout resume {service}")
        return {"promoted": True}

    with session() as sked:
        declared = reading.declared(sked.store, service).value
    _edit(service, "promoted", why, edit)


@command("undo")
@click.argument("service")
@click.option("--to", type=click.IntRange(0), metavar="VERSION", help="Default: what the last roll-out replaced.")
@why_option
@click.option("--wait", is_flag=True, help="Return once it is done.")
@timeout_option("5m")
def undo(service: str, to: int | None, why: str, wait: bool, timeout: float) -> None:
    """Roll SERVICE back to what it was before its last roll-out, or to any version that is stored."""
    why = why or "sked rollout undo"
    key = keys.service(service)
    with session() as sked:
        journal = sked.journal()

        def attempt() -> Change | None:
            stored = reading.declared(sked.store, service)
            entry, before = stored.entry, stored.value
            name, version = _target(sked, before, to)
            if (name, version) == (before.task_name, before.task_version):
                return None
            after = replace(before, task_name=name, task_version=version)
            put = Put(key, patch(entry.value, task_name=name, task_version=version))
            change = Change("service", service, CONFIGURED, (Check(key, entry.revision), put), before, after)
            change = begin_rollout(sked.store, journal, change, why, "undo")
            commit_changes(sked.store, journal, [change], why)
            return change

        change = repeated(attempt)
        if change is None or change.begun is None:
            out(f"service/{service} unchanged: version {to} is what is declared")
            return
        out(f"service/{service} undone (began roll-out {change.begun.number}: {route(change.begun)})")
        if wait:
            from sked_core.surface.waiting import follow

            follow(sked, service, change.begun.number, timeout=timeout, shown=Shown())


for _command in (status, history_, pause, resume, promote, undo):
    rollout.add_command(_command)


def _edit(
    service: str,
    done: str,
    why: str,
    edit: Callable[[Rollout, str], dict[str, Any]],
    before: Callable[[Store, str, Rollout], None] = lambda *_: None,
) -> None:
    """Change the roll-out that is under way as ``edit`` says (nothing: it is so already), and tell of it."""
    with session() as sked:
        journal, subject = sked.journal(), f"service/{service}"

        def attempt() -> tuple[Rollout, bool]:
            entry = active_entry(sked.store, service)
            if entry is None:
                reading.service_entry(sked.store, service)
                raise NotFound(f"no roll-out of {service} is under way", hint=f"sked rollout history {service}")
            active = _readable(service, entry)
            changes = edit(active, journal.who)
            if not changes:
                return active, False
            event = journal.event(f"rollout.{done}", subject, service=service, why=why, after=_version(active))
            before(sked.store, service, active)
            put = Put(keys.rollout(service), patch(entry.value, **changes))
            guard = Check(put.key, entry.revision)
            sked.store.commit([guard, put, marker(service, journal.who), journal.put([event])])
            journal.tell([event])
            return active, True

        active, changed = repeated(attempt)
    out(f"rollout/{service}/{active.number} {done if changed else 'unchanged'}")


def _readable(service: str, entry: Entry) -> Rollout:
    try:
        return decode(entry.value, Rollout)
    except InvalidValue as error:
        hint = "repair the key, or remove it: a new roll-out begins"
        raise outcomes.Ended(
            f"{keys.rollout(service)} can't be read: {error}", code=outcomes.FAILED, hint=hint
        ) from None


def _forgive(store: Store, service: str, active: Rollout) -> None:
    """Take away what would make the roll-out fail again at once, before anything was tried: the notes of failures, and
    the reasons for which agents have given tasks up. Those are replaced then."""
    noted = store.read(keys.FAILURES).entries
    groups: list[list[Op]] = []
    for item in reading.tasks(store, service=service):
        task = item.value
        if (task.task_definition.name, task.task_definition.version) != _pair(active):
            continue
        group: list[Op] = [Delete(keys.failure(task.id))] if keys.failure(task.id) in noted else []
        if task.rejected and item.key == keys.task(task.id):
            reason = f"before roll-out {active.number} was resumed: {task.reject_reason}"
            value = patch(item.entry.value, reject_reason=reason)
            group += [Check(item.key, item.entry.revision), Put(item.key, value)]
            group += [Put(keys.host_task(task.host, task.id), value)]
        groups.append(group)
    for batch in batches(groups, max_ops=store.max_ops):
        store.commit(batch)


def _target(sked: Session, declared: Service, to: int | None) -> tuple[str, int]:
    """Where an undo leads. Raises NotFound, naming the versions that there are, and Ended."""
    name, latest = declared.name, _latest(sked, declared.name)
    wanted, found = (declared.task_name, declared.task_version), (declared.task_name, to)
    if to is None:
        if latest is not None and latest.kind != "update" and _pair(latest) == wanted:
            _refuse(name, latest, f"went back to version {wanted[1]} already", "for any other version:  --to VERSION")
        # If the last roll-out leads to something else, somebody has declared yet another version since.
        known = latest is not None and (latest.from_name or _pair(latest) != wanted)
        if latest is None or not known:
            raise NotFound(
                f"it is not known what version {wanted[1]} of {name} replaced", hint=_choice(sked, wanted[0])
            )
        found = (latest.from_name, latest.from_version) if _pair(latest) == wanted else _pair(latest)
    target = found[0], int(found[1] or 0)
    key = keys.task_definition(*target)
    if key not in sked.store.read(key).entries:
        raise NotFound(f"no task definition {target[0]}/{target[1]}", hint=_choice(sked, target[0]))
    return target


def _choice(sked: Session, name: str) -> str:
    entries = sked.store.read(keys.task_definition_versions(name)).entries
    versions = sorted((keys.last_segment(key) for key in entries), key=natural)
    return f"versions of {name} that are stored: {', '.join(versions) or 'none'}; choose one with --to"


def _latest(sked: Session, service: str) -> Rollout | None:
    """The roll-out that is under way, or the last that has ended."""
    found = _all(sked, service)
    return found[-1][1] if found else None


def _all(sked: Session, service: str) -> list[tuple[dict[str, Any], Rollout]]:
    """All roll-outs of the service, as stored and decoded; the one under way is the last."""
    entry = active_entry(sked.store, service)
    ended = [(item.stored(), item.value) for item in history(sked, service)]
    active = parse(entry)
    return ended + ([(decode(entry.value, dict), active)] if entry and active else [])


def _describe(service: str, latest: Rollout, say: Callable[[str], None]) -> None:
    say(f"{service}: roll-out {latest.number} began {latest.at} by {latest.by or '(not known)'}{_colon(latest.why)}")


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
    found = _all(sked, service)
    stored, latest = found[-1] if found else (None, None)
    items = [view.json() | {"rollout": stored} for view in look(sked, [service])]
    out(document("RolloutStatus", items))
    return outcomes.FAILED if latest is not None and latest.state == "failed" and not latest.result else 0


def _refuse(service: str, active: Rollout, why: str, hint: str) -> NoReturn:
    raise outcomes.Ended(f"roll-out {active.number} of {service} {why}", code=outcomes.CONFLICT, hint=hint)


def _pair(rollout: Rollout) -> tuple[str, int]:
    return rollout.task_name, rollout.task_version


def _version(rollout: Rollout) -> str:
    return f"{rollout.task_name} {rollout.task_version}"


def _colon(text: str) -> str:
    return f": {text}" if text else ""
