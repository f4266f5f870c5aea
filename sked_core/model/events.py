"""The names of events: docs/events.md says who tells each, and when."""

from __future__ import annotations

_KINDS = {
    "task": "issued waiting started healthy unhealthy unchecked failed restarted secret_rotated rejected withdrawn "
    "stopping stopped removed",
    "rollout": "started promoted paused resumed failed rolled_back succeeded superseded withdrawn",
    "move": "started done cancelled",
    "service": "applied deleted scaled rebalanced restarted blocked",
    "cluster": "applied deleted",
    "task_definition": "applied deleted",
    "host": "cordoned draining ready lost returned",
    "agent": "started adopted frozen",
    "shadow": "differed failed",
    "events": "omitted",
}
EVENT_NAMES = tuple(f"{subject}.{what}" for subject, kinds in _KINDS.items() for what in kinds.split())
"""All that this version of Sked tells; a later one may tell more."""
