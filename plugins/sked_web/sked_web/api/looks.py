"""What takes more than a look at one record: how all is, why things are as they are, what would be if."""

from __future__ import annotations

import datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from sked_core import __version__
from sked_core.client import reading
from sked_core.client.acting.planning import plan_json, planned, unattended
from sked_core.client.acting.rebalancing import rebalance, rebalance_json
from sked_core.client.looking import decided, explaining
from sked_core.client.looking.attention import overview_json
from sked_core.client.looking.evidence import endings
from sked_core.client.looking.happenings import Happening, filtered, happenings
from sked_core.client.looking.overview import overview
from sked_core.client.looking.rollouts import history_json, status_json
from sked_core.client.looking.simulating import Wishes, simulate
from sked_core.client.looking.stories import story, story_json
from sked_core.errors import InvalidManifest, InvalidValue, NotFound
from sked_core.model import keys
from sked_core.model.decisions import Decision
from sked_core.model.duration import to_seconds
from sked_core.model.endings import Ending
from sked_core.model.resolve import changed_fields
from sked_core.model.spec import known
from sked_core.model.types import Event, Rollout, TaskDefinition
from sked_core.model.yaml_source import Source, parse
from sked_core.plugin import SystemClock
from sked_core.serving.tokens import Role
from sked_web.api import shapes
from sked_web.api.paging import Page, page
from sked_web.api.table import Call, Found, Route, get, post

MOST_NAMES = 1000
MOST_SINCE = 10 * 365 * 86400.0
Text = Annotated[str, Meta(max_length=300)]
Texts = Annotated[list[Text], Meta(max_length=MOST_NAMES)]
OF_ALL: tuple[str, ...] = ()


class EventsAsked(Page, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Events about a service and its tasks, a host and its tasks, or a task; of the last ``since`` (10m, 1h30m); only
    the ``last`` so many."""

    service: Text = ""
    host: Text = ""
    task: Text = ""
    since: Text = ""
    last: Annotated[int, Meta(ge=0, le=100_000)] | None = None


class EndingsAsked(Page, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Endings of one task, service or host."""

    task: Text = ""
    service: Text = ""
    host: Text = ""


class Versions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"before": "from", "after": "to"}):
    """The versions to compare."""

    before: Annotated[int, Meta(ge=0)]
    after: Annotated[int, Meta(ge=0)]


