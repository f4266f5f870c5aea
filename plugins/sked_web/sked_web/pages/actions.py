"""What can be done on the page: each action with the command that does the same, shown before it is done."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sked_core.client.acting import declaring, deleting, marking, rebalancing, restarting, rollout_edits, scaling
from sked_core.client.looking.rollouts import route
from sked_core.client.session import Session
from sked_core.errors import InvalidValue
from sked_core.model.duration import to_seconds
from sked_core.model.wording import counted
from sked_web.pages.plans import NAME, WHY, sources_of
from sked_web.pages.site import Ask

Values = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Field:
    """Something to fill in. ``kind``: as of HTML's inputs."""

    name: str
    label: str
    kind: str = "text"
    needed: bool = False


WHY_FIELD = Field("why", "Why (kept with it, for people)")


@dataclass(frozen=True, slots=True)
class Action:
    """``object``: the value that names what it is done to; ``fixed``: others that the form hands on as they are.
    ``words``: the command, without ``sked``; ``run`` does it and returns what came of it, in lines; ``ahead``: what
    there is to say before, and whether it makes no sense now."""

    name: str
    role: str
    title: str
    says: str
    button: str
    words: Callable[[Values], Sequence[str]]
    run: Callable[[Session, Values], Sequence[str]]
    object: str = ""
    fixed: tuple[str, ...] = ()
    fields: tuple[Field, ...] = ()
    harm: bool = False
    ahead: Callable[[Ask, dict[str, str]], tuple[Sequence[str], bool]] = lambda *_: ((), False)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all values that it takes."""
        own = (self.object,) if self.object else ()
        return (*own, *self.fixed, *(field.name for field in self.fields))

    def command(self, values: Values) -> str:
        """What one would type."""
        return shlex.join(["sked", *self.words(values)])


def _why(values: Values) -> list[str]:
    return ["--why", values["why"]] if values["why"] else []


def _flag(values: Values, name: str, option: str) -> list[str]:
    return [option] if values[name] else []


def _count(values: Values) -> int:
    text = values["count"]
    if not (text.isascii() and text.isdecimal() and len(text) < 8):
        raise InvalidValue(f"count: expected a number, got {text!r:.40}")
    return int(text)


def _scale(sked: Session, values: Values) -> list[str]:
    done = scaling.scale(sked, values["service"], _count(values))
    return [f"{done.service}: {done.before} → {done.after}" if done.changed else f"{done.service}: unchanged"]


def _edited(done: rollout_edits.Edited, what: str) -> list[str]:
    return [f"roll-out {done.before.number} of {done.service} {what if done.changed else 'unchanged'}"]


def _undo(sked: Session, values: Values) -> list[str]:
    to = int(values["to"]) if values["to"].isdecimal() else None
    begun = rollout_edits.undo(sked, values["service"], to, why=values["why"])
    return [f"began roll-out {begun.number}: {route(begun)}" if begun else "unchanged: that version is declared"]


def _restart(sked: Session, values: Values) -> list[str]:
    kind, name = restarting.kind_of(sked, values["name"])
    why = values["why"] or "restarted on the page"
    if kind == "task":
        done = restarting.restart_task(sked, name, why=why)
        later = "" if done.alive else f": not before the agent of {done.task.host} runs again"
        return [f"{name} is asked to restart{later}"]
    asked = restarting.restart_service(sked, name, why=why)
    left = [f"{task} is left as it is: {reason}" for task, reason in asked.left_out]
    return [f"{counted(len(asked.moves), 'task')} of {name}, one after another", *left]


def _stop(sked: Session, values: Values) -> list[str]:
    done = restarting.stop_task(sked, values["task"], why=values["why"] or "stopped on the page")
    after = f": scheduler {done.replaced_by} places another one, if it is still wanted" if done.replaced_by else ""
    return [f"{done.task.id} is being stopped{after}" if done.changed else f"{done.task.id} was being stopped already"]


def _marked(hosts: Sequence[str], host: str, what: str) -> list[str]:
    return [f"{host} {what}" if hosts else f"{host} unchanged"]


def _drain(sked: Session, values: Values) -> list[str]:
    deadline = to_seconds(values["deadline"]) if values["deadline"] else 0.0
    host, force = values["host"], bool(values["force"])
    changed = marking.drain(sked, [host], force=force, deadline=deadline, why=values["why"])
    return _marked(changed, host, "is draining: its tasks move away")


def _delete(sked: Session, values: Values) -> list[str]:
    deleting.delete(sked, values["target"], cascade=bool(values["cascade"]))
    return [f"{values['target']} deleted"]


def _apply(sked: Session, values: Values) -> list[str]:
    if not values["revision"].isdecimal():
        raise InvalidValue("plan it first: what is applied is what was seen")
    done = declaring.declare(
        sked, sources_of(values["manifest"]), why=values["why"] or WHY, if_revision=int(values["revision"])
    )
    return [
        f"{change.kind}/{change.name} {change.outcome}"
        + (f", began roll-out {change.begun.number}: {route(change.begun)}" if change.begun else "")
        for change in done.changes
    ]


def _rebalance(sked: Session, values: Values) -> list[str]:
    number = int(values["revision"]) if values["revision"].isdecimal() else None
    if number is None:
        raise InvalidValue("look at the moves first: what is done is what was seen")
    made = rebalancing.rebalance(sked, apply=True, if_revision=number, why=values["why"] or "rebalanced on the page")
    return [f"{counted(len(made.proposal.moves), 'move')} begun" if made.applied else "nothing had better move"]


def _moves_ahead(ask: Ask, values: dict[str, str]) -> tuple[Sequence[str], bool]:
    made = rebalancing.rebalance(ask.site.act(ask.visitor.name))
    values["revision"] = str(made.number)
    moves = [f"{move.task.id}: {move.task.host} → {move.to} ({move.why})" for move in made.proposal.moves]
    gained = [f"{what}: {before} → {after}" for what, before, after in rebalancing.gains(made.proposal)]
    return [*moves, *gained] if moves else ["Nothing had better move."], not moves


def _of_service(name: str, title: str, says: str, button: str, run: Callable[..., Any], **more: Any) -> Action:
    words = {"words": lambda values: ["rollout", name, values["service"], *_why(values)]}
    fields = {"object": "service", "fields": (WHY_FIELD,)}
    return Action(name, "operate", title, says, button, run=run, **(words | fields | more))


ACTIONS: Mapping[str, Action] = {
    one.name: one
    for one in (
        _of_service(
            "scale", "Scale", "How many tasks should run in each cluster that lists it.", "Scale", _scale,
            words=lambda values: ["scale", values["service"], values["count"]],
            fields=(Field("count", "Tasks in each cluster", "number", needed=True),),
        ),
        Action(
            "restart",
            "operate",
            "Restart",
            "Of a service one task after another, within what it allows; a task is restarted where it is.",
            "Restart",
            lambda values: ["restart", values["name"], *_why(values)],
            _restart,
            object="name",
            fields=(WHY_FIELD,),
        ),
        Action(
            "stop",
            "operate",
            "Stop",
            "It ends. If its service still wants it, another one is placed, maybe elsewhere.",
            "Stop it",
            lambda values: ["stop", values["task"], "-y", *_why(values)],
            _stop,
            object="task",
            fields=(WHY_FIELD,),
            harm=True,
        ),
        _of_service(
            "pause", "Pause the roll-out of", "It stays where it is until somebody lets it go on.", "Pause",
            lambda sked, values: _edited(rollout_edits.pause(sked, values["service"], why=values["why"]), "paused"),
        ),
        _of_service(
            "resume", "Resume the roll-out of", "It goes on, and what failed is tried again.", "Resume",
            lambda sked, values: _edited(rollout_edits.resume(sked, values["service"], why=values["why"]), "resumed"),
        ),
        _of_service(
            "promote", "Promote the canaries of", "They are good: the rest follows.", "Promote",
            lambda sked, values: _edited(rollout_edits.promote(sked, values["service"], why=values["why"]), "promoted"),
        ),
        _of_service(
            "undo", "Roll back", "A roll-out begins that leads back to what it was before its last one.", "Roll back",
            _undo, harm=True,
            words=lambda values: ["rollout", "undo", values["service"],
                                  *(["--to", values["to"]] if values["to"] else []), *_why(values)],
            fields=(Field("to", "To version (empty: what the last roll-out replaced)"), WHY_FIELD),
        ),
        Action(
            "cordon", "operate", "Cordon", "No further tasks are placed on it; what runs there goes on.", "Cordon",
            lambda values: ["cordon", values["host"], *_why(values)],
            lambda sked, values: _marked(marking.cordon(sked, [values["host"]], why=values["why"]),
                                         values["host"], "is cordoned"),
            object="host", fields=(WHY_FIELD,),
        ),
        Action(
            "uncordon", "operate", "Uncordon", "It may be given tasks again.", "Uncordon",
            lambda values: ["uncordon", values["host"], *_why(values)],
            lambda sked, values: _marked(marking.uncordon(sked, [values["host"]], why=values["why"]),
                                         values["host"], "is ready"),
            object="host", fields=(WHY_FIELD,),
        ),
        Action(
            "drain", "operate", "Drain", "All its tasks move to other hosts, within what services allow.", "Drain",
            lambda values: ["drain", values["host"], *_flag(values, "force", "--force"),
                            *(["--deadline", values["deadline"]] if values["deadline"] else []), *_why(values)],
            _drain, object="host", harm=True,
            fields=(Field("deadline", "Deadline, after which also below min (such as 10m; empty: never)"),
                    Field("force", "Now, also below min", "checkbox"), WHY_FIELD),
        ),
        Action(
            "delete", "admin", "Delete", "It is not declared any more, and its tasks are stopped.", "Delete",
            lambda values: ["delete", values["target"], *_flag(values, "cascade", "--cascade"), "-y"],
            _delete, object="target", harm=True,
            fields=(Field("cascade", "Also take it out of the clusters that list it", "checkbox"),),
        ),
        Action(
            "apply", "admin", "Apply", "What was planned is declared.", "Apply",
            lambda values: ["apply", "-f", NAME, "--if-revision", values["revision"], *_why(values)],
            _apply, fixed=("manifest", "revision"), fields=(WHY_FIELD,),
        ),
        Action(
            "rebalance", "operate", "Rebalance", "Tasks move to where they had better run.", "Move them",
            lambda values: ["rebalance", "--apply", "--if-revision", values["revision"], *_why(values)],
            _rebalance, fixed=("revision",), fields=(WHY_FIELD,), ahead=_moves_ahead,
        ),
        Action(
            "cancel-moves", "operate", "Cancel moves", "What has not begun of the moves under way is given up.",
            "Cancel them", lambda _: ["rebalance", "--cancel"], lambda sked, _: rebalancing.cancel(sked),
        ),
    )
}  # fmt: skip
