"""A decision as it is kept: what was asked, what was seen of the hosts, and where the tasks went.

Hosts stand in columns, in the order of their names, since a thousand small objects would repeat every name a thousand
times. A column in which all values are equal is that one value.
"""

from __future__ import annotations

from msgspec import Struct, field

from sked_core.model.types import ANYWHERE, Count, Host_, Name, Placement, Version

Numbers = int | list[int]
Texts = str | list[str | None] | None


class Asked(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What each of ``count`` tasks asked of its host, as in ``interfaces.scheduler.Demand``. MB and cpu units."""

    count: Count
    memory: int = 0
    cpu_units: int = 0
    disk: int = 0
    provide_port: bool = False
    fixed_ports: list[int] = field(default_factory=list)
    executors: list[str] = field(default_factory=list)
    desired: int = 0
    placement: Placement = ANYWHERE
    shunned_by: list[tuple[str, str]] = field(default_factory=list)


class Seen(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was known of the hosts, as far as the decision depends on it.

    ``hosts``: names, sorted; every other list of numbers or texts is a column in that order. ``reserved_*`` and
    ``tasks``: what was reserved. ``services``: tasks of each service that counts, as ``cluster/service``. ``tags``: of
    those that rules name; null where a host has none. ``free_ports`` of ``port_range`` (``first-last``). These name
    hosts: ``lost``, ``down`` (no agent), ``foreign`` (not among the cluster's), ``marks``, ``avoid`` (with the reason),
    ``lacks`` (by executor), ``held`` (by fixed port: a task holds it) and ``in_use`` (others do). ``freed``: hosts on
    which, one after another, the place of a lost task was given up for each one that was placed.
    """

    hosts: list[Host_]
    memory: Numbers = 0
    cpu_units: Numbers = 0
    disk: Numbers = 0
    reserved_memory: Numbers = 0
    reserved_cpu_units: Numbers = 0
    reserved_disk: Numbers = 0
    tasks: Numbers = 0
    services: dict[str, Numbers] = field(default_factory=dict)
    tags: dict[str, Texts] = field(default_factory=dict)
    free_ports: Numbers = 0
    port_range: str | list[str] = ""
    lost: list[str] = field(default_factory=list)
    down: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    marks: dict[str, str] = field(default_factory=dict)
    avoid: dict[str, str] = field(default_factory=dict)
    lacks: dict[str, list[str]] = field(default_factory=dict)
    held: dict[str, list[str]] = field(default_factory=dict)
    in_use: dict[str, list[str]] = field(default_factory=dict)
    freed: list[str] = field(default_factory=list)


class Shadow(Struct, frozen=True, kw_only=True):
    """What another scheduler, which changes nothing, made of the same batch. ``hosts``: those it would have chosen, in
    order; ``fault``: why it said nothing. ``gain``: by its own score, how much better its choice is than what was done
    (0 where it has no score)."""

    scheduler: str
    hosts: list[str] = field(default_factory=list)
    waiting: int = 0
    differs: int = 0
    """How many tasks would be on other hosts."""
    gain: float = 0.0
    fault: str = ""


class Batch(Struct, frozen=True, kw_only=True):
    """Like tasks of one cluster that were placed together.

    ``instances`` and ``hosts``, pair by pair in the order of placement, say where the tasks went; ``omitted``: how many
    more there were. ``terms``: the scores of the first of them when they were chosen, term by term. ``waiting``: how
    many found no host, and why each host took none of those (``refusals``; ``silent``: of how many more hosts that is
    left out). ``digest``: sha256 of the inputs (``asked`` and ``seen``), ``answer``: of all that was decided. ``seen``
    is null where it is left out, with the reason in ``left_out``.
    """

    cluster: Name
    task_name: Name
    task_version: Version
    asked: Asked
    instances: list[int] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    omitted: int = 0
    waiting: int = 0
    refusals: dict[str, list[str]] = field(default_factory=dict)
    silent: int = 0
    terms: list[dict[str, float]] = field(default_factory=list)
    digest: str = ""
    answer: str = ""
    seen: Seen | None = None
    left_out: str = ""
    shadow: Shadow | None = None


class Decision(Struct, frozen=True, kw_only=True):
    """What one scheduler process decided about one service at one time, kept so that it can be read and run again.

    ``number`` counts the decisions of the service from 1; the last few are kept. ``at`` is UTC, for people; ``by``: the
    process; ``scheduler``: the rule by which it placed.
    """

    number: int
    at: str
    by: str
    scheduler: str
    batches: list[Batch] = field(default_factory=list)
