"""Pages of lists: overview, services, tasks, hosts, topology, events, search."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sked_core.client import reading
from sked_core.client.looking.attention import attention
from sked_core.client.looking.happenings import Wanted, filtered, past
from sked_core.client.looking.overview import Overview, State, overview, schedulers_there, states
from sked_core.client.session import Session
from sked_core.model import keys
from sked_core.model.types import Event
from sked_web.pages.shown import HUES
from sked_web.pages.sight import STATES, HostRow, TaskRow
from sked_web.pages.site import Ask

SIGNS = {
    "unreadable": "bad",
    "failing": "bad",
    "waiting": "wait",
    "not scheduled": "bad",
    "rolling out": "busy",
    "moving": "busy",
    "starting": "busy",
    "stopping": "idle",
    "in no cluster": "idle",
    "ok": "ok",
}
"""The mark of each state of a service."""
PER_PAGE = 500
MOST_EVENTS, FEW_EVENTS = 200, 8
MOST_FOUND = 50


def service_states(ask: Ask) -> dict[str, State]:
    """How each service is, those first that need somebody."""
    return {one.service: one for one in ask.site.once(ask, "states", _states)}


def _states(sked: Session) -> Sequence[State]:
    from sked_core.client.looking.foresight import live_world
    from sked_core.model.types import Failure, ServiceStatus

    present = schedulers_there(sked)
    return states(
        live_world(sked).world,
        reading.by_name(sked.store, keys.SERVICE_STATUS, ServiceStatus),
        reading.by_name(sked.store, keys.FAILURES, Failure),
        {name for offered in present.values() for name in offered},
    )


def events_of(ask: Ask, most: int = MOST_EVENTS, wanted: Wanted = lambda _: True) -> list[Event]:
    """The last events that are ``wanted``, the newest first."""
    found = [one for one in ask.site.once(ask, "events", _events) if wanted(one)]
    return found[:most]


def _events(sked: Session) -> list[Event]:
    found, _ = past(sked.store, filtered())
    return [one.event for one in reversed(found)]


def home(ask: Ask) -> Mapping[str, Any]:
    """What needs somebody, and what goes on."""

    def found() -> Overview:
        return ask.site.once(ask, "overview", overview)

    return {
        "wrong": lambda: attention(found()),
        "losses": lambda: found().losses,
        "states": lambda: Counter(state.state for state in found().states),
        "signs": SIGNS,
        "rollouts": lambda: [row for row in ask.sight.services.values() if row.rollout is not None],
        "moving": lambda: [row for row in ask.sight.services.values() if row.moves],
        "events": lambda: events_of(ask, FEW_EVENTS),
    }


def services(ask: Ask) -> Mapping[str, Any]:
    return {"states": lambda: service_states(ask), "signs": SIGNS}


def tasks(ask: Ask) -> Mapping[str, Any]:
    """All, or those of a state, a service, a host; in pages."""
    state, service, host = ask.arg("state"), ask.arg("service"), ask.arg("host")
    number = max(1, ask.number("page", 1))

    def found() -> list[TaskRow]:
        return [
            row
            for row in ask.sight.tasks.values()
            if state in ("", row.state) and service in ("", row.task.service) and host in ("", row.task.host)
        ]

    return {
        "state": state,
        "all_states": list(STATES),
        "number": number,
        "found": found,
        "counts": lambda: Counter(row.state for row in found()),
        "pages": lambda: -(-len(found()) // PER_PAGE),
        "shown": lambda: found()[(number - 1) * PER_PAGE : number * PER_PAGE],
    }


def hosts(ask: Ask) -> Mapping[str, Any]:
    return {}


def topology(ask: Ask) -> Mapping[str, Any]:
    """Every host a box, every task a block. Asked for some tasks, their boxes with those blocks alone; asked for some
    hosts, those boxes; and some boxes without any, for what stands at the top of them."""
    only, heads = ask.only, set(ask.request.query_params.getlist("_head"))

    def boxes() -> list[HostRow]:
        sight = ask.sight
        if not only:
            return list(sight.hosts.values())
        named = {key.removeprefix("host/") for key in only | heads if key.startswith("host/")}
        named |= {row.task.host for key in only if (row := sight.tasks.get(key.removeprefix("task/"))) is not None}
        return [sight.hosts[name] for name in sight.hosts if name in named]

    return {
        "by": "service" if ask.arg("by") == "service" else "health",
        "hue": lambda name: zlib.crc32(name.encode()) % HUES,
        "boxes": boxes,
        "wanted": lambda row: not only or f"task/{row.id}" in only or f"host/{row.task.host}" in only,
    }


def events(ask: Ask) -> Mapping[str, Any]:
    wanted = filtered(service=ask.arg("service"), host=ask.arg("host"), task=ask.arg("task"))
    return {"events": lambda: events_of(ask, wanted=wanted), "most": MOST_EVENTS}


def search(ask: Ask) -> Mapping[str, Any]:
    """What has the text in its name; what has exactly that name first."""
    text = ask.arg("q").strip()
    return {"q": text, "found": found_by_name(ask, text)}


def found_by_name(ask: Ask, text: str) -> list[tuple[str, str]]:
    """Kinds and names, exact ones first."""
    sight, wanted = ask.sight, text.lower()
    there = (("service", sight.services), ("host", sight.hosts), ("task", sight.tasks))
    names = [(kind, name) for kind, found in there for name in found if wanted and wanted in name.lower()]
    return sorted(names, key=lambda one: (one[1] != text, not one[1].lower().startswith(wanted)))[:MOST_FOUND]


def help_(ask: Ask) -> Mapping[str, Any]:
    return {}
