"""What changes something: the same functions as the commands call, in the name of whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from sked_core.client.acting import marking, rebalancing, restarting, rollout_edits
from sked_core.client.acting.declaring import Applied, declare
from sked_core.client.acting.deleting import delete
from sked_core.client.acting.rollout_edits import Edited
from sked_core.client.acting.scaling import scale
from sked_core.client.session import Session
from sked_core.errors import InvalidValue
from sked_core.model import keys
from sked_core.serving.tokens import Role
from sked_web.api import shapes
from sked_web.api.looks import Texts, source_of
from sked_web.api.table import Call, Found, Route, post

Why = Annotated[str, Meta(max_length=500)]
Count = Annotated[int, Meta(ge=0, le=1_000_000)]


class Reason(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Why, for people: it stands in the events."""

    why: Why = ""


class Scale(Reason, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many tasks in each cluster."""

    count: Count


class Undo(Reason, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """To which version; none: what the last roll-out replaced."""

    to: Annotated[int, Meta(ge=0)] | None = None


class Drain(Reason, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``force``: below `min` at once; ``deadline``: below `min` after so many seconds, 0 for never."""

    force: bool = False
    deadline: Annotated[float, Meta(ge=0, le=10_000_000)] = 0.0


class Marks(Drain, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The mark that several hosts get at once; ``ready`` takes it away."""

    hosts: Annotated[Texts, Meta(min_length=1)]
    state: str


class Moving(Reason, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of these services, from or to these hosts (none: of all), in ``most`` moves. ``if_revision``: only if that is
    what was proposed under this number."""

    services: Texts = msgspec.field(default_factory=list)
    hosts: Texts = msgspec.field(default_factory=list)
    most: Annotated[int, Meta(ge=1, le=100_000)] = 100
    if_revision: str = ""


class Services(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of these services; none: of all."""

    services: Texts = msgspec.field(default_factory=list)


class Apply(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``dry_run``: write nothing; ``if_revision``: only if it does what the plan of this number said."""

    dry_run: bool = False
    if_revision: Annotated[str, Meta(max_length=40)] = ""
    why: Why = ""


class Deleting(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``cascade``: take a service out of the clusters that list it."""

    cascade: bool = False
    why: Why = ""


def apply(call: Call) -> Found:
    asked: Apply = call.query
    number = _revision(asked.if_revision)
    why = asked.why or "POST /v1/apply"
    done = declare(call.sked, source_of(call.body), why, dry_run=asked.dry_run, if_revision=number)
    return Found(_applied(done))


def scale_(call: Call) -> Found:
    done = scale(call.sked, keys.check_name(call.path["name"]), call.body.count, why=call.body.why)
    return _done(f"service/{done.service}", done.changed, f"{done.before} -> {done.after}")


def restart_service(call: Call) -> Found:
    name = keys.check_name(call.path["name"])
    done = restarting.restart_service(call.sked, name, why=call.body.why or "POST restart")
    left = "".join(f"; left out: {task}: {why}" for task, why in done.left_out)
    return _done(f"service/{name}", bool(done.moves), f"{len(done.moves)} to be replaced where they are{left}")


def restart_task(call: Call) -> Found:
    name = keys.check_task_id(call.path["id"])
    done = restarting.restart_task(call.sked, name, why=call.body.why or "POST restart")
    return _done(f"task/{name}", True, "" if done.alive else f"the agent of {done.task.host} does not run")


def stop_task(call: Call) -> Found:
    name = keys.check_task_id(call.path["id"])
    done = restarting.stop_task(call.sked, name, why=call.body.why or "POST stop")
    return _done(f"task/{name}", done.changed, f"replaced by {done.replaced_by}" if done.replaced_by else "")


def _edit(edit: Callable[..., Edited]) -> Callable[[Call], Found]:
    def run(call: Call) -> Found:
        done = edit(call.sked, keys.check_name(call.path["name"]), why=call.body.why)
        return _done(f"rollout/{done.service}/{done.before.number}", done.changed, "")

    return run


def undo(call: Call) -> Found:
    name = keys.check_name(call.path["name"])
    begun = rollout_edits.undo(call.sked, name, call.body.to, why=call.body.why)
    if begun is None:
        return _done(f"service/{name}", False, f"version {call.body.to} is what is declared")
    return _done(f"rollout/{name}/{begun.number}", True, f"to {begun.task_name} {begun.task_version}")


def _mark(sked: Session, state: str, hosts: Sequence[str], body: Any) -> Found:
    for host in hosts:
        keys.check_host(host)
    if state == "draining":
        changed = marking.drain(sked, hosts, force=body.force, deadline=body.deadline, why=body.why)
    elif state == "cordoned":
        changed = marking.cordon(sked, hosts, why=body.why)
    elif state == "ready":
        changed = marking.uncordon(sked, hosts, why=body.why)
    else:
        raise InvalidValue("state: one of cordoned, draining, ready")
    return Found([{"name": f"host/{host}", "changed": host in changed, "text": state} for host in dict.fromkeys(hosts)])


def _marking(state: str) -> Callable[[Call], Found]:
    return lambda call: _mark(call.sked, state, [call.path["name"]], call.body)


def marks(call: Call) -> Found:
    return _mark(call.sked, call.body.state, call.body.hosts, call.body)


def rebalance(call: Call) -> Found:
    body: Moving = call.body
    made = rebalancing.rebalance(
        call.sked,
        services=body.services,
        hosts=body.hosts,
        most=body.most,
        apply=True,
        if_revision=_revision(body.if_revision),
        why=body.why or "POST /v1/rebalance",
    )
    return Found([rebalancing.rebalance_json(made, "")])


def cancel(call: Call) -> Found:
    for name in call.body.services:
        keys.check_name(name)
    lines = rebalancing.cancel(call.sked, call.body.services)
    return Found(
        [{"name": line.partition(" ")[0], "changed": " unchanged" not in line, "text": line} for line in lines]
    )


def _deleting(kind: str) -> Callable[[Call], Found]:
    def run(call: Call) -> Found:
        target = "/".join([kind, *(call.path[name] for name in ("name", "version") if name in call.path)])
        keys.check_name(call.path["name"])
        delete(call.sked, target, cascade=call.query.cascade, why=call.query.why)
        return _done(target, True, "deleted")

    return run


def _done(name: str, changed: bool, text: str) -> Found:
    return Found([{"name": name, "changed": changed, "text": text}])


def _revision(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 40):
        raise InvalidValue("if_revision: the number that a plan ends with")
    return int(text)


def _service(call: Call) -> str:
    return keys.service(call.path["name"])


def _rollout(call: Call) -> str:
    return keys.rollout(call.path["name"])


def _host(call: Call) -> str:
    return keys.mark(call.path["name"])


def _task(call: Call) -> str:
    return keys.task(call.path["id"])


def _version(call: Call) -> str:
    version = call.path["version"]
    if not (version.isascii() and version.isdecimal() and len(version) < 17):
        raise InvalidValue(f"expected a version, got {version!r:.40}")
    return keys.task_definition(call.path["name"], int(version))


def routes() -> list[Route]:
    one, done, admin = "/v1/services/{name}", shapes.Done, Role.ADMIN
    edits = {"pause": rollout_edits.pause, "resume": rollout_edits.resume, "promote": rollout_edits.promote}
    told = {
        "pause": "Hold the roll-out of a service.",
        "resume": "Let it go on; what failed is tried again.",
        "promote": "Say that its canaries are good.",
    }
    states = {"cordon": "cordoned", "uncordon": "ready"}
    marked = {"cordon": "Place no further tasks on a host.", "uncordon": "Place tasks there again."}
    deletions = [
        ("/v1/services/{name}", "service", _service, "Remove a service."),
        ("/v1/clusters/{name}", "cluster", lambda call: keys.cluster(call.path["name"]), "Remove a cluster."),
        ("/v1/task-definitions/{name}", "task_definition", None, "Remove all versions of a task definition."),
        ("/v1/task-definitions/{name}/{version}", "task_definition", _version, "Remove one of its versions."),
    ]
    return [
        post("/v1/apply", "Applied", shapes.AppliedItem, apply, "Declare what a manifest says.", role=admin,
             query=Apply, manifest=True),
        post(f"{one}/scale", "Done", done, scale_, "Change how many tasks of a service should run.", body=Scale,
             matched=_service),
        post(f"{one}/restart", "Done", done, restart_service, "Replace every task of a service, step by step.",
             body=Reason, matched=_service),
        *(post(f"{one}/rollout/{name}", "Done", done, _edit(edit), told[name], body=Reason, matched=_rollout)
          for name, edit in edits.items()),
        post(f"{one}/rollout/undo", "Done", done, undo, "Go back to a former version.", body=Undo, matched=_service),
        post("/v1/tasks/{id}/restart", "Done", done, restart_task, "Start a task anew where it is.", body=Reason,
             matched=_task),
        post("/v1/tasks/{id}/stop", "Done", done, stop_task, "Stop a task; another one may be placed.", body=Reason,
             matched=_task),
        *(post(f"/v1/hosts/{{name}}/{name}", "Done", done, _marking(state), marked[name], body=Reason, matched=_host)
          for name, state in states.items()),
        post("/v1/hosts/{name}/drain", "Done", done, _marking("draining"), "Move all tasks away from a host.",
             body=Drain, matched=_host),
        post("/v1/marks", "Done", done, marks, "Mark several hosts at once, so that tasks don't hop.", body=Marks),
        post("/v1/rebalance", "Rebalance", shapes.RebalanceItem, rebalance, "Have tasks moved to where they had better "
             "run.", body=Moving),
        post("/v1/rebalance/cancel", "Done", done, cancel, "Give up the moves that have not begun.", body=Services),
        *(replace(post(path, "Done", done, _deleting(kind), text, role=admin, query=Deleting, matched=key),
                  method="DELETE")
          for path, kind, key, text in deletions),
    ]  # fmt: skip


def _applied(done: Applied) -> list[dict[str, Any]]:
    """An item for each object, for programs."""
    return [
        {
            "kind": change.kind,
            "name": change.name,
            "outcome": change.outcome,
            "rollout": change.begun.number if change.begun else None,
        }
        for change in done.changes
    ]
