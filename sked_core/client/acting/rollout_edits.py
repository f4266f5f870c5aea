"""Holding the roll-out of a service, letting it go on, going back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from msgspec.structs import replace

from sked_core.client import outcomes, reading
from sked_core.client.acting.changes import begin_rollout, commit_changes
from sked_core.client.looking.rollouts import active_entry, latest
from sked_core.client.session import Session, repeated
from sked_core.errors import InvalidValue, NotFound
from sked_core.interfaces.store import Check, Delete, Entry, Op, Put, Store, entry_at
from sked_core.logic.apply import CONFIGURED, Change
from sked_core.logic.rollout import canary_stage
from sked_core.model import keys
from sked_core.model.codec import decode, patch
from sked_core.model.types import Rollout, Service
from sked_core.model.wording import natural
from sked_core.runtime.state import batches, marker


@dataclass(frozen=True, slots=True)
class Edited:
    """A roll-out that is under way, as it was before, and whether the edit changed it."""

    service: str
    before: Rollout
    changed: bool


def pause(sked: Session, service: str, *, why: str = "") -> Edited:
    """Hold the roll-out where it is. Raises NotFound if none is under way, Ended with code 5 if it has failed,
    Conflict, Unavailable."""

    def edit(active: Rollout) -> Mapping[str, Any]:
        if active.state == "failed":
            _refuse(service, active, "has failed and stands still", f"go back:  sked rollout undo {service}")
        reason = f"paused by {sked.who}" + (f": {why}" if why else "")
        return {} if active.state == "paused" else {"state": "paused", "reason": reason}

    return _edit(sked, service, "paused", why, edit)


def resume(sked: Session, service: str, *, why: str = "") -> Edited:
    """Let the roll-out go on that was paused or has failed; what failed is tried again. Raises NotFound, Conflict,
    Unavailable."""

    def edit(active: Rollout) -> Mapping[str, Any]:
        return {} if active.state == "running" else {"state": "running", "reason": "", "waited": 0.0}

    return _edit(sked, service, "resumed", why, edit, before=forgive)


def promote(sked: Session, service: str, *, why: str = "") -> Edited:
    """Say that the canaries are good: the rest follows. Raises NotFound, Ended with code 5 if it has none or does not
    run, Conflict, Unavailable."""
    declared = reading.declared(sked.store, service).value

    def edit(active: Rollout) -> Mapping[str, Any]:
        if active.promoted:
            return {}
        if not canary_stage(active, declared.update_policy):
            _refuse(service, active, "has no canaries", "canaries are part of the `update` of a service")
        if active.state != "running":
            _refuse(service, active, f"is {active.state}", f"first:  sked rollout resume {service}")
        return {"promoted": True}

    return _edit(sked, service, "promoted", why, edit)


def undo(sked: Session, service: str, to: int | None = None, *, why: str = "") -> Rollout | None:
    """Begin a roll-out back to what the service was before its last one, or to version ``to`` of what is stored.

    Returns it, or None if that is what is declared. Raises NotFound naming the versions that there are, Ended with
    code 5 if it went back already, Conflict, Unavailable.
    """
    why, key, journal = why or "sked rollout undo", keys.service(service), sked.journal()

    def attempt() -> Rollout | None:
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
        return change.begun

    return repeated(attempt)


def forgive(store: Store, service: str, active: Rollout) -> None:
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
            for key in (item.key, keys.host_task(task.host, task.id)):
                if (entry := item.entry if key == item.key else entry_at(store, key)) is not None:
                    group += [Check(key, entry.revision), Put(key, patch(entry.value, reject_reason=reason))]
        groups.append(group)
    for batch in batches(groups, max_ops=store.max_ops):
        store.commit(batch)


def _edit(
    sked: Session,
    service: str,
    done: str,
    why: str,
    edit: Callable[[Rollout], Mapping[str, Any]],
    before: Callable[[Store, str, Rollout], None] = lambda *_: None,
) -> Edited:
    """Change the roll-out that is under way as ``edit`` says (nothing: it is so already), and tell of it."""
    journal, subject = sked.journal(), f"service/{service}"

    def attempt() -> Edited:
        entry = active_entry(sked.store, service)
        if entry is None:
            reading.service_entry(sked.store, service)
            raise NotFound(f"no roll-out of {service} is under way", hint=f"sked rollout history {service}")
        active = _readable(service, entry)
        changes = edit(active)
        if changes:
            wanted = f"{active.task_name} {active.task_version}"
            event = journal.event(f"rollout.{done}", subject, service=service, why=why, after=wanted)
            before(sked.store, service, active)
            put = Put(keys.rollout(service), patch(entry.value, **changes))
            guard = Check(put.key, entry.revision)
            journal.commit([guard, put, marker(service, journal.who)], [event])
        return Edited(service, active, bool(changes))

    return repeated(attempt)


def _readable(service: str, entry: Entry) -> Rollout:
    try:
        return decode(entry.value, Rollout)
    except InvalidValue as error:
        hint = "repair the key, or remove it: a new roll-out begins"
        raise outcomes.Ended(
            f"{keys.rollout(service)} can't be read: {error}", code=outcomes.FAILED, hint=hint
        ) from None


def _target(sked: Session, declared: Service, to: int | None) -> tuple[str, int]:
    """Where an undo leads. Raises NotFound, naming the versions that there are, and Ended."""
    name, last = declared.name, latest(sked, declared.name)
    wanted, found = (declared.task_name, declared.task_version), (declared.task_name, to)
    if to is None:
        if last is not None and last.kind != "update" and _pair(last) == wanted:
            _refuse(name, last, f"went back to version {wanted[1]} already", "for any other version:  --to VERSION")
        # If the last roll-out leads to something else, somebody has declared yet another version since.
        known = last is not None and (last.from_name or _pair(last) != wanted)
        if last is None or not known:
            raise NotFound(
                f"it is not known what version {wanted[1]} of {name} replaced", hint=_choice(sked, wanted[0])
            )
        found = (last.from_name, last.from_version) if _pair(last) == wanted else _pair(last)
    target = found[0], int(found[1] or 0)
    if entry_at(sked.store, keys.task_definition(*target)) is None:
        raise NotFound(f"no task definition {target[0]}/{target[1]}", hint=_choice(sked, target[0]))
    return target


def _choice(sked: Session, name: str) -> str:
    entries = sked.store.read(keys.task_definition_versions(name)).entries
    versions = sorted((keys.last_segment(key) for key in entries), key=natural)
    return f"versions of {name} that are stored: {', '.join(versions) or 'none'}; choose one with --to"


def _refuse(service: str, active: Rollout, why: str, hint: str) -> NoReturn:
    raise outcomes.Ended(f"roll-out {active.number} of {service} {why}", code=outcomes.CONFLICT, hint=hint)


def _pair(rollout: Rollout) -> tuple[str, int]:
    return rollout.task_name, rollout.task_version