class Asked(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``however_long``: work out the loss of each host also where that takes long."""

    however_long: bool = False


class What(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is to be different: hosts to ``lose`` and ``drain``, hosts to ``add`` (h9:memory=8g,cpu=4,like=h1), services
    to ``scale`` (SERVICE=N), the ``scheduler`` to place by ([SERVICE=]NAME), a ``manifest`` to declare, and whether
    every task is placed ``afresh``."""

    lose: Texts = msgspec.field(default_factory=list)
    drain: Texts = msgspec.field(default_factory=list)
    add: Texts = msgspec.field(default_factory=list)
    scale: Texts = msgspec.field(default_factory=list)
    scheduler: Texts = msgspec.field(default_factory=list)
    manifest: str = ""
    afresh: bool = False


class RebalanceAsked(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Only tasks of these services, only moves from or to these hosts, in ``most`` moves."""

    service: list[str] = msgspec.field(default_factory=list)
    host: list[str] = msgspec.field(default_factory=list)
    most: Annotated[int, Meta(ge=1, le=100_000)] = 100


def source_of(data: bytes) -> list[Source]:
    """A manifest that was sent. Raises InvalidManifest for one that is no YAML; what it declares is checked later."""
    found = parse(data, "<request>")
    if not found.documents and found.problems:
        raise InvalidManifest(found.problems)
    return [found]


def status(call: Call) -> Found:
    return Found([overview_json(overview(call.seen, however_long=call.query.however_long))])


def events(call: Call) -> Found:
    asked: EventsAsked = call.query
    wanted = filtered(service=asked.service, host=asked.host, task=asked.task)
    start = ""
    if asked.since:
        begun = SystemClock().wall() - min(to_seconds(asked.since), MOST_SINCE)
        start = datetime.datetime.fromtimestamp(begun, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    told: list[tuple[str, Happening]] = []
    for key, entry in sorted(call.seen.picture.area(keys.EVENTS).items()):
        own = happenings([(key, entry)])
        told += [(f"{key}#{number:04d}", one) for number, one in enumerate(own)]
    told = [one for one in told if wanted(one[1].event) and one[1].event.at >= start]
    if asked.last is not None:
        told = told[len(told) - min(asked.last, len(told)) :]
    found, more = page(told, asked, lambda one: one[0])
    return Found([one.json() for _, one in found], more)


def ended(call: Call) -> Found:
    asked: EndingsAsked = call.query
    if asked.host:
        keys.check_host(asked.host)
    found = endings(call.seen.store, task=asked.task, service=asked.service, host=asked.host)
    named = sorted(((f"{one.ended}/{one.host}/{one.task}/{one.first}", one) for one in found), key=lambda one: one[0])
    part, more = page(named, asked, lambda one: one[0])
    return Found([one for _, one in part], more)


def rollouts(call: Call) -> Found:
    """Those under way."""
    found = reading.items(call.seen.picture.area(keys.ROLLOUTS), Rollout)
    part, more = page(found, call.query, lambda item: item.key)
    return Found([item.stored() | {"service": keys.last_segment(item.key)} for item in part], more)


def rollout(call: Call) -> Found:
    name = keys.check_name(call.path["name"])
    reading.service_entry(call.seen.store, name)
    active = call.seen.picture.area(keys.ROLLOUTS).get(keys.rollout(name))
    return Found(status_json(call.seen, name), revision=active.revision if active is not None else 0)


def history(call: Call) -> Found:
    return Found(history_json(call.seen, keys.check_name(call.path["name"])))


def decisions(call: Call) -> Found:
    name = keys.check_name(call.path["name"])
    found = explaining.decisions_of(call.seen.store, name)
    if not found:
        reading.service_entry(call.seen.store, name)
    return Found(found)


def decision(call: Call) -> Found:
    name, number = keys.check_name(call.path["name"]), _number(call.path["number"])
    found = explaining.one_decision(explaining.decisions_of(call.seen.store, name), name, number)
    then = [decided.verdicts_then(call.seen, name, found, batch, 0) for batch in found.batches]
    return Found([decided.decision_json(found, then)])


def explanation(call: Call) -> Found:
    name = keys.check_name(call.path["name"])
    reading.service_entry(call.seen.store, name)
    return Found([decided.explained_json(one) for one in explaining.live(call.seen, name)])


def task_explanation(call: Call) -> Found:
    name = keys.check_task_id(call.path["id"])
    known("task", name, call.seen.picture.tasks())
    found = decided.task_found(call.seen, name)
    return Found([decided.task_json(found, decided.verdicts_before(call.seen, found))])


def why(call: Call) -> Found:
    return Found([story_json(story(call.seen, keys.check_task_id(call.path["id"])))])


def difference(call: Call) -> Found:
    name, asked = keys.check_name(call.path["name"]), call.query
    every = call.seen.picture.objects(keys.TASK_DEFINITIONS)
    known("task definition", name, {one.name for one in every.values()})
    both = []
    for version in (asked.before, asked.after):
        one: TaskDefinition | None = every.get(f"{name}/{version}")
        if one is None:
            there = sorted(one.version for one in every.values() if one.name == name)
            raise NotFound(f"no version {version} of {name}", hint=f"there are: {', '.join(map(str, there))}")
        both.append(msgspec.to_builtins(one))
    fields = [{"path": path, "before": old, "after": new} for path, old, new in changed_fields(*both)]
    return Found([{"name": name, "from": asked.before, "to": asked.after, "fields": fields}])


def plan(call: Call) -> Found:
    made = planned(call.sked, source_of(call.body), "POST /v1/plan")
    item = plan_json(made, f"sked apply -f … --if-revision {made.number}")
    return Found([item | {"notes": [*item["notes"], *unattended(call.sked, made)]}])


def validate(call: Call) -> Found:
    from sked_core.client.acting.declaring import validate as validated

    manifest = validated(source_of(call.body), call.state.sked.plugins)
    counts = {
        "clusters": len(manifest.clusters),
        "services": len(manifest.services),
        "task_definitions": len(manifest.task_definitions),
    }
    return Found([counts | {"warnings": [str(one) for one in manifest.warnings]}])


def simulation(call: Call) -> Found:
    body: What = call.body
    fields = {name: getattr(body, name) for name in ("lose", "drain", "add", "scale", "scheduler", "afresh")}
    wanted = Wishes(**fields, sources=source_of(body.manifest.encode()) if body.manifest else ())
    if wanted.none():
        raise InvalidValue("say what is to be different: lose, drain, add, scale, scheduler, manifest or afresh")
    return Found([simulate(call.seen, wanted).json()])


def proposal(call: Call) -> Found:
    asked: RebalanceAsked = call.query
    made = rebalance(call.sked, services=asked.service, hosts=asked.host, most=asked.most)
    return Found([rebalance_json(made, f"sked rebalance --apply --if-revision {made.number}")])


def version(_: Call) -> Found:
    return Found([{"version": __version__}])


def me(call: Call) -> Found:
    return Found([{"name": call.who, "role": call.role.word}])


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise InvalidValue(f"expected a number, got {text!r:.40}")
    return int(text)


def routes() -> list[Route]:
    one, read = "/v1/services/{name}", Role.READ
    return [
        get("/v1/version", "Version", shapes.Version, version, "The version of Sked that serves this."),
        get("/v1/me", "Me", shapes.Me, me, "Who asks, and what that one may do."),
        get("/v1/status", "Status", shapes.Status, status, "How all of it is, and what needs attention.", query=Asked,
            rests_on=OF_ALL),
        get("/v1/events", "EventList", Event, events, "What was decided and what happened, the newest last.",
            query=EventsAsked),
        get("/v1/endings", "EndingList", Ending, ended, "How runs of tasks ended, of tasks that are gone too.",
            query=EndingsAsked, rests_on=(keys.ENDINGS,)),
        get("/v1/rollouts", "RolloutList", shapes.RolloutItem, rollouts, "Roll-outs that are under way.", query=Page,
            rests_on=(keys.ROLLOUTS,)),
        get(f"{one}/rollout", "RolloutStatus", shapes.RolloutStatus, rollout,
            "How far a service is. Its ETag may be given as If-Match to what edits the roll-out."),
        get(f"{one}/rollouts", "RolloutList", shapes.RolloutItem, history, "All roll-outs of a service, oldest first."),
        get(f"{one}/decisions", "DecisionList", Decision, decisions, "The decisions about a service that are kept."),
        get(f"{one}/decisions/{{number}}", "DecisionList", shapes.DecisionItem, decision,
            "One decision, with the verdict on every host as it was then."),
        get(f"{one}/explanation", "ExplanationList", shapes.Explanation, explanation,
            "Why tasks of a service are where they are, why others wait, and what would help."),
        get("/v1/tasks/{id}/explanation", "TaskExplanationList", shapes.TaskExplanation, task_explanation,
            "Why a task is where it is."),
        get("/v1/tasks/{id}/story", "Story", shapes.StoryItem, why, "What happened to a task, dead or alive."),
        get("/v1/task-definitions/{name}/diff", "Difference", shapes.Difference, difference,
            "What is different between two versions of a task definition.", query=Versions,
            rests_on=(keys.TASK_DEFINITIONS,)),
        get("/v1/rebalance", "Rebalance", shapes.RebalanceItem, proposal, "Which tasks had better run elsewhere.",
            query=RebalanceAsked),
        post("/v1/validate", "Validation", shapes.Validation, validate, "Check a manifest by itself.", role=read,
             manifest=True),
        post("/v1/plan", "Plan", shapes.PlanItem, plan, "What an apply of this manifest would do.", role=read,
             manifest=True),
        post("/v1/simulate", "Simulation", shapes.SimulationItem, simulation, "What would be if.", role=read,
             body=What),
    ]  # fmt: skip
