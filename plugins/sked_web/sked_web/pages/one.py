"""Pages of one thing: a service with its tabs, a host, a task."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from sked_core.client.looking import explaining, stories
from sked_core.client.looking.happenings import filtered
from sked_core.client.looking.rollouts import every, look
from sked_core.client.session import Session
from sked_core.errors import NotFound
from sked_core.model.spec import known
from sked_core.model.types import Check, TaskDefinition
from sked_web.pages.logs import log_of
from sked_web.pages.looks import SIGNS, events_of, service_states
from sked_web.pages.shown import pretty
from sked_web.pages.sight import HostRow, ServiceRow
from sked_web.pages.site import Ask, View

FEW_EVENTS = 50
OF_STORIES = {
    "healthy": "ok",
    "unhealthy": "busy",
    "unknown": "busy",
    "failing": "bad",
    "rejected": "bad",
    "stopping": "idle",
    "silent": "gone",
    "gone": "idle",
}
"""The mark of each state of a task's story."""


def of_service(tab: str, more: Callable[[Ask, ServiceRow], Mapping[str, Any]] = lambda *_: {}) -> View:
    """A view of one tab; ``more``: what its template needs beside what all do."""

    def view(ask: Ask) -> Mapping[str, Any]:
        name = known("service", ask.path("service"), ask.sight.services)
        row = ask.sight.services[name]
        common = {
            "row": lambda: row,
            "tab": tab,
            "signs": SIGNS,
            "state": lambda: service_states(ask).get(name),
        }
        return common | dict(more(ask, row))

    return view


def _tasks(ask: Ask, row: ServiceRow) -> Mapping[str, Any]:
    def rules() -> list[str]:
        rules = row.service.placement if row.service else None
        given = msgspec.to_builtins(rules) if isinstance(rules, msgspec.Struct) else {}
        return [f"{name}: {pretty(value)}" for name, value in given.items() if value not in ([], False, 0)]

    return {"rules": rules}


def _rollouts(ask: Ask, row: ServiceRow) -> Mapping[str, Any]:
    return {
        "views": lambda: look(ask.sked, [row.name]),
        "rollouts": lambda: [one for _, one in every(ask.sked, row.name)],
    }


def _versions(ask: Ask, row: ServiceRow) -> Mapping[str, Any]:
    name = row.service.task_name if row.service else row.name
    found = {version: one for (other, version), one in ask.sight.facts.definitions.items() if other == name}
    versions = sorted(found)
    if not versions:
        return {"versions": []}
    current = row.service.task_version if row.service else versions[-1]
    latest = current if current in found else versions[-1]
    former = max((one for one in versions if one < latest), default=latest)
    a, b = ask.number("a", former), ask.number("b", latest)
    for one in (a, b):
        if one not in found:
            raise NotFound(f"no version {one} of {name} is stored")
    return {
        "versions": versions,
        "definitions": found,
        "a": a,
        "b": b,
        "lines": list(differing(found[a], found[b])),
        "counts": Counter(one.task.task_definition.version for one in row.tasks),
        "stored": msgspec.to_builtins(found[b]),
    }


def differing(a: TaskDefinition, b: TaskDefinition) -> Sequence[tuple[str, str]]:
    """Lines of ``b`` against ``a`` as (class, text), with some around them."""
    before, after = (pretty(msgspec.to_builtins(one)).splitlines() for one in (a, b))
    kinds = {"+": "add", "-": "cut", "@": "at"}
    lines = list(difflib.unified_diff(before, after, lineterm="", n=3))[2:]
    return [(kinds.get(line[:1], ""), line) for line in lines]


def _checks(ask: Ask, row: ServiceRow) -> Mapping[str, Any]:
    found: list[tuple[str, Check]] = []
    for one in row.definition.containers if row.definition else ():
        found += [(one.name, check) for check in one.checks or ()]
    return {"checks": found}


def _explain(ask: Ask, row: ServiceRow) -> Mapping[str, Any]:
    def explained() -> Sequence[explaining.Explained]:
        def live(sked: Session) -> Sequence[explaining.Explained]:
            return explaining.live(sked, row.name)

        return live(ask.sked) if row.service is not None else []

    def cells(verdict: Any) -> dict[str, str]:
        found: dict[str, str] = {}
        for reason in verdict.reasons:
            column, text = column_of(reason)
            found[column] = f"{found[column]}; {text}" if column in found else text
        return found

    def columns(one: explaining.Explained) -> list[str]:
        return list(dict.fromkeys(name for verdict in one.verdicts for name in cells(verdict)))

    return {"explained": explained, "columns_of": columns, "cells_of": cells}


def column_of(reason: str) -> tuple[str, str]:
    """Under which heading a reason stands in the matrix, and what stands there: ``memory: free 1 MB < 2 MB`` is put
    under ``memory``, what names no resource or rule under what it is about."""
    head, colon, rest = reason.partition(": ")
    if colon and len(head) <= 40:
        return head, rest
    if reason.startswith("needs "):
        return "requires", reason.removeprefix("needs ")
    for word, column in (
        ("agent", "agent"),
        ("port", "ports"),
        ("executor", "executor"),
        ("cluster", "cluster"),
        ("cordoned", "mark"),
        ("draining", "mark"),
    ):
        if word in reason:
            return column, reason
    return "other", reason


def _events(ask: Ask, row: ServiceRow) -> Mapping[str, Any]:
    return {"events": lambda: events_of(ask, wanted=filtered(service=row.name))}


def _logs(ask: Ask, row: ServiceRow) -> Mapping[str, Any]:
    return {"logs": lambda task: log_of(ask, task)}


SERVICE_TABS: Mapping[str, tuple[str, View]] = {
    "": ("service.html", of_service("", _tasks)),
    "/rollouts": ("service_rollouts.html", of_service("rollouts", _rollouts)),
    "/versions": ("service_versions.html", of_service("versions", _versions)),
    "/checks": ("service_checks.html", of_service("checks", _checks)),
    "/explain": ("service_explain.html", of_service("explain", _explain)),
    "/events": ("service_events.html", of_service("events", _events)),
    "/logs": ("service_logs.html", of_service("logs", _logs)),
}
"""What comes behind ``/services/NAME``, with the template and the view."""


def host(ask: Ask) -> Mapping[str, Any]:
    name = known("host", ask.path("host"), ask.sight.hosts)

    def row() -> HostRow:
        return ask.sight.hosts[name]

    return {
        "host": row,
        "ports": lambda: [one.task.port for one in row().tasks if one.task.port],
        "events": lambda: events_of(ask, FEW_EVENTS, filtered(host=name)),
    }


def task(ask: Ask) -> Mapping[str, Any]:
    """A task, dead or alive. Raises NotFound if nothing is known of it."""
    name = ask.path("task")
    told = stories.story(ask.sked, name)
    return {
        "id": told.id,
        "story": lambda: told,
        "sign": lambda: OF_STORIES.get(told.state, "idle"),
        "logs": lambda one: log_of(ask, one),
    }
