"""Verdicts on hosts, and scores, as people read them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from sked_core.logic.explanation import Verdict
from sked_core.model.constraint import HOST
from sked_core.model.decisions import Asked
from sked_core.model.spec import plain
from sked_core.model.types import Placement
from sked_core.model.wording import counted, natural

MANY_HOSTS = 50
"""With more hosts than that, those of which the same is to be said share a line."""
NAMED, FITTING = 3, 10
"""Hosts that a shared line names, and hosts that would take a task which have a line of their own."""
_NUMBER = re.compile(r"\d+")


def asks(asked: Asked) -> str:
    """What each task asks of its host."""
    amounts = [("memory", asked.memory, " MB"), ("cpu", asked.cpu_units, ""), ("disk", asked.disk, " MB")]
    parts = [f"{name} {amount}{unit}" for name, amount, unit in amounts if amount]
    parts += ["a port"] * asked.provide_port + [f"port {port}" for port in asked.fixed_ports]
    parts += [f"executor {name}" for name in asked.executors]
    parts += [*asked.placement.require, *_rules(asked.placement)]
    return plain(", ".join(parts) or "nothing in particular")


def _rules(placement: Placement) -> Iterator[str]:
    """Its hard rules but ``require``, in a few words each."""
    if placement.distinct_hosts:
        yield "distinct hosts"
    yield from (f"at most {one.count} per {one.per}" for one in placement.at_most)
    for said, neighbours in (("near", placement.near), ("apart from", placement.apart)):
        yield from (f"{said} {one.service}{'' if one.per == HOST else f' per {one.per}'}" for one in neighbours)
    if placement.leave_free:
        yield f"leave {placement.leave_free} % free"


def score(terms: Mapping[str, float]) -> str:
    """A score term by term."""
    return plain(", ".join(f"{name} {value + 0.0:.4g}" for name, value in terms.items()))


def lines(verdicts: Sequence[Verdict], *, every: bool, ways: bool = True) -> Iterator[str]:
    """A table of what is to be said of each host. ``every``: none share a line; ``ways``: with what would help."""
    rows: list[tuple[str, ...]] = [("host", "verdict", "why", "what would help" if ways else "")]
    rows += [_row(one, ways=ways) for one in verdicts] if every or len(verdicts) <= MANY_HOSTS else _shared(verdicts)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  " + "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(one: Verdict, *, ways: bool = True) -> tuple[str, ...]:
    why = "; ".join(one.reasons) if one.reasons else score(one.terms)
    help_ = "; or ".join(map(str, one.ways)) if ways else ""
    return one.host, _verdict(one), plain(why), plain(help_)


def _verdict(one: Verdict) -> str:
    word = "no" if one.reasons else "would be next" if one.place == 1 else "fits"
    if not one.tasks:
        return word
    has = f"has {', '.join(one.tasks)}" if len(one.tasks) <= NAMED else f"has {len(one.tasks)} tasks"
    return f"{has}; {'no more' if one.reasons else word}"


def _shared(verdicts: Sequence[Verdict]) -> Iterator[tuple[str, ...]]:
    """Rows of hosts of which the same is to be said, numbers aside; the first that would take a task by themselves."""
    fitting = [one for one in verdicts if not one.reasons]
    yield from (_row(one) for one in fitting[:FITTING])
    if len(fitting) > FITTING:
        yield _names([one.host for one in fitting[FITTING:]]), "fits", "", ""
    alike: dict[tuple[object, ...], list[Verdict]] = {}
    for one in verdicts:
        if one.reasons:
            alike.setdefault((len(one.tasks), *(_NUMBER.sub("#", why) for why in one.reasons)), []).append(one)
    for group in sorted(alike.values(), key=len):
        reasons = [_spans(texts) for texts in zip(*(one.reasons for one in group), strict=True)]
        verdict = _verdict(group[0]) if len(group) == 1 else _verdicts(group)
        ways = [one.ways[0] for one in group if one.ways]
        best = min(ways, key=lambda way: way.effort) if ways else ""
        yield _names([one.host for one in group]), verdict, plain("; ".join(reasons)), plain(str(best))


def _verdicts(group: Sequence[Verdict]) -> str:
    count = len(group[0].tasks)
    return f"has {counted(count, 'task')} each; no more" if count else "no"


def _names(hosts: Sequence[str]) -> str:
    names = sorted(hosts, key=natural)
    more = len(names) - NAMED
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:NAMED])} and {more} more"


def _spans(texts: Sequence[str]) -> str:
    """Texts that differ in their numbers alone, as one: ``free 12 to 90 MB``."""
    numbers = [[int(found) for found in _NUMBER.findall(text)] for text in texts]
    spans = iter([(min(column), max(column)) for column in zip(*numbers, strict=True)])

    def span(_: object) -> str:
        low, high = next(spans)
        return str(low) if low == high else f"{low} to {high}"

    return _NUMBER.sub(span, texts[0])
