"""How a run of a task ended, as its agent keeps it after the task is gone."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from sked_core.model.types import Count, Host_, Name, Version

Cause = Literal["crashed", "unhealthy", "start_failed", "rejected", "stopped"]


class Ending(Struct, frozen=True, kw_only=True):
    """How a run of a task on its host ended, or that the host refused to run it: written once by the agent.

    ``cause``: ``crashed`` (it ended by itself), ``unhealthy`` (stopped because its checks failed for too long),
    ``start_failed``, ``rejected`` (this host won't run it; no run of its own), ``stopped`` (somebody wanted that).
    ``reason``: how or why, for people; ``exits``: exit codes by container, as far as known; ``output``: what its
    failing check said last; ``log``: the last lines that its containers wrote. ``attempts``: the starts up to this one
    since it was last well; ``times``: how often in a row it ended in the same way, of which this is the last, and
    ``first`` when that began. ``started`` is empty where it did not start or that is not known. Times are UTC.
    """

    task: str
    cluster: Name
    service: Name
    instance: Count = 0
    task_name: Name
    task_version: Version
    host: Host_
    cause: Cause
    reason: str = ""
    exits: dict[str, int] = field(default_factory=dict)
    output: str = ""
    log: list[str] = field(default_factory=list)
    attempts: int = 0
    times: int = 1
    first: str = ""
    started: str = ""
    ended: str = ""
