"""Events that are gathered, and the message that is made of them."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass, field
from typing import Any

from sked_core.plugin import Event, plain
from sked_notify.config import Config, Hook, cluster_of, filled

MOST_GROUPS = 50
"""Different things in one message; of further ones only the number is told."""
MAX_WHY = 500


@dataclass(slots=True)
class Group:
    """Events that are alike but for their reason and time: the first, the last, how many."""

    first: Event
    last: Event
    count: int = 1


@dataclass(slots=True)
class Gathered:
    """``omitted``: events beyond MOST_GROUPS kinds; ``lost``: events of messages that could not be delivered."""

    groups: dict[tuple[str, ...], Group] = field(default_factory=dict)
    omitted: int = 0
    lost: int = 0

    def __bool__(self) -> bool:
        return bool(self.groups or self.omitted)

    @property
    def count(self) -> int:
        return sum(group.count for group in self.groups.values()) + self.omitted

    def add(self, event: Event) -> None:
        """Bounded, however many there are."""
        key = (event.what, event.subject, event.service, event.host)
        group = self.groups.get(key)
        if group is not None:
            group.last, group.count = event, group.count + 1
        elif len(self.groups) < MOST_GROUPS:
            self.groups[key] = Group(event, event)
        else:
            self.omitted += 1


def message(config: Config, hook: Hook, gathered: Gathered) -> tuple[bytes, str]:
    """What is posted, and of which content type."""
    told = [_told(hook, group) for group in gathered.groups.values()]
    if hook.format == "json":
        whole = {
            "api": "sked-notify/v1",
            "name": config.name,
            "from": socket.gethostname(),
            "hook": hook.name,
            "count": gathered.count,
            "events": told,
            "omitted": gathered.omitted,
            "lost": gathered.lost,
        }
        return json.dumps(whole).encode(), "application/json"
    lines = [_line(hook, one) for one in told]
    if config.name:
        lines[:0] = [f"{plain(config.name)}:"]
    if gathered.omitted:
        lines.append(f"and {gathered.omitted} more")
    if gathered.lost:
        lines.append(f"{gathered.lost} events before these could not be told")
    text = "\n".join(lines)
    if hook.format == "text":
        return text.encode(), "text/plain; charset=utf-8"
    # What stands between < and > would be a command to Slack: <!channel> calls everybody.
    safe = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return json.dumps({"text": safe}).encode(), "application/json"


def _told(hook: Hook, group: Group) -> dict[str, Any]:
    last = group.last
    return {
        "what": last.what,
        "subject": last.subject,
        "cluster": cluster_of(last),
        "service": last.service,
        "host": last.host,
        "why": last.why[:MAX_WHY] if hook.why else "",
        "from": group.first.before,
        "to": last.after,
        "who": last.who,
        "at": group.first.at,
        "last_at": last.at,
        "count": group.count,
    }


def _line(hook: Hook, told: dict[str, Any]) -> str:
    line = plain(filled(hook.text, {name: str(value) for name, value in told.items()})).strip()
    return line if told["count"] == 1 or "{count}" in hook.text else f"{line} (×{told['count']})"
